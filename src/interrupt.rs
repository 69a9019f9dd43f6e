//! The signals that ask virt-fsck to stop: SIGINT, SIGTERM and SIGHUP.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Tells whether a signal came. Every copy is told.
#[derive(Clone, Debug)]
pub struct Interrupt {
    raised: watch::Receiver<bool>,
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
        let (sender, raised) = watch::channel(false);
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
                () = time => {}
            }
            sender.send_replace(true);
            // Later signals are received and dropped: unwinding has begun and is not to be cut.
            std::future::pending::<()>().await;
        });
        Ok(Self { raised })
    }

    /// Waits until a signal comes; returns at once if one came before.
    pub async fn raised(&mut self) {
        if self.raised.wait_for(|raised| *raised).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether a signal came.
    pub fn is_raised(&self) -> bool {
        *self.raised.borrow()
    }
}
