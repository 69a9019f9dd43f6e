//! btrfs (kernel: include/uapi/linux/btrfs_tree.h, `struct btrfs_super_block`).

use crate::layers::filesystem::{CheckRecord, Elsewhere, Filesystem, FilesystemKind};
use crate::layers::signature::field;
use crate::layers::signature::probe::Probe;
use crate::units::Bytes;

/// The first superblock; copies lie at 64 MiB and 256 GiB.
const SUPERBLOCK: usize = 64 * 1024;
const SUPERBLOCK_LENGTH: usize = 4096;

const FSID: usize = 32;
const OWN_PLACE: usize = 48;
const MAGIC: usize = 64;
const LOG_ROOT: usize = 96;
const DEVICES: usize = 136;
/// `struct btrfs_dev_item`, of the device that the superblock lies on.
const DEVICE_NUMBER: usize = 201;
const DEVICE_SIZE: usize = DEVICE_NUMBER + 8;
const LABEL: usize = 299;
const LABEL_LENGTH: usize = 256;

/// The first superblock. The size is that of the device it lies on, of several perhaps.
pub(super) fn recognise(probe: &Probe) -> Option<Filesystem> {
    let block = probe.from(SUPERBLOCK).get(..SUPERBLOCK_LENGTH)?;
    // A superblock names the byte it was written to: one inside a copied image does not pass.
    if !field::is(block, MAGIC, b"_BHRfS_M") || field::le64(block, OWN_PLACE)? != SUPERBLOCK as u64
    {
        return None;
    }
    let size = field::le64(block, DEVICE_SIZE)?;
    let devices = field::le64(block, DEVICES)?;
    Some(Filesystem {
        kind: FilesystemKind::Btrfs,
        uuid: field::uuid(block, FSID),
        label: field::text(block, LABEL, LABEL_LENGTH),
        size: (size != 0).then_some(Bytes::new(size)),
        record: CheckRecord {
            // What was synced since the last commit, and is replayed by the next mount.
            dirty: Some(field::le64(block, LOG_ROOT)? != 0),
            devices: Some(devices),
            elsewhere: match devices {
                0 | 1 => Elsewhere::Nothing,
                _ => Elsewhere::Devices {
                    own: field::le64(block, DEVICE_NUMBER)?,
                },
            },
            ..CheckRecord::default()
        },
    })
}
