//! LUKS1's header, with its eight key slots.
//!
//! cryptsetup: docs/on-disk-format.pdf, figure 1 and 2; lib/luks1/luks.h.

use super::header::{self, Header, HeaderError, LUKS1_LENGTH};
use crate::layers::signature::field;
use crate::units::{Bytes, SectorSize, Sectors};

const CIPHER_NAME: std::ops::Range<usize> = 8..40;
const CIPHER_MODE: std::ops::Range<usize> = 40..72;
const HASH: std::ops::Range<usize> = 72..104;
const PAYLOAD_OFFSET: usize = 104;
const KEY_BYTES: usize = 108;
const SLOTS: usize = 208;
const SLOT_LENGTH: usize = 48;
const SLOT_COUNT: usize = 8;
const ACTIVE: usize = 0;
const MATERIAL_OFFSET: usize = 40;
const STRIPES: usize = 44;

const IN_USE: u32 = 0x00AC_71F3;
const NOT_IN_USE: u32 = 0x0000_DEAD;
const STRIPE_COUNT: u32 = 4000;

/// The header with what cryptsetup fills it up to: no key slot's material may lie in it.
const HEADER_SECTORS: u64 = 2;

/// A header, and what belongs to it.
pub(super) struct Luks1 {
    pub(super) header: Header,
    /// Where the last key slot's material ends.
    pub(super) header_area: Bytes,
    pub(super) notes: Vec<String>,
}

/// The header in its first [`LUKS1_LENGTH`] bytes.
pub(super) fn parse(start: &[u8]) -> Result<Luks1, HeaderError> {
    let short = || HeaderError::damaged("its length");
    let start = start.get(..LUKS1_LENGTH).ok_or_else(short)?;
    if header::version(start) != Some(1) {
        return Err(HeaderError::damaged("its version"));
    }
    let word = |field, what| {
        let word = header::text(start, field).filter(|word| !word.is_empty());
        word.ok_or_else(|| HeaderError::damaged(what))
    };
    let cipher = word(CIPHER_NAME, "its cipher")?;
    let mode = word(CIPHER_MODE, "its cipher mode")?;
    let hash = word(HASH, "its hash")?;
    if !hash.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(HeaderError::damaged("its hash"));
    }
    let number = |at| field::be32(start, at).ok_or_else(short);
    let key_size = header::key_length(number(KEY_BYTES)?.into())?;
    let payload = u64::from(number(PAYLOAD_OFFSET)?);
    let bytes = |sectors| Sectors::new(sectors).to_bytes(SectorSize::S512);
    let offset = bytes(payload).ok_or_else(|| HeaderError::damaged("its payload offset"))?;
    let (end, notes) = key_slots(start, key_size, payload)?;
    let header_area = bytes(end).filter(|area| *area <= header::LONGEST_HEADER_AREA);
    Ok(Luks1 {
        header: Header {
            encryption: header::encryption(&format!("{cipher}-{mode}"))?,
            key_sizes: vec![key_size],
            offset,
            size: None,
            iv_tweak: 0,
            sector_size: SectorSize::S512,
            discards: false,
        },
        header_area: header_area
            .ok_or_else(|| HeaderError::damaged("a key slot lies too far behind"))?,
        notes,
    })
}

/// The sector after the last key slot's material, and what is odd.
fn key_slots(
    start: &[u8],
    key_size: usize,
    payload: u64,
) -> Result<(u64, Vec<String>), HeaderError> {
    let damaged =
        |slot: usize, what: &str| Err(HeaderError::damaged(format!("key slot {slot} {what}")));
    let key_size = u64::try_from(key_size).unwrap_or(u64::MAX);
    let length = key_size.saturating_mul(STRIPE_COUNT.into()).div_ceil(512);
    let mut areas = Vec::with_capacity(SLOT_COUNT);
    let mut notes = Vec::new();
    let mut is_any_in_use = false;
    for slot in 0..SLOT_COUNT {
        let at = |field| field::be32(start, SLOTS + slot * SLOT_LENGTH + field).unwrap_or_default();
        if at(STRIPES) != STRIPE_COUNT {
            return damaged(slot, "has another number of stripes than 4000");
        }
        let material = u64::from(at(MATERIAL_OFFSET));
        let end = material.saturating_add(length);
        if material < HEADER_SECTORS {
            return damaged(slot, "lies in the header");
        }
        if payload != 0 && end > payload {
            return damaged(slot, "lies in the encrypted data");
        }
        areas.push((material, end, slot));
        match at(ACTIVE) {
            IN_USE => is_any_in_use = true,
            NOT_IN_USE => {}
            _ => notes.push(format!("key slot {slot} is neither in use nor free")),
        }
    }
    areas.sort_unstable();
    for pair in areas.windows(2) {
        if let [(_, end, slot), (next, ..)] = pair
            && next < end
        {
            return damaged(*slot, "overlaps another one");
        }
    }
    if !is_any_in_use {
        return Err(HeaderError::Beyond("has no key slot in use".to_owned()));
    }
    let end = areas.last().map_or(0, |(_, end, _)| *end);
    Ok((end, notes))
}
