//! Where the extents of one group's logical volumes lie, or why that cannot be said.

use std::collections::HashMap;

use super::assemble::FoundPhysicalVolume;
use super::assemble::NoLayout;
use super::identity::shown;
use super::label::SCAN_SECTORS;
use super::raw::SECTOR;
use super::volume_group::{LogicalVolume, Place, Segment, SegmentKind, VolumeGroup};
use crate::layers::extent::{Extent, ExtentMap, MAX_COLUMNS, Striped};
use crate::units::Bytes;

mod copies;

/// How deep volumes may lie in volumes: a thin volume in a cached pool on RAID has four levels.
const MAX_NESTING: usize = 8;

/// How many pieces one volume may lie in: twice as many as it may have segments. More come about
/// only where its physical volumes lie in pieces themselves.
const MAX_PIECES: usize = 8192;

/// The `status` flags of logical volumes (lib/format_text/flags.c). One that is not among them
/// says something that must be understood, and is not.
const KNOWN_STATUS: [&str; 13] = [
    "READ",
    "WRITE",
    "FIXED_MINOR",
    "VISIBLE",
    "PVMOVE",
    "LOCKED",
    "NOTSYNCED",
    "REBUILD",
    "RESHAPE",
    "RESHAPE_DELTA_DISKS_PLUS",
    "RESHAPE_DELTA_DISKS_MINUS",
    "LV_REMOVE_AFTER_RESHAPE",
    "WRITEMOSTLY",
];

/// A physical volume of the group, and what is known of it.
pub(super) struct MemberState {
    /// Its index among the found volumes; the first one, if it was found more than once.
    pub found: Option<usize>,
    /// Why nothing on it can be used.
    pub fault: Option<String>,
}

/// One group, prepared to answer for each of its logical volumes.
pub(super) struct Placement<'a> {
    found: &'a [FoundPhysicalVolume],
    group: &'a VolumeGroup,
    /// In the order of the group's physical volumes.
    states: &'a [MemberState],
    members: HashMap<&'a str, usize>,
    volumes: HashMap<&'a str, &'a LogicalVolume>,
    /// The origin of each snapshot by the snapshot's name.
    origins: HashMap<&'a str, &'a str>,
    /// A snapshot of each volume that has any.
    snapshots: HashMap<&'a str, &'a str>,
    /// For each logical volume by name, another one that uses the same physical extents.
    conflicts: HashMap<&'a str, &'a str>,
}

/// Physical extents that a logical volume claims.
struct Claim<'a> {
    member: usize,
    start: u64,
    end: u64,
    by: &'a str,
}

impl<'a> Placement<'a> {
    pub fn new(
        found: &'a [FoundPhysicalVolume],
        group: &'a VolumeGroup,
        states: &'a [MemberState],
    ) -> Self {
        let members: HashMap<_, _> = group
            .physical_volumes
            .iter()
            .enumerate()
            .map(|(index, member)| (member.key.as_str(), index))
            .collect();
        let volumes = group
            .logical_volumes
            .iter()
            .map(|volume| (volume.name.as_str(), volume))
            .collect();
        let links = group
            .logical_volumes
            .iter()
            .flat_map(|volume| &volume.segments)
            .filter_map(|segment| match &segment.kind {
                SegmentKind::Snapshot { origin, store } => Some((store.as_str(), origin.as_str())),
                _ => None,
            });
        let mut origins = HashMap::new();
        let mut snapshots = HashMap::new();
        for (store, origin) in links {
            origins.entry(store).or_insert(origin);
            snapshots.entry(origin).or_insert(store);
        }
        let conflicts = conflicts(claims(group, &members));
        Self {
            found,
            group,
            states,
            members,
            volumes,
            origins,
            snapshots,
            conflicts,
        }
    }

    /// The volumes that `lvs` shows. A snapshot's own volume is marked hidden on disk, and shown;
    /// what ties it to its origin is a volume only on disk (`lv_is_visible`, lib/metadata/lv_manip.c).
    pub fn listed(&self) -> Vec<&'a LogicalVolume> {
        self.group
            .logical_volumes
            .iter()
            .filter(|volume| {
                let is_link = volume
                    .segments
                    .iter()
                    .any(|segment| matches!(segment.kind, SegmentKind::Snapshot { .. }));
                !is_link && (volume.is_visible() || self.origins.contains_key(volume.name.as_str()))
            })
            .collect()
    }

    /// The length of a volume; the greatest there is if it is absurd.
    pub fn size(&self, volume: &LogicalVolume) -> Bytes {
        let extents = volume.segments.iter().fold(0_u64, |sum, segment| {
            sum.saturating_add(u64::from(segment.count))
        });
        Bytes::new(self.group.extent_size.get().saturating_mul(extents))
    }

    /// The found physical volume that holds the volume's first extent, through any volumes between.
    pub fn first(&self, volume: &LogicalVolume) -> Option<usize> {
        let mut volume = volume;
        for _ in 0..MAX_NESTING {
            let segment = volume.segments.iter().min_by_key(|segment| segment.start)?;
            let name = match &segment.kind {
                SegmentKind::Linear(place) => &place.volume,
                SegmentKind::Striped { places, .. } => &places.first()?.volume,
                SegmentKind::Snapshot { store, .. } => store,
                SegmentKind::Raid1(legs) => &legs.first()?.data,
                SegmentKind::Mirror { copies, .. } => &copies.first()?.volume,
                SegmentKind::Other { below, .. } => below.as_ref()?,
            };
            if let Some(member) = self.members.get(name.as_str()) {
                return self.states.get(*member)?.found;
            }
            volume = self.volumes.get(name.as_str())?;
        }
        None
    }

    /// Where a volume's bytes lie.
    ///
    /// # Errors
    /// Why that cannot be said, in words for a report.
    pub fn layout(&self, volume: &LogicalVolume) -> Result<ExtentMap, NoLayout> {
        self.check_snapshots(&volume.name)?;
        let mut segments: Vec<&Segment> = volume.segments.iter().collect();
        segments.sort_by_key(|segment| segment.start);
        for segment in &segments {
            self.check_kind(&segment.kind)?;
        }
        check_cover(&segments)?;
        if let Some(unknown) = volume
            .status
            .iter()
            .find(|flag| !KNOWN_STATUS.contains(&flag.as_str()))
        {
            return Err(format!("unknown status flag {}", shown(unknown)).into());
        }
        if let Some(other) = self.conflicts.get(volume.name.as_str()) {
            return Err(NoLayout::Fault(if *other == volume.name {
                "two of its segments use the same physical extents".to_owned()
            } else {
                format!("logical volume {other} uses the same physical extents")
            }));
        }
        let mut map = ExtentMap::default();
        for segment in segments {
            match &segment.kind {
                SegmentKind::Linear(place) => map.append(&self.extents(place, segment.count)?),
                SegmentKind::Striped {
                    places,
                    stripe_size,
                } => map.push_striped(self.stripes(places, *stripe_size, segment)?),
                SegmentKind::Snapshot { .. }
                | SegmentKind::Raid1(_)
                | SegmentKind::Mirror { .. }
                | SegmentKind::Other { .. } => {}
            }
            if map.pieces().len() > MAX_PIECES {
                return Err(format!("it lies in more than {MAX_PIECES} pieces").into());
            }
        }
        Ok(map)
    }

    fn check_snapshots(&self, name: &str) -> Result<(), NoLayout> {
        if let Some(origin) = self.origins.get(name) {
            let what = format!("snapshot of {}", shown(origin));
            return Err(NoLayout::ForLvm(what));
        }
        if let Some(snapshot) = self.snapshots.get(name) {
            return Err(NoLayout::ForLvm(format!(
                "origin of the snapshot {}, which a change from outside would damage",
                shown(snapshot)
            )));
        }
        Ok(())
    }

    fn check_kind(&self, kind: &SegmentKind) -> Result<(), NoLayout> {
        match kind {
            SegmentKind::Linear(place) => self.check_place(place),
            SegmentKind::Striped { places, .. } => {
                places.iter().try_for_each(|place| self.check_place(place))
            }
            SegmentKind::Snapshot { origin, .. } => {
                Err(NoLayout::ForLvm(format!("snapshot of {}", shown(origin))))
            }
            SegmentKind::Raid1(_) => Err(NoLayout::ForLvm("raid1".to_owned())),
            SegmentKind::Mirror { .. } => Err(NoLayout::ForLvm("mirror".to_owned())),
            SegmentKind::Other { name, .. } => Err(match name.as_str() {
                "thin" => NoLayout::ForLvm("thin volume".to_owned()),
                "thin-pool" => NoLayout::Pool("thin pool".to_owned()),
                "cache" => NoLayout::ForLvm("cached volume".to_owned()),
                "cache-pool" => NoLayout::Pool("cache pool".to_owned()),
                "writecache" => NoLayout::ForLvm("write-cached volume".to_owned()),
                "vdo" => NoLayout::ForLvm("VDO volume".to_owned()),
                "vdo-pool" => NoLayout::Pool("VDO pool".to_owned()),
                "integrity" => NoLayout::ForLvm("volume with integrity data".to_owned()),
                "zero" | "error" => NoLayout::Fault(name.clone()),
                raid if raid.starts_with("raid") => NoLayout::ForLvm(shown(raid)),
                unknown => {
                    let what = format!("segments of the unknown kind {}", shown(unknown));
                    NoLayout::Fault(what)
                }
            }),
        }
    }

    /// It must lie on a physical volume.
    fn check_place(&self, place: &Place) -> Result<(), NoLayout> {
        let name = place.volume.as_str();
        if self.members.contains_key(name) {
            Ok(())
        } else if !self.volumes.contains_key(name) {
            Err(NoLayout::Fault(format!(
                "a segment lies on {}, which the volume group does not have",
                shown(name)
            )))
        } else if name.starts_with("pvmove") {
            let what = format!("an unfinished pvmove ({})", shown(name));
            Err(NoLayout::Fault(what))
        } else {
            let what = format!("a segment lies on logical volume {}", shown(name));
            Err(NoLayout::ForLvm(what))
        }
    }

    /// Where the extents of a striped segment lie: each place has an equal share of them
    /// (`check_lv_segments`, lib/metadata/merge.c).
    fn stripes(
        &self,
        places: &[Place],
        stripe_size: Bytes,
        segment: &Segment,
    ) -> Result<Striped, String> {
        let fault = |reason: &dyn std::fmt::Display| {
            format!("the segment at extent {} has {reason}", segment.start)
        };
        if places.len() > MAX_COLUMNS {
            return Err(fault(&format!(
                "{} stripes, more than LVM makes",
                places.len()
            )));
        }
        let size = stripe_size.get();
        if !size.is_power_of_two() || stripe_size > self.group.extent_size {
            return Err(fault(&format!(
                "a stripe size of {size} bytes, which is no power of two up to the extent size"
            )));
        }
        let count = u32::try_from(places.len()).unwrap_or(u32::MAX);
        let share = segment
            .count
            .checked_div(count)
            .filter(|share| share.checked_mul(count) == Some(segment.count))
            .ok_or_else(|| {
                fault(&format!(
                    "{} extents, which {count} stripes cannot share",
                    segment.count
                ))
            })?;
        let columns: Vec<Extent> = places
            .iter()
            .map(|place| self.column(place, share))
            .collect::<Result<_, _>>()?;
        Striped::new(&columns, stripe_size).map_err(|error| fault(&error))
    }

    /// Where `count` extents of a physical volume lie, which must be one place.
    fn column(&self, place: &Place, count: u32) -> Result<Extent, String> {
        let map = self.extents(place, count)?;
        map.single().ok_or_else(|| {
            format!(
                "a stripe lies in {} separate pieces, as its physical volume {} does",
                map.places().count(),
                shown(&place.volume)
            )
        })
    }

    /// Where `count` extents of a physical volume lie.
    fn extents(&self, place: &Place, count: u32) -> Result<ExtentMap, String> {
        let unknown = || "a segment lies nowhere".to_owned();
        let index = self
            .members
            .get(place.volume.as_str())
            .ok_or_else(unknown)?;
        let member = self
            .group
            .physical_volumes
            .get(*index)
            .ok_or_else(unknown)?;
        let state = self.states.get(*index).ok_or_else(unknown)?;
        if let Some(fault) = &state.fault {
            return Err(fault.clone());
        }
        let found = state
            .found
            .and_then(|at| self.found.get(at))
            .ok_or_else(unknown)?;
        let uuid = member.uuid;
        let outside = || format!("a segment reaches past the end of physical volume {uuid}");
        let end = u64::from(place.extent).saturating_add(u64::from(count));
        if end > u64::from(member.extent_count) {
            return Err(outside());
        }
        let size = self.group.extent_size;
        let offset = size
            .checked_mul(u64::from(place.extent))
            .and_then(|offset| offset.checked_add(member.start))
            .ok_or_else(outside)?;
        let length = size.checked_mul(u64::from(count)).ok_or_else(outside)?;
        let end = offset.checked_add(length).ok_or_else(outside)?;
        let label_end = Bytes::new(SCAN_SECTORS.saturating_mul(SECTOR));
        let on_metadata = offset < label_end
            || found.volume.metadata_areas.iter().any(|area| {
                let area_end = area.offset.get().saturating_add(area.length.get());
                offset.get() < area_end && area.offset < end
            });
        if on_metadata {
            return Err(format!(
                "a segment lies on the metadata of physical volume {uuid}"
            ));
        }
        found.extents.slice(offset, length).map_err(|_| outside())
    }
}

/// Sorted segments must follow each other from extent 0 on.
fn check_cover(segments: &[&Segment]) -> Result<(), String> {
    if segments.is_empty() {
        return Err("it has no segments".to_owned());
    }
    let mut next = 0_u64;
    for segment in segments {
        let start = u64::from(segment.start);
        if segment.count == 0 {
            return Err(format!("the segment at extent {start} is empty"));
        }
        if start > next {
            return Err(format!("no segment covers extent {next}"));
        }
        if start < next {
            return Err(format!("two segments cover extent {start}"));
        }
        next = start.saturating_add(u64::from(segment.count));
    }
    Ok(())
}

/// The physical extents of all volumes, hidden ones too.
fn claims<'a>(group: &'a VolumeGroup, members: &HashMap<&str, usize>) -> Vec<Claim<'a>> {
    let mut claims = Vec::new();
    for volume in &group.logical_volumes {
        for segment in &volume.segments {
            let (places, count) = match &segment.kind {
                SegmentKind::Linear(place) => (std::slice::from_ref(place), segment.count),
                SegmentKind::Striped { places, .. } => (
                    places.as_slice(),
                    segment
                        .count
                        .div_ceil(u32::try_from(places.len()).unwrap_or(u32::MAX).max(1)),
                ),
                SegmentKind::Mirror { copies, .. } => (copies.as_slice(), segment.count),
                SegmentKind::Snapshot { .. }
                | SegmentKind::Raid1(_)
                | SegmentKind::Other { .. } => continue,
            };
            for place in places {
                if let Some(member) = members.get(place.volume.as_str()) {
                    let start = u64::from(place.extent);
                    claims.push(Claim {
                        member: *member,
                        start,
                        end: start.saturating_add(u64::from(count)),
                        by: &volume.name,
                    });
                }
            }
        }
    }
    claims
}

/// Which volumes claim what another one claims too. Sorted by their beginning, claims that overlap
/// any earlier one overlap the one that reaches farthest.
fn conflicts(mut claims: Vec<Claim<'_>>) -> HashMap<&str, &str> {
    claims.sort_by_key(|claim| (claim.member, claim.start));
    let mut conflicts = HashMap::new();
    let mut farthest: Option<&Claim<'_>> = None;
    for claim in &claims {
        if let Some(other) = farthest.filter(|other| other.member == claim.member) {
            if claim.start < other.end && claim.start < claim.end {
                conflicts.entry(claim.by).or_insert(other.by);
                conflicts.entry(other.by).or_insert(claim.by);
            }
            if claim.end <= other.end {
                continue;
            }
        }
        farthest = Some(claim);
    }
    conflicts
}
