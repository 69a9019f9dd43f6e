//! Volumes of a guest that only LVM can lay out: the physical volumes become devices, LVM activates
//! the volumes, and each of these is a disk of its own from then on.

use crate::cause;
use crate::engine::kernel::mapping;
use crate::engine::kernel::session::Session;
use crate::engine::kernel::volumes::GuestGroup;
use crate::engine::session::{SessionError, ShownDisk, Writes};
use crate::engine::user::nodes::Access;
use crate::layers::dormant::{Activation, DormantGroup};
use crate::layers::lvm::LogicalVolumeId;
use crate::ledger::{Ledger, Step};
use crate::names;

/// What LVM made of a volume, and the disk to read it by.
pub type Opened = (LogicalVolumeId, Activation, Option<ShownDisk>);

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
        let mut members = dormant.members.iter();
        let writable = !dormant.read_only && members.all(|member| self.is_writable(member));
        let access = Access::of(writable);
        let writes = match writable {
            true => Writes::ToTheDisk,
            false => Writes::ToAnOverlay,
        };
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
            opened.push(match activated {
                Ok((image, disk)) => {
                    let size = disk.size();
                    (volume.uuid, Activation::Active { image, size }, Some(disk))
                }
                Err(error) => {
                    let cause = cause::sentence(&error);
                    (volume.uuid, Activation::Failed(cause), None)
                }
            });
        }
        ledger.taken();
        // The host's LVM must not find the guest's volume group on them.
        for (name, _) in &devices {
            mapping::hide(name)?;
        }
        Ok(opened)
    }
}
