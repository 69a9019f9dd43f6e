//! The disks of one domain, opened by one of the engines.

use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::crypt::{SectorCipherError, SpecError, VolumeKey};
use crate::engine::kernel::activation::Opened;
use crate::engine::kernel::arrays::ArrayError;
use crate::engine::kernel::loops::LoopError;
use crate::engine::kernel::mapping::MappingError;
use crate::engine::kernel::module::ModuleError;
use crate::engine::kernel::nbd::NbdError;
use crate::engine::kernel::table::TableError;
use crate::engine::kernel::volumes::VolumesError;
use crate::engine::kernel::{self};
use crate::engine::shown_disk::{ShownDisk, ShownDisks, ShownImage};
use crate::engine::user;
use crate::engine::user::composed::{ConnectionError, ServeError};
use crate::engine::user::daemon::{DaemonError, Export};
use crate::engine::user::nodes::Access;
use crate::guard::host::HostClaim;
use crate::guard::image_lock::LockError;
use crate::layers::dormant::{ClosedContainer, DormantArray, DormantGroup};
use crate::layers::extent::{ExtentMap, ImageIndex, OutOfRange};
use crate::layers::luks::Container;
use crate::layers::luks::header::HeaderError;
use crate::layers::tree::LayerPath;
use crate::ledger::book::Left;
use crate::ledger::{Ledger, LedgerError, Mark, Step};
use crate::names::{self, NodeName};
use crate::reach::chain::Chain;
use crate::units::{Bytes, SectorSize};

/// Less than this is too little for an overlay: qcow2 takes its clusters of 64 KiB one by one.
const LEAST_ROOM: Bytes = Bytes::mib(1);

/// The engine could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The storage daemon.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The ledger could not be written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Something could not be taken back.
    #[error(transparent)]
    Left(#[from] Left),
    /// The overlay could not be made.
    #[error("the overlay {path} could not be made (--state-dir names another folder)")]
    Overlay {
        /// Its file.
        path: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file, folder or device could not be made, opened or removed.
    #[error("{path}")]
    File {
        /// Its path.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Somebody else has an image open.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A loop device.
    #[error(transparent)]
    Loop(#[from] LoopError),
    /// A device-mapper device.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// A network block device.
    #[error(transparent)]
    Nbd(#[from] NbdError),
    /// The kernel's module for them.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// A layer cannot be a table of device-mapper.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A guest's volumes that LVM must activate.
    #[error(transparent)]
    Volumes(#[from] VolumesError),
    /// A guest's array that MD must start.
    #[error(transparent)]
    Array(#[from] ArrayError),
    /// A container's header.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A container's cipher.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A container's cipher, with its key.
    #[error(transparent)]
    Cipher(#[from] SectorCipherError),
    /// A container that is longer than what it lies in.
    #[error(transparent)]
    Outside(#[from] OutOfRange),
    /// A layer lies on a disk that was not opened.
    #[error("disk number {0} is not open")]
    NoDisk(usize),
    /// A connection to the storage daemon's NBD server.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// A composed file.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

impl SessionError {
    /// For what the system said of a path.
    pub fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::File { path, source }
    }

    /// Whether somebody else has an image open.
    pub const fn is_in_use(&self) -> bool {
        matches!(
            self,
            Self::Daemon(DaemonError::InUse(_))
                | Self::Lock(LockError::InUse(_))
                | Self::Nbd(NbdError::InUse(_))
        )
    }
}

/// A disk that is to be opened.
#[derive(Debug)]
pub struct DiskToOpen<'a> {
    /// Which it is.
    pub image: ImageIndex,
    /// Its images.
    pub chain: &'a Chain,
    /// Whether repairs may go to it.
    pub access: Access,
    /// Its sectors as the guest sees them.
    pub sector_size: SectorSize,
    /// What holds its devices until the engine does.
    pub claim: &'a mut HostClaim,
}

/// A filesystem, shown as a file or device.
#[derive(Debug)]
#[must_use = "a shown filesystem must be taken back"]
pub struct Shown {
    path: PathBuf,
    pub(super) by: ShownBy,
}

#[derive(Debug)]
pub(super) enum ShownBy {
    /// An export of the storage daemon.
    Export(Export, NodeName),
    /// Ourselves, in several pieces.
    Composed(user::session::Composed),
    /// Devices, in the ledger since the mark.
    Devices(Mark),
}

impl Shown {
    pub(super) fn device(path: PathBuf, mark: Mark) -> Self {
        let by = ShownBy::Devices(mark);
        Self { path, by }
    }

    pub(super) fn export(export: Export, node: NodeName) -> Self {
        Self {
            path: export.path().to_owned(),
            by: ShownBy::Export(export, node),
        }
    }

    pub(super) fn composed(path: PathBuf, composed: user::session::Composed) -> Self {
        let by = ShownBy::Composed(composed);
        Self { path, by }
    }

    /// The file or device.
    pub fn path(&self) -> &Path {
        &self.path
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

/// What else of the same disks is shown at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Nothing.
    Nothing,
    /// Another part of a disk.
    Another,
}

/// A domain's disks in the hands of an engine.
#[derive(Debug)]
pub enum Session {
    /// The storage daemon.
    User(Box<user::session::Session>),
    /// The kernel.
    Kernel(kernel::session::Session),
}

impl Session {
    /// Opens a disk's images, with their locks, and shows the disk for reading.
    ///
    /// # Errors
    /// When an image cannot be opened, or somebody else has it open.
    pub async fn open(
        &mut self,
        ledger: &mut Ledger,
        disk: DiskToOpen<'_>,
    ) -> Result<ShownDisk, SessionError> {
        match self {
            Self::User(session) => session.open(disk).await,
            Self::Kernel(session) => session.open(ledger, disk).await,
        }
    }

    /// Takes the disks back from the parsers; the images stay open, and locked.
    ///
    /// # Errors
    /// The first error; the others are taken back all the same.
    pub async fn hide(&mut self, disks: ShownDisks) -> Result<(), SessionError> {
        let mut outcome = Ok(());
        for disk in disks {
            let ShownImage::Disk(ShownDisk { export, file, .. }) = disk else {
                continue;
            };
            drop(file);
            if let (Some(export), Self::User(session)) = (export, &mut *self) {
                outcome = outcome.and(session.hide(export).await);
            }
        }
        outcome
    }

    /// Whether repairs may go to all the disks that a layer lies on. The user engine is asked only
    /// for what its storage daemon has opened so.
    pub fn is_writable(&self, extents: &ExtentMap) -> bool {
        match self {
            Self::User(_) => true,
            Self::Kernel(session) => session.is_writable(extents),
        }
    }

    /// Whether LVM can activate volumes, and MD start arrays.
    pub const fn opens_dormant(&self) -> bool {
        matches!(self, Self::Kernel(_))
    }

    /// Lets LVM activate the volumes of a group; the user engine cannot.
    ///
    /// # Errors
    /// When the devices for LVM cannot be made.
    pub async fn activate(
        &mut self,
        ledger: &mut Ledger,
        group: &DormantGroup,
    ) -> Result<Vec<Opened>, SessionError> {
        match self {
            Self::User(_) => Ok(Vec::new()),
            Self::Kernel(session) => session.activate(ledger, group).await,
        }
    }

    /// Lets MD start an array; the user engine cannot.
    ///
    /// # Errors
    /// When what is half done cannot be taken back.
    pub async fn start_array(
        &mut self,
        ledger: &mut Ledger,
        array: &DormantArray,
    ) -> Result<Option<Opened>, SessionError> {
        match self {
            Self::User(_) => Ok(None),
            Self::Kernel(session) => session.start_array(ledger, array).await.map(Some),
        }
    }

    /// Why this engine cannot open a container, whatever the key is; `None` if it can.
    pub fn cannot_decrypt(&self, container: &Container) -> Option<String> {
        match self {
            Self::User(_) => user::session::cannot_decrypt(container),
            Self::Kernel(_) => None,
        }
    }

    /// Opens a container by its volume key: what is in it is an image of its own from then on.
    ///
    /// # Errors
    /// When the container cannot be what its header says, or the kernel does not decrypt it.
    pub async fn unlock(
        &mut self,
        ledger: &mut Ledger,
        container: &ClosedContainer,
        key: &VolumeKey,
    ) -> Result<(ImageIndex, ShownImage), SessionError> {
        match self {
            Self::User(session) => session.unlock(container, key),
            Self::Kernel(session) => session.unlock(ledger, container, key).await,
        }
    }

    /// Shows a layer as a plain file or a device.
    ///
    /// # Errors
    /// When the engine cannot; nothing of it is left then.
    pub async fn show(
        &mut self,
        ledger: &mut Ledger,
        layer: &LayerPath,
        extents: &ExtentMap,
        writes: Writes,
        beside: Beside,
    ) -> Result<Shown, SessionError> {
        match self {
            Self::User(session) => session.show(ledger, layer, extents, writes, beside).await,
            Self::Kernel(session) => session.show(ledger, extents, writes).await,
        }
    }

    /// Takes a filesystem back: all that the checker wrote is in the image afterwards.
    ///
    /// # Errors
    /// When that cannot be said.
    pub async fn take_back(
        &mut self,
        ledger: &mut Ledger,
        shown: Shown,
    ) -> Result<(), SessionError> {
        match (self, shown.by) {
            (Self::User(session), ShownBy::Export(export, node)) => {
                session.take_back(export, &node).await
            }
            (Self::User(session), ShownBy::Composed(composed)) => {
                session.take_apart(ledger, composed).await
            }
            (_, ShownBy::Devices(mark)) => {
                let flushed = File::open(&shown.path).and_then(|device| device.sync_all());
                ledger.undo_to(mark).await?;
                flushed.map_err(SessionError::file(&shown.path))
            }
            (Self::Kernel(_), ShownBy::Export(..) | ShownBy::Composed(_)) => Ok(()),
        }
    }

    /// Closes everything.
    ///
    /// # Errors
    /// The first error; the rest is closed all the same.
    pub async fn close(self, ledger: &mut Ledger) -> Result<(), SessionError> {
        match self {
            Self::User(session) => session.close(ledger).await,
            Self::Kernel(session) => session.close(ledger).await,
        }
    }
}

/// Why the overlay can take no more; `None` while there is room.
pub fn overlay_is_full(state_base: &Path) -> Option<String> {
    let free = rustix::fs::statvfs(state_base).ok()?;
    let free = Bytes::new(free.f_bavail.saturating_mul(free.f_frsize));
    (free < LEAST_ROOM).then(|| {
        format!(
            "the overlay in {} ran out of space ({free} free); make room there, or name another \
             folder with --state-dir",
            state_base.display()
        )
    })
}

/// Makes the folder of an overlay. The file in it, to be made next, is announced in the ledger; `name`
/// gives its path.
pub(super) fn announce_overlay(
    ledger: &mut Ledger,
    state_base: &Path,
    name: impl FnOnce(&Path) -> PathBuf,
) -> Result<PathBuf, SessionError> {
    let number = ledger.number();
    let folder = names::overlay_folder(state_base, ledger.run()?, number);
    make_folder(ledger, &folder)?;
    let path = name(&folder);
    ledger.about_to(Step::File { path: path.clone() })?;
    Ok(path)
}

/// Makes a folder that only its owner can look into; it is in the ledger. The folders above it are
/// made too, and stay.
pub(super) fn make_folder(ledger: &mut Ledger, path: &Path) -> Result<(), SessionError> {
    if let Some(above) = path.parent() {
        std::fs::create_dir_all(above).map_err(SessionError::file(above))?;
    }
    let folder = path.to_owned();
    ledger.about_to(Step::Folder { path: folder })?;
    let made = std::fs::DirBuilder::new().mode(0o700).create(path);
    made.map_err(SessionError::file(path))?;
    ledger.taken();
    Ok(())
}
