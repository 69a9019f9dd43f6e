//! Arrays of a guest that only MD itself can put together, started and stopped through the kernel's
//! own interface (Documentation/admin-guide/md.rst of Linux, "MD devices in sysfs").
//!
//! mdadm(8) is not needed: it would look for the host's configuration, note the array in its map, and
//! wait for udev to make links. And whoever starts an array as it does has udev's rules look into it:
//! they would make links to a guest's filesystems, and activate a guest's volume groups. udev's lock
//! does not hold for MD, and no flag tells its rules to leave a device alone. So the array's node is
//! removed from /dev before there is anything in it: udev, mdadm and LVM find nothing to open. We have
//! it open, and device-mapper takes it by its number. Until somebody has opened it once it also has no
//! length (`array_size`), so that the kernel, which looks for partitions then, finds none; that it gets
//! its length afterwards is no event (`set_capacity_and_notify` in block/genhd.c).
//!
//! The array's name is one of ours, so that nothing else is ever stopped.

mod map;
pub mod on_host;
mod sysfs;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use crate::cmd::{CmdError, Invocation, Tool};
use crate::engine::kernel::table::DeviceNumber;
use crate::engine::kernel::wait::{self, BETWEEN_TRIES, TRIES};
use crate::engine::user::nodes::Access;
use crate::layers::md::Version;
use crate::names::ArrayName;

/// The kernel's parameter by which an array is made (`add_named_array` in drivers/md/md.c).
const NEW_ARRAY: &str = "/sys/module/md_mod/parameters/new_array";

/// How long an array may take to appear, or to go.
const CHANGE: Duration = Duration::from_secs(10);

/// An array could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ArrayError {
    /// The kernel has no MD.
    #[error("this kernel has no MD, which puts arrays together")]
    NoMd(#[source] CmdError),
    /// It has, but not all that is needed.
    #[error("this kernel's MD cannot be told to make an array ({path})")]
    NoParameter {
        /// What is not there.
        path: &'static str,
    },
    /// The kernel did not make the array.
    #[error("MD does not make the array {name}")]
    Make {
        /// Its name.
        name: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It was made, but did not appear.
    #[error("MD made the array {0}, but it did not appear")]
    NoDevice(String),
    /// The run has done so much that the kernel would not take the array's name.
    #[error("the array can have no name of its own: this run has taken too many steps")]
    TooMany,
    /// A member was not taken.
    #[error("MD does not take the member {member} ({cause}); the kernel's log says why")]
    Member {
        /// The device that shows it.
        member: String,
        /// The cause.
        cause: io::Error,
    },
    /// The array was not started.
    #[error("MD does not start it ({0}); the kernel's log says why")]
    Start(io::Error),
    /// A setting was not taken.
    #[error("MD does not take {value} for {setting} of the array ({cause})")]
    Setting {
        /// The setting's file.
        setting: &'static str,
        /// The value.
        value: String,
        /// The cause.
        cause: io::Error,
    },
    /// The host has the same array.
    #[error(
        "an array with the same UUID is active on this host, as /dev/{device}; stop that one, then \
         check again"
    )]
    ActiveOnHost {
        /// Its device.
        device: String,
    },
    /// sysfs cannot be read, or the device cannot be opened.
    #[error("{path}")]
    File {
        /// Which.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It stays in use.
    #[error("the array /dev/{name} cannot be stopped: {said}")]
    Busy {
        /// Its name.
        name: String,
        /// Why.
        said: String,
    },
}

impl ArrayError {
    pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::File { path, source }
    }
}

/// Makes sure that the kernel has MD. Its modules stay, as those do that LVM has the kernel load.
///
/// # Errors
/// When modprobe does not find it.
pub async fn load() -> Result<(), ArrayError> {
    let is_there = || Path::new(NEW_ARRAY).exists();
    if !is_there() {
        let loading = Invocation::new(Tool::MODPROBE, ["md_mod"]);
        loading.capture().await.map_err(ArrayError::NoMd)?;
    }
    match is_there() {
        true => Ok(()),
        false => Err(ArrayError::NoParameter { path: NEW_ARRAY }),
    }
}

/// An array that runs.
#[derive(Debug)]
pub struct Started {
    /// Where its node was.
    pub node: PathBuf,
    /// By what device-mapper knows it.
    pub number: DeviceNumber,
    /// Its bytes.
    pub file: File,
}

/// Starts an array of these members, for reading only unless `access` says otherwise.
/// One for writing is written to by MD only when somebody else writes, too (`read-auto`).
///
/// What is half done when it fails [`stop`] takes back.
///
/// # Errors
/// [`ArrayError`].
pub async fn start(
    name: &ArrayName,
    version: Version,
    members: &[DeviceNumber],
    access: Access,
) -> Result<Started, ArrayError> {
    let shown: Vec<String> = members.iter().map(ToString::to_string).collect();
    tracing::debug!(
        target: "virt_fsck::command",
        "# MD: {} of the devices {}", name.as_str(), shown.join(" ")
    );
    std::fs::write(NEW_ARRAY, name.as_str()).map_err(|source| ArrayError::Make {
        name: name.as_str().to_owned(),
        source,
    })?;
    let array = sysfs::Array::of(name);
    let node = Path::new("/dev").join(name.as_str());
    if !wait::until(CHANGE, || array.is_there() && node.exists()).await {
        return Err(ArrayError::NoDevice(name.as_str().to_owned()));
    }
    let file = File::open(&node).map_err(ArrayError::at(&node))?;
    let number = DeviceNumber::of(&node).map_err(ArrayError::at(&node))?;
    std::fs::remove_file(&node).map_err(ArrayError::at(&node))?;
    let set = |setting: &'static str, value: &str| {
        array
            .set(setting, value)
            .map_err(|cause| ArrayError::Setting {
                setting,
                value: value.to_owned(),
                cause,
            })
    };
    set("metadata_version", version.name())?;
    for member in members {
        let taken = array.set("new_dev", &member.to_string());
        taken.map_err(|cause| ArrayError::Member {
            member: member.to_string(),
            cause,
        })?;
    }
    set("array_size", "0")?;
    let state = match access {
        Access::Write => "read-auto",
        Access::ReadOnly => "readonly",
    };
    array.set("array_state", state).map_err(ArrayError::Start)?;
    // The first who opens it then has the kernel look for partitions.
    let again = Path::new("/proc/self/fd").join(file.as_raw_fd().to_string());
    drop(File::open(&again).map_err(ArrayError::at(&again))?);
    set("array_size", "default")?;
    Ok(Started { node, number, file })
}

/// Stops an array, if it is there, and has MD write down that it was stopped. What is briefly busy is
/// tried again.
///
/// # Errors
/// When it stays busy.
pub async fn stop(name: &ArrayName) -> Result<(), ArrayError> {
    let array = sysfs::Array::of(name);
    let busy = |said: String| ArrayError::Busy {
        name: name.as_str().to_owned(),
        said,
    };
    tracing::debug!(target: "virt_fsck::command", "mdadm --stop /dev/{}", name.as_str());
    for attempt in 1..=TRIES {
        if !array.is_there() {
            break;
        }
        let stopped = array.set("array_state", "clear");
        match stopped.map_err(|error| (Errno::from_io_error(&error), error)) {
            Ok(()) => break,
            Err((Some(Errno::NOENT | Errno::NODEV | Errno::NXIO), _)) => break,
            Err((Some(Errno::BUSY), _)) if attempt < TRIES => {
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
            Err((Some(Errno::BUSY), _)) => {
                return Err(busy(match array.holders().as_slice() {
                    [] => "it is in use".to_owned(),
                    holders => format!("it is in use by {}", holders.join(", ")),
                }));
            }
            Err((_, error)) => return Err(busy(error.to_string())),
        }
    }
    match wait::until(CHANGE, || !array.is_there()).await {
        true => map::forget(Path::new(map::FOLDER), name),
        false => Err(busy("it was stopped, but does not go".to_owned())),
    }
}
