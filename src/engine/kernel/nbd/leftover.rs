//! Servers that a killed run has left behind, known by an argument that nobody else's has.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::cmd::{Tool, child};
use crate::engine::kernel::wait;

/// The argument by which a qemu-nbd is known.
pub fn mark(pid_file: &Path) -> OsString {
    let mut argument = OsString::from("--pid-file=");
    argument.push(pid_file);
    argument
}

/// A process that cannot be taken for another one that got its number.
#[derive(Debug)]
pub struct Server {
    pid: Pid,
    process: OwnedFd,
    mark: OsString,
}

/// All qemu-nbd that were started with this pid file.
pub fn servers(pid_file: &Path) -> Vec<Server> {
    let mark = mark(pid_file);
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers
        .filter_map(Pid::from_raw)
        .filter(|pid| is_server(*pid, &mark))
        .filter_map(|pid| {
            let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
            // The number may have gone to another process before it was held.
            is_server(pid, &mark).then(|| Server {
                pid,
                process,
                mark: mark.clone(),
            })
        })
        .collect()
}

/// Whether it is a qemu-nbd with this argument (proc(5), `cmdline`; it is empty of one that has
/// ended and of a kernel thread).
fn is_server(pid: Pid, mark: &OsStr) -> bool {
    let line = std::fs::read(folder(pid).join("cmdline")).unwrap_or_default();
    let mut arguments = line.split(|byte| *byte == 0);
    let tool = arguments.next().map(OsStr::from_bytes).map(Path::new);
    let is_tool = tool.and_then(Path::file_name) == Some(OsStr::new(Tool::QEMU_NBD.name));
    is_tool && arguments.any(|argument| argument == mark.as_bytes())
}

fn folder(pid: Pid) -> PathBuf {
    Path::new("/proc").join(pid.as_raw_nonzero().to_string())
}

impl Server {
    /// Its process number.
    pub const fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Whether a thread of it has this number.
    pub fn has_thread(&self, task: i32) -> bool {
        folder(self.pid)
            .join("task")
            .join(task.to_string())
            .exists()
    }

    /// Ends it: SIGTERM, at which it closes its image well, `grace`, SIGKILL. Whether it ended.
    pub async fn end(&self, grace: Duration) -> bool {
        for (signal, bound) in [(Signal::TERM, grace), (Signal::KILL, child::GRACE)] {
            // It may have ended in this moment, which is what is wanted.
            let _ended = pidfd_send_signal(&self.process, signal);
            if wait::until(bound, || !is_server(self.pid, &self.mark)).await {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Child, Command};

    /// Something that looks like a qemu-nbd with this argument.
    fn pretend(name: &str, argument: &OsStr, script: &str) -> Child {
        let mut command = Command::new("/bin/sh");
        command.arg0(name).args(["-c", script, "sh"]).arg(argument);
        command.stdin(std::process::Stdio::piped());
        let child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        child
    }

    #[tokio::test]
    async fn only_a_qemu_nbd_with_that_very_pid_file_is_found_and_ended() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nbd1.pid");
        let longer = folder.path().join("nbd1.pid2");
        let wait = "read line";
        let mut others = [
            pretend("/usr/bin/qemu-nbd", &mark(&longer), wait),
            pretend("/usr/bin/other", &mark(&file), wait),
            pretend("/usr/bin/qemu-nbd", file.as_os_str(), wait),
        ];
        assert!(servers(&file).is_empty());
        let mut ours = pretend("/usr/bin/qemu-nbd", &mark(&file), wait);
        let found = servers(&file);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].pid().unsigned_abs(), ours.id());
        assert!(found[0].has_thread(found[0].pid()));
        assert!(found[0].end(Duration::from_secs(10)).await);
        assert_eq!(ours.wait().unwrap().signal(), Some(15));
        for other in &mut others {
            assert!(other.try_wait().unwrap().is_none(), "it was ended");
            other.kill().unwrap();
            other.wait().unwrap();
        }
    }

    #[tokio::test]
    async fn one_that_does_not_listen_is_killed() {
        let file = Path::new("/nonexistent/nbd2.pid");
        let deaf = "trap '' TERM; read line";
        let mut ours = pretend("qemu-nbd", &mark(file), deaf);
        let found = servers(file);
        assert!(found[0].end(Duration::from_millis(200)).await);
        assert_eq!(ours.wait().unwrap().signal(), Some(9));
    }
}
