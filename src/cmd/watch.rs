//! A checker under watch: its progress, its words, and the signal that stops it.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use crate::check::outcome::Progress;
use crate::cmd::child;
use crate::cmd::tool::{CmdError, Invocation};
use crate::interrupt::Interrupt;
use crate::units::Bytes;

/// How often a checker is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Room for the lines of e2fsck between two looks, in bytes; the most an unprivileged user gets
/// (`/proc/sys/fs/pipe-max-size`).
const PIPE_SIZE: usize = 1024 * 1024;

/// How a checker tells of its progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressSource {
    /// `-C FD`: lines of pass, position and end (e2fsck(8)).
    PassLines,
    /// Not at all; what it has read tells that it is alive.
    BytesRead,
    /// It has the terminal.
    Terminal,
}

/// A checker that ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How.
    pub status: ExitStatus,
    /// All it said, in order.
    pub output: String,
    /// How long it ran.
    pub duration: Duration,
    /// virt-fsck stopped it, because a signal came, or a guest.
    pub interrupted: bool,
}

/// Runs a checker to its end. Where nobody wants to know how far it has come, it is not asked.
///
/// # Errors
/// When it is missing or cannot be started.
pub async fn run(
    invocation: &Invocation,
    source: ProgressSource,
    interrupt: &mut Interrupt,
    mut advanced: Option<&mut dyn FnMut(Progress)>,
) -> Result<Finished, CmdError> {
    let tool = invocation.tool.name;
    let system = |source| CmdError::System { tool, source };
    let begun = Instant::now();
    if source == ProgressSource::Terminal {
        return at_the_terminal(invocation, begun).await;
    }
    let mut command = invocation.command()?;
    let lines = match source {
        ProgressSource::PassLines if advanced.is_some() => {
            Some(PassLines::ask(&mut command).map_err(system)?)
        }
        _ => None,
    };
    let output = child::merged_output(&mut command).map_err(system)?;
    let mut running = command.spawn().map_err(system)?;
    // The command holds the writing ends of the pipes; only the child may.
    drop(command);
    let mut lines = lines.map(PassLines::begin);
    let output = tokio::spawn(child::read_bounded(output));
    let mut look = tokio::time::interval(LOOK);
    // Another copy, so that both can be waited for at once.
    let mut holding = interrupt.clone();
    let mut is_held = false;
    let (status, interrupted) = loop {
        tokio::select! {
            ended = running.wait() => break (ended, false),
            () = interrupt.raised() => {
                let ended = match interrupt.is_alarm() {
                    true => child::kill(&mut running).await,
                    false => child::stop(&mut running).await,
                };
                break (ended, true);
            }
            () = holding.held_or_freed(is_held) => {
                is_held = !is_held;
                child::hold(&running, is_held);
            }
            _ = look.tick(), if advanced.is_some() => {
                let progress = match &mut lines {
                    Some(lines) => lines.latest(),
                    None => bytes_read(&running),
                };
                if let (Some(progress), Some(advanced)) = (progress, &mut advanced) {
                    advanced(progress);
                }
            }
        }
    };
    Ok(Finished {
        status: status.map_err(system)?,
        output: output.await.unwrap_or_default(),
        duration: begun.elapsed(),
        interrupted,
    })
}

/// The checker talks to the user itself, in virt-fsck's own process group, so that Ctrl-C
/// reaches it; virt-fsck waits for whatever it makes of it.
async fn at_the_terminal(invocation: &Invocation, begun: Instant) -> Result<Finished, CmdError> {
    let status = invocation
        .command()?
        .process_group(rustix::process::getpgrp().as_raw_nonzero().get())
        .stdin(Stdio::inherit())
        .status()
        .await
        .map_err(|source| CmdError::System {
            tool: invocation.tool.name,
            source,
        })?;
    Ok(Finished {
        status,
        output: String::new(),
        duration: begun.elapsed(),
        interrupted: false,
    })
}

/// The pipe that e2fsck tells its progress through. It writes a line for every block group and
/// every block of a directory, so the pipe is emptied now and then, not line by line: waking up
/// for each would slow e2fsck down.
struct PassLines {
    reader: tokio::net::unix::pipe::Receiver,
    writer: Option<OwnedFd>,
    /// What was read of a line that has not ended yet.
    rest: Vec<u8>,
}

impl PassLines {
    /// Tells the command to use it. The writing end stays open across exec under its own number.
    fn ask(command: &mut Command) -> std::io::Result<Self> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::io::fcntl_setfd(&writer, rustix::io::FdFlags::empty())?;
        // With less room e2fsck only waits now and then.
        let _as_it_was = rustix::pipe::fcntl_setpipe_size(&writer, PIPE_SIZE);
        command
            .arg("-C")
            .arg(OsString::from(writer.as_raw_fd().to_string()));
        Ok(Self {
            reader: child::receiver(reader)?,
            writer: Some(writer),
            rest: Vec::new(),
        })
    }

    /// The child runs and has the writing end; ours is closed.
    fn begin(mut self) -> Self {
        self.writer = None;
        self
    }

    /// The newest whole line since the last look.
    fn latest(&mut self) -> Option<Progress> {
        let mut buffer = [0; 64 * 1024];
        let mut newest = None;
        while let Ok(count @ 1..) = self.reader.try_read(&mut buffer) {
            self.rest.extend(buffer.iter().take(count));
            let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
                continue;
            };
            let whole: Vec<u8> = self.rest.drain(..=end).collect();
            let line = whole.trim_ascii_end().rsplit(|byte| *byte == b'\n').next();
            newest = line
                .and_then(|line| pass_progress(&String::from_utf8_lossy(line)))
                .or(newest);
        }
        newest
    }
}

/// `pass position end [...]`, as e2fsck writes to the descriptor of `-C`.
fn pass_progress(line: &str) -> Option<Progress> {
    let mut words = line.split_ascii_whitespace();
    let pass = words.next()?.parse().ok()?;
    let position: u64 = words.next()?.parse().ok()?;
    let end: u64 = words.next()?.parse().ok()?;
    let thousandths = position.min(end).saturating_mul(1000).checked_div(end)?;
    let thousandths = u16::try_from(thousandths).ok()?;
    Some(Progress::Pass {
        pass,
        percent: f32::from(thousandths) / 10.0,
    })
}

/// What a child has read so far: `rchar` of proc(5).
pub fn bytes_read(running: &Child) -> Option<Progress> {
    let counters = std::fs::read_to_string(format!("/proc/{}/io", running.id()?)).ok()?;
    let line = counters
        .lines()
        .find_map(|line| line.strip_prefix("rchar: "))?;
    Some(Progress::Read(Bytes::new(line.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e2fsck_progress_lines() {
        let half = Progress::Pass {
            pass: 1,
            percent: 50.0,
        };
        assert_eq!(pass_progress("1 4 8 /dev/x"), Some(half));
        assert_eq!(pass_progress("1 4 8"), Some(half));
        for nonsense in ["", "1 2", "1 2 0", "x 1 2", "900 1 2"] {
            assert_eq!(pass_progress(nonsense), None, "{nonsense}");
        }
    }
}
