//! The host itself: a device that it has mounted or built upon, an image behind a loop device.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::reach::chain::Chain;
use crate::reach::identity::{self, Identity, Kind};

/// Devices held so that the host can neither mount them nor build upon them meanwhile.
#[derive(Debug, Default)]
#[must_use = "the claim ends when it is dropped"]
pub struct HostClaim {
    devices: Vec<File>,
}

impl HostClaim {
    /// Lets go of the devices, for an engine that holds them in a way of its own from here on.
    pub fn release(&mut self) {
        self.devices.clear();
    }
}

/// Claims what the guest may write, for as long as the claim is kept.
///
/// A block device opened with `O_EXCL` is the kernel's own way to ask: it fails while the device,
/// or a partition of it, is mounted in any mount namespace, swapped to, or part of a
/// device-mapper or MD device, and it keeps the kernel from doing so until it is closed (open(2)).
/// QEMU opens devices without it, so a running guest is not seen here.
///
/// # Errors
/// Why it must not be touched, with the way out.
pub fn claim(chain: &Chain) -> Result<HostClaim, String> {
    let top = std::iter::once((&chain.top.path, chain.top.kind, chain.top.identity));
    let data = chain.top.data_file.iter();
    let data = data.map(|file| (&file.path, file.kind, file.identity));
    let mut claim = HostClaim::default();
    for (path, kind, identity) in top.chain(data) {
        // A loop device does not hold what lies under it, whether file or device.
        refuse_looped(path, identity)?;
        if kind == Kind::BlockDevice {
            claim.devices.extend(exclusive(path)?);
        }
    }
    Ok(claim)
}

fn exclusive(path: &Path) -> Result<Option<File>, String> {
    let flags = i32::try_from(OFlags::EXCL.bits()).unwrap_or_default();
    match File::options().read(true).custom_flags(flags).open(path) {
        Ok(device) => Ok(Some(device)),
        Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => Err(format!(
            "{path} is in use by this host: it is mounted, swap, or part of another device; \
             lsblk {path} shows of which",
            path = path.display()
        )),
        // Without the right to open it, what comes next says so.
        Err(_) => Ok(None),
    }
}

fn refuse_looped(path: &Path, image: Identity) -> Result<(), String> {
    let family = family(image);
    let is_ours = |file: &Path| {
        identity::identify(file).is_ok_and(|(identity, _)| family.contains(&identity))
    };
    match looped().find(|(_, backing)| is_ours(backing)) {
        Some((device, _)) => Err(format!(
            "{} is in use by this host: the loop device {device} lies over it; \
             losetup -d {device} detaches it when nothing uses it",
            path.display()
        )),
        None => Ok(()),
    }
}

/// What shares bytes with an image: itself, and for a device its partitions and the disk it is a
/// partition of (sysfs: `/sys/dev/block/MAJOR:MINOR`).
fn family(image: Identity) -> Vec<Identity> {
    let mut family = vec![image];
    if let Identity::BlockDevice { number } = image {
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        let folder = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let inside = entries.map(|entry| entry.path());
        let partitions = inside.filter(|inner| inner.join("partition").exists());
        family.extend(partitions.filter_map(|partition| device_number(&partition)));
        if folder.join("partition").exists() {
            family.extend(device_number(&folder.join("..")));
        }
    }
    family
}

/// `MAJOR:MINOR` in the `dev` file of a device's folder in sysfs.
fn device_number(folder: &Path) -> Option<Identity> {
    let text = std::fs::read_to_string(folder.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    let number = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
    Some(Identity::BlockDevice { number })
}

/// The loop devices and the files behind them (Documentation/ABI/testing/sysfs-block-loop of
/// Linux, `loop/backing_file`).
fn looped() -> impl Iterator<Item = (String, PathBuf)> {
    let devices = std::fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten();
    devices.filter_map(|device| {
        let file = std::fs::read(device.path().join("loop/backing_file")).ok()?;
        let name = device.file_name().into_string().ok()?;
        let file = std::ffi::OsStr::new(std::str::from_utf8(&file).ok()?.trim_end_matches('\n'));
        Some((format!("/dev/{name}"), PathBuf::from(file)))
    })
}
