//! XFS (kernel: fs/xfs/libxfs/xfs_format.h, `struct xfs_dsb`; big-endian).

use crate::layers::filesystem::{CheckRecord, Filesystem, FilesystemKind};
use crate::layers::signature::field;
use crate::layers::signature::probe::Probe;
use crate::units::Bytes;

/// The superblock of version 5 filesystems has incompatible features; one of them says that
/// xfs_repair has to run before the next mount.
const VERSION_5: u16 = 5;
const INCOMPAT_NEEDS_REPAIR: u32 = 1 << 4;

/// The primary superblock, at byte 0. Whether the log is dirty stands in the log, not here.
pub(super) fn recognise(probe: &Probe) -> Option<Filesystem> {
    let block = probe.from(0).get(..512)?;
    if !field::is(block, 0, b"XFSB") {
        return None;
    }
    let block_size = u64::from(field::be32(block, 4)?);
    let size = field::be64(block, 8)?.checked_mul(block_size);
    let version = field::be16(block, 100)? & 0xf;
    let needs_repair = (version == VERSION_5)
        .then(|| field::be32(block, 216))
        .flatten()
        .map(|features| features & INCOMPAT_NEEDS_REPAIR != 0);
    Some(Filesystem {
        kind: FilesystemKind::Xfs,
        uuid: field::uuid(block, 32),
        label: field::text(block, 108, 12),
        size: size.filter(|size| *size != 0).map(Bytes::new),
        record: CheckRecord {
            has_errors: needs_repair,
            ..CheckRecord::default()
        },
    })
}
