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

/// What is known at a moment.
#[derive(Clone, Debug, Default)]
struct State {
    stop: Option<Stop>,
    /// Somebody else may be about to use a disk: what writes to it is to stand still.
    is_held: bool,
}

/// Tells whether to stop. Every copy is told.
#[derive(Clone, Debug)]
pub struct Interrupt {
    state: watch::Receiver<State>,
    sender: Arc<watch::Sender<State>>,
}

/// Raises the alarm, from whatever thread.
#[derive(Clone, Debug)]
pub struct Alarm(Arc<watch::Sender<State>>);

impl Alarm {
    /// Somebody else uses a disk. The first reason counts.
    pub fn raise(&self, reason: String) {
        self.0.send_if_modified(|state| {
            let is_first = state.stop.is_none();
            if is_first {
                state.stop = Some(Stop::Alarm(reason));
            }
            is_first
        });
    }

    /// Somebody else may be about to use a disk, or has not come to it.
    pub fn hold(&self, is_held: bool) {
        self.0.send_if_modified(|state| {
            let is_news = state.is_held != is_held;
            state.is_held = is_held;
            is_news
        });
    }
}

impl Interrupt {
    /// Begins to listen. From now on these signals no longer end the process.
    ///
    /// # Errors
    /// When the system refuses the handlers.
    pub fn listen() -> std::io::Result<Self> {
        Self::listen_until(std::future::pending())
    }

    /// The same, and the end of `time` counts as a signal.
    ///
    /// # Errors
    /// As [`Interrupt::listen`].
    pub fn listen_until(time: impl Future<Output = ()> + Send + 'static) -> std::io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let (sender, state) = watch::channel(State::default());
        let sender = Arc::new(sender);
        let signals = Arc::clone(&sender);
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
                () = time => {}
            }
            signals.send_modify(|state| state.stop = Some(Stop::Signal));
            // Later signals are received and dropped: unwinding has begun and is not to be cut.
            std::future::pending::<()>().await;
        });
        Ok(Self { state, sender })
    }

    /// Waits until there is a reason to stop; returns at once if there is one.
    pub async fn raised(&mut self) {
        if self
            .state
            .wait_for(|state| state.stop.is_some())
            .await
            .is_err()
        {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until whether to stand still is no longer as it was.
    pub async fn held_or_freed(&mut self, was_held: bool) {
        let is_news = |state: &State| state.is_held != was_held;
        if self.state.wait_for(is_news).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether there is a reason to stop.
    pub fn is_raised(&self) -> bool {
        self.state.borrow().stop.is_some()
    }

    /// Whether what writes is to be killed, and not asked to end.
    pub fn is_alarm(&self) -> bool {
        matches!(self.state.borrow().stop, Some(Stop::Alarm(_)))
    }

    /// What raises the alarm.
    pub fn alarm(&self) -> Alarm {
        Alarm(Arc::clone(&self.sender))
    }

    /// Ends the alarm, and what is held: the reason of the alarm, if there was one. It stops the work on one domain; a signal stops
    /// all.
    pub fn end_alarm(&self) -> Option<String> {
        let mut reason = None;
        self.sender.send_modify(|state| {
            if let Some(Stop::Alarm(said)) = &mut state.stop {
                reason = Some(std::mem::take(said));
                state.stop = None;
            }
            state.is_held = false;
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

    #[tokio::test]
    async fn what_is_held_is_freed() {
        let mut interrupt = Interrupt::listen().unwrap();
        let alarm = interrupt.alarm();
        alarm.hold(true);
        interrupt.held_or_freed(false).await;
        assert!(!interrupt.is_raised());
        std::thread::spawn(move || alarm.hold(false));
        interrupt.held_or_freed(true).await;
        interrupt.alarm().hold(true);
        assert_eq!(interrupt.end_alarm(), None);
        interrupt.held_or_freed(true).await;
    }
}
