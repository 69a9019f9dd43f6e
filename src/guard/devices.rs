//! The block devices of this host, as they are at one moment.

use crate::guard::loops::{self, Looped};
use crate::guard::sysfs::Sysfs;

/// What is asked of the host once for all images: to look at every loop device for each of many
/// takes longer than all else.
#[derive(Clone, Debug)]
pub struct Devices {
    /// All of them.
    pub sysfs: Sysfs,
    /// The loop devices that are in use.
    pub loops: Vec<Looped>,
}

impl Devices {
    /// Those of now.
    pub fn now() -> Self {
        let sysfs = Sysfs::of_this_host();
        let loops = loops::of_this_host(&sysfs);
        Self { sysfs, loops }
    }
}
