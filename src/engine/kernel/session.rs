//! The disks of one domain as block devices; and each filesystem, while it is checked.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::domain::model::Slice;
use crate::engine::kernel::arrays::Started;
use crate::engine::kernel::loops::LoopDevice;
use crate::engine::kernel::nbd::{self, Nbd};
use crate::engine::kernel::table::{self, DeviceNumber};
use crate::engine::kernel::{mapping, module, snapshot};
use crate::engine::session::{DiskToOpen, SessionError, Shown, Writes, announce_overlay};
use crate::engine::shown_disk::ShownDisk;
use crate::engine::user::nodes::{self, Access};
use crate::guard::image_lock::ImageLock;
use crate::layers::extent::{Extent, ExtentMap, ImageIndex};
use crate::ledger::{Handle, Ledger, Mark, Step};
use crate::names::{self, MappingName, MappingRole};
use crate::reach::chain::Link;
use crate::reach::encrypted;
use crate::reach::identity::Kind;
use crate::units::{Bytes, SectorSize};

/// A domain's disks, and what was made for them.
#[derive(Debug)]
pub struct Session {
    begun: Mark,
    state_base: PathBuf,
    disks: Vec<Option<Disk>>,
}

/// Where the bytes of a disk are to be had.
#[derive(Debug)]
struct Disk {
    under: Under,
    access: Access,
    size: Bytes,
    /// It lies on encrypted storage.
    encrypted: bool,
    /// Held for as long as the file is used, as QEMU would.
    _lock: Option<ImageLock>,
}

#[derive(Clone, Debug)]
enum Under {
    /// A raw file, or the part of one. A loop device is laid over it while it is needed.
    File { path: PathBuf, offset: Bytes },
    /// A device that is as long as the disk.
    Device { path: PathBuf, number: DeviceNumber },
}

impl Session {
    /// Begins with a domain that has so many disks. Nothing is opened yet.
    pub fn start(ledger: &Ledger, state_base: &Path, disks: usize) -> Self {
        Self {
            begun: ledger.mark(),
            state_base: state_base.to_owned(),
            disks: std::iter::repeat_with(|| None).take(disks).collect(),
        }
    }

    /// Opens a disk's images, and shows the disk for reading.
    ///
    /// # Errors
    /// When an image cannot be opened, or somebody else has it open.
    pub async fn open(
        &mut self,
        ledger: &mut Ledger,
        to_open: DiskToOpen<'_>,
    ) -> Result<ShownDisk, SessionError> {
        let DiskToOpen {
            image,
            chain,
            access,
            sector_size,
            ..
        } = to_open;
        let top = &chain.top;
        let encrypted = encrypted::is_encrypted(chain);
        let (disk, lock) = match (top.is_plain(), top.kind) {
            (true, Kind::File) => {
                let lock = ImageLock::take(&top.path, access)?;
                (file(&top.path, top.slice)?, Some(lock))
            }
            (true, Kind::BlockDevice) => {
                // The mapping takes the claim over: no other can be laid on a device that is held.
                to_open.claim.release();
                (device(ledger, top, sector_size, access).await?, None)
            }
            _ => (connected(ledger, to_open).await?, None),
        };
        let (under, size) = disk;
        let (path, offset) = match &under {
            Under::File { path, offset } => (path, *offset),
            Under::Device { path, .. } => (path, Bytes::ZERO),
        };
        let file = File::open(path).map_err(SessionError::file(path))?;
        let shown = ShownDisk::new(file, offset, size);
        let disk = Disk {
            under,
            access,
            size,
            encrypted,
            _lock: lock,
        };
        self.put(image, disk);
        Ok(shown)
    }

    fn put(&mut self, image: ImageIndex, disk: Disk) {
        if let Some(place) = self.disks.get_mut(image.0) {
            *place = Some(disk);
        }
    }

    /// Adds a device that LVM has activated as a disk of its own.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn add_device(
        &mut self,
        path: PathBuf,
        access: Access,
        encrypted: bool,
    ) -> Result<(ImageIndex, ShownDisk), SessionError> {
        let number = number_of(&path)?;
        let file = File::open(&path).map_err(SessionError::file(&path))?;
        self.add_opened(Under::Device { path, number }, file, access, encrypted)
    }

    /// The same for an array that MD has started.
    ///
    /// # Errors
    /// When its length cannot be had.
    pub(super) fn add_array(
        &mut self,
        array: Started,
        access: Access,
        encrypted: bool,
    ) -> Result<(ImageIndex, ShownDisk), SessionError> {
        let Started { node, number, file } = array;
        let under = Under::Device { path: node, number };
        self.add_opened(under, file, access, encrypted)
    }

    fn add_opened(
        &mut self,
        under: Under,
        file: File,
        access: Access,
        encrypted: bool,
    ) -> Result<(ImageIndex, ShownDisk), SessionError> {
        let (Under::Device { path, .. } | Under::File { path, .. }) = &under;
        let size = end_of(&file).map_err(SessionError::file(path))?;
        let shown = ShownDisk::new(file, Bytes::ZERO, size);
        let image = ImageIndex(self.disks.len());
        self.disks.push(Some(Disk {
            under,
            access,
            size,
            encrypted,
            _lock: None,
        }));
        Ok((image, shown))
    }

    fn disk(&self, image: ImageIndex) -> Result<&Disk, SessionError> {
        let disk = self.disks.get(image.0).and_then(Option::as_ref);
        disk.ok_or(SessionError::NoDisk(image.0))
    }

    /// Shows a layer as a device of its own.
    ///
    /// # Errors
    /// When a device cannot be made; what was made until then is taken back.
    pub async fn show(
        &mut self,
        ledger: &mut Ledger,
        extents: &ExtentMap,
        writes: Writes,
    ) -> Result<Shown, SessionError> {
        let mark = ledger.mark();
        match self.device_for(ledger, extents, writes).await {
            Ok(path) => Ok(Shown::device(path, mark)),
            Err(error) => {
                ledger.undo_to(mark).await?;
                Err(error)
            }
        }
    }

    /// A physical volume as a device for LVM, which sees it until it is hidden.
    ///
    /// # Errors
    /// When a device cannot be made.
    pub(super) async fn physical_volume(
        &self,
        ledger: &mut Ledger,
        extents: &ExtentMap,
        writes: Writes,
    ) -> Result<(MappingName, PathBuf), SessionError> {
        let access = Access::of(writes == Writes::ToTheDisk);
        let mut table = self.table(ledger, extents, access).await?;
        if writes == Writes::ToAnOverlay {
            let (_, origin) = mapped(ledger, MappingRole::Filesystem, &table, access)?;
            let over = self.snapshot(ledger, &origin, extents).await?;
            let number = number_of(&over)?;
            table = table::linear(number, Bytes::ZERO, extents.size())?;
        }
        mapped(ledger, MappingRole::PhysicalVolume, &table, Access::Write)
    }

    async fn snapshot(
        &self,
        ledger: &mut Ledger,
        origin: &Path,
        extents: &ExtentMap,
    ) -> Result<PathBuf, SessionError> {
        let encrypted = self.is_encrypted(extents);
        snapshot::over(ledger, origin, extents.size(), &self.state_base, encrypted).await
    }

    pub(super) async fn device_for(
        &self,
        ledger: &mut Ledger,
        extents: &ExtentMap,
        writes: Writes,
    ) -> Result<PathBuf, SessionError> {
        let access = Access::of(writes == Writes::ToTheDisk);
        let layer = self.layer(ledger, extents, access).await?;
        match writes {
            Writes::ToTheDisk => Ok(layer),
            Writes::ToAnOverlay => self.snapshot(ledger, &layer, extents).await,
        }
    }

    /// The layer as one device: a loop device over a part of a file, else a table over the disks.
    pub(super) async fn layer(
        &self,
        ledger: &mut Ledger,
        extents: &ExtentMap,
        access: Access,
    ) -> Result<PathBuf, SessionError> {
        if let Some(extent) = extents.single()
            && let Disk {
                under: Under::File { path, offset },
                ..
            } = self.disk(extent.image)?
        {
            let offset = offset.checked_add(extent.offset).unwrap_or(extent.offset);
            return attach(ledger, path, offset, extent.length, None, access).await;
        }
        let table = self.table(ledger, extents, access).await?;
        Ok(mapped(ledger, MappingRole::Filesystem, &table, access)?.1)
    }

    /// A layer as a table over the disks, with a loop device for each raw file.
    async fn table(
        &self,
        ledger: &mut Ledger,
        extents: &ExtentMap,
        access: Access,
    ) -> Result<String, SessionError> {
        let mut numbers = Vec::new();
        for Extent { image, .. } in extents.places() {
            if !numbers.iter().any(|(known, _)| *known == image) {
                let number = self.number(ledger, image, access).await?;
                numbers.push((image, number));
            }
        }
        let number = |image| {
            numbers
                .iter()
                .find(|(known, _)| *known == image)
                .map(|(_, n)| *n)
        };
        Ok(table::table(extents, number)?)
    }

    async fn number(
        &self,
        ledger: &mut Ledger,
        image: ImageIndex,
        access: Access,
    ) -> Result<DeviceNumber, SessionError> {
        let disk = self.disk(image)?;
        match &disk.under {
            Under::Device { number, .. } => Ok(*number),
            Under::File { path, offset } => {
                let device = attach(ledger, path, *offset, disk.size, None, access).await?;
                number_of(&device)
            }
        }
    }

    pub(super) fn is_encrypted(&self, extents: &ExtentMap) -> bool {
        extents
            .places()
            .any(|extent| self.disk(extent.image).is_ok_and(|disk| disk.encrypted))
    }

    /// Whether anything may be written to all the disks that a layer lies on.
    pub fn is_writable(&self, extents: &ExtentMap) -> bool {
        extents.places().all(|extent| {
            self.disk(extent.image)
                .is_ok_and(|disk| disk.access == Access::Write)
        })
    }

    /// Closes everything.
    ///
    /// # Errors
    /// What could not be taken back.
    pub async fn close(self, ledger: &mut Ledger) -> Result<(), SessionError> {
        Ok(ledger.undo_to(self.begun).await?)
    }
}

/// A raw file, or the part of it that is the image.
fn file(path: &Path, slice: Option<Slice>) -> Result<(Under, Bytes), SessionError> {
    let metadata = std::fs::metadata(path).map_err(SessionError::file(path))?;
    let (offset, size) = match slice {
        Some(slice) => (slice.offset, slice.size),
        None => (Bytes::ZERO, Bytes::new(metadata.len())),
    };
    let path = path.to_owned();
    Ok((Under::File { path, offset }, size))
}

/// A raw device: a mapping of ours that holds it, so that nobody can mount it or build upon it. One
/// whose sectors are larger than the guest's (a LUKS2 mapping with 4096 bytes, say) gets a loop
/// device, which takes any multiple of 512.
async fn device(
    ledger: &mut Ledger,
    top: &Link,
    sector_size: SectorSize,
    access: Access,
) -> Result<(Under, Bytes), SessionError> {
    let path = &top.path;
    let (offset, size) = match top.slice {
        Some(slice) => (slice.offset, slice.size),
        None => (Bytes::ZERO, device_size(path)?),
    };
    let number = number_of(path)?;
    let path = if number.logical_block_size() > sector_size.get() {
        attach(ledger, path, offset, size, Some(sector_size), access).await?
    } else {
        let table = table::linear(number, offset, size)?;
        mapped(ledger, MappingRole::Disk, &table, access)?.1
    };
    let number = number_of(&path)?;
    Ok((Under::Device { path, number }, size))
}

/// Any other format: a network block device that qemu-nbd serves.
async fn connected(
    ledger: &mut Ledger,
    to_open: DiskToOpen<'_>,
) -> Result<(Under, Bytes), SessionError> {
    if !module::is_there() {
        ledger.about_to(Step::NbdModule)?;
        module::load().await?;
        ledger.taken();
    }
    let number = ledger.number();
    let pid_file = names::nbd_pid_file(ledger.folder()?, number);
    let name = to_open.chain.top.path.display().to_string();
    let image = nbd::Image {
        node: &nodes::nested(to_open.chain, to_open.access),
        keys: &nodes::nested_keys(to_open.chain),
        access: to_open.access,
        name: &name,
    };
    let about_to = |device: &Path| -> Result<(), SessionError> {
        let device = device.to_owned();
        let pid_file = pid_file.clone();
        Ok(ledger.about_to(Step::Nbd { device, pid_file })?)
    };
    let nbd = Nbd::connect(image, &pid_file, about_to).await?;
    let path = nbd.path().to_owned();
    ledger.taken_with(Handle::Nbd(nbd));
    let number = number_of(&path)?;
    let size = device_size(&path)?;
    Ok((Under::Device { path, number }, size))
}

/// Attaches a loop device; it is in the ledger.
pub(super) async fn attach(
    ledger: &mut Ledger,
    path: &Path,
    offset: Bytes,
    size: Bytes,
    sector_size: Option<SectorSize>,
    access: Access,
) -> Result<PathBuf, SessionError> {
    ledger.about_to(Step::Loop {
        file: path.to_owned(),
    })?;
    let device = LoopDevice::attach(path, offset, Some(size), sector_size, access).await?;
    let node = device.path().to_owned();
    ledger.taken_with(Handle::Loop(device));
    Ok(node)
}

/// Makes a mapping; it is in the ledger. Its name and its node.
pub(super) fn mapped(
    ledger: &mut Ledger,
    role: MappingRole,
    table: &str,
    access: Access,
) -> Result<(MappingName, PathBuf), SessionError> {
    let number = ledger.number();
    let name = MappingName::numbered(ledger.run()?, role, number);
    ledger.about_to(Step::Mapping { name: name.clone() })?;
    let node = match role {
        MappingRole::PhysicalVolume => mapping::make_for_lvm(&name, table, access)?,
        _ => mapping::make(&name, table, access)?,
    };
    ledger.taken();
    Ok((name, node))
}

/// The device that a path leads to, as the kernel counts it.
pub(super) fn number_of(path: &Path) -> Result<DeviceNumber, SessionError> {
    DeviceNumber::of(path).map_err(SessionError::file(path))
}

/// A device's length.
pub(super) fn device_size(path: &Path) -> Result<Bytes, SessionError> {
    let end = File::open(path).and_then(|device| end_of(&device));
    end.map_err(SessionError::file(path))
}

fn end_of(mut device: &File) -> io::Result<Bytes> {
    use std::io::Seek;
    device.seek(io::SeekFrom::End(0)).map(Bytes::new)
}

/// The folder of an overlay, and the file in it that a snapshot is kept in; both in the ledger.
pub(super) fn overlay_file(
    ledger: &mut Ledger,
    state_base: &Path,
) -> Result<PathBuf, SessionError> {
    let path = announce_overlay(ledger, state_base, names::snapshot_file)?;
    File::create_new(&path).map_err(SessionError::file(&path))?;
    ledger.taken();
    Ok(path)
}
