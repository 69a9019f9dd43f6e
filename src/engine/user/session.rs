//! The storage daemon with a domain's disks; and each filesystem, shown while it is checked.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::engine::overlay_key;
use crate::engine::session::{DiskToOpen, SessionError, Shown, ShownDisk, Writes, make_folder};
use crate::engine::user::daemon::{Daemon, Export};
use crate::engine::user::nodes::{self, Access};
use crate::layers::extent::{ExtentMap, ImageIndex};
use crate::layers::tree::LayerPath;
use crate::ledger::{Ledger, Mark, Step};
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
    /// The disks that lie on encrypted storage.
    encrypted: Vec<ImageIndex>,
    overlaid: Vec<ImageIndex>,
    exposed: usize,
}

impl Session {
    /// Starts the storage daemon.
    ///
    /// # Errors
    /// When it, or a folder for its mount points, is not to be had; nothing is left then.
    pub async fn start(ledger: &mut Ledger, state_base: &Path) -> Result<Self, SessionError> {
        let begun = ledger.mark();
        match Self::try_start(ledger, state_base, begun).await {
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
            encrypted: Vec::new(),
            overlaid: Vec::new(),
            exposed: 0,
        })
    }

    /// Opens a disk's images, with their locks, and shows the disk for reading.
    ///
    /// # Errors
    /// When an image cannot be opened, or somebody else has it open.
    pub async fn open(&mut self, disk: DiskToOpen<'_>) -> Result<ShownDisk, SessionError> {
        let top = disk.chain.top.path.display().to_string();
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

    /// Shows a filesystem that lies in one extent of a disk.
    ///
    /// # Errors
    /// When the overlay cannot be made or the daemon refuses.
    pub async fn show(
        &mut self,
        ledger: &mut Ledger,
        layer: &LayerPath,
        extents: &ExtentMap,
        writes: Writes,
    ) -> Result<Shown, SessionError> {
        let pieces = || SessionError::Pieces(extents.places().count());
        let extent = extents.single().ok_or_else(pieces)?;
        let below = match writes {
            Writes::ToTheDisk => NodeName::disk(extent.image),
            Writes::ToAnOverlay => self.overlay(ledger, extent.image).await?,
        };
        self.exposed += 1;
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
        let number = ledger.number();
        let folder = names::overlay_folder(&self.state_base, ledger.run()?, number);
        make_folder(ledger, &folder)?;
        let file = names::overlay_file(&folder, image);
        ledger.about_to(Step::File { path: file.clone() })?;
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| SessionError::Overlay {
            path: file.display().to_string(),
            source,
        };
        let created = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file);
        created.map_err(|error| failed(error.into()))?;
        ledger.taken();
        let name = NodeName::overlay_key(image);
        let key = self.encrypted.contains(&image).then_some(&name);
        if key.is_some() {
            let secret = overlay_key::random()?;
            self.daemon.add_secret(&name, &secret).await?;
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

fn opened(path: &Path) -> Result<(File, Bytes), SessionError> {
    let at = || SessionError::file(path);
    let file = File::open(path).map_err(at())?;
    let size = Bytes::new(file.metadata().map_err(at())?.len());
    Ok((file, size))
}
