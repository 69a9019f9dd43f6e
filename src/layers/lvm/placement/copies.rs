//! The copies of mirrored volumes, named by the metadata.

use super::{KNOWN_STATUS, Placement};
use crate::layers::extent::ExtentMap;
use crate::layers::lvm::copies::{Copies, Log, RaidCopy};
use crate::layers::lvm::volume_group::{LogicalVolume, Place, RaidLeg, Segment, SegmentKind};
use crate::units::Bytes;

/// The flags of a volume whose copies are about to become others (`lvconvert`).
const RESHAPING: [&str; 4] = [
    "RESHAPE",
    "RESHAPE_DELTA_DISKS_PLUS",
    "RESHAPE_DELTA_DISKS_MINUS",
    "LV_REMOVE_AFTER_RESHAPE",
];

impl Placement<'_> {
    /// The copies of a volume that is one mirror over all its length; `None` if it is no such, or if
    /// a copy is anything but a plain volume on physical volumes that are all there.
    pub fn copies(&self, volume: &LogicalVolume) -> Option<Copies> {
        let [segment] = volume.segments.as_slice() else {
            return None;
        };
        let is_plain = |flag: &String| {
            KNOWN_STATUS.contains(&flag.as_str()) && !RESHAPING.contains(&flag.as_str())
        };
        if segment.start != 0 || segment.count == 0 || !volume.status.iter().all(is_plain) {
            return None;
        }
        self.check_snapshots(&volume.name).ok()?;
        match &segment.kind {
            SegmentKind::Raid1(legs) => {
                let legs = legs.iter().map(|leg| self.raid_copy(leg, segment));
                Some(Copies::Raid(legs.collect::<Option<_>>()?))
            }
            SegmentKind::Mirror {
                copies,
                log,
                region_size,
            } => {
                let legs = copies.iter().map(|place| self.mirror_copy(place, segment));
                let legs = legs.collect::<Option<_>>()?;
                let log = match log {
                    None => Log::Memory,
                    Some(name) => {
                        let size = self.size(volume).get();
                        Log::Disk {
                            extents: self.part(name)?.1,
                            regions: size.checked_next_multiple_of(region_size.as_ref()?.get())?
                                / region_size.as_ref()?.get(),
                        }
                    }
                };
                Some(Copies::Mirror { legs, log })
            }
            _ => None,
        }
    }

    fn raid_copy(&self, leg: &RaidLeg, segment: &Segment) -> Option<RaidCopy> {
        let (volume, data) = self.part(&leg.data)?;
        if data.size() != self.length(segment)? {
            return None;
        }
        let (_, metadata) = self.part(&leg.metadata)?;
        Some(RaidCopy {
            name: volume.name.clone(),
            data,
            metadata,
            to_be_filled: volume.has_status("REBUILD"),
            write_mostly: volume.has_status("WRITEMOSTLY"),
        })
    }

    fn mirror_copy(&self, place: &Place, segment: &Segment) -> Option<ExtentMap> {
        let (_, data) = self.part(&place.volume)?;
        let extent = u64::from(place.extent);
        let offset = self.group.extent_size.checked_mul(extent)?;
        data.slice(offset, self.length(segment)?).ok()
    }

    fn length(&self, segment: &Segment) -> Option<Bytes> {
        let count = u64::from(segment.count);
        self.group.extent_size.checked_mul(count)
    }

    /// A volume that another one is made of, and where its bytes lie.
    fn part(&self, name: &str) -> Option<(&LogicalVolume, ExtentMap)> {
        let volume = self.volumes.get(name)?;
        Some((volume, self.layout(volume).ok()?))
    }
}
