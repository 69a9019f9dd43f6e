//! Where the bytes of an array lie.

use super::assemble::FoundMember;
use super::superblock::SECTOR;
use crate::layers::extent::{Extent, ExtentMap, Striped};
use crate::units::Bytes;

/// RAID 0 whose turns in a later zone begin where the whole array's chunks leave off
/// (`RAID0_ORIG_LAYOUT`, drivers/md/raid0.h).
const ORIGINAL: u32 = 1;
/// RAID 0 whose turns begin with the first member in every zone (`RAID0_ALT_MULTIZONE_LAYOUT`).
const ALTERNATE: u32 = 2;

/// A member's data.
fn data(member: &FoundMember, offset: Bytes, length: Bytes) -> Result<ExtentMap, String> {
    let start = member.superblock.data_offset.checked_add(offset);
    let part = start.and_then(|start| member.extents.slice(start, length).ok());
    part.ok_or_else(|| format!("its data reach past the end of {}", member.path))
}

/// What MD uses of a member's data: whole chunks, where there are any.
fn whole_chunks(member: &FoundMember, chunk: Bytes) -> Bytes {
    let size = member.superblock.data_size;
    let rest = size.get().checked_rem(chunk.get()).unwrap_or(0);
    size.saturating_sub(Bytes::new(rest))
}

/// One after the other.
pub(super) fn linear(members: &[&FoundMember], chunk: Bytes) -> Result<ExtentMap, String> {
    let mut map = ExtentMap::default();
    for member in members {
        map.append(&data(member, Bytes::ZERO, whole_chunks(member, chunk))?);
    }
    Ok(map)
}

/// In turns. Where members are of different sizes, all have a part in the first zone, and those
/// that have room left share the next one (`create_strip_zones`, drivers/md/raid0.c).
pub(super) fn striped(
    members: &[&FoundMember],
    chunk: Bytes,
    layout: Option<u32>,
) -> Result<ExtentMap, String> {
    if chunk == Bytes::ZERO {
        return Err("its chunk size is zero".to_owned());
    }
    let sizes: Vec<(&FoundMember, Bytes)> = members
        .iter()
        .map(|member| (*member, whole_chunks(member, chunk)))
        .collect();
    let mut ends: Vec<Bytes> = sizes.iter().map(|(_, size)| *size).collect();
    ends.sort_unstable();
    ends.dedup();
    if ends.first() == Some(&Bytes::ZERO) {
        return Err("a member is smaller than a chunk".to_owned());
    }
    let mut map = ExtentMap::default();
    let mut start = Bytes::ZERO;
    for (number, end) in ends.into_iter().enumerate() {
        let mut sharing: Vec<&FoundMember> = sizes
            .iter()
            .filter_map(|(member, size)| (*size > start).then_some(*member))
            .collect();
        if number > 0 && sharing.len() > 1 {
            let first = first_of_zone(map.size(), chunk, sharing.len(), layout)?;
            sharing.rotate_left(first);
        }
        push_zone(&mut map, &sharing, start, end.saturating_sub(start), chunk)?;
        start = end;
    }
    let size = sizes.iter().fold(0_u64, |sum, (_, size)| {
        sum.saturating_add(shown(*size, chunk))
    });
    let all = "it is longer than its members".to_owned();
    map.slice(Bytes::ZERO, Bytes::new(size)).map_err(|_| all)
}

/// Whose turn is first in a later zone.
fn first_of_zone(
    zone: Bytes,
    chunk: Bytes,
    count: usize,
    layout: Option<u32>,
) -> Result<usize, String> {
    match layout {
        Some(ORIGINAL) => {
            let chunks = zone.get().checked_div(chunk.get()).unwrap_or(0);
            let first = chunks.checked_rem(count as u64).unwrap_or(0);
            Ok(usize::try_from(first).unwrap_or(0))
        }
        Some(ALTERNATE) => Ok(0),
        _ => Err(
            "its members are of different sizes, and the superblock does not say which of the two \
             layouts the guest's kernel has used for that (raid0.default_layout)"
                .to_owned(),
        ),
    }
}

fn push_zone(
    map: &mut ExtentMap,
    sharing: &[&FoundMember],
    start: Bytes,
    length: Bytes,
    chunk: Bytes,
) -> Result<(), String> {
    if let [only] = sharing {
        map.append(&data(only, start, length)?);
        return Ok(());
    }
    let columns: Vec<Extent> = sharing
        .iter()
        .map(|member| {
            let column = data(member, start, length)?;
            column
                .single()
                .ok_or_else(|| format!("its member {} lies in separate pieces itself", member.path))
        })
        .collect::<Result<_, String>>()?;
    let striped = Striped::new(&columns, chunk).map_err(|fault| format!("it has {fault}"))?;
    map.push_striped(striped);
    Ok(())
}

/// What a member adds to the length of the array. MD rounds with a mask of bits (`raid0_size`), which
/// is less than the whole where the chunk size is no power of two.
fn shown(size: Bytes, chunk: Bytes) -> u64 {
    let mask = (chunk.get() / SECTOR).saturating_sub(1);
    ((size.get() / SECTOR) & !mask).saturating_mul(SECTOR)
}

/// On each of them, the first of which is read.
pub(super) fn mirrored(members: &[&FoundMember], component: Bytes) -> Result<ExtentMap, String> {
    let mut legs = Vec::with_capacity(members.len());
    for member in members {
        if component == Bytes::ZERO || component > member.superblock.data_size {
            return Err(format!(
                "its {} bytes do not fit into {}",
                component.get(),
                member.path
            ));
        }
        legs.push(data(member, Bytes::ZERO, component)?);
    }
    let legs: Vec<&ExtentMap> = legs.iter().collect();
    let mut map = ExtentMap::default();
    map.push_mirrored(&legs)
        .map_err(|fault| format!("it has {fault}"))?;
    Ok(map)
}
