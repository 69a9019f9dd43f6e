//! Volumes and arrays of a guest that only LVM or MD can lay out: what they lie on becomes devices,
//! LVM activates the volumes, MD starts the arrays, and each of these is a disk of its own from then
//! on.

use std::path::Path;

use crate::cause;
use crate::engine::kernel::arrays::{self, ArrayError, on_host};
use crate::engine::kernel::mapping;
use crate::engine::kernel::session::{Session, number_of};
use crate::engine::kernel::volumes::{GuestGroup, active};
use crate::engine::session::{SessionError, Writes};
use crate::engine::shown_disk::ShownDisk;
use crate::engine::user::nodes::Access;
use crate::layers::dormant::{Activation, DormantArray, DormantGroup, DormantId};
use crate::layers::extent::{ExtentMap, ImageIndex};
use crate::ledger::{Ledger, Step};
use crate::names::{self, ArrayName};

/// What LVM made of a volume, or MD of an array, and the disk to read it by.
pub type Opened = (DormantId, Activation, Option<ShownDisk>);

impl Session {
    /// Lets LVM activate the volumes of a group. Activating writes to the group (a RAID notes that
    /// it runs, a thin pool that it was opened), so where nothing may be written LVM gets throw-away
    /// snapshots.
    ///
    /// # Errors
    /// When the devices for LVM cannot be made; what LVM itself refuses is in the answers.
    pub async fn activate(
        &mut self,
        ledger: &mut Ledger,
        dormant: &DormantGroup,
    ) -> Result<Vec<Opened>, SessionError> {
        let (access, writes) = self.may_write(&dormant.members, dormant.read_only);
        let mut devices = Vec::new();
        for member in &dormant.members {
            devices.push(self.physical_volume(ledger, member, writes).await?);
        }
        let encrypted = dormant
            .members
            .iter()
            .any(|member| self.is_encrypted(member));
        let number = ledger.number();
        let group = GuestGroup {
            devices: devices.iter().map(|(_, node)| node.clone()).collect(),
            uuid: dormant.uuid,
            name: dormant.name.clone(),
            folder: names::lvm_folder(ledger.folder()?, number),
        };
        ledger.about_to(Step::GuestGroup {
            group: group.clone(),
        })?;
        let mut opened = Vec::new();
        for volume in &dormant.volumes {
            let activated = match group.activate(&volume.uuid, &volume.name).await {
                Ok(active) => self.add_device(active.device, access, encrypted),
                Err(error) => Err(error.into()),
            };
            opened.push(told(DormantId::Volume(volume.uuid), activated));
        }
        ledger.taken();
        // The host's LVM must not find the guest's volume group on them.
        for (name, _) in &devices {
            mapping::hide(name)?;
        }
        Ok(opened)
    }

    /// Lets MD start an array. It notes in the members that it does, and what it writes; so where
    /// nothing may be written MD gets throw-away snapshots, and starts it for reading only.
    ///
    /// # Errors
    /// When what is half done cannot be taken back; all else is in the answer.
    pub async fn start_array(
        &mut self,
        ledger: &mut Ledger,
        dormant: &DormantArray,
    ) -> Result<Opened, SessionError> {
        let mark = ledger.mark();
        let started = self.started(ledger, dormant).await;
        if started.is_err() {
            ledger.undo_to(mark).await?;
        }
        Ok(told(DormantId::Array(dormant.id), started))
    }

    async fn started(
        &mut self,
        ledger: &mut Ledger,
        dormant: &DormantArray,
    ) -> Result<(ImageIndex, ShownDisk), SessionError> {
        on_host::refuse(dormant.id, Path::new(active::SYSFS))?;
        arrays::load().await?;
        let (access, writes) = self.may_write(&dormant.members, dormant.read_only);
        let mut members = Vec::new();
        for member in &dormant.members {
            let node = self.device_for(ledger, member, writes).await?;
            members.push(number_of(&node)?);
        }
        let mut extents = dormant.members.iter();
        let encrypted = extents.any(|member| self.is_encrypted(member));
        let number = ledger.number();
        let name = ArrayName::numbered(ledger.run()?, number);
        let name = name.ok_or(ArrayError::TooMany)?;
        ledger.about_to(Step::GuestArray { name: name.clone() })?;
        let started = arrays::start(&name, dormant.version, &members, access).await?;
        ledger.taken();
        self.add_array(started, access, encrypted)
    }

    /// Whether what lies on these places may be written to, and so where writes go.
    pub(super) fn may_write(&self, members: &[ExtentMap], read_only: bool) -> (Access, Writes) {
        let mut members = members.iter();
        match !read_only && members.all(|member| self.is_writable(member)) {
            true => (Access::Write, Writes::ToTheDisk),
            false => (Access::ReadOnly, Writes::ToAnOverlay),
        }
    }
}

fn told(id: DormantId, opened: Result<(ImageIndex, ShownDisk), SessionError>) -> Opened {
    match opened {
        Ok((image, disk)) => {
            let size = disk.size();
            (id, Activation::Active { image, size }, Some(disk))
        }
        Err(error) => (id, Activation::Failed(cause::sentence(&error)), None),
    }
}
