//! The label: where LVM says "this is a physical volume", and the header behind it
//! (`label_header` in lib/label/label.h, `pv_header` in lib/format_text/layout.h).

use super::error::{LabelFault, LvmError};
use super::identity::PhysicalVolumeId;
use super::raw::{SECTOR, checksum, u32_at, u64_at};
use crate::layers::read::ReadAt;
use crate::units::Bytes;

/// LVM looks for a label in so many sectors (`LABEL_SCAN_SECTORS`).
pub(super) const SCAN_SECTORS: u64 = 4;

const MAGIC: &[u8] = b"LABELONE";
const TYPE: &[u8] = b"LVM2 001";

/// Where the fields of `label_header` lie; the checksum covers all from `HEADER_OFFSET` on.
const SECTOR_NUMBER: usize = 8;
const CHECKSUM: usize = 16;
const HEADER_OFFSET: usize = 20;
const TYPE_OFFSET: usize = 24;
const LABEL_LENGTH: usize = 32;

/// The UUID and the size of `pv_header`, and one entry of its two lists of areas.
const UUID_LENGTH: usize = 32;
const LISTS_OFFSET: usize = UUID_LENGTH + 8;
const AREA_LENGTH: usize = 16;

/// A run of bytes of a physical volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Where it begins.
    pub offset: Bytes,
    /// How many bytes it has; of a data area 0 stands for "up to the end".
    pub length: Bytes,
}

/// A label with its physical volume header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The volume's UUID.
    pub uuid: PhysicalVolumeId,
    /// The size of the device when the volume was made or resized.
    pub device_size: Bytes,
    /// Where the extents lie, as the header says; a group's metadata is what counts.
    pub data_areas: Vec<Area>,
    /// Where the metadata lies.
    pub metadata_areas: Vec<Area>,
    /// Labels LVM passes over, because they are not the first or are damaged.
    pub notes: Vec<String>,
}

/// Finds the label in the first four sectors. `Ok(None)`: there is none.
///
/// # Errors
/// [`LvmError::Read`], and [`LvmError::Label`] if there is a label but no sound one.
pub fn find(layer: &dyn ReadAt) -> Result<Option<Label>, LvmError> {
    let sectors = SCAN_SECTORS.min(layer.size().get() / SECTOR);
    let bytes = layer
        .read_at(Bytes::ZERO, Bytes::new(sectors.saturating_mul(SECTOR)))
        .map_err(|cause| LvmError::Read { cause })?;
    let mut found: Option<Label> = None;
    let mut damaged = Vec::new();
    let mut notes = Vec::new();
    for (number, sector) in (0_u64..).zip(bytes.chunks_exact(SECTOR as usize)) {
        if !sector.starts_with(MAGIC) {
            continue;
        }
        match parse(number, sector) {
            Ok(label) if found.is_none() => found = Some(label),
            Ok(_) => notes.push(format!(
                "another LVM label in sector {number} is passed over"
            )),
            Err(fault) => damaged.push((number, fault)),
        }
    }
    match (found, damaged.first()) {
        (Some(mut label), _) => {
            notes.extend(damaged.iter().map(|(number, fault)| {
                format!("a damaged LVM label in sector {number} is passed over: {fault}")
            }));
            label.notes = notes;
            Ok(Some(label))
        }
        (None, Some((sector, fault))) => Err(LvmError::Label {
            sector: *sector,
            fault: *fault,
        }),
        (None, None) => Ok(None),
    }
}

/// Reads one sector that begins with the magic.
fn parse(number: u64, sector: &[u8]) -> Result<Label, LabelFault> {
    let covered = sector.get(HEADER_OFFSET..).ok_or(LabelFault::Bounds)?;
    if u32_at(sector, CHECKSUM) != Some(checksum(&[covered])) {
        return Err(LabelFault::Checksum);
    }
    let own_number = u64_at(sector, SECTOR_NUMBER).ok_or(LabelFault::Bounds)?;
    if own_number != number {
        return Err(LabelFault::Moved(own_number));
    }
    if sector.get(TYPE_OFFSET..LABEL_LENGTH) != Some(TYPE) {
        return Err(LabelFault::Type);
    }
    let offset = u32_at(sector, HEADER_OFFSET)
        .and_then(|offset| usize::try_from(offset).ok())
        .filter(|offset| *offset >= LABEL_LENGTH)
        .ok_or(LabelFault::Bounds)?;
    let header = sector.get(offset..).ok_or(LabelFault::Bounds)?;
    let uuid = header.first_chunk().ok_or(LabelFault::Bounds)?;
    let device_size = u64_at(header, UUID_LENGTH).ok_or(LabelFault::Bounds)?;
    let (data_areas, behind) = area_list(header.get(LISTS_OFFSET..))?;
    let (metadata_areas, _) = area_list(Some(behind))?;
    Ok(Label {
        uuid: PhysicalVolumeId::new(*uuid).ok_or(LabelFault::Uuid)?,
        device_size: Bytes::new(device_size),
        data_areas,
        metadata_areas,
        notes: Vec::new(),
    })
}

/// A list of areas up to the entry with offset 0, and the bytes behind it. Bounded by the sector.
fn area_list(bytes: Option<&[u8]>) -> Result<(Vec<Area>, &[u8]), LabelFault> {
    let mut rest = bytes.ok_or(LabelFault::Bounds)?;
    let mut areas = Vec::new();
    loop {
        let (entry, behind) = rest
            .split_at_checked(AREA_LENGTH)
            .ok_or(LabelFault::Bounds)?;
        rest = behind;
        let offset = u64_at(entry, 0).ok_or(LabelFault::Bounds)?;
        let length = u64_at(entry, 8).ok_or(LabelFault::Bounds)?;
        if offset == 0 {
            return Ok((areas, rest));
        }
        areas.push(Area {
            offset: Bytes::new(offset),
            length: Bytes::new(length),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::writer::{self, Memory, PhysicalVolumeImage};
    use super::*;

    fn image() -> Vec<u8> {
        PhysicalVolumeImage::new('a').build()
    }

    fn fault(bytes: &[u8]) -> LabelFault {
        match find(&Memory(bytes)).unwrap_err() {
            LvmError::Label { fault, .. } => fault,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_label_is_found_in_any_of_the_first_four_sectors() {
        for sector in 0..4 {
            let mut image = PhysicalVolumeImage::new('a');
            image.label_sector = sector;
            let label = find(&Memory(&image.build())).unwrap().unwrap();
            assert_eq!(label.uuid, writer::uuid('a'));
            assert_eq!(label.device_size, image.size);
            assert_eq!(label.data_areas.len(), 1);
            assert_eq!(label.metadata_areas.len(), 1);
            assert_eq!(label.notes, Vec::<String>::new());
        }
        let mut image = PhysicalVolumeImage::new('a');
        image.label_sector = 4;
        assert_eq!(find(&Memory(&image.build())).unwrap(), None);
    }

    #[test]
    fn what_has_no_label_is_no_physical_volume() {
        for bytes in [vec![], vec![0; 511], vec![0xff; 4096]] {
            assert_eq!(find(&Memory(&bytes)).unwrap(), None);
        }
        assert_eq!(find(&Memory(&image()[..1023])).unwrap(), None);
        assert!(find(&Memory(&image()[..1024])).unwrap().is_some());
    }

    #[test]
    fn a_damaged_label_is_an_error_and_not_nothing() {
        let mut bytes = image();
        bytes[512 + 40] ^= 1;
        assert_eq!(fault(&bytes), LabelFault::Checksum);

        let mut bytes = image();
        bytes.copy_within(512..1024, 1024);
        bytes[512..1024].fill(0);
        assert_eq!(fault(&bytes), LabelFault::Moved(1));

        let change = |at: usize, new: &[u8]| {
            let mut bytes = image();
            bytes[512 + at..512 + at + new.len()].copy_from_slice(new);
            writer::seal_label(&mut bytes[512..1024]);
            fault(&bytes)
        };
        assert_eq!(change(TYPE_OFFSET, b"LVM3"), LabelFault::Type);
        for offset in [0_u32, 31, 481, 512, u32::MAX] {
            assert_eq!(
                change(HEADER_OFFSET, &offset.to_le_bytes()),
                LabelFault::Bounds
            );
        }
        assert_eq!(change(32, b"/"), LabelFault::Uuid);
        assert_eq!(change(72, &[1; 440]), LabelFault::Bounds);
    }

    #[test]
    fn a_second_label_is_passed_over_but_told() {
        let mut bytes = image();
        bytes.copy_within(512..1024, 1024);
        let label = find(&Memory(&bytes)).unwrap().unwrap();
        assert_eq!(
            label.notes,
            [
                "a damaged LVM label in sector 2 is passed over: it was written for sector 1"
                    .to_owned()
            ]
        );
        writer::set_label_sector(&mut bytes[1024..1536], 2);
        let label = find(&Memory(&bytes)).unwrap().unwrap();
        assert_eq!(
            label.notes,
            ["another LVM label in sector 2 is passed over"]
        );
    }
}
