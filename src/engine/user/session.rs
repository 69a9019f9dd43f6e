//! The storage daemon with a domain's disks; and each filesystem, shown while it is checked.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::crypt::{CipherSpec, SectorCipher, VolumeKey};
use crate::engine::decrypted::{Decrypted, DecryptedImages};
use crate::engine::overlay_key;
use crate::engine::session::{
    Beside, DiskToOpen, SessionError, Shown, Writes, announce_overlay, make_folder,
};
use crate::engine::shown_disk::{ShownDisk, ShownImage};
use crate::engine::user::composed::{Connections, Served, THREADS, Volume};
use crate::engine::user::daemon::{Daemon, Export};
use crate::engine::user::nodes::{self, Access};
use crate::layers::dormant::ClosedContainer;
use crate::layers::extent::{Extent, ExtentMap, ImageIndex};
use crate::layers::luks::Container;
use crate::layers::tree::LayerPath;
use crate::ledger::{Handle, Ledger, Mark, Step};
use crate::names::{self, NodeName};
use crate::reach::encrypted;
use crate::units::Bytes;

/// The storage daemon with a domain's disks, and what was made for it.
#[derive(Debug)]
pub struct Session {
    begun: Mark,
    daemon: Daemon,
    mount_points: PathBuf,
    state_base: PathBuf,
    sizes: HashMap<ImageIndex, Bytes>,
    /// How many disks the domain has; containers are numbered after them.
    disks: usize,
    opened: DecryptedImages,
    /// The disks that lie on encrypted storage.
    encrypted: Vec<ImageIndex>,
    overlaid: Vec<ImageIndex>,
    /// The NBD server's socket, once there is one.
    nbd_socket: Option<PathBuf>,
    /// The nodes that are shown over NBD, once for each composed file that needs them.
    exported: Vec<NodeName>,
    exposed: usize,
}

impl Session {
    /// Starts the storage daemon, for a domain that has so many disks.
    ///
    /// # Errors
    /// When it, or a folder for its mount points, is not to be had; nothing is left then.
    pub async fn start(
        ledger: &mut Ledger,
        state_base: &Path,
        disks: usize,
    ) -> Result<Self, SessionError> {
        let begun = ledger.mark();
        match Self::try_start(ledger, state_base, disks, begun).await {
            Ok(session) => Ok(session),
            Err(error) => {
                ledger.undo_to(begun).await?;
                Err(error)
            }
        }
    }

    async fn try_start(
        ledger: &mut Ledger,
        state_base: &Path,
        disks: usize,
        begun: Mark,
    ) -> Result<Self, SessionError> {
        let number = ledger.number();
        let mount_points = names::mount_points(ledger.folder()?, number);
        make_folder(ledger, &mount_points)?;
        ledger.about_to(Step::StorageDaemon)?;
        let daemon = Daemon::start().await?;
        ledger.taken();
        Ok(Self {
            begun,
            daemon,
            mount_points,
            state_base: state_base.to_owned(),
            sizes: HashMap::new(),
            disks,
            opened: DecryptedImages::new(),
            encrypted: Vec::new(),
            overlaid: Vec::new(),
            nbd_socket: None,
            exported: Vec::new(),
            exposed: 0,
        })
    }

    /// Opens a disk's images, with their locks, and shows the disk for reading.
    ///
    /// # Errors
    /// When an image cannot be opened, or somebody else has it open.
    pub async fn open(&mut self, disk: DiskToOpen<'_>) -> Result<ShownDisk, SessionError> {
        let top = disk.chain.top.path.display().to_string();
        for (name, key) in nodes::keys(disk.image, disk.chain) {
            self.daemon.add_secret(&name, key.bytes()).await?;
        }
        for node in nodes::disk(disk.image, disk.chain, disk.access) {
            self.daemon.add_node(node, &top).await?;
        }
        let node = NodeName::disk(disk.image);
        let mount_point = self.mount_points.join(node.as_str());
        let export = self
            .daemon
            .export(&node, mount_point, Access::ReadOnly)
            .await?;
        match opened(export.path()) {
            Ok((file, size)) => {
                self.sizes.insert(disk.image, size);
                if encrypted::is_encrypted(disk.chain) {
                    self.encrypted.push(disk.image);
                }
                let mut shown = ShownDisk::new(file, Bytes::ZERO, size);
                shown.export = Some(export);
                Ok(shown)
            }
            Err(error) => {
                self.daemon.take_back(export).await?;
                Err(error)
            }
        }
    }

    /// Takes the plain file of a whole disk back; the image stays open, and locked.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn hide(&mut self, export: Export) -> Result<(), SessionError> {
        Ok(self.daemon.take_back(export).await?)
    }

    /// Opens a container by its volume key.
    ///
    /// # Errors
    /// When it cannot be what its header says.
    pub fn unlock(
        &mut self,
        closed: &ClosedContainer,
        key: &VolumeKey,
    ) -> Result<(ImageIndex, ShownImage), SessionError> {
        let header = &closed.container.header;
        let length = header.length(closed.extents.size())?;
        let under = closed.extents.slice(header.offset, length)?;
        let spec = CipherSpec::parse(&header.encryption, key.length())?;
        let cipher = SectorCipher::new(spec, key, header.sector_size, header.iv_tweak)?;
        let container = Decrypted::new(under, cipher);
        let image = ImageIndex(self.disks.saturating_add(self.opened.len()));
        self.opened.insert(image, container.clone());
        Ok((image, ShownImage::Decrypted(container)))
    }

    /// Shows a filesystem: by an export of the daemon where it lies in one extent of a disk, else as
    /// a file of our own. Such an export takes the right to resize the disk for itself
    /// (block/export/fuse.c of QEMU), so that there can be only one.
    ///
    /// # Errors
    /// When the overlay cannot be made or the daemon refuses; nothing of it is left then.
    pub async fn show(
        &mut self,
        ledger: &mut Ledger,
        layer: &LayerPath,
        extents: &ExtentMap,
        writes: Writes,
        beside: Beside,
    ) -> Result<Shown, SessionError> {
        self.exposed += 1;
        let on_disk = |extent: &Extent| !self.opened.contains_key(&extent.image);
        let (Some(extent), Beside::Nothing) = (extents.single().filter(on_disk), beside) else {
            return self.compose(ledger, layer, extents, writes).await;
        };
        let below = self.below(ledger, extent.image, writes).await?;
        let node = NodeName::filesystem(self.exposed);
        let raw = nodes::filesystem(&node, &below, extent, Access::Write);
        self.daemon.add_node(raw, layer.as_str()).await?;
        let mount_point = names::mount_point(&self.mount_points, layer, self.exposed);
        match self.daemon.export(&node, mount_point, Access::Write).await {
            Ok(export) => Ok(Shown::export(export, node)),
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
    pub async fn take_back(&mut self, export: Export, node: &NodeName) -> Result<(), SessionError> {
        self.daemon.take_back(export).await?;
        self.daemon.remove_node(node).await?;
        Ok(())
    }

    async fn compose(
        &mut self,
        ledger: &mut Ledger,
        layer: &LayerPath,
        extents: &ExtentMap,
        writes: Writes,
    ) -> Result<Shown, SessionError> {
        let volume = Volume::new(extents.clone(), self.opened.clone());
        let mut disks = Vec::new();
        for image in volume.images() {
            disks.push((image, self.below(ledger, image, writes).await?));
        }
        let socket = self.nbd_socket(ledger).await?;
        let mount_point = names::mount_point(&self.mount_points, layer, self.exposed);
        let mut composed = Composed {
            since: ledger.mark(),
            exports: Vec::new(),
        };
        match self
            .try_compose(ledger, &socket, &disks, &mount_point, volume, &mut composed)
            .await
        {
            Ok(()) => Ok(Shown::composed(mount_point, composed)),
            Err(error) => {
                self.take_apart(ledger, composed).await?;
                Err(error)
            }
        }
    }

    async fn try_compose(
        &mut self,
        ledger: &mut Ledger,
        socket: &Path,
        disks: &[(ImageIndex, NodeName)],
        mount_point: &Path,
        volume: Volume,
        composed: &mut Composed,
    ) -> Result<(), SessionError> {
        for (_, node) in disks {
            self.export_nbd(node).await?;
            composed.exports.push(node.clone());
        }
        let mut connections = Vec::new();
        for _ in 0..THREADS {
            connections.push(Connections::open(socket, disks)?);
        }
        let file = mount_point.to_owned();
        ledger.about_to(Step::Served { file })?;
        create_private(mount_point).map_err(SessionError::file(mount_point))?;
        let served = Served::mount(mount_point, volume, connections)?;
        ledger.taken_with(Handle::Served(served));
        Ok(())
    }

    /// Takes a composed file back: all that the checker wrote is in the images afterwards.
    ///
    /// # Errors
    /// The first error; the rest is taken back all the same.
    pub async fn take_apart(
        &mut self,
        ledger: &mut Ledger,
        composed: Composed,
    ) -> Result<(), SessionError> {
        let mut outcome = ledger
            .undo_to(composed.since)
            .await
            .map_err(SessionError::from);
        for node in &composed.exports {
            outcome = outcome.and(self.take_back_nbd(node).await);
        }
        outcome
    }

    /// Shows a node over NBD once, however many composed files need it.
    async fn export_nbd(&mut self, node: &NodeName) -> Result<(), SessionError> {
        if !self.exported.contains(node) {
            self.daemon.export_nbd(node, Access::Write).await?;
        }
        self.exported.push(node.clone());
        Ok(())
    }

    async fn take_back_nbd(&mut self, node: &NodeName) -> Result<(), SessionError> {
        if let Some(index) = self.exported.iter().position(|exported| exported == node) {
            self.exported.swap_remove(index);
        }
        match self.exported.contains(node) {
            true => Ok(()),
            false => Ok(self.daemon.take_back_nbd(node).await?),
        }
    }

    /// The socket of the daemon's NBD server, which is started when it is first needed.
    async fn nbd_socket(&mut self, ledger: &mut Ledger) -> Result<PathBuf, SessionError> {
        if let Some(socket) = &self.nbd_socket {
            return Ok(socket.clone());
        }
        let socket = names::nbd_socket(&self.mount_points);
        ledger.about_to(Step::File {
            path: socket.clone(),
        })?;
        self.daemon.serve_nbd(&socket).await?;
        ledger.taken();
        self.nbd_socket = Some(socket.clone());
        Ok(socket)
    }

    /// The node that a checker reads and writes.
    async fn below(
        &mut self,
        ledger: &mut Ledger,
        image: ImageIndex,
        writes: Writes,
    ) -> Result<NodeName, SessionError> {
        match writes {
            Writes::ToTheDisk => Ok(NodeName::disk(image)),
            Writes::ToAnOverlay => self.overlay(ledger, image).await,
        }
    }

    /// The overlay over a disk, made when it is first needed. Its file loses its name as soon as
    /// the daemon has it open, so that nothing of it can outlive the daemon.
    async fn overlay(
        &mut self,
        ledger: &mut Ledger,
        image: ImageIndex,
    ) -> Result<NodeName, SessionError> {
        let name = NodeName::overlay(image);
        if self.overlaid.contains(&image) {
            return Ok(name);
        }
        let before = ledger.mark();
        let made = self.make_overlay(ledger, image).await;
        let removed = ledger.undo_to(before).await;
        made?;
        removed?;
        self.overlaid.push(image);
        Ok(name)
    }

    async fn make_overlay(
        &mut self,
        ledger: &mut Ledger,
        image: ImageIndex,
    ) -> Result<(), SessionError> {
        let size = self.sizes.get(&image).copied();
        let size = size.ok_or(SessionError::NoDisk(image.0))?;
        let name = |folder: &Path| names::overlay_file(folder, image);
        let file = announce_overlay(ledger, &self.state_base, name)?;
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| SessionError::Overlay {
            path: file.display().to_string(),
            source,
        };
        create_private(&file).map_err(|error| failed(error.into()))?;
        ledger.taken();
        let name = NodeName::overlay_key(image);
        let key = self.encrypted.contains(&image).then_some(&name);
        if key.is_some() {
            let secret = overlay_key::random()?;
            self.daemon.add_secret(&name, secret.as_bytes()).await?;
        }
        let file_node = nodes::overlay_file(image, &file);
        self.daemon.add_node(file_node, "the overlay").await?;
        let format = nodes::overlay_format(image, size, key);
        let job = NodeName::overlay(image);
        let made = self.daemon.format_node(&job, format);
        made.await.map_err(|error| failed(error.into()))?;
        let node = nodes::overlay(image, key);
        Ok(self.daemon.add_node(node, "the overlay").await?)
    }

    /// Closes everything: images, locks, mount points, the daemon.
    ///
    /// # Errors
    /// The first error; the rest is closed all the same.
    pub async fn close(self, ledger: &mut Ledger) -> Result<(), SessionError> {
        let stopped = self.daemon.stop().await;
        let removed = ledger.undo_to(self.begun).await;
        stopped?;
        Ok(removed?)
    }
}

/// Why a container cannot be decrypted without the kernel, whatever the key is; `None` if it can.
pub fn cannot_decrypt(container: &Container) -> Option<String> {
    if let Some(integrity) = &container.integrity {
        return Some(format!(
            "each of its sectors has a checksum ({}), which dm-integrity keeps",
            integrity.kind
        ));
    }
    let header = &container.header;
    let mut sizes = header.key_sizes.iter();
    let unknown = sizes.find_map(|size| CipherSpec::parse(&header.encryption, *size).err());
    unknown.map(|error| error.to_string())
}

/// What serves a composed file.
#[derive(Debug)]
pub struct Composed {
    /// The ledger has the rest since then.
    since: Mark,
    /// The nodes that the daemon shows over NBD for it.
    exports: Vec<NodeName>,
}

/// Makes an empty file that nobody else may read.
fn create_private(path: &Path) -> io::Result<()> {
    let mut options = File::options();
    options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    Ok(())
}

fn opened(path: &Path) -> Result<(File, Bytes), SessionError> {
    let at = || SessionError::file(path);
    let file = File::open(path).map_err(at())?;
    let size = Bytes::new(file.metadata().map_err(at())?.len());
    Ok((file, size))
}
