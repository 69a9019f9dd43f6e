//! Whether an image lies on encrypted storage, so that nothing of it may be written elsewhere in
//! plain text.

use std::path::{Path, PathBuf};

use crate::reach::chain::Chain;
use crate::reach::identity::Identity;

/// How deep devices may lie on devices; sysfs has no loops.
const DEEPEST: usize = 32;

/// Whether any image of a chain is encrypted by QEMU, or lies on a dm-crypt device, however far below.
pub fn is_encrypted(chain: &Chain) -> bool {
    let mut links = chain.links();
    links.any(|link| link.encryption.is_some()) || lies_on_encrypted(chain)
}

fn lies_on_encrypted(chain: &Chain) -> bool {
    chain.all().any(|identity| {
        let number = match identity {
            Identity::File { device, .. } => device,
            Identity::BlockDevice { number } => number,
        };
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        match (identity, major) {
            // A filesystem without a device of its own (btrfs): the one that is mounted.
            (Identity::File { .. }, 0) => {
                mounted_from(minor).is_some_and(|device| lies_on_crypt(&device, 0))
            }
            _ => lies_on_crypt(&PathBuf::from(format!("/sys/dev/block/{major}:{minor}")), 0),
        }
    })
}

/// The folder in sysfs of the device that is mounted as the anonymous device `0:minor`.
fn mounted_from(minor: u32) -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let number = format!("0:{minor}");
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some(&number))?;
    let (_, source) = line.split_once(" - ")?;
    let device = std::fs::canonicalize(source.split(' ').nth(1)?).ok()?;
    Some(Path::new("/sys/class/block").join(device.file_name()?))
}

/// cryptsetup's devices have UUIDs that begin so (lib/libdevmapper.c of cryptsetup,
/// `DM_UUID_PREFIX`); a partition's disk and a device's slaves are looked at too, and what lies under
/// a loop device.
fn lies_on_crypt(device: &Path, depth: usize) -> bool {
    if depth > DEEPEST {
        return true;
    }
    let uuid = std::fs::read_to_string(device.join("dm/uuid"));
    // Ours call themselves so too, see names.rs.
    let is_crypt = |uuid: &str| uuid.starts_with("CRYPT-") && !uuid.starts_with("CRYPT-SUBDEV-");
    if uuid.is_ok_and(|uuid| is_crypt(&uuid)) {
        return true;
    }
    if device.join("partition").exists() {
        return lies_on_crypt(&device.join(".."), depth + 1);
    }
    let slaves = std::fs::read_dir(device.join("slaves"))
        .into_iter()
        .flatten()
        .flatten();
    slaves
        .into_iter()
        .any(|slave| lies_on_crypt(&slave.path(), depth + 1))
        || looped(device, depth)
}

fn looped(device: &Path, depth: usize) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(file) = std::fs::read_to_string(device.join("loop/backing_file")) else {
        return false;
    };
    let Ok(metadata) = std::fs::metadata(file.trim_end_matches('\n')) else {
        return false;
    };
    let number = match metadata.rdev() {
        0 => metadata.dev(),
        device => device,
    };
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    lies_on_crypt(
        &PathBuf::from(format!("/sys/dev/block/{major}:{minor}")),
        depth + 1,
    )
}
