//! Metadata 0.90: `struct mdp_superblock_s`, 1024 words in the byte order of the machine that wrote
//! them.

use super::error::Fault;
use super::superblock::{ArrayId, Level, MAGIC, Obstacle, Role, Superblock, Version, path_name};
use crate::layers::signature::field;
use crate::units::Bytes;

/// So many devices have a descriptor (`MD_SB_DISKS`).
const DEVICES: u32 = 27;
/// Where they begin, and how long one is, in words.
const DESCRIPTORS: usize = 128;
const DESCRIPTOR: usize = 32;
/// The descriptor of this very device.
const THIS_DEVICE: usize = 992;

const CHECKSUM: usize = 38;

/// The array's state (`MD_SB_*`).
const CLEAN: u32 = 1;
const BITMAP_PRESENT: u32 = 1 << 8;

/// A device's state (`MD_DISK_*`).
const FAULTY: u32 = 1;
const SYNC: u32 = 1 << 2;
const WRITE_MOSTLY: u32 = 1 << 9;

/// Sizes are counted in KiB and 32 bits, so MD uses no more of a member (`super_90_load`).
const MAX_COMPONENT: Bytes = Bytes::new((1 << 42) - 1024);

/// Whether there is one, in either byte order, for a member that ends its data at byte `at`.
pub(super) fn is_there(block: &[u8], at: Bytes) -> bool {
    [field::le32, field::be32].iter().any(|word| {
        word(block, 0) == Some(MAGIC)
            && word(block, 4) == Some(0)
            && word(block, 32).is_some_and(|size| u64::from(size).saturating_mul(1024) <= at.get())
    })
}

/// The sum of all words but the checksum's own, folded to 16 bits as MD compares it.
fn checksum(words: &[u32]) -> u32 {
    let own = words.get(CHECKSUM).copied().unwrap_or_default();
    let sum = words
        .iter()
        .fold(0_u64, |sum, word| sum.saturating_add((*word).into()))
        .saturating_sub(own.into());
    let low = u32::try_from(sum & u64::from(u32::MAX)).unwrap_or_default();
    let high = u32::try_from(sum >> 32).unwrap_or_default();
    low.wrapping_add(high)
}

fn folded(sum: u32) -> u32 {
    let sum = (sum & 0xffff).wrapping_add(sum >> 16);
    (sum & 0xffff).wrapping_add(sum >> 16) & 0xffff
}

/// The checksum as MD writes it, of a block of 4 KiB.
#[cfg(test)]
pub(super) fn sealed(block: &[u8]) -> u32 {
    checksum(&words(block))
}

fn words(block: &[u8]) -> Vec<u32> {
    let words = block.chunks_exact(4);
    words.filter_map(|word| field::le32(word, 0)).collect()
}

/// Reads the superblock `block` of 4 KiB from byte `at` of the member: the data are before it.
pub(super) fn parse(block: &[u8], at: Bytes) -> Result<Superblock, Fault> {
    if field::le32(block, 0) != Some(MAGIC) {
        return Err(Fault::BigEndian);
    }
    let words = words(block);
    let word = |index: usize| words.get(index).copied().unwrap_or_default();
    if folded(checksum(&words)) != folded(word(CHECKSUM)) {
        return Err(Fault::Checksum);
    }
    let minor = word(2);
    if !(90..=91).contains(&minor) {
        return Err(Fault::MinorVersion(minor));
    }
    let devices = word(10);
    if !(1..=DEVICES).contains(&devices) {
        return Err(Fault::Devices(devices));
    }
    let level = Level(i32::from_ne_bytes(word(7).to_ne_bytes()));
    let number = word(THIS_DEVICE);
    let state_of = |number: u32| {
        let number = usize::try_from(number).ok()?;
        let first = number.checked_mul(DESCRIPTOR)?.checked_add(DESCRIPTORS)?;
        let known = u32::try_from(number).is_ok_and(|number| number < DEVICES);
        known.then(|| (word(first.saturating_add(3)), word(first.saturating_add(4))))
    };
    let roles: Vec<Role> = (0..DEVICES)
        .filter_map(state_of)
        .map(|(role, state)| role_of(role, state))
        .collect();
    let own_state = state_of(number).unwrap_or_default().1;
    let both = |high: usize, low: usize| u64::from(word(high)) << 32 | u64::from(word(low));
    let component = Bytes::kib(word(8).into());
    let data_size = match level.0 {
        1.. => at.min(MAX_COMPONENT),
        _ => at,
    };
    if component > data_size {
        return Err(Fault::Bounds {
            offset: Bytes::ZERO,
            length: component,
            available: data_size,
        });
    }
    let mut uuid = [0; 16];
    for (part, index) in uuid.chunks_exact_mut(4).zip([5, 13, 14, 15]) {
        part.copy_from_slice(&word(index).to_be_bytes());
    }
    let chunk = word(65);
    if chunk % 512 != 0 {
        return Err(Fault::Chunk(chunk.into()));
    }
    Ok(Superblock {
        version: Version::V0_90,
        array: ArrayId(uuid),
        name: path_name(&word(11).to_string()),
        created: word(6).into(),
        updated: word(32).into(),
        level,
        // Metadata 0.90 cannot say it (`super_90_validate`).
        layout: (level != Level::RAID0).then(|| word(64)),
        chunk: Bytes::new(chunk.into()),
        devices,
        component: match level {
            Level::LINEAR | Level::RAID0 => Bytes::ZERO,
            _ => component,
        },
        logical_block: None,
        number,
        roles,
        device: None,
        data_offset: Bytes::ZERO,
        data_size,
        events: both(40, 39),
        in_step: word(33) & CLEAN != 0 || both(40, 39) == both(42, 41) && word(43) == u32::MAX,
        recovered: own_state & SYNC != 0,
        write_mostly: own_state & WRITE_MOSTLY != 0,
        bitmap: word(33) & BITMAP_PRESENT != 0,
        obstacles: match minor {
            91 => vec![Obstacle::Reshape],
            _ => Vec::new(),
        },
    })
}

fn role_of(role: u32, state: u32) -> Role {
    if state & FAULTY != 0 {
        Role::Faulty
    } else if state & SYNC != 0 {
        Role::Active(role)
    } else {
        Role::Spare
    }
}
