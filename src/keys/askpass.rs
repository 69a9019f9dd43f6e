//! Asking for a passphrase by a program, as ssh and sudo do.

use std::fmt;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use crate::cause;
use crate::cmd::child;
use crate::interrupt::Interrupt;
use crate::keys::memory::SecretMemory;
use crate::keys::passphrase::Passphrase;
use crate::keys::terminal::{LONGEST_LINE, NoAnswer};

/// How long it may take to put the terminal in order after SIGTERM, before SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// A program, and its arguments; the question comes after them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Askpass(pub(super) Vec<String>);

impl fmt::Display for Askpass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.first().map_or("", String::as_str))
    }
}

impl Askpass {
    /// Asks, and takes the first line that it prints.
    pub(super) async fn ask(
        &self,
        question: &str,
        interrupt: &mut Interrupt,
    ) -> Result<Passphrase, NoAnswer> {
        let cannot = |error: std::io::Error| {
            NoAnswer::Nothing(format!("it cannot be run: {}", cause::sentence(&error)))
        };
        let mut running = self.command(question).spawn().map_err(cannot)?;
        let answer = tokio::select! {
            answer = answer(&mut running) => Some(answer.map_err(cannot)),
            () = interrupt.raised() => None,
        };
        let Some(answer) = answer else {
            end(&mut running).await;
            return Err(NoAnswer::Interrupted);
        };
        answer?.map_err(NoAnswer::Nothing)
    }

    /// It stays in virt-fsck's process group, so that it may talk to the terminal and hears of Ctrl-C.
    fn command(&self, question: &str) -> Command {
        let mut command = Command::new(self.0.first().map_or("", String::as_str));
        // What is piped to virt-fsck is not meant for it.
        let stdin = match rustix::termios::isatty(rustix::stdio::stdin()) {
            true => Stdio::inherit(),
            false => Stdio::null(),
        };
        command
            .args(self.0.iter().skip(1))
            .arg(question)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        child::end_with_parent(&mut command, rustix::process::Signal::TERM);
        command
    }
}

/// What it printed, or why that is no answer.
async fn answer(running: &mut Child) -> std::io::Result<Result<Passphrase, String>> {
    let mut line = SecretMemory::with_room(LONGEST_LINE.saturating_add(1));
    if let Some(mut stdout) = running.stdout.take() {
        while !line.room().is_empty() {
            match stdout.read(line.room()).await? {
                0 => break,
                count => line.wrote(count),
            }
        }
    }
    // Full: it prints on and on, and nobody reads any more.
    let is_full = line.room().is_empty();
    let end = line.iter().position(|byte| *byte == b'\n');
    line.shorten(end.unwrap_or(line.len()));
    if is_full {
        running.start_kill()?;
    }
    let status = running.wait().await?;
    Ok(if is_full {
        Err(format!("it printed more than {LONGEST_LINE} bytes"))
    } else if !status.success() {
        Err(format!("it ended with {}", child::ending(status)))
    } else if line.is_empty() {
        Err("it printed nothing".to_owned())
    } else {
        Ok(line.into())
    })
}

async fn end(running: &mut Child) {
    let pid = running.id().and_then(|id| i32::try_from(id).ok());
    if let Some(pid) = pid.and_then(Pid::from_raw) {
        // It may have ended by itself.
        let _gone = rustix::process::kill_process(pid, Signal::TERM);
    }
    if tokio::time::timeout(GRACE, running.wait()).await.is_err() {
        let _gone = running.kill().await;
    }
}

#[cfg(test)]
mod tests;
