//! The arrays that the host itself has.

use std::fs::File;
use std::path::Path;

use super::ArrayError;
use crate::engine::kernel::session::device_size;
use crate::engine::shown_disk::ShownDisk;
use crate::layers::md::{self, ArrayId};
use crate::names::ArrayName;
use crate::units::Bytes;

/// Refuses an array whose UUID one of the host's has: a guest's disk that the host has put together
/// itself, or a copy of one of its own.
///
/// # Errors
/// [`ArrayError::ActiveOnHost`].
pub fn refuse(id: ArrayId, sysfs: &Path) -> Result<(), ArrayError> {
    let devices = std::fs::read_dir(sysfs.join("block")).map_err(ArrayError::at(sysfs))?;
    for device in devices.flatten() {
        let name = device.file_name().to_string_lossy().into_owned();
        let is_array = device.path().join("md").is_dir() && !ArrayName::is_ours(&name);
        if is_array && members(&device.path()).any(|member| array_of(&member) == Some(id)) {
            return Err(ArrayError::ActiveOnHost { device: name });
        }
    }
    Ok(())
}

/// The kernel's names of the devices that an array has.
fn members(array: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(array.join("slaves"));
    let entries = entries.into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// The array that a device says it belongs to; that MD tells itself only newer kernels.
fn array_of(member: &str) -> Option<ArrayId> {
    let node = Path::new("/dev").join(member.replace('!', "/"));
    let size = device_size(&node).ok()?;
    let layer = ShownDisk::new(File::open(&node).ok()?, Bytes::ZERO, size);
    md::read(&layer)
        .ok()
        .flatten()
        .map(|superblock| superblock.array)
}
