//! A tool as a child process.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::cmd::confine;
use crate::cmd::lent::{self, LentFile};
use crate::cmd::tool::{self, CmdError, Invocation};

/// How long a checker may take to finish its last write after SIGTERM, before SIGKILL.
pub const GRACE: Duration = Duration::from_secs(10);

/// How much of a tool's output is kept from its beginning, and as much again from its end.
const KEPT_OUTPUT: usize = 64 * 1024;

/// What a tool that ended left behind.
#[derive(Clone, Debug)]
pub struct Captured {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: String,
}

impl Invocation {
    /// The command to spawn, with what holds for every child.
    ///
    /// # Errors
    /// [`CmdError::Missing`].
    pub fn command(&self) -> Result<Command, CmdError> {
        tracing::debug!(target: "virt_fsck::command", "{self}");
        let system = |source| CmdError::System {
            tool: self.tool.name,
            source,
        };
        let mut command = Command::new(self.tool.locate()?);
        let mut lent = self.lent.clone();
        let arguments = self.all_arguments(|secret| {
            let file = LentFile::new(secret.bytes())?;
            lent.push(file.clone());
            Ok(file.path())
        });
        command
            .args(arguments.map_err(system)?)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("LC_ALL", "C")
            .env("PATH", tool::search_path())
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(answer) = self.answer {
            command.stdin(told(answer).map_err(system)?);
        }
        // cryptsetup, for one, takes note of SIGTERM only when it is done with a key.
        end_with_parent(
            &mut command,
            match self.is_harmless {
                true => Signal::KILL,
                false => Signal::TERM,
            },
        );
        lent::lend(&mut command, lent);
        if !self.devices.is_empty() {
            confine::finding_only(&mut command, &self.devices).map_err(system)?;
        }
        Ok(command)
    }

    /// Runs it to its end and keeps what it printed.
    ///
    /// # Errors
    /// When it is missing, cannot be started, or ends with anything but 0.
    pub async fn capture(&self) -> Result<Captured, CmdError> {
        let output = self.command()?.output().await;
        self.judged(output)
    }

    /// The same, and it reads `input`, which is shown nowhere.
    ///
    /// # Errors
    /// As [`Invocation::capture`].
    pub async fn capture_with_input(&self, input: &[u8]) -> Result<Captured, CmdError> {
        let mut command = self.command()?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        self.judged(feed(command, input).await)
    }

    fn judged(&self, output: io::Result<Output>) -> Result<Captured, CmdError> {
        let tool = self.tool.name;
        let output = output.map_err(|source| CmdError::System { tool, source })?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            return Err(CmdError::Failed {
                tool,
                status: output.status,
                stderr,
            });
        }
        Ok(Captured {
            status: output.status,
            stdout: output.stdout,
            stderr,
        })
    }
}

async fn feed(mut command: Command, input: &[u8]) -> io::Result<Output> {
    let mut child = command.spawn()?;
    let stdin = child.stdin.take();
    let write = async {
        match stdin {
            Some(mut stdin) => stdin.write_all(input).await,
            None => Ok(()),
        }
    };
    // What it says is read meanwhile, so that neither waits for the other.
    match tokio::join!(write, child.wait_with_output()) {
        // It wanted no more than it has read; how it ended tells whether that was right.
        (Err(error), output) if error.kind() == io::ErrorKind::BrokenPipe => output,
        (written, output) => written.and(output),
    }
}

/// Asks the kernel to send the child a signal when virt-fsck dies, however it dies.
///
/// The signal is tied to the thread that spawned the child, so children must be spawned on a
/// thread that lives to the end: the runtime has one thread, the main one (prctl(2),
/// `PR_SET_PDEATHSIG`).
#[expect(
    unsafe_code,
    reason = "code between fork and exec has no safe interface"
)]
pub fn end_with_parent(command: &mut Command, signal: Signal) {
    let parent = rustix::process::getpid();
    let ask = move || {
        rustix::process::set_parent_process_death_signal(Some(signal))?;
        if rustix::process::getppid() != Some(parent) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    // SAFETY: the closure makes two system calls and allocates nothing, so it may run between
    // fork and exec.
    unsafe { command.pre_exec(ask) };
}

/// Both standard output and standard error of a child, in the order written.
///
/// # Errors
/// When the system has no pipe to give.
pub fn merged_output(command: &mut Command) -> io::Result<tokio::net::unix::pipe::Receiver> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    command
        .stdout(Stdio::from(writer.try_clone()?))
        .stderr(Stdio::from(writer));
    receiver(reader)
}

/// A standard input with one line in it.
fn told(line: &str) -> io::Result<Stdio> {
    let (reader, mut writer) = io::pipe()?;
    writeln!(writer, "{line}")?;
    Ok(Stdio::from(reader))
}

/// The reading end of a pipe, for the runtime.
///
/// # Errors
/// When the runtime cannot watch it.
pub fn receiver(reader: OwnedFd) -> io::Result<tokio::net::unix::pipe::Receiver> {
    tokio::net::unix::pipe::Receiver::from_owned_fd(reader)
}

/// Reads to the end and keeps the beginning and the end of it, so that a checker that talks
/// without end costs no memory.
pub async fn read_bounded(mut reader: impl AsyncRead + Unpin) -> String {
    let mut head = Vec::new();
    let mut tail: std::collections::VecDeque<u8> = std::collections::VecDeque::new();
    let mut left_out = 0_usize;
    let mut buffer = [0_u8; 8192];
    while let Ok(count) = reader.read(&mut buffer).await {
        let mut bytes = buffer.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        let room = KEPT_OUTPUT.saturating_sub(head.len()).min(bytes.len());
        let (first, rest) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
        head.extend_from_slice(first);
        bytes = rest;
        tail.extend(bytes);
        let surplus = tail.len().saturating_sub(KEPT_OUTPUT);
        tail.drain(..surplus);
        left_out = left_out.saturating_add(surplus);
    }
    if left_out > 0 {
        head.extend_from_slice(format!("\n[... {left_out} bytes left out ...]\n").as_bytes());
    }
    head.extend(tail);
    String::from_utf8_lossy(&head).into_owned()
}

/// Stops a child and all of its process group: SIGTERM, [`GRACE`], SIGKILL.
///
/// # Errors
/// When the system cannot say how it ended.
pub async fn stop(child: &mut Child) -> io::Result<ExitStatus> {
    send_to_group(child, Signal::TERM);
    // One that stands still would not hear of it.
    send_to_group(child, Signal::CONT);
    match tokio::time::timeout(GRACE, child.wait()).await {
        Ok(ended) => ended,
        Err(_) => kill(child).await,
    }
}

/// Ends a child and all of its process group at once: nothing more of what it holds back is written.
///
/// # Errors
/// When the system cannot say how it ended.
pub async fn kill(child: &mut Child) -> io::Result<ExitStatus> {
    send_to_group(child, Signal::KILL);
    child.wait().await
}

/// Lets a child and all of its process group stand still, or go on.
pub fn hold(child: &Child, is_held: bool) {
    send_to_group(
        child,
        match is_held {
            true => Signal::STOP,
            false => Signal::CONT,
        },
    );
}

fn send_to_group(child: &Child, signal: Signal) {
    let group = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        // The group may be gone already, which is what is wanted.
        let _gone = rustix::process::kill_process_group(group, signal);
    }
}

/// How a process ended, in words.
pub fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown end".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::Tool;

    #[tokio::test]
    async fn a_tool_reads_what_it_is_given() {
        const CAT: Tool = Tool {
            name: "cat",
            package: "coreutils",
        };
        const TRUE: Tool = Tool {
            name: "true",
            package: "coreutils",
        };
        // More than a pipe holds, both ways.
        let input = vec![b'x'; 1 << 20];
        let none: [&str; 0] = [];
        let read = Invocation::new(CAT, none).capture_with_input(&input).await;
        assert_eq!(read.unwrap().stdout, input);
        let unread = Invocation::new(TRUE, none).capture_with_input(&input).await;
        assert!(unread.unwrap().stdout.is_empty());
    }

    #[tokio::test]
    async fn endless_output_is_cut_in_the_middle() {
        let text = vec![b'x'; 3 * KEPT_OUTPUT];
        let kept = read_bounded(text.as_slice()).await;
        assert!(kept.contains(&format!("[... {KEPT_OUTPUT} bytes left out ...]")));
        assert!(kept.len() < 2 * KEPT_OUTPUT + 100);
        assert_eq!(read_bounded(&b"short"[..]).await, "short");
    }
}
