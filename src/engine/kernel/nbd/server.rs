//! qemu-nbd while it runs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::process::Child;
use tokio::task::JoinHandle;

use crate::cmd::{CmdError, Invocation, Tool, child};
use crate::engine::kernel::nbd::error::NbdError;
use crate::engine::kernel::nbd::{connected_task, leftover, size, sysfs};
use crate::engine::user::daemon::is_lock_conflict;
use crate::engine::user::nodes::Access;
use crate::keys::Passphrase;

/// How long qemu-nbd may take to open the image, and the kernel to connect.
pub(super) const CONNECTION: Duration = Duration::from_secs(120);

/// How long qemu-nbd may take to write out what it has in memory, and to close the image.
pub(super) const CLOSING: Duration = Duration::from_secs(120);

/// The end of qemu-nbd's options; a file that begins with a dash is none.
const NO_MORE_OPTIONS: &str = "--";

/// qemu-nbd while it runs.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    said: JoinHandle<String>,
    pid_file: PathBuf,
}

/// An image as qemu-nbd is to open it.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// Options of QEMU's block layer, with all nodes nested into each other, and without io_uring,
    /// over which qemu-nbd was seen to wait for ever (10.0 on Linux 6.1).
    pub node: &'a Value,
    /// The keys that the node names.
    pub keys: &'a [(String, &'a Passphrase)],
    /// Whether it is written; the node must say the same.
    pub access: Access,
    /// What errors call it.
    pub name: &'a str,
}

/// Why qemu-nbd does not serve.
#[derive(Debug)]
pub(super) enum Refusal {
    DeviceBusy,
    Final(NbdError),
}

impl Server {
    /// Starts it, and waits until the kernel is connected.
    pub(super) async fn start(
        device: &Path,
        locked: &File,
        image: Image<'_>,
        pid_file: &Path,
    ) -> Result<Self, Refusal> {
        let serve = |source| {
            Refusal::Final(NbdError::Serve {
                image: image.name.to_owned(),
                source,
            })
        };
        let system = |source| CmdError::System {
            tool: Tool::QEMU_NBD.name,
            source,
        };
        let lock = locked.try_clone().map_err(|source| serve(system(source)))?;
        let mut child = serving(device, image, pid_file)
            .command()
            .map_err(serve)?
            // It reads nothing there, but keeps the lock for as long as it runs.
            .stdin(lock)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Killing it would leave the image marked dirty; see `drop`.
            .kill_on_drop(false)
            .spawn()
            .map_err(|source| serve(system(source)))?;
        let stderr = child.stderr.take();
        let said = tokio::spawn(async move {
            match stderr {
                Some(stderr) => child::read_bounded(stderr).await,
                None => String::new(),
            }
        });
        let mut server = Self {
            child,
            said,
            pid_file: pid_file.to_owned(),
        };
        let begun = Instant::now();
        loop {
            let status = server
                .child
                .try_wait()
                .map_err(|error| serve(system(error)))?;
            if let Some(status) = status {
                return Err(server.refusal(status, image).await);
            }
            if server.is_connected(device) {
                return Ok(server);
            }
            if begun.elapsed() > CONNECTION {
                // Nothing was written, as the kernel never got to it. What it says of its end does
                // not tell why it was late.
                let _late = child::stop(&mut server.child).await;
                server.remove_files();
                return Err(Refusal::Final(NbdError::Silent {
                    device: device.to_owned(),
                    image: image.name.to_owned(),
                }));
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    /// Whether the device shows our image: it has a size, and a thread of our child serves it.
    fn is_connected(&self, device: &Path) -> bool {
        let threads = self.child.id().map(|id| format!("/proc/{id}/task"));
        let served = connected_task(device)
            .zip(threads)
            .is_some_and(|(task, threads)| Path::new(&threads).join(task.to_string()).exists());
        served && size(&sysfs(device)) > 0
    }

    /// Why it ended before it served.
    async fn refusal(mut self, status: ExitStatus, image: Image<'_>) -> Refusal {
        self.remove_files();
        let said = (&mut self.said).await.unwrap_or_default();
        if is_lock_conflict(&said) {
            return Refusal::Final(NbdError::InUse(image.name.to_owned()));
        }
        if said.contains("Failed to set NBD socket") {
            return Refusal::DeviceBusy;
        }
        Refusal::Final(NbdError::Serve {
            image: image.name.to_owned(),
            source: CmdError::Failed {
                tool: Tool::QEMU_NBD.name,
                status,
                stderr: without_node(&said).to_owned(),
            },
        })
    }

    /// Waits for its end; asks for it by a signal, if that was not done otherwise.
    pub(super) async fn end(mut self, was_asked: bool) -> Result<(), CmdError> {
        let tool = Tool::QEMU_NBD.name;
        if !was_asked {
            self.ask_to_end();
        }
        let ended = match tokio::time::timeout(CLOSING, self.child.wait()).await {
            Ok(ended) => ended,
            Err(_) => child::stop(&mut self.child).await,
        };
        self.remove_files();
        let status = ended.map_err(|source| CmdError::System { tool, source })?;
        let stderr = (&mut self.said).await.unwrap_or_default();
        if status.success() {
            return Ok(());
        }
        Err(CmdError::Failed {
            tool,
            status,
            stderr: stderr
                .lines()
                .filter(|line| !line.contains(" is now connected to "))
                .collect::<Vec<_>>()
                .join("\n"),
        })
    }

    /// At SIGTERM it closes its image as at a normal end.
    fn ask_to_end(&self) {
        let running = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = running.and_then(rustix::process::Pid::from_raw) {
            // It may have ended in this moment, which is what is wanted.
            let _ended = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }

    /// It leaves its pid file always, and its socket when it fails.
    fn remove_files(&self) {
        for file in [&self.pid_file, &socket(&self.pid_file)] {
            // Whoever is left of them lies in a folder that goes as a whole.
            let _gone = std::fs::remove_file(file);
        }
    }
}

/// Who forgets to disconnect, because of an error, has the image closed all the same.
impl Drop for Server {
    fn drop(&mut self) {
        self.ask_to_end();
    }
}

/// How an image is shown at a device.
///
/// Without `--verbose` it would go into the background, and no longer end with us.
pub fn serving(device: &Path, image: Image<'_>, pid_file: &Path) -> Invocation {
    let option = |name: &str, path: &Path| {
        let mut option = std::ffi::OsString::from(name);
        option.push(path);
        option
    };
    let mut arguments = vec![
        "--verbose".into(),
        option("--connect=", device),
        option("--socket=", &socket(pid_file)),
        leftover::mark(pid_file),
        "--cache=writeback".into(),
        "--discard=unmap".into(),
    ];
    if image.access == Access::ReadOnly {
        arguments.push("--read-only".into());
    }
    arguments.push(NO_MORE_OPTIONS.into());
    arguments.push(format!("json:{}", image.node).into());
    let keys = image.keys.iter().cloned();
    Invocation::new(Tool::QEMU_NBD, arguments).with_secrets(keys)
}

/// Its socket, in our own folder instead of /var/lock, where anybody may connect to it.
pub(super) fn socket(pid_file: &Path) -> PathBuf {
    pid_file.with_extension("socket")
}

/// What qemu-nbd says without the description of the image, which it repeats as a whole.
pub(super) fn without_node(said: &str) -> &str {
    match (said.find("'json:"), said.rfind("}': ")) {
        (Some(begin), Some(end)) if begin < end => said.get(end + 4..).unwrap_or(said),
        _ => said,
    }
}
