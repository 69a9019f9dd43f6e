//! Device-mapper devices of our own, known by their names.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::cmd::{Invocation, Tool};
use crate::engine::kernel::control;
use crate::engine::kernel::wait::{BETWEEN_TRIES, TRIES};
use crate::engine::user::nodes::Access;
use crate::names::MappingName;

/// A device could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    /// The kernel has no device-mapper.
    #[error("this kernel has no device-mapper (modprobe dm-mod loads it where there is one)")]
    NoDeviceMapper,
    /// The kernel refused.
    #[error("the device-mapper device {name} cannot be made")]
    Make {
        /// Its name.
        name: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// What lies under it is in use.
    #[error("the device-mapper device {name} cannot be made: what lies under it is in use")]
    InUse {
        /// Its name.
        name: String,
    },
    /// It is still in use.
    #[error("the device-mapper device {name} cannot be removed: it is in use{}", by(.holders))]
    Busy {
        /// Its name.
        name: String,
        /// The devices that lie on it.
        holders: Vec<String>,
    },
    /// The kernel does not remove it.
    #[error("the device-mapper device {name} cannot be removed")]
    Remove {
        /// Its name.
        name: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

fn by(holders: &[String]) -> String {
    match holders {
        [] => String::new(),
        some => format!(" by {}", some.join(", ")),
    }
}

/// Makes the device `name` with a table, a line a target; gives its node.
///
/// # Errors
/// When the kernel refuses; nothing is left then.
pub fn make(name: &MappingName, table: &str, access: Access) -> Result<PathBuf, MappingError> {
    made(name, Some(&name.uuid()), table, access)
}

/// The same for a device that LVM is to see until [`hide`] is called.
///
/// # Errors
/// As [`make`].
pub fn make_for_lvm(
    name: &MappingName,
    table: &str,
    access: Access,
) -> Result<PathBuf, MappingError> {
    made(name, None, table, access)
}

/// Gives a device its UUID, and so hides it from the host's LVM.
///
/// # Errors
/// When the kernel refuses.
pub fn hide(name: &MappingName) -> Result<(), MappingError> {
    control::set_uuid(name.as_str(), &name.uuid()).map_err(|error| not_made(name, error))
}

fn made(
    name: &MappingName,
    uuid: Option<&str>,
    table: &str,
    access: Access,
) -> Result<PathBuf, MappingError> {
    // A key is shown to nobody.
    let shown = match table.contains(" crypt ") {
        true => "...",
        false => table.trim_end(),
    };
    let by_hand = creation(name, access);
    tracing::debug!(target: "virt_fsck::command", "{by_hand} <<<'{shown}'");
    let failed = |error| not_made(name, error);
    let targets = control::targets(table).map_err(failed)?;
    let node = control::make(name.as_str(), uuid).map_err(failed)?;
    match control::start(name.as_str(), &targets, access == Access::ReadOnly) {
        Ok(()) => Ok(node),
        Err(error) => {
            // The first error is the one to tell; the ledger removes what is left.
            let _later = control::remove(name.as_str());
            Err(failed(error))
        }
    }
}

fn not_made(name: &MappingName, source: io::Error) -> MappingError {
    let name = name.as_str().to_owned();
    match source.kind() {
        io::ErrorKind::ResourceBusy => MappingError::InUse { name },
        _ if !control::is_there() => MappingError::NoDeviceMapper,
        _ => MappingError::Make { name, source },
    }
}

/// Removes a device, if it is there. What is briefly busy is tried again.
///
/// # Errors
/// When it stays busy.
pub async fn remove(name: &MappingName) -> Result<(), MappingError> {
    tracing::debug!(target: "virt_fsck::command", "{}", removal(name));
    for attempt in 1..=TRIES {
        match control::remove(name.as_str()).map_err(|error| (Errno::from_io_error(&error), error))
        {
            Ok(()) | Err((Some(Errno::NXIO | Errno::NOENT), _)) => return Ok(()),
            // A kernel without device-mapper has none of ours.
            Err(_) if !control::is_there() => return Ok(()),
            Err((Some(Errno::BUSY), _)) if attempt < TRIES => {
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
            Err((Some(Errno::BUSY), _)) => break,
            Err((_, source)) => {
                return Err(MappingError::Remove {
                    name: name.as_str().to_owned(),
                    source,
                });
            }
        }
    }
    Err(MappingError::Busy {
        name: name.as_str().to_owned(),
        holders: in_sysfs(name)
            .map(|device| holders(&device))
            .unwrap_or_default(),
    })
}

/// The node of a device, if there is such a device.
pub fn path_of(name: &MappingName) -> Option<PathBuf> {
    Some(Path::new("/dev").join(in_sysfs(name)?.file_name()?))
}

/// The command that makes a device, for those who do it by hand; the table comes on its standard
/// input.
pub fn creation(name: &MappingName, access: Access) -> Invocation {
    let mut call = Invocation::new(Tool::DMSETUP, ["create", name.as_str()]);
    if access == Access::ReadOnly {
        call.arguments.push("--readonly".into());
    }
    call.arguments.push("--uuid".into());
    call.arguments.push(name.uuid().into());
    call
}

/// The command that removes a device.
pub fn removal(name: &MappingName) -> Invocation {
    Invocation::new(Tool::DMSETUP, ["remove", name.as_str()])
}

/// The folder of the device in sysfs, if there is such a device
/// (Documentation/ABI/testing/sysfs-block-dm of Linux).
fn in_sysfs(name: &MappingName) -> Option<PathBuf> {
    let devices = std::fs::read_dir("/sys/block").ok()?.flatten();
    devices.map(|device| device.path()).find(|device| {
        std::fs::read_to_string(device.join("dm/name"))
            .is_ok_and(|found| found.trim_end() == name.as_str())
    })
}

fn holders(device: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(device.join("holders"));
    let entries = entries.into_iter().flatten().flatten();
    entries
        .map(|holder| {
            let name = std::fs::read_to_string(holder.path().join("dm/name"));
            match name {
                Ok(name) => format!("/dev/mapper/{}", name.trim_end()),
                Err(_) => format!("/dev/{}", holder.file_name().to_string_lossy()),
            }
        })
        .collect()
}
