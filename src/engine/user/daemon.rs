//! The storage daemon of a run: one process that holds the images and their locks.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::BufReader;
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::cmd::{CmdError, Invocation, Tool, child};
use crate::engine::user::nodes::{self, Access};
use crate::engine::user::qmp::{Qmp, QmpError};
use crate::names::NodeName;

/// The storage daemon could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// It could not be started.
    #[error(transparent)]
    Start(#[from] CmdError),
    /// It refused, or the talk with it broke off.
    #[error("{what}: {cause}{}", also(.said))]
    Asked {
        /// What was asked.
        what: String,
        /// Its answer.
        cause: QmpError,
        /// What it printed, if it ended.
        said: String,
    },
    /// Somebody else has the image open.
    #[error(
        "{0} is in use: another process holds QEMU's lock on it; stop that process (lsof {0} names it)"
    )]
    InUse(String),
    /// A mount point could not be made or removed.
    #[error("the mount point {path} cannot be made or removed")]
    MountPoint {
        /// Its path.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

fn also(said: &str) -> String {
    match one_line(said).as_str() {
        "" => String::new(),
        text => format!(" ({text})"),
    }
}

fn one_line(said: &str) -> String {
    said.trim().replace('\n', "; ")
}

/// A running storage daemon.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    qmp: Qmp<BufReader<ChildStdout>, ChildStdin>,
    printed: tokio::task::JoinHandle<String>,
    /// The names of the nodes that are open, as they were added.
    open: Vec<Value>,
}

/// A node shown as a plain file.
#[derive(Debug)]
#[must_use = "an export stays until it is taken back"]
pub struct Export {
    node: NodeName,
    mount_point: PathBuf,
}

impl Export {
    /// The plain file.
    pub fn path(&self) -> &Path {
        &self.mount_point
    }
}

impl Daemon {
    /// Starts the daemon.
    ///
    /// # Errors
    /// When it is missing or does not greet.
    pub async fn start() -> Result<Self, DaemonError> {
        let system = |source| CmdError::System {
            tool: Tool::STORAGE_DAEMON.name,
            source,
        };
        let mut child = Invocation::new(
            Tool::STORAGE_DAEMON,
            ["--chardev", "stdio,id=line", "--monitor", "chardev=line"],
        )
        .command()?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Killing it would leave images marked dirty; it ends by itself when virt-fsck does.
        .kill_on_drop(false)
        .spawn()
        .map_err(system)?;
        let missing = || system(std::io::ErrorKind::BrokenPipe.into());
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;
        let printed = tokio::spawn(child::read_bounded(stderr));
        match Qmp::negotiate(BufReader::new(stdout), stdin).await {
            Ok(qmp) => Ok(Self {
                child,
                qmp,
                printed,
                open: Vec::new(),
            }),
            Err(cause) => Err(DaemonError::Asked {
                what: "starting the storage daemon".to_owned(),
                cause,
                said: printed.await.unwrap_or_default(),
            }),
        }
    }

    /// Adds a node.
    ///
    /// # Errors
    /// [`DaemonError::InUse`] when a lock stands against it, else with the daemon's words.
    /// `image` is what the error names.
    pub async fn add_node(&mut self, node: Value, image: &str) -> Result<(), DaemonError> {
        let mut added = self.try_add_node(&node).await;
        if let Err(QmpError::Refused(words)) = &added
            && words.contains("io_uring")
        {
            added = self.try_add_node(&nodes::without_io_uring(node)).await;
        }
        match added {
            Ok(()) => Ok(()),
            Err(QmpError::Refused(words)) if is_lock_conflict(&words) => {
                Err(DaemonError::InUse(image.to_owned()))
            }
            Err(cause) => Err(self.failure(format!("opening {image}"), cause).await),
        }
    }

    async fn try_add_node(&mut self, node: &Value) -> Result<(), QmpError> {
        tracing::debug!(target: "virt_fsck::command", "blockdev-add {node}");
        self.qmp.execute("blockdev-add", node.clone()).await?;
        self.open.extend(node.get("node-name").cloned());
        Ok(())
    }

    /// Hands the daemon a key, by the line that nobody else reads.
    ///
    /// # Errors
    /// With the daemon's words.
    pub async fn add_secret(&mut self, name: &NodeName, key: &[u8]) -> Result<(), DaemonError> {
        let added = self.qmp.hand_over(name.as_str(), key).await;
        self.told("handing over a key", added).await?;
        Ok(())
    }

    /// Makes an empty image as `format` tells; the file below is a node already. `job` is a name that
    /// nothing else has.
    ///
    /// # Errors
    /// With the daemon's words, such as for a disk without room.
    pub async fn format_node(&mut self, job: &NodeName, format: Value) -> Result<(), DaemonError> {
        tracing::debug!(target: "virt_fsck::command", "blockdev-create {format}");
        let made = self.try_format_node(job.as_str(), format).await;
        self.told("making the overlay", made).await
    }

    async fn try_format_node(&mut self, job: &str, format: Value) -> Result<(), QmpError> {
        let arguments = json!({ "job-id": job, "options": format });
        self.qmp.execute("blockdev-create", arguments).await?;
        let ended = json!({ "id": job, "status": "concluded" });
        self.qmp.wait_for("JOB_STATUS_CHANGE", &ended).await?;
        let jobs = self.qmp.execute("query-jobs", json!({})).await?;
        self.qmp
            .execute("job-dismiss", json!({ "id": job }))
            .await?;
        let is_it = |found: &&Value| found.get("id").and_then(Value::as_str) == Some(job);
        let job = jobs.as_array().and_then(|jobs| jobs.iter().find(is_it));
        match job.map(|job| job.get("error").and_then(Value::as_str)) {
            Some(None) => Ok(()),
            Some(Some(words)) => Err(QmpError::Refused(words.to_owned())),
            None => Err(QmpError::NotQmp(jobs.to_string())),
        }
    }

    /// Removes a node.
    ///
    /// # Errors
    /// When it is in use, or with the daemon's words.
    pub async fn remove_node(&mut self, node: &NodeName) -> Result<(), DaemonError> {
        let removed = self.try_remove_node(json!(node)).await;
        let what = format!("closing {}", node.as_str());
        self.told(&what, removed).await
    }

    async fn try_remove_node(&mut self, name: Value) -> Result<(), QmpError> {
        let node = json!({ "node-name": name });
        self.qmp.execute("blockdev-del", node).await?;
        self.open.retain(|open| *open != name);
        Ok(())
    }

    /// Shows a node as a plain file at `mount_point`, which must not exist yet.
    ///
    /// # Errors
    /// When the file cannot be made, or FUSE is not to be had.
    pub async fn export(
        &mut self,
        node: &NodeName,
        mount_point: PathBuf,
        access: Access,
    ) -> Result<Export, DaemonError> {
        let at = |source| DaemonError::MountPoint {
            path: mount_point.display().to_string(),
            source,
        };
        std::fs::File::create_new(&mount_point).map_err(at)?;
        let arguments = nodes::export(node, &mount_point, access);
        tracing::debug!(target: "virt_fsck::command", "block-export-add {arguments}");
        match self.qmp.execute("block-export-add", arguments).await {
            Ok(_) => Ok(Export {
                node: node.clone(),
                mount_point,
            }),
            Err(cause) => {
                let what = "showing an image as a file over FUSE".to_owned();
                let error = self.failure(what, cause).await;
                std::fs::remove_file(&mount_point).map_err(at)?;
                Err(error)
            }
        }
    }

    /// Takes an export back: the file is gone afterwards, and all that was written is in the image.
    ///
    /// # Errors
    /// When the daemon refuses or the mount point cannot be removed.
    pub async fn take_back(&mut self, export: Export) -> Result<(), DaemonError> {
        let deleted = self.delete_export(&export.node).await;
        let what = format!("taking back {}", export.mount_point.display());
        self.told(&what, deleted).await?;
        std::fs::remove_file(&export.mount_point).map_err(|source| DaemonError::MountPoint {
            path: export.mount_point.display().to_string(),
            source,
        })
    }

    /// Serves exports over NBD at a socket, which must not exist yet, for as long as the daemon runs.
    ///
    /// # Errors
    /// With the daemon's words.
    pub async fn serve_nbd(&mut self, socket: &Path) -> Result<(), DaemonError> {
        let arguments = nodes::nbd_server(socket);
        tracing::debug!(target: "virt_fsck::command", "nbd-server-start {arguments}");
        let started = self.qmp.execute("nbd-server-start", arguments).await;
        self.told("serving the disks over NBD", started).await?;
        Ok(())
    }

    /// Shows a node over NBD, under its own name.
    ///
    /// # Errors
    /// With the daemon's words.
    pub async fn export_nbd(&mut self, node: &NodeName, access: Access) -> Result<(), DaemonError> {
        let arguments = nodes::nbd_export(node, access);
        tracing::debug!(target: "virt_fsck::command", "block-export-add {arguments}");
        let exported = self.qmp.execute("block-export-add", arguments).await;
        let what = format!("serving {} over NBD", node.as_str());
        self.told(&what, exported).await?;
        Ok(())
    }

    /// Takes back what shows a node, under its name.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn take_back_nbd(&mut self, node: &NodeName) -> Result<(), DaemonError> {
        let deleted = self.delete_export(node).await;
        let what = format!("taking back {}", node.as_str());
        self.told(&what, deleted).await
    }

    async fn delete_export(&mut self, node: &NodeName) -> Result<(), QmpError> {
        let id = json!({ "id": node });
        let deletion = json!({ "id": node, "mode": "hard" });
        self.qmp.execute("block-export-del", deletion).await?;
        self.qmp.wait_for("BLOCK_EXPORT_DELETED", &id).await
    }

    /// Stops the daemon: all images are flushed and closed afterwards.
    ///
    /// # Errors
    /// When it ends badly before the images are closed. What it does afterwards is only told:
    /// QEMU 10.0 has been seen to crash while it ends.
    pub async fn stop(mut self) -> Result<(), DaemonError> {
        // What lies on others was added after them.
        for name in self.open.clone().into_iter().rev() {
            if self.try_remove_node(name).await.is_err() {
                break;
            }
        }
        let closed = self.open.is_empty();
        let quit = self.qmp.execute("quit", json!({})).await;
        let status = match quit {
            Ok(_) => self.child.wait().await,
            Err(_) => child::stop(&mut self.child).await,
        };
        let said = self.printed.await.unwrap_or_default();
        let status = status.map_err(|source| CmdError::System {
            tool: Tool::STORAGE_DAEMON.name,
            source,
        })?;
        let ended = match quit {
            Err(cause) => Err(DaemonError::Asked {
                what: "stopping the storage daemon".to_owned(),
                cause,
                said,
            }),
            Ok(_) if !status.success() => Err(CmdError::Failed {
                tool: Tool::STORAGE_DAEMON.name,
                status,
                stderr: said,
            }
            .into()),
            Ok(_) => {
                let said = one_line(&said);
                if !said.is_empty() {
                    tracing::warn!("the storage daemon said: {said}");
                }
                Ok(())
            }
        };
        match ended {
            Err(error) if closed => {
                tracing::warn!("{error}; all images were closed before, and nothing is lost");
                Ok(())
            }
            ended => ended,
        }
    }

    /// The daemon's answer; where it refused, an error that says what was being done.
    async fn told<T>(&mut self, what: &str, answer: Result<T, QmpError>) -> Result<T, DaemonError> {
        match answer {
            Ok(answer) => Ok(answer),
            Err(cause) => Err(self.failure(what.to_owned(), cause).await),
        }
    }

    async fn failure(&mut self, what: String, cause: QmpError) -> DaemonError {
        let said = match cause {
            QmpError::Ended => (&mut self.printed).await.unwrap_or_default(),
            _ => String::new(),
        };
        DaemonError::Asked { what, cause, said }
    }
}

/// QEMU's words when another process holds a lock (block/file-posix.c, `raw_check_lock_bytes`).
pub fn is_lock_conflict(words: &str) -> bool {
    words.contains("Failed to get") && words.contains("lock")
}
