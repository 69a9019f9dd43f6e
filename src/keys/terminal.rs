//! Asking for a passphrase at the terminal.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use tokio::net::unix::pipe::Receiver;

use crate::cause;
use crate::interrupt::Interrupt;
use crate::keys::memory::SecretMemory;
use crate::keys::passphrase::Passphrase;

/// The longest line that a terminal gives (`N_TTY_BUF_SIZE` of Linux).
pub(super) const LONGEST_LINE: usize = 4096;

/// No passphrase came.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    /// There is no terminal, or this process is not the one that may talk to it.
    #[error("there is no terminal to ask at")]
    NoTerminal,
    /// A signal came.
    #[error("interrupted")]
    Interrupted,
    /// The terminal failed, or its user ended the input.
    #[error("{}", failure(.0))]
    Failed(io::Error),
    /// A program gave none: why.
    #[error("{0}")]
    Nothing(String),
}

fn failure(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "no passphrase was typed".to_owned(),
        _ => format!("the terminal cannot be read ({})", cause::sentence(error)),
    }
}

impl From<io::Error> for NoAnswer {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// A terminal.
#[derive(Debug)]
pub(super) struct Terminal(PathBuf);

impl Default for Terminal {
    /// The one that this process belongs to, wherever its standard input and output go.
    fn default() -> Self {
        Self::at(Path::new("/dev/tty"))
    }
}

impl Terminal {
    /// The terminal with this node.
    pub(super) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Asks, and reads a line that is not shown.
    pub(super) async fn ask(
        &self,
        question: &str,
        interrupt: &mut Interrupt,
    ) -> Result<Passphrase, NoAnswer> {
        let flags = OFlags::NOCTTY | OFlags::NONBLOCK;
        let terminal = File::options()
            .read(true)
            .write(true)
            .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
            .open(&self.0)
            .map_err(|_| NoAnswer::NoTerminal)?;
        if !may_talk(&terminal) {
            return Err(NoAnswer::NoTerminal);
        }
        let silent = Silent::new(&terminal)?;
        (&terminal).write_all(question.as_bytes())?;
        let answer = tokio::select! {
            line = line(&terminal) => line.map_err(NoAnswer::Failed),
            () = interrupt.raised() => Err(NoAnswer::Interrupted),
        };
        drop(silent);
        if answer.is_err() {
            // The next words begin on a line of their own; a terminal that is gone needs none.
            let _gone = (&terminal).write_all(b"\n");
        }
        answer
    }
}

/// A process in the background would be stopped by the kernel as soon as it asked.
fn may_talk(terminal: &File) -> bool {
    let Ok(foreground) = termios::tcgetpgrp(terminal) else {
        return termios::isatty(terminal);
    };
    foreground == rustix::process::getpgrp()
}

/// For as long as this lives, the terminal does not show what is typed.
struct Silent<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Silent<'a> {
    fn new(terminal: &'a File) -> io::Result<Self> {
        let before = termios::tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        silent
            .local_modes
            .insert(LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
        termios::tcsetattr(terminal, OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        // It may have been hung up; then nobody looks at it any more.
        let _gone = termios::tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

async fn line(terminal: &File) -> io::Result<Passphrase> {
    // What tokio calls a pipe is any descriptor that can be read without waiting.
    let watched = Receiver::from_file_unchecked(terminal.try_clone()?)?;
    // What is longer than a line fills it, and is none.
    let mut line = SecretMemory::with_room(LONGEST_LINE.saturating_add(1));
    loop {
        watched.readable().await?;
        let count = match watched.try_read(line.room()) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        line.wrote(count);
        if let Some(typed) = line.strip_suffix(b"\n").map(<[u8]>::len) {
            line.shorten(typed);
            return Ok(line.into());
        }
        if line.room().is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
