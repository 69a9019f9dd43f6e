//! ext2, ext3 and ext4 (kernel: fs/ext4/ext4.h, `struct ext4_super_block`).

use std::io;

use crate::layers::filesystem::{CheckRecord, Elsewhere, Filesystem, FilesystemKind, Timestamp};
use crate::layers::signature::field;
use crate::layers::signature::probe::Probe;
use crate::units::Bytes;

const SUPERBLOCK: usize = 1024;
const SUPERBLOCK_LENGTH: usize = 1024;
const MAGIC: u16 = 0xef53;

/// Offsets in the superblock.
const BLOCKS_COUNT: usize = 4;
const FIRST_DATA_BLOCK: usize = 20;
const LOG_BLOCK_SIZE: usize = 24;
const BLOCKS_PER_GROUP: usize = 32;
const INODES_PER_GROUP: usize = 40;
const MOUNT_COUNT: usize = 52;
const MAX_MOUNT_COUNT: usize = 54;
const MAGIC_AT: usize = 56;
const STATE: usize = 58;
const LAST_CHECK: usize = 64;
const CHECK_INTERVAL: usize = 68;
const REVISION: usize = 76;
const BLOCK_GROUP: usize = 90;
const COMPAT: usize = 92;
const INCOMPAT: usize = 96;
const RO_COMPAT: usize = 100;
const UUID: usize = 104;
const LABEL: usize = 120;
const JOURNAL_UUID: usize = 208;
const BLOCKS_COUNT_HIGH: usize = 336;
const LAST_CHECK_HIGH: usize = 631;

const STATE_VALID: u16 = 0x1;
const STATE_ERRORS: u16 = 0x2;

const COMPAT_HAS_JOURNAL: u32 = 0x4;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_JOURNAL_DEVICE: u32 = 0x8;
const INCOMPAT_64BIT: u32 = 0x80;
/// Compression's flag is not among them: blkid calls such a filesystem ext4, and so does this.
const INCOMPAT_OF_EXT2: u32 = 0x2 | 0x10;
const INCOMPAT_OF_EXT3: u32 = INCOMPAT_OF_EXT2 | INCOMPAT_RECOVER;
const RO_COMPAT_OF_EXT3: u32 = 0x1 | 0x2 | 0x4;

/// Block sizes are 1024 << n; e2fsprogs and the kernel stop at 64 KiB.
const MAX_LOG_BLOCK_SIZE: u32 = 6;

/// What a superblock says.
pub(super) enum Ext {
    /// A filesystem.
    Filesystem(Filesystem),
    /// A journal that belongs to a filesystem elsewhere, with its own UUID.
    JournalDevice(Option<String>),
}

/// The primary superblock. Its magic is enough, as it is for e2fsck: what a damaged one says
/// beyond that is for the checker to find.
pub(super) fn primary(probe: &Probe) -> Option<Ext> {
    parse(probe.from(SUPERBLOCK))
}

/// Whether the primary superblock is more than a 16-bit magic that stands there by chance.
pub(super) fn primary_is_plausible(probe: &Probe) -> bool {
    let block = probe.from(SUPERBLOCK);
    block_size(block).is_some()
        && [BLOCKS_COUNT, BLOCKS_PER_GROUP, INODES_PER_GROUP]
            .iter()
            .all(|at| field::le32(block, *at).is_some_and(|value| value != 0))
}

/// A backup of the primary superblock, at the places where e2fsck looks for one by itself
/// (e2fsprogs: e2fsck/util.c, `get_backup_sb`): block group 1 for each block size.
pub(super) fn backup(probe: &Probe) -> io::Result<Option<Filesystem>> {
    for log in 0..=MAX_LOG_BLOCK_SIZE {
        let size = 1024_u64 << log;
        let first_data_block = u64::from(log == 0);
        let offset = size * (size * 8 + first_data_block);
        let Some(block) = probe.bytes(offset, SUPERBLOCK_LENGTH)? else {
            break;
        };
        if !is_backup_of_group_1(&block, log) {
            continue;
        }
        if let Some(Ext::Filesystem(mut found)) = parse(&block)
            && found.size.is_some_and(|size| size.get() <= probe.size())
        {
            found.record.primary_damaged = true;
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// A file's content, or what an older filesystem left, may hold a superblock anywhere; the true
/// backup knows its group and stands where its own geometry puts it.
fn is_backup_of_group_1(block: &[u8], log_block_size: u32) -> bool {
    let group = if field::le32(block, REVISION) == Some(0) {
        0
    } else {
        1
    };
    field::le16(block, MAGIC_AT) == Some(MAGIC)
        && field::le32(block, LOG_BLOCK_SIZE) == Some(log_block_size)
        && field::le16(block, BLOCK_GROUP) == Some(group)
        && field::le32(block, FIRST_DATA_BLOCK) == Some(u32::from(log_block_size == 0))
        && field::le32(block, BLOCKS_PER_GROUP) == Some(8192 << log_block_size)
}

fn parse(block: &[u8]) -> Option<Ext> {
    let block = block.get(..SUPERBLOCK_LENGTH)?;
    if field::le16(block, MAGIC_AT)? != MAGIC {
        return None;
    }
    let incompat = field::le32(block, INCOMPAT)?;
    let state = field::le16(block, STATE)?;
    let uuid = field::uuid(block, UUID);
    if incompat & INCOMPAT_JOURNAL_DEVICE != 0 {
        return Some(Ext::JournalDevice(uuid));
    }
    let last_check = u64::from(field::le32(block, LAST_CHECK)?)
        | u64::from(field::u8(block, LAST_CHECK_HIGH)?) << 32;
    let last_check = (last_check != 0).then_some(Timestamp(last_check));
    let interval = u64::from(field::le32(block, CHECK_INTERVAL)?);
    // Signed on disk: -1 and 0 both say "never".
    let max_mounts = i16::from_ne_bytes(field::le16(block, MAX_MOUNT_COUNT)?.to_ne_bytes());
    Some(Ext::Filesystem(Filesystem {
        kind: kind(block, incompat)?,
        uuid,
        label: field::text(block, LABEL, 16),
        size: size(block, incompat),
        record: CheckRecord {
            last_check,
            mount_count: Some(field::le16(block, MOUNT_COUNT)?.into()),
            max_mount_count: (max_mounts > 0).then_some(max_mounts.unsigned_abs().into()),
            next_check: last_check
                .filter(|_| interval > 0)
                .map(|last| Timestamp(last.0.saturating_add(interval))),
            dirty: Some(incompat & INCOMPAT_RECOVER != 0 || state & STATE_VALID == 0),
            has_errors: Some(state & STATE_ERRORS != 0),
            // e2fsck asks no other field (e2fsck/journal.c, `e2fsck_get_journal`).
            elsewhere: match field::uuid(block, JOURNAL_UUID) {
                Some(uuid) => Elsewhere::Journal { uuid },
                None => Elsewhere::Nothing,
            },
            ..CheckRecord::default()
        },
    }))
}

/// The kind by its features, as blkid tells them (util-linux: libblkid/src/superblocks/ext.c).
fn kind(block: &[u8], incompat: u32) -> Option<FilesystemKind> {
    let journal = field::le32(block, COMPAT)? & COMPAT_HAS_JOURNAL != 0;
    let incompat_of_kind = if journal {
        INCOMPAT_OF_EXT3
    } else {
        INCOMPAT_OF_EXT2
    };
    // ext2 and ext3 know the same read-only features.
    let newer = incompat & !incompat_of_kind != 0
        || field::le32(block, RO_COMPAT)? & !RO_COMPAT_OF_EXT3 != 0;
    Some(match (newer, journal) {
        (true, _) => FilesystemKind::Ext4,
        (false, true) => FilesystemKind::Ext3,
        (false, false) => FilesystemKind::Ext2,
    })
}

fn block_size(block: &[u8]) -> Option<u64> {
    let log = field::le32(block, LOG_BLOCK_SIZE)?;
    (log <= MAX_LOG_BLOCK_SIZE).then(|| 1024 << log)
}

fn size(block: &[u8], incompat: u32) -> Option<Bytes> {
    let low = u64::from(field::le32(block, BLOCKS_COUNT)?);
    let high = if incompat & INCOMPAT_64BIT == 0 {
        0
    } else {
        u64::from(field::le32(block, BLOCKS_COUNT_HIGH)?)
    };
    let size = (high << 32 | low).checked_mul(block_size(block)?)?;
    (size != 0).then_some(Bytes::new(size))
}
