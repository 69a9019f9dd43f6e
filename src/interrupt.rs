//! What stops a run: SIGINT, SIGTERM and SIGHUP, and a guest that has started to use what is worked
//! on.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Why it is to be stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stop {
    /// A signal came: all ends, in good order.
    Signal,
    /// Somebody else uses a disk: whatever writes to it is killed at once. The reason.
    Alarm(String),
}

/// Tells whether to stop. Every copy is told.
#[derive(Clone, Debug)]
pub struct Interrupt {
    stop: watch::Receiver<Option<Stop>>,
    sender: Arc<watch::Sender<Option<Stop>>>,
}

/// Raises the alarm, from whatever thread.
#[derive(Clone, Debug)]
pub struct Alarm(Arc<watch::Sender<Option<Stop>>>);

impl Alarm {
    /// Somebody else uses a disk. The first reason counts.
    pub fn raise(&self, reason: String) {
        self.0.send_if_modified(|stop| {
            let is_first = stop.is_none();
            if is_first {
                *stop = Some(Stop::Alarm(reason));
            }
            is_first
        });
    }
}

impl Interrupt {
    /// Begins to listen. From now on these signals no longer end the process.
    ///
    /// # Errors
    /// When the system refuses the handlers.
    pub fn listen() -> std::io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let (sender, stop) = watch::channel(None);
        let sender = Arc::new(sender);
        let signals = Arc::clone(&sender);
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            signals.send_replace(Some(Stop::Signal));
            // Later signals are received and dropped: unwinding has begun and is not to be cut.
            std::future::pending::<()>().await;
        });
        Ok(Self { stop, sender })
    }

    /// Waits until there is a reason to stop; returns at once if there is one.
    pub async fn raised(&mut self) {
        if self.stop.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether there is a reason to stop.
    pub fn is_raised(&self) -> bool {
        self.stop.borrow().is_some()
    }

    /// Whether what writes is to be killed, and not asked to end.
    pub fn is_alarm(&self) -> bool {
        matches!(*self.stop.borrow(), Some(Stop::Alarm(_)))
    }

    /// What raises the alarm.
    pub fn alarm(&self) -> Alarm {
        Alarm(Arc::clone(&self.sender))
    }

    /// Ends the alarm, if there is one: its reason. It stops the work on one domain; a signal stops
    /// all.
    pub fn end_alarm(&self) -> Option<String> {
        let mut reason = None;
        self.sender.send_if_modified(|stop| {
            if let Some(Stop::Alarm(said)) = stop {
                reason = Some(std::mem::take(said));
                *stop = None;
            }
            reason.is_some()
        });
        reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_alarm_counts_and_ends() {
        let mut interrupt = Interrupt::listen().unwrap();
        assert_eq!(interrupt.end_alarm(), None);
        let alarm = interrupt.alarm();
        std::thread::spawn(move || {
            alarm.raise("first".to_owned());
            alarm.raise("second".to_owned());
        });
        interrupt.raised().await;
        assert!(interrupt.is_raised() && interrupt.is_alarm());
        assert_eq!(interrupt.end_alarm().as_deref(), Some("first"));
        assert!(!interrupt.is_raised() && !interrupt.is_alarm());
    }
}
