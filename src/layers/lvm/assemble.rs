//! Volume groups out of the physical volumes found anywhere in a domain.

use std::collections::{HashMap, HashSet};

use super::copies::Copies;
use super::identity::{LogicalVolumeId, PhysicalVolumeId, VolumeGroupId, shown};
use super::physical_volume::PhysicalVolume;
use super::placement::{MemberState, Placement};
use super::volume_group::{Member, VolumeGroup};
use crate::layers::extent::ExtentMap;
use crate::units::Bytes;

/// The `status` flags of groups (lib/format_text/flags.c); one that is not among them must be
/// understood, and is not.
const KNOWN_STATUS: [&str; 8] = [
    "EXPORTED",
    "RESIZEABLE",
    "PVMOVE",
    "READ",
    "WRITE",
    "CLUSTERED",
    "SHARED",
    "PARTIAL",
];

/// A physical volume and where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPhysicalVolume {
    /// Where its bytes lie.
    pub extents: ExtentMap,
    /// What was read from them.
    pub volume: PhysicalVolume,
}

/// A volume group and its logical volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssembledGroup {
    /// Its name; another group may have the same.
    pub name: String,
    /// Its UUID; no other group has the same.
    pub uuid: VolumeGroupId,
    /// The logical volumes that `lvs` would show, in the order of the metadata.
    pub logical_volumes: Vec<AssembledVolume>,
    /// Physical volumes that the group has, but that were not found.
    pub missing: Vec<PhysicalVolumeId>,
    /// The found physical volumes of the group: indexes into what [`assemble()`] was given, rising.
    pub members: Vec<usize>,
    /// What a reader should know but what stops nothing.
    pub notes: Vec<String>,
    /// The locks by which several systems use it at once, in words; `None` if it is meant for one.
    pub shared: Option<String>,
}

/// A logical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssembledVolume {
    /// Its name, unique in the group.
    pub name: String,
    /// Its UUID.
    pub uuid: LogicalVolumeId,
    /// The found physical volume that holds its first extent: an index into what [`assemble()`] was
    /// given. `None` if that volume is missing or cannot be told.
    pub first: Option<usize>,
    /// Where its bytes lie; else why it cannot be laid out.
    pub layout: Result<ExtentMap, NoLayout>,
    /// Its copies, where only LVM can lay it out but one of them could be read without it.
    pub copies: Option<Copies>,
    /// Its length as the metadata says.
    pub size: Bytes,
    /// The guest's administrator made it read-only (`lvchange --permission r`).
    pub read_only: bool,
}

/// Why it cannot be said where a volume's bytes lie; each with the reason in words for a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoLayout {
    /// It is of a kind that only LVM itself can lay out, and it can.
    ForLvm(String),
    /// It only holds other volumes, which have answers of their own.
    Pool(String),
    /// Anything else.
    Fault(String),
}

impl NoLayout {
    /// The reason.
    pub fn reason(&self) -> &str {
        match self {
            Self::ForLvm(reason) | Self::Pool(reason) | Self::Fault(reason) => reason,
        }
    }
}

impl From<String> for NoLayout {
    fn from(reason: String) -> Self {
        Self::Fault(reason)
    }
}

/// Puts groups together, in the order in which their first physical volumes were found.
///
/// Nothing is chosen where two things claim to be the same: what depends on the choice gets a
/// reason instead of a layout.
pub fn assemble(found: &[FoundPhysicalVolume]) -> Vec<AssembledGroup> {
    let mut by_uuid: HashMap<PhysicalVolumeId, Vec<usize>> = HashMap::new();
    let mut order = Vec::new();
    let mut holders: HashMap<VolumeGroupId, Vec<Holder<'_>>> = HashMap::new();
    for (index, FoundPhysicalVolume { volume, .. }) in found.iter().enumerate() {
        by_uuid.entry(volume.uuid).or_default().push(index);
        if let Some(group) = &volume.volume_group {
            let known = holders.entry(group.uuid).or_default();
            if known.is_empty() {
                order.push(group.uuid);
            }
            known.push(Holder {
                uuid: volume.uuid,
                group,
            });
        }
    }
    let mut groups: Vec<AssembledGroup> = order
        .iter()
        .filter_map(|uuid| assemble_one(found, &by_uuid, holders.get(uuid)?))
        .collect();
    note_same_names(&mut groups);
    groups
}

/// A physical volume that holds a copy of a group's metadata.
struct Holder<'a> {
    uuid: PhysicalVolumeId,
    group: &'a VolumeGroup,
}

fn assemble_one(
    found: &[FoundPhysicalVolume],
    by_uuid: &HashMap<PhysicalVolumeId, Vec<usize>>,
    holders: &[Holder<'_>],
) -> Option<AssembledGroup> {
    let newest = holders.iter().max_by_key(|holder| holder.group.sequence)?;
    let group = newest.group;
    let mut notes = group_notes(group);
    notes.extend(holder_notes(group, holders));
    let mut refusal = refusal(group, newest.uuid, holders);
    let mut states = Vec::new();
    let mut missing = Vec::new();
    let mut members = Vec::new();
    for member in &group.physical_volumes {
        let places = by_uuid.get(&member.uuid).map_or(&[][..], Vec::as_slice);
        if places.is_empty() {
            missing.push(member.uuid);
        }
        if places.len() > 1 {
            notes.push(found_twice(member, places));
            if copies_differ(found, places) {
                refusal.get_or_insert_with(|| {
                    format!("{}, with different metadata", found_twice(member, places))
                });
            }
        }
        members.extend(places);
        states.push(member_state(found, group, member, places));
    }
    members.sort_unstable();
    let placement = Placement::new(found, group, &states);
    let logical_volumes = placement
        .listed()
        .into_iter()
        .map(|volume| AssembledVolume {
            name: volume.name.clone(),
            uuid: volume.uuid,
            first: placement.first(volume),
            layout: match &refusal {
                Some(reason) => Err(NoLayout::Fault(reason.clone())),
                None => placement.layout(volume),
            },
            copies: match &refusal {
                Some(_) => None,
                None => placement.copies(volume),
            },
            size: placement.size(volume),
            read_only: !volume.has_status("WRITE"),
        })
        .collect();
    Some(AssembledGroup {
        name: group.name.clone(),
        uuid: group.uuid,
        logical_volumes,
        missing,
        members,
        notes,
        shared: locks(group),
    })
}

/// Why nothing of the group can be laid out.
fn refusal(
    group: &VolumeGroup,
    newest: PhysicalVolumeId,
    holders: &[Holder<'_>],
) -> Option<String> {
    let contradicts =
        |holder: &&Holder<'_>| holder.group.sequence == group.sequence && holder.group != group;
    if let Some(other) = holders.iter().find(contradicts) {
        return Some(format!(
            "physical volumes {newest} and {} hold different metadata with the same sequence number {}",
            other.uuid, group.sequence
        ));
    }
    if group.has_status("EXPORTED") {
        return Some("the volume group is exported (vgexport)".to_owned());
    }
    group
        .status
        .iter()
        .find(|flag| !KNOWN_STATUS.contains(&flag.as_str()))
        .map(|flag| {
            format!(
                "the volume group has the unknown status flag {}",
                shown(flag)
            )
        })
}

/// What the newest metadata says of the group as a whole.
fn group_notes(group: &VolumeGroup) -> Vec<String> {
    let mut notes = Vec::new();
    if group.has_status("PARTIAL") {
        notes.push("LVM last saw the volume group with physical volumes missing".to_owned());
    }
    if let Some(id) = group.system_id.as_deref().filter(|id| !id.is_empty()) {
        notes.push(format!(
            "the volume group is owned by the system with ID {}",
            shown(id)
        ));
    }
    if let Some(locks) = locks(group) {
        notes.push(format!(
            "the volume group is meant for shared storage ({locks})"
        ));
    }
    notes
}

/// The locks by which several systems use it at once (lvmlockd(8), "lock_type"; clvmd before that).
fn locks(group: &VolumeGroup) -> Option<String> {
    let kind = group.lock_type.as_deref().filter(|kind| *kind != "none");
    let clustered = || group.has_status("CLUSTERED") || group.has_status("SHARED");
    kind.map(|kind| format!("lock type {}", shown(kind)))
        .or_else(|| clustered().then(|| "clustered".to_owned()))
}

/// What the other copies of the metadata say.
fn holder_notes(group: &VolumeGroup, holders: &[Holder<'_>]) -> Vec<String> {
    let listed: HashSet<PhysicalVolumeId> = group
        .physical_volumes
        .iter()
        .map(|member| member.uuid)
        .collect();
    let mut notes = Vec::new();
    for Holder { uuid, group: own } in holders {
        if own.sequence < group.sequence {
            notes.push(format!(
                "physical volume {uuid} holds older metadata (sequence number {}, the newest is {})",
                own.sequence, group.sequence
            ));
        }
        if !listed.contains(uuid) {
            notes.push(format!(
                "physical volume {uuid} holds metadata of the volume group, but is no part of it"
            ));
        }
    }
    notes
}

fn found_twice(member: &Member, places: &[usize]) -> String {
    format!(
        "physical volume {} was found {} times",
        member.uuid,
        places.len()
    )
}

/// Copies of one physical volume went different ways, so that it cannot be told whose metadata counts.
fn copies_differ(found: &[FoundPhysicalVolume], places: &[usize]) -> bool {
    let mut copies = places
        .iter()
        .filter_map(|place| found.get(*place))
        .map(|copy| &copy.volume.volume_group);
    let first = copies.next();
    copies.any(|copy| Some(copy) != first)
}

fn member_state(
    found: &[FoundPhysicalVolume],
    group: &VolumeGroup,
    member: &Member,
    places: &[usize],
) -> MemberState {
    let uuid = member.uuid;
    let own_group = places
        .first()
        .and_then(|place| found.get(*place))
        .and_then(|copy| copy.volume.volume_group.as_ref())
        .filter(|own| own.uuid != group.uuid);
    let fault = if places.is_empty() {
        Some(format!(
            "a segment lies on the missing physical volume {uuid}"
        ))
    } else if places.len() > 1 {
        Some(found_twice(member, places))
    } else if let Some(own) = own_group {
        Some(format!(
            "physical volume {uuid} says that it belongs to volume group {} ({})",
            own.name, own.uuid
        ))
    } else if member.missing {
        Some(format!(
            "LVM marked physical volume {uuid} as missing, so that its data may be old"
        ))
    } else {
        None
    };
    MemberState {
        found: places.first().copied(),
        fault,
    }
}

fn note_same_names(groups: &mut [AssembledGroup]) {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for group in groups.iter() {
        let count = counts.entry(group.name.clone()).or_default();
        *count = count.saturating_add(1);
    }
    for group in groups {
        if counts.get(&group.name).is_some_and(|count| *count > 1) {
            group.notes.push(format!(
                "another volume group is named {} too; the UUID of this one is {}",
                group.name, group.uuid
            ));
        }
    }
}

#[cfg(test)]
mod tests;
