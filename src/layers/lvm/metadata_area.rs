//! A metadata area: a header, and a ring buffer with the text of the volume group
//! (`mda_header` and `raw_locn` in lib/format_text/layout.h, reading in format-text.c).

use super::error::AreaFault;
use super::label::Area;
use super::raw::{checksum, u32_at, u64_at};
use super::text;
use super::volume_group::VolumeGroup;
use crate::layers::read::{MAX_READ, ReadAt};
use crate::units::Bytes;

/// The header's length (`MDA_HEADER_SIZE`); the ring buffer is all behind it.
const HEADER_LENGTH: Bytes = Bytes::new(512);

/// `FMTT_MAGIC`.
const MAGIC: &[u8] = b" LVM2 x[5A%r0N*>";

/// `FMTT_VERSION`.
const VERSION: u32 = 1;

/// Where the fields of `mda_header` lie; the checksum covers all behind itself.
const MAGIC_OFFSET: usize = 4;
const VERSION_OFFSET: usize = 20;
const START_OFFSET: usize = 24;
const SIZE_OFFSET: usize = 32;
const COMMITTED: usize = 40;

/// `raw_locn`: offset, size, checksum, flags.
const LOCATION_LENGTH: usize = 24;
const PRECOMMITTED: usize = COMMITTED + LOCATION_LENGTH;

/// `RAW_LOCN_IGNORED`.
const IGNORED: u32 = 1;

/// What a metadata area holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// The volume belongs to no group, as far as this area knows.
    Empty,
    /// LVM was told not to use this area; what lies in it may be old.
    Ignored,
    /// A volume group.
    Group {
        /// The group.
        group: VolumeGroup,
        /// LVM was interrupted while it changed the group; the change was never made valid.
        interrupted: bool,
    },
}

/// Reads the area that the label says lies at `area`.
///
/// # Errors
/// [`AreaFault`] for a header or a text that cannot be relied on.
pub fn read(layer: &dyn ReadAt, area: Area) -> Result<Contents, AreaFault> {
    let header = layer
        .read_at(area.offset, HEADER_LENGTH)
        .map_err(AreaFault::Read)?;
    let size = check_header(&header, area.offset)?;
    let fits = area
        .offset
        .checked_add(size)
        .is_some_and(|end| end <= layer.size());
    if !fits || size <= HEADER_LENGTH {
        return Err(AreaFault::Size(size.get()));
    }
    let location = Location::at(&header, COMMITTED);
    if location.flags & IGNORED != 0 {
        return Ok(Contents::Ignored);
    }
    if location.offset == 0 && location.size == 0 {
        return Ok(Contents::Empty);
    }
    let bytes = read_text(layer, area.offset, size, location)?;
    if checksum(&[&bytes]) != location.checksum {
        return Err(AreaFault::TextChecksum);
    }
    let root = text::parse(&bytes).map_err(AreaFault::Syntax)?;
    let group = VolumeGroup::from_text(&root).map_err(AreaFault::Group)?;
    let next = Location::at(&header, PRECOMMITTED);
    Ok(Contents::Group {
        group,
        interrupted: next.offset != 0 && next.size != 0 && next.offset != location.offset,
    })
}

/// Checks the header and gives the area's size in bytes, header included.
fn check_header(header: &[u8], start: Bytes) -> Result<Bytes, AreaFault> {
    let covered = header.get(MAGIC_OFFSET..).unwrap_or_default();
    if u32_at(header, 0) != Some(checksum(&[covered])) {
        return Err(AreaFault::HeaderChecksum);
    }
    if !covered.starts_with(MAGIC) {
        return Err(AreaFault::Magic);
    }
    let version = u32_at(header, VERSION_OFFSET).unwrap_or_default();
    if version != VERSION {
        return Err(AreaFault::Version(version));
    }
    let own_start = u64_at(header, START_OFFSET).unwrap_or_default();
    if own_start != start.get() {
        return Err(AreaFault::Moved(own_start));
    }
    Ok(Bytes::new(u64_at(header, SIZE_OFFSET).unwrap_or_default()))
}

/// Where a text lies in the ring buffer: bytes from the beginning of the area.
#[derive(Clone, Copy)]
struct Location {
    offset: u64,
    size: u64,
    checksum: u32,
    flags: u32,
}

impl Location {
    fn at(header: &[u8], at: usize) -> Self {
        let entry = header.get(at..).unwrap_or_default();
        Self {
            offset: u64_at(entry, 0).unwrap_or_default(),
            size: u64_at(entry, 8).unwrap_or_default(),
            checksum: u32_at(entry, 16).unwrap_or_default(),
            flags: u32_at(entry, 20).unwrap_or_default(),
        }
    }
}

/// The text, from its offset on; where the end of the area comes first, it goes on behind the header.
fn read_text(
    layer: &dyn ReadAt,
    start: Bytes,
    area_size: Bytes,
    location: Location,
) -> Result<Vec<u8>, AreaFault> {
    let outside = || AreaFault::TextBounds {
        offset: location.offset,
        size: location.size,
    };
    let offset = Bytes::new(location.offset);
    let size = Bytes::new(location.size);
    let ring = area_size.saturating_sub(HEADER_LENGTH);
    if offset < HEADER_LENGTH || offset >= area_size || size > ring || size > MAX_READ {
        return Err(outside());
    }
    let from = start.checked_add(offset).ok_or_else(outside)?;
    let ring_start = start.checked_add(HEADER_LENGTH).ok_or_else(outside)?;
    let length = usize::try_from(size.get()).map_err(|_| outside())?;
    let straight = size.min(area_size.saturating_sub(offset));
    let straight = usize::try_from(straight.get()).map_err(|_| outside())?;
    let mut text = vec![0; length];
    let (behind, wrapped) = text.split_at_mut_checked(straight).ok_or_else(outside)?;
    for (from, part) in [(from, behind), (ring_start, wrapped)] {
        if !part.is_empty() {
            layer.read_exact_at(from, part).map_err(AreaFault::Read)?;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::writer::{self, Memory, MetadataArea, PhysicalVolumeImage, Slot};
    use super::*;

    const AT: usize = 4096;

    fn area() -> Area {
        Area {
            offset: Bytes::new(AT as u64),
            length: Bytes::ZERO,
        }
    }

    fn image(slot: Slot) -> Vec<u8> {
        let mut image = PhysicalVolumeImage::new('a');
        image.areas = vec![MetadataArea {
            offset: AT as u64,
            size: 8192,
            slot,
        }];
        image.build()
    }

    fn at(offset: u64) -> Slot {
        Slot::Text {
            offset,
            text: writer::group_text("vg", 'g', 3, &[('a', 64)], ""),
        }
    }

    fn changed(at_byte: usize, new: &[u8]) -> AreaFault {
        let mut bytes = image(at(512));
        bytes[AT + at_byte..AT + at_byte + new.len()].copy_from_slice(new);
        writer::seal_area(&mut bytes[AT..AT + 512]);
        read(&Memory(&bytes), area()).unwrap_err()
    }

    #[test]
    fn a_text_is_read_wherever_it_lies_in_the_ring() {
        for offset in [512, 1024, 8191, 8192 - 40, 8192 - 512] {
            let bytes = image(at(offset));
            let Contents::Group { group, interrupted } = read(&Memory(&bytes), area()).unwrap()
            else {
                panic!("offset {offset}");
            };
            assert_eq!((group.name.as_str(), group.sequence), ("vg", 3));
            assert!(!interrupted);
        }
    }

    #[test]
    fn an_empty_or_ignored_area_has_no_group() {
        let empty = image(Slot::Empty);
        assert_eq!(read(&Memory(&empty), area()).unwrap(), Contents::Empty);
        let ignored = image(Slot::Ignored);
        assert_eq!(read(&Memory(&ignored), area()).unwrap(), Contents::Ignored);
    }

    #[test]
    fn a_header_that_was_changed_is_refused() {
        let mut bytes = image(at(512));
        bytes[AT + 45] ^= 0x40;
        let fault = read(&Memory(&bytes), area()).unwrap_err();
        assert!(matches!(fault, AreaFault::HeaderChecksum), "{fault}");

        assert!(matches!(changed(MAGIC_OFFSET, b"xLVM2"), AreaFault::Magic));
        assert!(matches!(
            changed(VERSION_OFFSET, &2_u32.to_le_bytes()),
            AreaFault::Version(2)
        ));
        assert!(matches!(
            changed(START_OFFSET, &512_u64.to_le_bytes()),
            AreaFault::Moved(512)
        ));
        for size in [0, 512, 1 << 60, u64::MAX] {
            let fault = changed(SIZE_OFFSET, &size.to_le_bytes());
            assert!(matches!(fault, AreaFault::Size(same) if same == size));
        }
    }

    #[test]
    fn a_text_out_of_its_area_is_refused() {
        for (offset, size) in [
            (0, 100),
            (511, 100),
            (8192, 100),
            (u64::MAX, 100),
            (512, 8192 - 511),
            (512, 100 << 20),
            (512, u64::MAX),
        ] {
            let location = [u64::to_le_bytes(offset), u64::to_le_bytes(size)].concat();
            let fault = changed(COMMITTED, &location);
            assert!(matches!(fault, AreaFault::TextBounds { .. }), "{fault}");
        }
    }

    #[test]
    fn a_text_that_was_changed_is_refused() {
        let mut bytes = image(at(8192 - 100));
        bytes[AT + 520] ^= 1;
        let fault = read(&Memory(&bytes), area()).unwrap_err();
        assert!(matches!(fault, AreaFault::TextChecksum), "{fault}");
    }

    #[test]
    fn an_area_out_of_the_layer_is_refused() {
        let bytes = image(at(512));
        let fault = read(&Memory(&bytes[..AT + 8191]), area()).unwrap_err();
        assert!(matches!(fault, AreaFault::Size(8192)), "{fault}");
        for offset in [bytes.len() as u64 - 100, u64::MAX] {
            let outside = Area {
                offset: Bytes::new(offset),
                length: Bytes::ZERO,
            };
            let fault = read(&Memory(&bytes), outside).unwrap_err();
            assert!(matches!(fault, AreaFault::Read(_)), "{fault}");
        }
    }

    #[test]
    fn an_interrupted_change_is_told() {
        let mut bytes = image(at(512));
        let next = [4096_u64.to_le_bytes(), 700_u64.to_le_bytes()].concat();
        bytes[AT + PRECOMMITTED..AT + PRECOMMITTED + 16].copy_from_slice(&next);
        writer::seal_area(&mut bytes[AT..AT + 512]);
        let contents = read(&Memory(&bytes), area()).unwrap();
        assert!(matches!(
            contents,
            Contents::Group {
                interrupted: true,
                ..
            }
        ));
    }
}
