//! What lies behind the host's loop devices.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use rustix::fs::OFlags;

use crate::engine::kernel::loops::behind;
use crate::guard::sysfs::{Device, Sysfs};
use crate::reach::identity::{self, Identity};

/// A loop device that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looped {
    /// The device.
    pub device: Device,
    /// What lies behind it.
    pub behind: Identity,
    /// The path that whoever attached it gave.
    pub path: PathBuf,
}

/// All loop devices of the host behind which something is known to lie.
pub fn of_this_host(sysfs: &Sysfs) -> Vec<Looped> {
    sysfs.loops().into_iter().filter_map(looped).collect()
}

/// The driver tells the very file, also where its path leads elsewhere by now, or is one of another
/// mount namespace; the path is for those who may not ask the driver.
fn looped(device: Device) -> Option<Looped> {
    let path = device.backing_path()?;
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let opened = File::options()
        .read(true)
        .custom_flags(flags)
        .open(&device.node);
    let told = opened.ok().and_then(|opened| behind(&opened));
    let by_path = || identity::identify(&path).ok().map(|(identity, _)| identity);
    let behind = told.or_else(by_path)?;
    Some(Looped {
        device,
        behind,
        path,
    })
}
