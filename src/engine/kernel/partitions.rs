//! The kernel's own partitions of a device that holds a guest's disk: unwanted, as the host would
//! probe and activate them. virt-fsck reads partition tables itself.

use std::fs::File;
use std::path::Path;

use rustix::io::Errno;
use rustix::ioctl::{Opcode, Setter, ioctl};

/// `BLKPG` (include/uapi/linux/blkpg.h of Linux).
const BLKPG: Opcode = 0x1269;

const BLKPG_DEL_PARTITION: i32 = 2;

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct Request {
    operation: i32,
    flags: i32,
    length: i32,
    partition: *mut Partition,
}

/// `struct blkpg_partition`.
#[repr(C)]
struct Partition {
    start: i64,
    length: i64,
    number: i32,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

/// The numbers of the partitions that the kernel has for the disk that sysfs shows at `folder`.
pub fn of(folder: &Path) -> Vec<i32> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("partition")).ok())
        .filter_map(|number| number.trim().parse().ok())
        .collect()
}

/// Makes the kernel forget a partition; on the disk it stays. One that it does not know is success.
///
/// # Errors
/// When somebody uses it, or we are not root.
#[expect(unsafe_code, reason = "ioctl(2) is only as safe as its driver")]
pub fn forget(disk: &File, number: i32) -> std::io::Result<()> {
    let mut partition = Partition {
        start: 0,
        length: 0,
        number,
        device_name: [0; 64],
        volume_name: [0; 64],
    };
    let request = Request {
        operation: BLKPG_DEL_PARTITION,
        flags: 0,
        length: i32::try_from(size_of::<Partition>()).unwrap_or_default(),
        partition: &raw mut partition,
    };
    // SAFETY: for this opcode every block device reads a `struct blkpg_ioctl_arg` and the `struct
    // blkpg_partition` it points to, laid out as these are; both live until the call returns.
    match unsafe { ioctl(disk, Setter::<BLKPG, Request>::new(request)) } {
        Ok(()) | Err(Errno::NXIO) => Ok(()),
        Err(cause) => Err(cause.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_as_long_as_the_kernels() {
        assert_eq!(size_of::<Partition>(), 152);
        assert_eq!(size_of::<Request>(), 12 + 4 + size_of::<usize>());
    }

    #[test]
    fn partitions_are_told_from_other_entries() {
        let folder = tempfile::tempdir().unwrap();
        for (name, file) in [
            ("nbd0p1", "partition"),
            ("nbd0p12", "partition"),
            ("queue", "x"),
        ] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            let number = name.rsplit('p').next().unwrap();
            std::fs::write(folder.path().join(name).join(file), format!("{number}\n")).unwrap();
        }
        let mut numbers = of(folder.path());
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 12]);
        assert!(of(Path::new("/nonexistent")).is_empty());
    }
}
