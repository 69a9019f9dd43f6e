//! A composed file from its mount to its end.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fuser::{BackgroundSession, Config, MountOption};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::file::{ComposedFile, ServedLayer};
use super::images::Connections;
use super::volume::Volume;
use crate::cmd::{CmdError, Invocation, Tool};

/// How many threads serve a file. A checker asks for one thing at a time, and the kernel reads ahead.
pub const THREADS: usize = 4;

/// How long the threads may take to end after the mount is gone: somebody may still have the file
/// open.
const LAST_REQUESTS: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(2);

/// A composed file could not be made or taken back.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// FUSE refused.
    #[error("the composed file {path} cannot be mounted over FUSE")]
    Mount {
        /// Its path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The mount could not be taken back.
    #[error("the mount of {path} cannot be taken back")]
    Unmount {
        /// Its path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The helper of FUSE could not take it back.
    #[error(transparent)]
    Helper(#[from] CmdError),
    /// What was written could not be flushed.
    #[error("the last writes to the disks failed")]
    Flush(#[source] io::Error),
    /// The mount point could not be removed.
    #[error("the mount point {path} cannot be removed")]
    MountPoint {
        /// Its path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A thread failed.
    #[error("serving {path}")]
    Thread {
        /// Its path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// A file that is served.
#[derive(Debug)]
#[must_use = "a served file must be taken back"]
pub struct Served {
    path: PathBuf,
    /// The file's device number, by which the kernel knows the connection.
    device: u64,
    session: BackgroundSession,
    layer: Arc<ServedLayer>,
}

impl Served {
    /// Serves a layer as the file `mount_point`, which is there already, with one thread for each of
    /// the `connections`.
    ///
    /// # Errors
    /// When FUSE is not to be had; nothing is mounted then.
    pub fn mount(
        mount_point: &Path,
        volume: Volume,
        connections: Vec<Connections>,
    ) -> Result<Self, ServeError> {
        let at = |source| ServeError::Mount {
            path: mount_point.to_owned(),
            source,
        };
        let threads = connections.len();
        let layer = Arc::new(ServedLayer::new(volume, connections));
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("virt-fsck".to_owned()),
            MountOption::NoExec,
        ];
        config.n_threads = Some(threads);
        let file = ComposedFile::new(Arc::clone(&layer));
        let session = fuser::spawn_mount(file, mount_point, &config).map_err(at)?;
        let device = std::fs::symlink_metadata(mount_point).map_err(at)?.dev();
        Ok(Self {
            path: mount_point.to_owned(),
            device,
            session,
            layer,
        })
    }

    /// Takes the file back: it is gone afterwards, and all that was written is on the images'
    /// storage.
    ///
    /// # Errors
    /// The first error; the rest is done all the same.
    pub async fn end(self) -> Result<(), ServeError> {
        let unmounted = take_back(&self.path).await;
        let ended = self.threads_end().await;
        let flushed = self
            .layer
            .end()
            .map_err(|errno| ServeError::Flush(errno.into()));
        let served = match ended {
            true => self.session.join().map_err(|source| ServeError::Thread {
                path: self.path,
                source,
            }),
            // Whoever still has the file open reads and writes nothing any more, and the threads
            // end with him.
            false => Ok(()),
        };
        unmounted.and(flushed).and(served)
    }

    async fn threads_end(&self) -> bool {
        if self.end_within(LAST_REQUESTS).await {
            return true;
        }
        let minor = rustix::fs::minor(self.device);
        let abort = format!("/sys/fs/fuse/connections/{minor}/abort");
        std::fs::write(abort, "1").is_ok() && self.end_within(LAST_REQUESTS).await
    }

    async fn end_within(&self, limit: Duration) -> bool {
        let until = tokio::time::Instant::now() + limit;
        while !self.session.guard.is_finished() {
            if tokio::time::Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
        true
    }
}

/// Takes back what is mounted at a mount point, if anything is, and removes it: also what a run that
/// was killed has left.
///
/// # Errors
/// When it stays.
pub async fn take_back(mount_point: &Path) -> Result<(), ServeError> {
    if is_mounted(mount_point) {
        unmount(mount_point).await?;
    }
    match std::fs::remove_file(mount_point) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(ServeError::MountPoint {
            path: mount_point.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// A mount is another filesystem than its folder; one whose server has died cannot say which
/// (`ENOTCONN`).
fn is_mounted(mount_point: &Path) -> bool {
    let folder = mount_point.parent().map(std::fs::symlink_metadata);
    match (std::fs::symlink_metadata(mount_point), folder) {
        (Ok(file), Some(Ok(folder))) => file.dev() != folder.dev(),
        (Err(error), _) => error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error()),
        _ => false,
    }
}

async fn unmount(mount_point: &Path) -> Result<(), ServeError> {
    let by_force = UnmountFlags::DETACH | UnmountFlags::FORCE;
    let unmounted = match rustix::mount::unmount(mount_point, UnmountFlags::NOFOLLOW) {
        // Somebody has the file open, who is not the checker: that has ended.
        Err(Errno::BUSY) => rustix::mount::unmount(mount_point, by_force),
        other => other,
    };
    match unmounted {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => {
            let mut call = Invocation::new(Tool::FUSERMOUNT, ["-u", "-q", "-z", "--"]);
            call.arguments.push(mount_point.as_os_str().to_owned());
            call.capture().await?;
            Ok(())
        }
        Err(errno) => Err(ServeError::Unmount {
            path: mount_point.to_owned(),
            source: errno.into(),
        }),
    }
}
