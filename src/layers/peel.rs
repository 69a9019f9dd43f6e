//! Peeling: from the disks of a domain down to its filesystems.
//!
//! All disks are peeled together, again and again until nothing new appears, because volume groups
//! and arrays may span disks, and any layer may hold any other.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::layers::dormant::{
    Activated, ClosedContainer, DormantArray, DormantGroup, DormantVolume, Headers, Known, Peeled,
    Unlocked,
};
use crate::layers::ends::Ends;
use crate::layers::extent::{ExtentMap, ImageIndex};
use crate::layers::luks;
use crate::layers::lvm::{self, AssembledGroup, FoundPhysicalVolume, VolumeGroupId};
use crate::layers::md::{ArrayId, FoundMember};
use crate::layers::partition::{Inside, PartitionTable};
use crate::layers::read::{LayerReader, ReadImages};
use crate::layers::tree::{Content, Layer, LayerPath, PartitionRole, ReadOnly};
use crate::units::{Bytes, SectorSize};

mod arrays;
mod containers;
mod look;
mod no_writes;
mod volumes;

use look::{Look, look};
use no_writes::NoWrites;

/// The deepest a layer may lie. A full-disk install needs five: disk, partition, LUKS, LVM, volume.
const DEEPEST: usize = 16;

/// The most layers a domain may have: some dozens of disks with some hundreds of volumes each.
const MOST_LAYERS: usize = 8192;

/// An opened disk.
#[derive(Clone, Debug)]
pub struct OpenDisk {
    /// Its target name: `vda`.
    pub target: String,
    /// Which image it is.
    pub image: ImageIndex,
    /// Its size as the guest sees it.
    pub size: Bytes,
    /// Its sectors as the guest sees them.
    pub sector_size: SectorSize,
}

/// Who lays out a mirror of MD that is whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WholeMirrors {
    /// We do, and nothing may be written to it.
    #[default]
    ToBeRead,
    /// MD starts it, so that it may be written to.
    ToBeStarted,
}

/// The layers of all disks: one tree a disk, in the order given. `known` is what became of all that an
/// earlier look found closed.
pub fn peel(
    disks: &[OpenDisk],
    images: &dyn ReadImages,
    known: Known<'_>,
    whole_mirrors: WholeMirrors,
) -> Peeled {
    let mut peeler = Peeler {
        images,
        activated: known.activated,
        unlocked: known.unlocked,
        headers: known.headers,
        whole_mirrors,
        containers: Vec::new(),
        groups: Vec::new(),
        dormant_arrays: Vec::new(),
        found: Vec::new(),
        queue: VecDeque::new(),
        volumes: Vec::new(),
        volume_layers: Vec::new(),
        expanded: HashSet::new(),
        laid_out: HashSet::new(),
        held: HashMap::new(),
        members: Vec::new(),
        member_layers: Vec::new(),
        arrays: HashSet::new(),
        placed: HashSet::new(),
        no_writes: NoWrites::default(),
    };
    let roots: Vec<usize> = disks
        .iter()
        .map(|disk| {
            peeler.add(Found {
                path: LayerPath::disk(&disk.target),
                extents: ExtentMap::whole(disk.image, disk.size),
                role: None,
                read_only: None,
                sector_size: disk.sector_size,
                place: Place::Disk,
                depth: 0,
                content: Content::Unknown,
                notes: Vec::new(),
                children: Vec::new(),
            })
        })
        .collect();
    peeler.peel_all();
    Peeled {
        layers: roots.into_iter().map(|root| peeler.tree(root)).collect(),
        groups: peeler.groups,
        arrays: peeler.dormant_arrays,
        containers: peeler.containers,
    }
}

/// What a layer is to the layer around it: only whole disks, real or virtual, have partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Disk,
    Partition,
}

/// A layer on its way into the tree.
struct Found {
    path: LayerPath,
    extents: ExtentMap,
    role: Option<PartitionRole>,
    read_only: Option<ReadOnly>,
    sector_size: SectorSize,
    place: Place,
    depth: usize,
    content: Content,
    notes: Vec<String>,
    children: Vec<usize>,
}

struct Peeler<'a> {
    images: &'a dyn ReadImages,
    activated: Option<&'a Activated>,
    unlocked: &'a Unlocked,
    headers: &'a Headers,
    whole_mirrors: WholeMirrors,
    containers: Vec<ClosedContainer>,
    groups: Vec<DormantGroup>,
    dormant_arrays: Vec<DormantArray>,
    found: Vec<Found>,
    queue: VecDeque<usize>,
    volumes: Vec<FoundPhysicalVolume>,
    /// For each of `volumes`, the layer it was found in.
    volume_layers: Vec<usize>,
    expanded: HashSet<VolumeGroupId>,
    /// Which of `volumes` had their place in a group when it was laid out.
    laid_out: HashSet<usize>,
    /// The layers that share bytes with something else, and why neither they nor what lies in them
    /// may be checked.
    held: HashMap<usize, String>,
    /// Members of arrays.
    members: Vec<FoundMember>,
    /// For each of `members`, the layer it was found in.
    member_layers: Vec<usize>,
    /// Which arrays were put together, and which of `members` had their place in one.
    arrays: HashSet<ArrayId>,
    placed: HashSet<usize>,
    /// Where the members of mirrors lie, which a repair would write to without MD's knowledge; and
    /// the arrays that are not sound.
    no_writes: NoWrites,
}

impl Peeler<'_> {
    fn peel_all(&mut self) {
        loop {
            while let Some(index) = self.queue.pop_front() {
                self.look_into(index);
            }
            // What has missing members waits until nothing else can bring them.
            if !self.expand_arrays(false)
                && !self.expand_groups(false)
                && !self.expand_arrays(true)
                && !self.expand_groups(true)
            {
                break;
            }
        }
        self.name_strays();
        self.name_stray_members();
    }

    /// A physical volume that came to light after its group was laid out: inside one of the
    /// group's own volumes, say. Which of the two readings is right nobody knows.
    fn name_strays(&mut self) {
        for (position, index) in self.volume_layers.iter().enumerate() {
            if self.laid_out.contains(&position) {
                continue;
            }
            if let Some(layer) = self.found.get_mut(*index)
                && let Content::PhysicalVolume {
                    uuid,
                    volume_group: Some(group),
                    ..
                } = &layer.content
            {
                let reason = format!(
                    "it belongs to the volume group {group}, which was laid out without it"
                );
                layer.content = opaque("LVM2 physical volume", Some(uuid.clone()), &reason);
            }
        }
    }

    fn add(&mut self, layer: Found) -> usize {
        let index = self.found.len();
        self.found.push(layer);
        self.queue.push_back(index);
        index
    }

    /// Puts a layer into the one around it; `None` if it is one too many.
    fn add_child(
        &mut self,
        parent: usize,
        mut layer: Found,
        to_be_looked_into: bool,
    ) -> Option<usize> {
        if self.found.len() >= MOST_LAYERS {
            if let Some(parent) = self.found.get_mut(parent) {
                let note =
                    format!("there are more than {MOST_LAYERS} layers; the rest is left out");
                if !parent.notes.contains(&note) {
                    parent.notes.push(note);
                }
                parent.content = opaque("container", None, "it holds too many layers to look at");
            }
            return None;
        }
        let around = self.found.get(parent);
        layer.depth = around.map_or(0, |around| around.depth) + 1;
        // What holds for a volume holds for all that lies in it.
        let of_around = around.and_then(|around| around.read_only.as_ref());
        if layer.read_only.is_none() && of_around == Some(&ReadOnly::ForTheGuest) {
            layer.read_only = Some(ReadOnly::ForTheGuest);
        }
        let index = self.found.len();
        let too_deep = layer.depth > DEEPEST;
        if too_deep {
            layer.content = opaque(
                "layer",
                None,
                "it lies deeper than any guest nests its layers",
            );
        }
        self.found.push(layer);
        if to_be_looked_into && !too_deep {
            self.queue.push_back(index);
        }
        if let Some(parent) = self.found.get_mut(parent) {
            parent.children.push(index);
        }
        if let Some(reason) = self.held.get(&parent) {
            self.held.insert(index, reason.clone());
        }
        (!too_deep).then_some(index)
    }

    fn look_into(&mut self, index: usize) {
        let Some(layer) = self.found.get(index) else {
            return;
        };
        if let Some(header) = self.headers.get(layer.path.as_str()) {
            let container = luks::read_detached(header, layer.extents.size());
            return self.expand_detached(index, container);
        }
        let reader = LayerReader::new(self.images, &layer.extents);
        let look = look(&Ends::new(&reader), layer.place, layer.sector_size);
        match look {
            Look::Content(content) => self.set_content(index, content),
            Look::Table(table) => self.expand_table(index, table),
            Look::Container(container) => self.expand_container(index, *container, false),
            Look::Member(superblock) => {
                let content = Content::RaidMember {
                    uuid: superblock.array.to_string(),
                    array: superblock.array_name(),
                    level: superblock.level.to_string(),
                };
                self.set_content(index, content);
                if let Some(layer) = self.found.get(index) {
                    self.members.push(FoundMember {
                        path: layer.path.clone(),
                        extents: layer.extents.clone(),
                        superblock: *superblock,
                    });
                    self.member_layers.push(index);
                }
            }
            Look::Volume(volume) => {
                let content = Content::PhysicalVolume {
                    uuid: volume.uuid.to_string(),
                    volume_group: volume.volume_group.as_ref().map(|group| group.name.clone()),
                    shared: None,
                };
                self.set_content(index, content);
                if let Some(layer) = self.found.get_mut(index) {
                    layer.notes.extend(volume.notes.iter().cloned());
                    self.volumes.push(FoundPhysicalVolume {
                        extents: layer.extents.clone(),
                        volume: *volume,
                    });
                    self.volume_layers.push(index);
                }
            }
        }
    }

    fn set_content(&mut self, index: usize, content: Content) {
        if let Some(layer) = self.found.get_mut(index) {
            layer.content = match (self.held.get(&index), content) {
                (Some(reason), Content::Filesystem(filesystem)) => {
                    opaque(filesystem.kind.name(), filesystem.uuid, reason)
                }
                (Some(reason), content) => {
                    layer.notes.push(reason.clone());
                    content
                }
                (None, content) => content,
            };
        }
    }

    fn expand_table(&mut self, index: usize, table: PartitionTable) {
        let Some(layer) = self.found.get_mut(index) else {
            return;
        };
        layer.content = Content::PartitionTable {
            scheme: table.scheme,
            sector_size: table.sector_size,
            incomplete: table.incomplete,
        };
        layer.notes.extend(table.notes);
        let path = layer.path.clone();
        let extents = layer.extents.clone();
        for partition in table.partitions {
            let Ok(part) = extents.slice(partition.start, partition.length) else {
                continue;
            };
            let child = Found {
                path: path.join(&partition.name),
                extents: part,
                role: Some(partition.role),
                read_only: None,
                sector_size: table.sector_size,
                place: Place::Partition,
                depth: 0,
                content: Content::Unknown,
                notes: Vec::new(),
                children: Vec::new(),
            };
            let to_be_looked_into = partition.inside.is_none();
            let Some(child) = self.add_child(index, child, to_be_looked_into) else {
                continue;
            };
            if let Some(reason) = partition.held {
                self.held.insert(child, reason);
            }
            match partition.inside {
                Some(Inside::Table(table)) => self.expand_table(child, table),
                Some(Inside::Swap) => {
                    let swap = Content::Swap {
                        uuid: None,
                        label: None,
                        hibernated: None,
                    };
                    self.set_content(child, swap);
                }
                Some(Inside::Opaque { what, reason }) => {
                    self.set_content(child, opaque(what, None, &reason));
                }
                None => {}
            }
        }
    }

    /// Lays out the logical volumes of groups that were not laid out before. Tells whether there
    /// were any.
    fn expand_groups(&mut self, incomplete_too: bool) -> bool {
        let groups = lvm::assemble(&self.volumes);
        let mut any = false;
        for group in groups {
            if (incomplete_too || group.missing.is_empty()) && self.expanded.insert(group.uuid) {
                self.expand_group(&group);
                any = true;
            }
        }
        any
    }

    fn expand_group(&mut self, group: &AssembledGroup) {
        let layer_of = |peeler: &Self, volume: usize| peeler.volume_layers.get(volume).copied();
        for member in &group.members {
            self.laid_out.insert(*member);
            let layer = layer_of(self, *member).and_then(|index| self.found.get_mut(index));
            if let Some(layer) = layer
                && let Content::PhysicalVolume {
                    volume_group,
                    shared,
                    ..
                } = &mut layer.content
            {
                *volume_group = Some(group.name.clone());
                shared.clone_from(&group.shared);
            }
        }
        let first = group
            .members
            .first()
            .and_then(|member| layer_of(self, *member));
        if let Some(layer) = first.and_then(|index| self.found.get_mut(index)) {
            layer.notes.extend(group.notes.iter().cloned());
            for missing in &group.missing {
                layer.notes.push(format!(
                    "volume group {}: the physical volume {missing} is missing",
                    group.name
                ));
            }
        }
        let layers = group
            .members
            .iter()
            .filter_map(|member| layer_of(self, *member));
        let held = layers
            .filter_map(|layer| self.held.get(&layer))
            .next()
            .cloned();
        let mut dormant = Vec::new();
        let extents = self.member_extents(group);
        let mirror = extents
            .iter()
            .find_map(|extents| self.no_writes.over(extents));
        let mirror = mirror.cloned();
        for volume in &group.logical_volumes {
            let holder = volume
                .first
                .and_then(|found| layer_of(self, found))
                .or(first);
            let Some(parent) = holder else { continue };
            let complete = group.missing.is_empty();
            if complete && held.is_none() && self.is_dormant(volume) {
                dormant.push(DormantVolume {
                    uuid: volume.uuid,
                    name: volume.name.clone(),
                });
            }
            let full_name = format!("{}/{}", group.name, volume.name);
            let mut laid_out = self.laid_out(volume, complete.then_some(&full_name));
            if let (Some(reason), Content::Dormant { uuid, .. }) = (&held, &laid_out.content) {
                laid_out.content = opaque("logical volume", Some(uuid.clone()), reason);
            }
            let Some(around) = self.found.get(parent) else {
                continue;
            };
            let child = Found {
                path: around.path.join(&group.name).join(&volume.name),
                extents: laid_out.extents,
                role: None,
                read_only: match volume.read_only {
                    true => Some(ReadOnly::ForTheGuest),
                    // What LVM itself lays out lies wherever it likes.
                    false => volume.layout.as_ref().err().and(mirror.clone()),
                },
                sector_size: around.sector_size,
                place: Place::Disk,
                depth: 0,
                content: laid_out.content,
                notes: laid_out.notes,
                children: Vec::new(),
            };
            let known = laid_out.known;
            let child = self.add_child(parent, child, known);
            if let Some((child, reason)) = child.zip(held.clone()) {
                self.held.insert(child, reason);
            }
        }
        if !dormant.is_empty() {
            self.groups.push(DormantGroup {
                uuid: group.uuid,
                name: group.name.clone(),
                members: extents,
                read_only: mirror.is_some(),
                volumes: dormant,
            });
        }
    }

    /// Where the physical volumes of a group lie.
    fn member_extents(&self, group: &AssembledGroup) -> Vec<ExtentMap> {
        let members = group.members.iter();
        let extents = members.filter_map(|member| Some(&self.volumes.get(*member)?.extents));
        extents.cloned().collect()
    }

    fn tree(&self, index: usize) -> Layer {
        let Some(layer) = self.found.get(index) else {
            return Layer {
                path: LayerPath::disk("?"),
                extents: ExtentMap::default(),
                role: None,
                read_only: None,
                content: Content::Unknown,
                notes: Vec::new(),
                children: Vec::new(),
            };
        };
        Layer {
            path: layer.path.clone(),
            extents: layer.extents.clone(),
            role: layer.role.clone(),
            read_only: layer
                .read_only
                .as_ref()
                .or_else(|| self.no_writes.over(&layer.extents))
                .cloned(),
            content: layer.content.clone(),
            notes: layer.notes.clone(),
            children: layer
                .children
                .iter()
                .map(|child| self.tree(*child))
                .collect(),
        }
    }
}

fn opaque(what: &str, uuid: Option<String>, reason: &str) -> Content {
    Content::Opaque {
        what: what.to_owned(),
        uuid,
        reason: reason.to_owned(),
    }
}
