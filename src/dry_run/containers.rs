//! Encrypted containers in a plan: what lies in them, and how the kernel engine opens them.

use crate::cmd::Invocation;
use crate::cmd::tool::quoted;
use crate::dry_run::kernel::{Commands, disk_variable};
use crate::dry_run::plan::{Plan, PlannedDisk};
use crate::engine::kernel::table;
use crate::engine::user::nodes::Access;
use crate::keys::cryptsetup::CRYPTSETUP;
use crate::layers::dormant::Opener;
use crate::layers::extent::{ExtentMap, ImageIndex};
use crate::layers::tree::{Content, Layer};
use crate::names::{MappingName, MappingRole};

impl<'a> Plan<'a> {
    /// The container whose inside is this image; `None` if it is none that was opened.
    pub(super) fn container(&self, image: ImageIndex) -> Option<&'a Layer> {
        let number = image.0.checked_sub(self.disks.len())?;
        self.looked
            .opened
            .get(number)
            .filter(|opened| opened.by == Opener::Luks)?;
        let inside = |layer: &Layer| layer.children.first()?.extents.single();
        let layers = self.looked.layers.iter().flat_map(Layer::walk);
        layers.into_iter().find(|layer| {
            matches!(layer.content, Content::Luks { .. })
                && inside(layer).is_some_and(|inside| inside.image == image)
        })
    }

    /// Whether a layer lies in a container.
    pub(super) fn is_decrypted(&self, extents: &ExtentMap) -> bool {
        let mut places = extents.places();
        places.any(|extent| self.container(extent.image).is_some())
    }

    /// The disks below these places, each once.
    pub(super) fn disks_below(&self, extents: &ExtentMap) -> Vec<(ImageIndex, PlannedDisk<'a>)> {
        let disks = self.looked.disks_of(extents).into_iter();
        disks
            .filter_map(|image| Some((image, (*self.disks.get(image.0)?)?)))
            .collect()
    }

    /// The commands that open the containers below these places, those that others lie in first; a
    /// variable has each one's device.
    ///
    /// # Errors
    /// Why there are none.
    pub(super) fn add_containers(
        &self,
        commands: &mut Commands,
        extents: &ExtentMap,
        access: Access,
        added: &mut Vec<ImageIndex>,
    ) -> Result<(), String> {
        for extent in extents.places() {
            let image = extent.image;
            if added.contains(&image) || self.disks.get(image.0).is_some() {
                continue;
            }
            added.push(image);
            let layer = self.container(image).ok_or_else(|| {
                "it lies in what LVM or MD opens, which no command here does".to_owned()
            })?;
            self.add_containers(commands, &layer.extents, access, added)?;
            let device = |image| Some(disk_variable(image));
            let table = table::table(&layer.extents, device).map_err(|error| error.to_string())?;
            let name = MappingName::numbered(&self.run, MappingRole::Disk, image.0);
            let closed = self.mapped_as(commands, &name, &table, access);
            let name = MappingName::numbered(&self.run, MappingRole::Container, image.0);
            let mut open = Invocation::new(CRYPTSETUP, ["open", "--type", "luks"]);
            if access == Access::ReadOnly {
                open.arguments.push("--readonly".into());
            }
            if let Some(header) = self.headers.get(layer.path.as_str()) {
                let file = header.file.clone();
                open.arguments.extend(["--header".into(), file.into()]);
            }
            let words = ["--".into(), closed.into(), name.as_str().into()];
            open.arguments.extend(words);
            let close = Invocation::new(CRYPTSETUP, ["close", name.as_str()]);
            let node = name.path();
            commands.add(
                format!(
                    "{open}; disk{}={}  # asks for the passphrase of {}",
                    image.0,
                    quoted(node.as_os_str()),
                    layer.path
                ),
                close.to_string(),
            );
        }
        Ok(())
    }
}
