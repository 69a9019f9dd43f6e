//! XFS (kernel: fs/xfs/libxfs/xfs_format.h, `struct xfs_dsb`; big-endian).

use crate::layers::filesystem::{CheckRecord, Elsewhere, Filesystem, FilesystemKind};
use crate::layers::signature::field;
use crate::layers::signature::probe::Probe;
use crate::units::Bytes;

/// The superblock of version 5 filesystems has incompatible features; one of them says that
/// xfs_repair has to run before the next mount.
const VERSION_5: u16 = 5;
const INCOMPAT_NEEDS_REPAIR: u32 = 1 << 4;

const REALTIME_BLOCKS: usize = 16;
const LOG_START: usize = 48;

/// The head of a log record (kernel: fs/xfs/libxfs/xfs_log_format.h, `struct xlog_rec_header`;
/// big-endian), and how much of a device blkid searches for one, too: a log that has come round
/// need not begin with a record.
const RECORD_MAGIC: u32 = 0xfeed_babe;
const RECORD_LENGTH: usize = 512;
const RECORD_VERSION: usize = 8;
const RECORD_FORMAT: usize = 300;
const RECORD_UUID: usize = 304;
const SEARCHED: usize = 256 * 1024;

/// `sb_inprogress`.
const IN_PROGRESS: usize = 126;

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
            unfinished: *block.get(IN_PROGRESS)? != 0,
            elsewhere: elsewhere(block)?,
            ..CheckRecord::default()
        },
    })
}

fn elsewhere(block: &[u8]) -> Option<Elsewhere> {
    if field::be64(block, REALTIME_BLOCKS)? != 0 {
        return Some(Elsewhere::Realtime);
    }
    Some(match field::be64(block, LOG_START)? {
        0 => Elsewhere::Log,
        _ => Elsewhere::Nothing,
    })
}

/// The log of a filesystem elsewhere: that one's UUID.
pub(super) fn external_log(probe: &Probe) -> Option<String> {
    let start = probe.from(0);
    let searched = start.get(..SEARCHED).unwrap_or(start);
    searched.chunks_exact(RECORD_LENGTH).find_map(|sector| {
        let is_head = field::be32(sector, 0)? == RECORD_MAGIC
            && matches!(field::be32(sector, RECORD_VERSION)?, 1 | 2)
            && matches!(field::be32(sector, RECORD_FORMAT)?, 1..=3);
        is_head.then(|| field::uuid(sector, RECORD_UUID)).flatten()
    })
}
