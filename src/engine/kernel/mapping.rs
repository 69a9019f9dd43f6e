//! Device-mapper devices of our own, made and removed by dmsetup(8).
//!
//! With `DM_DISABLE_UDEV=1` libdevmapper makes the node itself, and udev's rules, which know a
//! finished device by what libdevmapper tells them of it, neither scan it for LVM and MD nor keep it
//! open when it is to be removed (udev/10-dm.rules.in and 69-dm-lvm.rules.in of LVM2).

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cmd::{CmdError, Invocation, Tool};
use crate::engine::user::nodes::Access;
use crate::names::MappingName;

/// How often a device that is busy is tried again, and after how long: whoever looks at a device
/// that has just appeared is done within moments.
const TRIES: u32 = 50;
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// A device could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    /// The kernel has no device-mapper.
    #[error("this kernel has no device-mapper ({0})")]
    NoDeviceMapper(String),
    /// dmsetup refused.
    #[error("the device {name} cannot be made")]
    Make {
        /// Its name.
        name: String,
        /// The cause.
        #[source]
        source: CmdError,
    },
    /// It is still in use.
    #[error("the device {name} cannot be removed: it is in use{}", by(.holders))]
    Busy {
        /// Its name.
        name: String,
        /// The devices that lie on it.
        holders: Vec<String>,
    },
    /// dmsetup does not remove it.
    #[error("the device {name} cannot be removed")]
    Remove {
        /// Its name.
        name: String,
        /// The cause.
        #[source]
        source: CmdError,
    },
}

fn by(holders: &[String]) -> String {
    match holders {
        [] => String::new(),
        some => format!(" by {}", some.join(", ")),
    }
}

/// Makes the device `name` with a table, a line a target.
///
/// # Errors
/// When dmsetup or the kernel refuses.
pub async fn make(name: &MappingName, table: &str, access: Access) -> Result<(), MappingError> {
    made(name, &creation(name, access), table).await
}

/// The same for a device that LVM is to see until [`hide`] is called.
///
/// # Errors
/// As [`make`].
pub async fn make_for_lvm(
    name: &MappingName,
    table: &str,
    access: Access,
) -> Result<(), MappingError> {
    made(name, &creation_without_uuid(name, access), table).await
}

/// Gives a device its UUID, and so hides it from the host's LVM.
///
/// # Errors
/// When dmsetup refuses.
pub async fn hide(name: &MappingName) -> Result<(), MappingError> {
    let uuid = name.uuid();
    let call = Invocation::new(Tool::DMSETUP, ["rename", name.as_str(), "--setuuid", &uuid]);
    let renamed = call.without_udev().capture().await;
    renamed.map(|_| ()).map_err(|source| MappingError::Make {
        name: name.as_str().to_owned(),
        source,
    })
}

async fn made(name: &MappingName, creation: &Invocation, table: &str) -> Result<(), MappingError> {
    match creation.capture_with_input(table.as_bytes()).await {
        Ok(_) => Ok(()),
        Err(source) if !Path::new("/dev/mapper/control").exists() => Err(
            MappingError::NoDeviceMapper(crate::cause::sentence(&source)),
        ),
        Err(source) => Err(MappingError::Make {
            name: name.as_str().to_owned(),
            source,
        }),
    }
}

/// The call that makes a device; the table comes on its standard input.
pub fn creation(name: &MappingName, access: Access) -> Invocation {
    let mut call = creation_without_uuid(name, access);
    call.arguments.push("--uuid".into());
    call.arguments.push(name.uuid().into());
    call
}

fn creation_without_uuid(name: &MappingName, access: Access) -> Invocation {
    let mut call = Invocation::new(Tool::DMSETUP, ["create", name.as_str()]);
    if access == Access::ReadOnly {
        call.arguments.push("--readonly".into());
    }
    call.without_udev()
}

/// The call that removes a device.
pub fn removal(name: &MappingName) -> Invocation {
    Invocation::new(Tool::DMSETUP, ["remove", name.as_str()]).without_udev()
}

/// Removes a device, if it is there. What is briefly busy is tried again.
///
/// # Errors
/// When it stays busy.
pub async fn remove(name: &MappingName) -> Result<(), MappingError> {
    let mut outcome = Ok(());
    for attempt in 0..TRIES {
        if attempt > 0 {
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
        let Some(device) = in_sysfs(name) else {
            return Ok(());
        };
        outcome = match removal(name).capture().await {
            Ok(_) => return Ok(()),
            Err(_) if is_open(&device) => Err(MappingError::Busy {
                name: name.as_str().to_owned(),
                holders: holders(&device),
            }),
            Err(source) => Err(MappingError::Remove {
                name: name.as_str().to_owned(),
                source,
            }),
        };
    }
    outcome
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
    let entries = std::fs::read_dir(device.join("holders"))
        .into_iter()
        .flatten()
        .flatten();
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

/// Whether somebody has it open: opening it exclusively is the kernel's own way to ask.
fn is_open(device: &Path) -> bool {
    use std::os::unix::fs::OpenOptionsExt;
    let Some(name) = device.file_name() else {
        return false;
    };
    let exclusive = i32::try_from(rustix::fs::OFlags::EXCL.bits()).unwrap_or_default();
    std::fs::File::options()
        .read(true)
        .custom_flags(exclusive)
        .open(Path::new("/dev").join(name))
        .is_err()
}
