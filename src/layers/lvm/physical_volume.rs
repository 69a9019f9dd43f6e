//! One layer that is, or is not, a physical volume.

use super::error::{AreaFault, LvmError};
use super::identity::PhysicalVolumeId;
use super::label::{self, Area};
use super::metadata_area::{self, Contents};
use super::volume_group::VolumeGroup;
use crate::layers::read::ReadAt;
use crate::units::Bytes;

/// A physical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhysicalVolume {
    /// Its UUID.
    pub uuid: PhysicalVolumeId,
    /// The size of its device when it was made or last resized.
    pub device_size: Bytes,
    /// The newest group its metadata areas describe. `None`: no area, none in use, or no group;
    /// it may still belong to one, whose metadata then lies on other volumes.
    pub volume_group: Option<VolumeGroup>,
    /// Where LVM keeps its own metadata.
    pub metadata_areas: Vec<Area>,
    /// What a reader should know but what stops nothing.
    pub notes: Vec<String>,
}

/// Reads a layer's label and metadata. `Ok(None)`: it is not a physical volume.
///
/// # Errors
/// [`LvmError`] if the layer has a label, but it or the metadata cannot be relied on.
pub fn read(layer: &dyn ReadAt) -> Result<Option<PhysicalVolume>, LvmError> {
    let Some(label) = label::find(layer)? else {
        return Ok(None);
    };
    let mut notes = label.notes;
    if label.device_size > layer.size() {
        notes.push(format!(
            "the physical volume was made for {} bytes, but only {} are there",
            label.device_size.get(),
            layer.size().get()
        ));
    }
    let areas = Areas::read(layer, &label.metadata_areas);
    let volume_group = areas.newest(&mut notes)?;
    Ok(Some(PhysicalVolume {
        uuid: label.uuid,
        device_size: label.device_size,
        volume_group,
        metadata_areas: label.metadata_areas,
        notes,
    }))
}

/// What the metadata areas of one volume hold.
#[derive(Default)]
struct Areas {
    groups: Vec<(Bytes, VolumeGroup)>,
    faults: Vec<(Bytes, AreaFault)>,
    interrupted: bool,
}

impl Areas {
    fn read(layer: &dyn ReadAt, areas: &[Area]) -> Self {
        let mut read = Self::default();
        for area in areas {
            match metadata_area::read(layer, *area) {
                Ok(Contents::Empty | Contents::Ignored) => {}
                Ok(Contents::Group { group, interrupted }) => {
                    read.groups.push((area.offset, group));
                    read.interrupted |= interrupted;
                }
                Err(fault) => read.faults.push((area.offset, fault)),
            }
        }
        read
    }

    /// The group with the highest sequence number. An area that is damaged or older than another
    /// is worth a note; with no good one, the damage is the answer.
    fn newest(self, notes: &mut Vec<String>) -> Result<Option<VolumeGroup>, LvmError> {
        let mut newest: Option<(Bytes, VolumeGroup)> = None;
        for (offset, group) in self.groups {
            let Some((first, best)) = &newest else {
                newest = Some((offset, group));
                continue;
            };
            if best.uuid != group.uuid {
                return Err(LvmError::TwoGroups {
                    first: *first,
                    second: offset,
                });
            }
            if best.sequence == group.sequence && *best != group {
                return Err(LvmError::Contradiction {
                    first: *first,
                    second: offset,
                    sequence: group.sequence,
                });
            }
            if best.sequence != group.sequence {
                notes.push(format!(
                    "the metadata areas at bytes {} and {} have sequence numbers {} and {}; the newer counts",
                    first.get(),
                    offset.get(),
                    best.sequence,
                    group.sequence
                ));
            }
            if best.sequence < group.sequence {
                newest = Some((offset, group));
            }
        }
        let mut faults = self.faults.into_iter();
        if newest.is_none()
            && let Some((offset, fault)) = faults.next()
        {
            return Err(LvmError::Area { offset, fault });
        }
        notes.extend(faults.map(|(offset, fault)| {
            format!(
                "the metadata area at byte {} cannot be read: {fault}",
                offset.get()
            )
        }));
        if self.interrupted {
            notes.push("a change of the metadata was interrupted and did not take effect".into());
        }
        Ok(newest.map(|(_, group)| group))
    }
}

#[cfg(test)]
mod tests {
    use super::super::writer::{self, Memory, MetadataArea, PhysicalVolumeImage, Slot};
    use super::*;
    use proptest::prelude::*;

    fn two_areas(slots: [Slot; 2]) -> PhysicalVolumeImage {
        let mut image = PhysicalVolumeImage::new('a');
        image.areas = [4096, 32768]
            .into_iter()
            .zip(slots)
            .map(|(offset, slot)| MetadataArea {
                offset,
                size: 8192,
                slot,
            })
            .collect();
        image
    }

    fn text(name: &str, letter: char, sequence: u32) -> Slot {
        Slot::Text {
            offset: 512,
            text: writer::group_text(name, letter, sequence, &[('a', 15)], ""),
        }
    }

    fn volume(bytes: &[u8]) -> PhysicalVolume {
        read(&Memory(bytes)).unwrap().unwrap()
    }

    fn error(bytes: &[u8]) -> String {
        read(&Memory(bytes)).unwrap_err().to_string()
    }

    #[test]
    fn the_newest_metadata_counts_and_the_older_is_told() {
        for (slots, notes) in [
            ([text("vg", 'g', 4), text("vg", 'g', 4)], 0),
            ([text("old", 'g', 3), text("vg", 'g', 4)], 1),
            ([text("vg", 'g', 4), text("old", 'g', 3)], 1),
            ([text("vg", 'g', 4), Slot::Ignored], 0),
            ([Slot::Empty, text("vg", 'g', 4)], 0),
        ] {
            let volume = volume(&two_areas(slots).build());
            let group = volume.volume_group.unwrap();
            assert_eq!((group.name.as_str(), group.sequence), ("vg", 4));
            assert_eq!(volume.notes.len(), notes, "{:?}", volume.notes);
        }
    }

    #[test]
    fn areas_that_contradict_each_other_are_refused() {
        let two = two_areas([text("vg", 'g', 4), text("other", 'g', 4)]);
        assert_eq!(
            error(&two.build()),
            "LVM metadata areas at bytes 4096 and 32768: both have sequence number 4, but they differ"
        );
        let two = two_areas([text("vg", 'g', 4), text("vg", 'h', 5)]);
        assert_eq!(
            error(&two.build()),
            "LVM metadata areas at bytes 4096 and 32768: they belong to different volume groups"
        );
    }

    #[test]
    fn one_good_area_is_enough_but_a_damaged_one_alone_is_an_error() {
        let mut bytes = two_areas([text("vg", 'g', 4), text("vg", 'g', 4)]).build();
        bytes[4096 + 600] ^= 1;
        let volume = volume(&bytes);
        assert!(volume.volume_group.is_some());
        assert_eq!(
            volume.notes,
            ["the metadata area at byte 4096 cannot be read: wrong checksum of the metadata text"]
        );
        bytes[32768 + 8] ^= 1;
        assert_eq!(
            error(&bytes),
            "LVM metadata area at byte 4096: wrong checksum of the metadata text"
        );
        let mut bytes = two_areas([text("vg", 'g', 4), Slot::Empty]).build();
        bytes[4096] ^= 1;
        assert_eq!(
            error(&bytes),
            "LVM metadata area at byte 4096: wrong header checksum"
        );
    }

    #[test]
    fn a_volume_without_metadata_is_still_one() {
        let mut image = PhysicalVolumeImage::new('a');
        image.areas.clear();
        let volume = volume(&image.build());
        assert_eq!(volume.uuid, writer::uuid('a'));
        assert_eq!(volume.volume_group, None);
    }

    #[test]
    fn a_truncated_volume_is_told() {
        let image =
            PhysicalVolumeImage::with_text('a', writer::group_text("vg", 'g', 1, &[('a', 15)], ""));
        let bytes = image.build();
        let volume = volume(&bytes[..16384]);
        assert_eq!(
            volume.notes,
            ["the physical volume was made for 65536 bytes, but only 16384 are there"]
        );
        assert_eq!(
            error(&bytes[..4608]),
            "LVM metadata area at byte 4096: its 8192 bytes do not fit into the physical volume"
        );
    }

    #[test]
    fn an_unreadable_text_says_where() {
        let broken = |text: &str| error(&PhysicalVolumeImage::with_text('a', text.into()).build());
        assert_eq!(
            broken("vg {\nid = \"x"),
            "LVM metadata area at byte 4096: metadata text, line 2, byte 11: unterminated string"
        );
        assert_eq!(
            broken("vg { }"),
            "LVM metadata area at byte 4096: metadata text, not volume group metadata of version 1"
        );
    }

    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        writer::seal_label(&mut bytes[512..1024]);
        writer::seal_area(&mut bytes[4096..4608]);
        bytes
    }

    fn good() -> PhysicalVolumeImage {
        let volumes = writer::linear("root", 'r', &[(0, 3, "pv0", 0)]);
        let text = writer::group_text("vg", 'g', 1, &[('a', 15)], &volumes);
        PhysicalVolumeImage::with_text('a', text)
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let _ = read(&Memory(&bytes));
        }

        /// With the checksums set right again, the damage reaches the code behind them.
        #[test]
        fn flipped_bits_of_the_headers_never_panic(
            flips in proptest::collection::vec((0_usize..1024, 0_u8..8), 1..6),
        ) {
            let mut bytes = good().build();
            for (at, bit) in flips {
                let at = if at < 512 { 512 + at } else { 4096 + at - 512 };
                bytes[at] ^= 1 << bit;
            }
            let _ = read(&Memory(&sealed(bytes)));
        }

        #[test]
        fn a_changed_text_never_panics(
            changes in proptest::collection::vec((0_usize..900, any::<u8>()), 1..6),
            length in 0_usize..900,
        ) {
            let mut image = good();
            let Slot::Text { text, .. } = &mut image.areas[0].slot else { unreachable!() };
            let mut bytes = std::mem::take(text).into_bytes();
            for (at, byte) in changes {
                let at = at % bytes.len();
                bytes[at] = byte & 0x7f;
            }
            bytes.truncate(length);
            *text = String::from_utf8(bytes).unwrap();
            let bytes = image.build();
            if let Ok(Some(volume)) = read(&Memory(&bytes)) {
                let found = [super::super::FoundPhysicalVolume {
                    extents: crate::layers::extent::ExtentMap::whole(
                        crate::layers::extent::ImageIndex(0),
                        Bytes::mib(64),
                    ),
                    volume,
                }];
                let _ = super::super::assemble(&found);
            }
        }
    }
}
