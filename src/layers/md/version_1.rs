//! Metadata 1.0, 1.1 and 1.2: `struct mdp_superblock_1`, little-endian everywhere.

use super::error::Fault;
use super::superblock::{
    ArrayId, Level, MAGIC, MAX_DEVICES, Obstacle, Role, SECTOR, SUPERBLOCK, Superblock, Version,
    bytes, path_name,
};
use crate::layers::read::ReadAt;
use crate::layers::signature::field;
use crate::units::{Bytes, SectorSize};

/// The fields before the roles.
const FIXED: usize = 256;
const CHECKSUM: usize = 216;

const BITMAP_OFFSET: u32 = 1;
const RECOVERY_OFFSET: u32 = 2;
const RESHAPE_ACTIVE: u32 = 4;
const BAD_BLOCKS: u32 = 8;
const REPLACEMENT: u32 = 16;
const RESHAPE_BACKWARDS: u32 = 32;
const NEW_OFFSET: u32 = 64;
const RECOVERY_BITMAP: u32 = 128;
const CLUSTERED: u32 = 256;
const JOURNAL: u32 = 512;
const PPL: u32 = 1024;
const MULTIPLE_PPLS: u32 = 2048;
const RAID0_LAYOUT: u32 = 4096;
const ALL: u32 = 8191;

/// The roles that are none (`MD_DISK_ROLE_*`).
const ROLE_SPARE: u16 = 0xffff;
const ROLE_FAULTY: u16 = 0xfffe;
const ROLE_JOURNAL: u16 = 0xfffd;
const ROLE_MAX: u16 = 0xff00;

/// The times are seconds in their low 40 bits.
const SECONDS: u64 = (1 << 40) - 1;

const WRITE_MOSTLY: u8 = 1;

/// A list of bad blocks has at most a page (`super_1_load`).
const MAX_BAD_BLOCK_SECTORS: u16 = 8;

/// Whether there is one, written for this place.
pub(super) fn is_there(block: &[u8], at: Bytes) -> bool {
    field::le32(block, 0) == Some(MAGIC)
        && field::le32(block, 4) == Some(1)
        && field::le64(block, 144) == Some(at.get() / SECTOR)
}

/// The checksum over the fixed part and all roles, with the checksum itself as zero.
pub(super) fn checksum(block: &[u8]) -> Option<u32> {
    let devices = usize::try_from(field::le32(block, 220)?).ok()?;
    let length = devices.checked_mul(2)?.checked_add(FIXED)?;
    let mut sum = 0_u64;
    for word in block.get(..length)?.chunks(4) {
        let mut padded = [0; 4];
        padded.get_mut(..word.len())?.copy_from_slice(word);
        sum = sum.saturating_add(u32::from_le_bytes(padded).into());
    }
    let sum = sum.saturating_sub(field::le32(block, CHECKSUM)?.into());
    let [low, high] = [sum & u64::from(u32::MAX), sum >> 32];
    u32::try_from(low.wrapping_add(high) & u64::from(u32::MAX)).ok()
}

/// Reads the superblock `block` of 4 KiB from byte `at` of the member.
pub(super) fn parse(
    block: &[u8],
    version: Version,
    at: Bytes,
    member: &dyn ReadAt,
) -> Result<Superblock, Fault> {
    let short = Fault::Size(0);
    let le32 = |at| field::le32(block, at).ok_or(short);
    let le64 = |at| field::le64(block, at).ok_or(short);
    let sectors = |at| {
        let sectors = le64(at)?;
        bytes(sectors).ok_or(Fault::Size(sectors))
    };
    let table = le32(220)?;
    if table > MAX_DEVICES {
        return Err(Fault::Devices(table));
    }
    if checksum(block) != Some(le32(CHECKSUM)?) {
        return Err(Fault::Checksum);
    }
    let features = le32(8)?;
    if features & !ALL != 0 {
        return Err(Fault::Features(features & !ALL));
    }
    let padding = block.get(228..FIXED).unwrap_or_default();
    if le32(12)? != 0 || padding.iter().any(|byte| *byte != 0) {
        return Err(Fault::Reserved);
    }
    // Linux 6.19 keeps it in what was reserved before.
    let logical_block = match le32(224)? {
        0 => None,
        size => Some(SectorSize::new(size).ok_or(Fault::Reserved)?),
    };
    let level = Level(i32::from_ne_bytes(le32(72)?.to_ne_bytes()));
    if features & RAID0_LAYOUT != 0 && level != Level::RAID0 {
        return Err(Fault::Features(RAID0_LAYOUT));
    }
    let devices = le32(92)?;
    if !(1..=MAX_DEVICES).contains(&devices) {
        return Err(Fault::Devices(devices));
    }
    let roles: Vec<Role> = (0..usize::try_from(table).unwrap_or(0))
        .filter_map(|number| field::le16(block, number.checked_mul(2)?.checked_add(FIXED)?))
        .map(role)
        .collect();
    let offset = sectors(128)?;
    let length = sectors(136)?;
    check_bounds(offset, length, version, at, member.size())?;
    let mut superblock = Superblock {
        version,
        array: ArrayId(uuid(block, 16)),
        name: name(block),
        created: le64(64)? & SECONDS,
        updated: le64(192)? & SECONDS,
        level,
        layout: match level {
            Level::RAID0 => (features & RAID0_LAYOUT != 0).then_some(le32(76)?),
            _ => Some(le32(76)?),
        },
        chunk: bytes(le32(88)?.into()).unwrap_or_default(),
        devices,
        component: match level {
            Level::LINEAR | Level::RAID0 => Bytes::ZERO,
            _ => sectors(80)?,
        },
        logical_block,
        number: le32(160)?,
        roles,
        device: Some(uuid(block, 168)),
        data_offset: offset,
        data_size: length,
        events: le64(200)?,
        in_step: le64(208)? == u64::MAX,
        recovered: features & (RECOVERY_OFFSET | REPLACEMENT | RECOVERY_BITMAP) == 0,
        write_mostly: field::u8(block, 184).ok_or(short)? & WRITE_MOSTLY != 0,
        bitmap: features & BITMAP_OFFSET != 0,
        obstacles: Vec::new(),
    };
    superblock.obstacles = obstacles(features, &superblock);
    if features & BAD_BLOCKS != 0 && has_bad_blocks(block, at, member) {
        superblock.obstacles.push(Obstacle::BadBlocks);
    }
    Ok(superblock)
}

/// Its data must lie beside the superblock, on the member.
fn check_bounds(
    offset: Bytes,
    length: Bytes,
    version: Version,
    at: Bytes,
    member: Bytes,
) -> Result<(), Fault> {
    let (first, available) = match version {
        Version::V1_1 | Version::V1_2 => (at.checked_add(Bytes::kib(1)), member),
        _ => (Some(Bytes::ZERO), at),
    };
    let end = offset.checked_add(length);
    let fits = first.is_some_and(|first| first <= offset)
        && end.is_some_and(|end| end <= available)
        && length > Bytes::ZERO;
    if fits {
        Ok(())
    } else {
        Err(Fault::Bounds {
            offset,
            length,
            available,
        })
    }
}

fn role(raw: u16) -> Role {
    match raw {
        ROLE_FAULTY => Role::Faulty,
        ROLE_JOURNAL => Role::Journal,
        0..ROLE_MAX => Role::Active(raw.into()),
        ROLE_MAX..=ROLE_SPARE => Role::Spare,
    }
}

fn uuid(block: &[u8], at: usize) -> [u8; 16] {
    let field = block.get(at..).and_then(|rest| rest.first_chunk());
    field.copied().unwrap_or_default()
}

/// What follows the name of the machine that made the array: `host:data`.
fn name(block: &[u8]) -> Option<String> {
    let text = field::text(block, 32, 32)?;
    let own = match text.split_once(':') {
        Some((_, own)) if !own.is_empty() => own,
        _ => &text,
    };
    path_name(own)
}

fn obstacles(features: u32, superblock: &Superblock) -> Vec<Obstacle> {
    let journal = superblock.roles.contains(&Role::Journal);
    [
        (
            features & (RESHAPE_ACTIVE | RESHAPE_BACKWARDS | NEW_OFFSET) != 0,
            Obstacle::Reshape,
        ),
        (features & JOURNAL != 0 || journal, Obstacle::Journal),
        (
            features & (PPL | MULTIPLE_PPLS) != 0,
            Obstacle::PartialParityLog,
        ),
        (features & CLUSTERED != 0, Obstacle::Cluster),
    ]
    .into_iter()
    .filter_map(|(is, obstacle)| is.then_some(obstacle))
    .collect()
}

/// Whether the list has an entry: 64 bits each, all of them set after the last. What cannot be read
/// may have.
fn has_bad_blocks(block: &[u8], at: Bytes, member: &dyn ReadAt) -> bool {
    let list = || {
        let sectors = field::le16(block, 186)?;
        if sectors > MAX_BAD_BLOCK_SECTORS {
            return None;
        }
        let from = i32::from_ne_bytes(field::le32(block, 188)?.to_ne_bytes());
        let from = i64::from(from).checked_mul(i64::try_from(SECTOR).ok()?)?;
        let from = Bytes::new(at.get().checked_add_signed(from)?);
        let length = bytes(sectors.into())?.min(SUPERBLOCK);
        member.read_at(from, length).ok()
    };
    list().is_none_or(|list| {
        let first = list.chunks_exact(8).next();
        first.is_some_and(|entry| entry != [0xff; 8])
    })
}
