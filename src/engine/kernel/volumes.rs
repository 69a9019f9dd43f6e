//! Volumes of a guest that only LVM itself can lay out: thin ones, RAID, mirrors, caches, snapshots.
//!
//! LVM works for us in a folder of its own. Its folder for devices is a file system in memory that
//! only virt-fsck's mount namespace has; it holds the guest's physical volumes and nothing else, so
//! LVM finds no other, asks neither udev nor its list of known devices, and makes its nodes and links
//! there. What it may not do besides stands in [`call`].
//!
//! Names and UUIDs of device-mapper devices are the kernel's, the same for all. So a volume whose
//! name a device of the host has cannot be activated, and a group whose UUID is active here already
//! is not touched.

pub mod active;
pub mod call;

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde::{Deserialize, Serialize};

use crate::cmd::{CmdError, Invocation, Tool};
use crate::engine::kernel::table::DeviceNumber;
use crate::engine::kernel::volumes::active::{Mapped, Standing};
use crate::engine::kernel::wait::{BETWEEN_TRIES, TRIES};
use crate::layers::lvm::identity::{LogicalVolumeId, VolumeGroupId};

/// A volume group of a guest, and all that is needed to take back what LVM made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestGroup {
    /// Devices of ours that show its physical volumes, all of them.
    pub devices: Vec<PathBuf>,
    /// Its UUID.
    #[serde(with = "uuid_text")]
    pub uuid: VolumeGroupId,
    /// Its name.
    pub name: String,
    /// The folder LVM works in: private to the run, and made and removed here.
    pub folder: PathBuf,
}

/// A volume that can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveVolume {
    /// The kernel's node of its device: `/dev/dm-5`.
    pub device: PathBuf,
    /// What was left out, for the report: whole sentences without a full stop.
    pub notes: Vec<String>,
}

/// Volumes could not be activated or deactivated.
#[derive(Debug, thiserror::Error)]
pub enum VolumesError {
    /// The folder or a device of ours gives trouble.
    #[error("{path}")]
    File {
        /// Which.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The host has a device of that name.
    #[error(
        "the volume {volume} cannot be activated: this host has a device /dev/mapper/{taken} \
         already, and the kernel gives a name only once"
    )]
    NameTaken {
        /// `group/volume` of the guest.
        volume: String,
        /// The device's name.
        taken: String,
    },
    /// The host has the same group, or a copy of it, active.
    #[error(
        "the volume group {group} cannot be activated: one with the same UUID is active on this \
         host, as /dev/mapper/{active}"
    )]
    GroupActive {
        /// The group's name in the guest.
        group: String,
        /// A device of the host's.
        active: String,
    },
    /// LVM refuses.
    #[error("LVM does not activate the volume {volume}: {said}")]
    Refused {
        /// `group/volume`.
        volume: String,
        /// What it said.
        said: String,
    },
    /// LVM reported success, but there is no such device.
    #[error("LVM activated the volume {volume}, but its device did not appear")]
    NoDevice {
        /// `group/volume`.
        volume: String,
    },
    /// LVM or dmsetup could not be run.
    #[error(transparent)]
    Tool(#[from] CmdError),
    /// A device stays in use.
    #[error("the device /dev/mapper/{name} of the volume group {group} cannot be removed: {said}")]
    Busy {
        /// Its name.
        name: String,
        /// The group's name.
        group: String,
        /// What dmsetup said.
        said: String,
    },
}

impl VolumesError {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::File { path, source }
    }
}

impl GuestGroup {
    /// Activates one volume, and whatever LVM needs for it: a snapshot brings its origin with it, an
    /// origin its snapshots. Where that fails, what it has left half done is taken back; volumes
    /// activated before stay.
    ///
    /// # Errors
    /// [`VolumesError`].
    pub async fn activate(
        &self,
        volume: &LogicalVolumeId,
        name: &str,
    ) -> Result<ActiveVolume, VolumesError> {
        let full_name = format!("{}/{name}", self.name);
        let before = self.standing()?;
        self.refuse_foreign(&before)?;
        if let Some(device) = before
            .ours
            .iter()
            .find(|device| device.is(self.uuid, *volume))
        {
            return Ok(opened(device, Vec::new()));
        }
        self.prepare()?;
        let activated = self.activated(*volume, name, &full_name).await;
        if activated.is_err() {
            // That the volume is not active is what must be told, not what is left of it: that
            // deactivation tells.
            let _told_later = self.remove_beyond(&before).await;
        }
        activated
    }

    async fn activated(
        &self,
        volume: LogicalVolumeId,
        name: &str,
        full_name: &str,
    ) -> Result<ActiveVolume, VolumesError> {
        let said = match call::activation(self, name).capture().await {
            Ok(captured) => captured.stderr,
            Err(error) => return Err(explained(full_name, error)),
        };
        let after = self.standing()?;
        self.refuse_foreign(&after)?;
        match after
            .ours
            .iter()
            .find(|device| device.is(self.uuid, volume))
        {
            Some(device) => Ok(opened(device, call::notes(&said))),
            None => Err(VolumesError::NoDevice {
                volume: full_name.to_owned(),
            }),
        }
    }

    /// Removes every device of the group that lies on our devices, and LVM's folder. Nothing that is
    /// gone already is missed, so it may be called at any time, also by a later run.
    ///
    /// It needs neither LVM nor the guest's metadata, and never touches a device of the same group
    /// that lies elsewhere.
    ///
    /// # Errors
    /// When a device stays in use, or the folder cannot be removed.
    pub async fn deactivate(&self) -> Result<(), VolumesError> {
        self.remove_beyond(&Standing::default()).await?;
        self.clear()
    }

    fn standing(&self) -> Result<Standing, VolumesError> {
        let sysfs = Path::new(active::SYSFS);
        let devices = active::devices(sysfs).map_err(VolumesError::at(sysfs))?;
        // A device of ours that is gone carries nothing.
        let numbers = self
            .devices
            .iter()
            .filter_map(|path| DeviceNumber::of(path).ok());
        let ours: Vec<String> = numbers
            .filter_map(|number| active::kernel_name(sysfs, number))
            .collect();
        Ok(active::standing(devices, self.uuid, &ours))
    }

    fn refuse_foreign(&self, standing: &Standing) -> Result<(), VolumesError> {
        match standing.foreign.first() {
            None => Ok(()),
            Some(device) => Err(VolumesError::GroupActive {
                group: self.name.clone(),
                active: device.name.clone(),
            }),
        }
    }

    /// Removes our devices of the group that were not there `before`, those on top first.
    async fn remove_beyond(&self, before: &Standing) -> Result<(), VolumesError> {
        let mut attempt = 0;
        loop {
            let mut left = self.standing()?.ours;
            left.retain(|device| !before.has(device));
            if left.is_empty() {
                return Ok(());
            }
            let (top, progress) = (active::on_top(&left), left.len());
            let mut outcome = Ok(());
            for device in top {
                let removed = removal(&device.uuid).capture().await;
                outcome = outcome.and(removed.map(drop).map_err(|error| VolumesError::Busy {
                    name: device.name.clone(),
                    group: self.name.clone(),
                    said: busy_words(device, &error),
                }));
            }
            let mut after = self.standing()?.ours;
            after.retain(|device| !before.has(device));
            if after.len() < progress {
                continue;
            }
            attempt += 1;
            if attempt >= TRIES {
                let name = left.first().map(|device| device.name.clone());
                return outcome.and(Err(VolumesError::Busy {
                    name: name.unwrap_or_default(),
                    group: self.name.clone(),
                    said: "another device lies on it".to_owned(),
                }));
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
    }

    fn prepare(&self) -> Result<(), VolumesError> {
        let devices = self.device_folder();
        for folder in [&self.folder, &devices, &call::lock_folder(&self.folder)] {
            let mut builder = fs::DirBuilder::new();
            let made = builder.recursive(true).mode(0o700).create(folder);
            made.map_err(VolumesError::at(folder))?;
        }
        if !is_mount_point(&devices).map_err(VolumesError::at(&devices))? {
            // /run is mounted so that devices cannot be opened there, and here they are.
            let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
            let options = c"mode=700,size=1m";
            mount("virt-fsck", &devices, "tmpfs", flags, Some(options))
                .map_err(|error| VolumesError::at(&devices)(error.into()))?;
        }
        for (index, device) in self.devices.iter().enumerate() {
            let link = devices.join(call::link_name(index));
            match symlink(device, &link) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(VolumesError::at(&link)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn clear(&self) -> Result<(), VolumesError> {
        let devices = self.device_folder();
        if is_mount_point(&devices).unwrap_or(false) {
            unmount(&devices, UnmountFlags::NOFOLLOW)
                .map_err(|error| VolumesError::at(&devices)(error.into()))?;
        }
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(VolumesError::at(&self.folder)(error))
            }
            _ => Ok(()),
        }
    }

    fn device_folder(&self) -> PathBuf {
        call::device_folder(&self.folder)
    }
}

/// What LVM's failure means.
fn explained(volume: &str, error: CmdError) -> VolumesError {
    let CmdError::Failed { stderr, status, .. } = &error else {
        return error.into();
    };
    let volume = volume.to_owned();
    let all = active::devices(Path::new(active::SYSFS)).unwrap_or_default();
    let is_there = |name: &&str| all.iter().any(|device| device.name == *name);
    if let Some(taken) = call::name_in_use(stderr).filter(is_there) {
        return VolumesError::NameTaken {
            volume,
            taken: taken.to_owned(),
        };
    }
    let said = match call::reason(stderr) {
        said if said.is_empty() => format!("it ended with {status} and said nothing"),
        said => said,
    };
    VolumesError::Refused { volume, said }
}

/// The kernel itself makes the node before it tells anybody of the device (drivers/base/devtmpfs.c).
fn opened(device: &Mapped, notes: Vec<String>) -> ActiveVolume {
    ActiveVolume {
        device: Path::new("/dev").join(&device.kernel_name),
        notes,
    }
}

/// The call that removes a device. Its UUID names it for certain: the kernel has each only once.
fn removal(uuid: &str) -> Invocation {
    Invocation::new(Tool::DMSETUP, ["remove", "--uuid", uuid]).without_udev()
}

fn busy_words(device: &Mapped, error: &CmdError) -> String {
    match (error, device.holders.as_slice()) {
        (CmdError::Failed { .. }, []) => "it is in use".to_owned(),
        (CmdError::Failed { .. }, holders) => format!("it is in use by {}", holders.join(", ")),
        (other, _) => other.to_string(),
    }
}

/// Whether something is mounted there: it is on another device than the folder it is in.
fn is_mount_point(folder: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let parent = folder.parent().unwrap_or(folder);
    Ok(fs::symlink_metadata(folder)?.dev() != fs::symlink_metadata(parent)?.dev())
}

/// A group's UUID in the ledger.
mod uuid_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::layers::lvm::identity::VolumeGroupId;

    pub(super) fn serialize<S: Serializer>(
        uuid: &VolumeGroupId,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(uuid)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<VolumeGroupId, D::Error> {
        let text = String::deserialize(deserializer)?;
        VolumeGroupId::parse(&text)
            .ok_or_else(|| D::Error::custom("not the UUID of a volume group"))
    }
}

#[cfg(test)]
mod tests;
