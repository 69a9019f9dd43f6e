//! The disks of one domain, opened; and each filesystem, shown while it is checked.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::cmd::{CmdError, Invocation, Tool};
use crate::engine::user::daemon::{Daemon, DaemonError, Export};
use crate::engine::user::folder::{Folder, FolderError};
use crate::engine::user::nodes::{self, Access};
use crate::layers::extent::{Extent, ImageIndex};
use crate::layers::read::{ReadAt, ReadImages};
use crate::layers::tree::LayerPath;
use crate::names::{self, NodeName};
use crate::reach::chain::Chain;
use crate::units::Bytes;

/// Less than this is too little for an overlay: qcow2 takes its clusters of 64 KiB one by one.
const LEAST_ROOM: Bytes = Bytes::mib(1);

/// The engine could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The storage daemon.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// A folder of the run.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The overlay could not be made.
    #[error("the overlay {path} could not be made (--state-dir names another folder)")]
    Overlay {
        /// Its file.
        path: String,
        /// The cause.
        #[source]
        source: CmdError,
    },
    /// A file of the run could not be opened or removed.
    #[error("{path}")]
    File {
        /// Its path.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// The storage daemon with a domain's disks, and what was made for it.
#[derive(Debug)]
pub struct Session {
    daemon: Daemon,
    mount_points: Folder,
    state_base: PathBuf,
    overlaid: HashSet<ImageIndex>,
    exposed: usize,
}

/// A disk, opened and shown as a plain file for the parsers.
#[derive(Debug)]
#[must_use = "a shown disk must be taken back"]
pub struct ShownDisk {
    export: Export,
    file: File,
    size: Bytes,
}

/// The disks that parsers read, by index.
#[derive(Debug, Default)]
pub struct ShownDisks(Vec<Option<ShownDisk>>);

impl ShownDisks {
    /// Adds the next disk; `None` if it could not be opened.
    pub fn push(&mut self, disk: Option<ShownDisk>) {
        self.0.push(disk);
    }
}

impl ShownDisk {
    /// Its size as the guest sees it.
    pub fn size(&self) -> Bytes {
        self.size
    }
}

impl ReadAt for ShownDisk {
    fn size(&self) -> Bytes {
        self.size
    }

    fn read_exact_at(&self, offset: Bytes, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset.get())
    }
}

impl ReadImages for ShownDisks {
    fn image(&self, index: ImageIndex) -> Option<&dyn ReadAt> {
        let disk = self.0.get(index.0)?.as_ref()?;
        Some(disk)
    }
}

/// A filesystem shown as a plain file.
#[derive(Debug)]
#[must_use = "a shown filesystem must be taken back"]
pub struct ShownFilesystem {
    export: Export,
    node: NodeName,
}

impl ShownFilesystem {
    /// The plain file.
    pub fn path(&self) -> &Path {
        self.export.path()
    }
}

/// Where a checker's writes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// To the disk.
    ToTheDisk,
    /// To an overlay that is thrown away.
    ToAnOverlay,
}

impl Session {
    /// Starts the storage daemon.
    ///
    /// # Errors
    /// When it, or a folder for its mount points, is not to be had.
    pub async fn start(run_base: &Path, state_base: &Path) -> Result<Self, SessionError> {
        let mount_points = Folder::create(run_base)?;
        match Daemon::start().await {
            Ok(daemon) => Ok(Self {
                daemon,
                mount_points,
                state_base: state_base.to_owned(),
                overlaid: HashSet::new(),
                exposed: 0,
            }),
            Err(error) => {
                mount_points.remove()?;
                Err(error.into())
            }
        }
    }

    /// Opens a disk's images, with their locks, and shows the disk for reading.
    ///
    /// # Errors
    /// When an image cannot be opened; [`DaemonError::InUse`] when somebody else has it open.
    pub async fn open(
        &mut self,
        image: ImageIndex,
        chain: &Chain,
        access: Access,
    ) -> Result<ShownDisk, SessionError> {
        let top = chain.top.path.display().to_string();
        for node in nodes::disk(image, chain, access) {
            self.daemon.add_node(node, &top).await?;
        }
        let node = NodeName::disk(image);
        let mount_point = self.mount_points.path().join(node.as_str());
        let export = self
            .daemon
            .export(&node, mount_point, Access::ReadOnly)
            .await?;
        match opened(export.path()) {
            Ok((file, size)) => Ok(ShownDisk { export, file, size }),
            Err(error) => {
                self.daemon.take_back(export).await?;
                Err(error)
            }
        }
    }

    /// Takes the plain files of whole disks back; the images stay open, and locked.
    ///
    /// # Errors
    /// The first error; the others are taken back all the same.
    pub async fn hide(&mut self, disks: ShownDisks) -> Result<(), SessionError> {
        let mut outcome = Ok(());
        for disk in disks.0.into_iter().flatten() {
            drop(disk.file);
            let taken_back = self.daemon.take_back(disk.export).await;
            outcome = outcome.and(taken_back.map_err(SessionError::from));
        }
        outcome
    }

    /// Shows a filesystem that lies in one extent of a disk.
    ///
    /// # Errors
    /// When the overlay cannot be made or the daemon refuses.
    pub async fn show(
        &mut self,
        layer: &LayerPath,
        extent: Extent,
        disk_size: Bytes,
        writes: Writes,
    ) -> Result<ShownFilesystem, SessionError> {
        let below = match writes {
            Writes::ToTheDisk => NodeName::disk(extent.image),
            Writes::ToAnOverlay => self.overlay(extent.image, disk_size).await?,
        };
        self.exposed += 1;
        let node = NodeName::filesystem(self.exposed);
        let raw = nodes::filesystem(&node, &below, extent, Access::Write);
        self.daemon.add_node(raw, layer.as_str()).await?;
        let mount_point = names::mount_point(self.mount_points.path(), layer, self.exposed);
        match self.daemon.export(&node, mount_point, Access::Write).await {
            Ok(export) => Ok(ShownFilesystem { export, node }),
            Err(error) => {
                self.daemon.remove_node(&node).await?;
                Err(error.into())
            }
        }
    }

    /// Takes a filesystem back: all that the checker wrote is in the image afterwards.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn take_back(&mut self, shown: ShownFilesystem) -> Result<(), SessionError> {
        self.daemon.take_back(shown.export).await?;
        self.daemon.remove_node(&shown.node).await?;
        Ok(())
    }

    /// The overlay over a disk, made when it is first needed. Its file loses its name as soon as
    /// the daemon has it open, so that nothing of it can outlive the daemon.
    async fn overlay(
        &mut self,
        image: ImageIndex,
        disk_size: Bytes,
    ) -> Result<NodeName, SessionError> {
        let name = NodeName::overlay(image);
        if self.overlaid.contains(&image) {
            return Ok(name);
        }
        let folder = Folder::create(&self.state_base)?;
        let file = names::overlay_file(folder.path(), image);
        let added = match overlay_creation(&file, disk_size).capture().await {
            Ok(_) => self
                .daemon
                .add_node(nodes::overlay(image, &file), "the overlay")
                .await
                .map_err(SessionError::from),
            Err(source) => Err(SessionError::Overlay {
                path: file.display().to_string(),
                source,
            }),
        };
        let removed = match std::fs::remove_file(&file) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(SessionError::File {
                path: file.display().to_string(),
                source,
            }),
            _ => Ok(()),
        };
        added.and(removed)?;
        folder.remove()?;
        self.overlaid.insert(image);
        Ok(name)
    }

    /// Why the overlay can take no more; `None` while there is room.
    pub fn overlay_is_full(&self) -> Option<String> {
        let free = rustix::fs::statvfs(&self.state_base).ok()?;
        let free = Bytes::new(free.f_bavail.saturating_mul(free.f_frsize));
        (free < LEAST_ROOM).then(|| {
            format!(
                "the overlay in {} ran out of space ({free} free); make room there, or name \
                 another folder with --state-dir",
                self.state_base.display()
            )
        })
    }

    /// Closes everything: images, locks, mount points, the daemon.
    ///
    /// # Errors
    /// The first error; the rest is closed all the same.
    pub async fn close(self) -> Result<(), SessionError> {
        let stopped = self.daemon.stop().await.map_err(SessionError::from);
        let removed = self.mount_points.remove().map_err(SessionError::from);
        stopped.and(removed)
    }
}

/// The call that makes an empty overlay's file.
pub fn overlay_creation(file: &Path, disk_size: Bytes) -> Invocation {
    let size = disk_size.get().to_string();
    let mut call = Invocation::new(Tool::QEMU_IMG, ["create", "-q", "-f", "qcow2"]);
    call.arguments.push(file.as_os_str().to_owned());
    call.arguments.push(size.into());
    call
}

fn opened(path: &Path) -> Result<(File, Bytes), SessionError> {
    let at = |source| SessionError::File {
        path: path.display().to_string(),
        source,
    };
    let file = File::open(path).map_err(at)?;
    let size = Bytes::new(file.metadata().map_err(at)?.len());
    Ok((file, size))
}
