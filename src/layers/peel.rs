//! Peeling: from the disks of a domain down to its filesystems.
//!
//! All disks are peeled together, again and again until nothing new appears, because a volume
//! group may span disks and any layer may hold any other.

use std::collections::{HashSet, VecDeque};
use std::io;

use crate::layers::dormant::{Activated, Activation, DormantGroup, DormantVolume, Peeled};
use crate::layers::extent::{ExtentMap, ImageIndex};
use crate::layers::lvm::{
    self, AssembledGroup, AssembledVolume, FoundPhysicalVolume, LvmError, NoLayout, VolumeGroupId,
};
use crate::layers::partition::{self, PartitionError, PartitionTable};
use crate::layers::read::{LayerReader, ReadAt, ReadImages};
use crate::layers::signature::{self, Signature};
use crate::layers::tree::{Content, Layer, LayerPath, PartitionRole};
use crate::units::{Bytes, SectorSize};

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

/// The layers of all disks: one tree a disk, in the order given. `activated` are volumes that LVM
/// has activated, or has not, since an earlier look found them dormant.
pub fn peel(disks: &[OpenDisk], images: &dyn ReadImages, activated: &Activated) -> Peeled {
    let mut peeler = Peeler {
        images,
        activated,
        dormant: Vec::new(),
        found: Vec::new(),
        queue: VecDeque::new(),
        volumes: Vec::new(),
        volume_layers: Vec::new(),
        expanded: HashSet::new(),
        laid_out: HashSet::new(),
    };
    let roots: Vec<usize> = disks
        .iter()
        .map(|disk| {
            peeler.add(Found {
                path: LayerPath::disk(&disk.target),
                extents: ExtentMap::whole(disk.image, disk.size),
                role: None,
                read_only: false,
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
        dormant: peeler.dormant,
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
    read_only: bool,
    sector_size: SectorSize,
    place: Place,
    depth: usize,
    content: Content,
    notes: Vec<String>,
    children: Vec<usize>,
}

/// What one look at a layer's bytes gave.
enum Look {
    Table(PartitionTable),
    Volume(Box<lvm::PhysicalVolume>),
    Content(Content),
}

struct Peeler<'a> {
    images: &'a dyn ReadImages,
    activated: &'a Activated,
    dormant: Vec<DormantGroup>,
    found: Vec<Found>,
    queue: VecDeque<usize>,
    volumes: Vec<FoundPhysicalVolume>,
    /// For each of `volumes`, the layer it was found in.
    volume_layers: Vec<usize>,
    expanded: HashSet<VolumeGroupId>,
    /// Which of `volumes` had their place in a group when it was laid out.
    laid_out: HashSet<usize>,
}

impl Peeler<'_> {
    fn peel_all(&mut self) {
        loop {
            while let Some(index) = self.queue.pop_front() {
                self.look_into(index);
            }
            // A group with missing members waits until nothing else can bring them.
            if !self.expand_groups(false) && !self.expand_groups(true) {
                break;
            }
        }
        self.name_strays();
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

    /// Puts a layer into the one around it.
    fn add_child(&mut self, parent: usize, mut layer: Found, to_be_looked_into: bool) {
        if self.found.len() >= MOST_LAYERS {
            if let Some(parent) = self.found.get_mut(parent) {
                let note =
                    format!("there are more than {MOST_LAYERS} layers; the rest is left out");
                if !parent.notes.contains(&note) {
                    parent.notes.push(note);
                }
                parent.content = opaque("container", None, "it holds too many layers to look at");
            }
            return;
        }
        layer.depth = self.found.get(parent).map_or(0, |parent| parent.depth) + 1;
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
    }

    fn look_into(&mut self, index: usize) {
        let Some(layer) = self.found.get(index) else {
            return;
        };
        let reader = LayerReader::new(self.images, &layer.extents);
        let look = look(&reader, layer.place, layer.sector_size);
        match look {
            Look::Content(content) => self.set_content(index, content),
            Look::Table(table) => self.expand_table(index, table),
            Look::Volume(volume) => {
                let content = Content::PhysicalVolume {
                    uuid: volume.uuid.to_string(),
                    volume_group: volume.volume_group.as_ref().map(|group| group.name.clone()),
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
            layer.content = content;
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
            let number = partition.number;
            let Ok(part) = extents.slice(partition.start, partition.length) else {
                continue;
            };
            let child = Found {
                path: path.join(&format!("p{number}")),
                extents: part,
                role: Some(partition.role),
                read_only: false,
                sector_size: table.sector_size,
                place: Place::Partition,
                depth: 0,
                content: Content::Unknown,
                notes: Vec::new(),
                children: Vec::new(),
            };
            self.add_child(index, child, true);
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
                && let Content::PhysicalVolume { volume_group, .. } = &mut layer.content
            {
                *volume_group = Some(group.name.clone());
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
        let mut dormant = Vec::new();
        for volume in &group.logical_volumes {
            let holder = volume
                .first
                .and_then(|found| layer_of(self, found))
                .or(first);
            let Some(parent) = holder else { continue };
            let Some(around) = self.found.get(parent) else {
                continue;
            };
            if group.missing.is_empty() && self.is_dormant(volume) {
                dormant.push(DormantVolume {
                    uuid: volume.uuid,
                    name: volume.name.clone(),
                });
            }
            let (extents, content, known) = self.laid_out(volume);
            let child = Found {
                path: around.path.join(&group.name).join(&volume.name),
                extents,
                role: None,
                read_only: volume.read_only,
                sector_size: around.sector_size,
                place: Place::Disk,
                depth: 0,
                content,
                notes: Vec::new(),
                children: Vec::new(),
            };
            self.add_child(parent, child, known);
        }
        if !dormant.is_empty() {
            let members = group.members.iter();
            let extents = members.filter_map(|member| Some(&self.volumes.get(*member)?.extents));
            self.dormant.push(DormantGroup {
                uuid: group.uuid,
                name: group.name.clone(),
                members: extents.cloned().collect(),
                volumes: dormant,
            });
        }
    }

    fn is_dormant(&self, volume: &AssembledVolume) -> bool {
        matches!(volume.layout, Err(NoLayout::ForLvm(_)))
            && !self.activated.contains_key(&volume.uuid)
    }

    /// Where a volume's bytes lie, what it is as far as that is known, and whether it can be looked
    /// into.
    fn laid_out(&self, volume: &AssembledVolume) -> (ExtentMap, Content, bool) {
        let uuid = Some(volume.uuid.to_string());
        let closed = |reason: &str| {
            let content = opaque("logical volume", uuid.clone(), reason);
            (ExtentMap::default(), content, false)
        };
        match (&volume.layout, self.activated.get(&volume.uuid)) {
            (Ok(extents), _) => (extents.clone(), Content::Unknown, true),
            (Err(NoLayout::ForLvm(_)), Some(Activation::Active { image, size })) => {
                (ExtentMap::whole(*image, *size), Content::Unknown, true)
            }
            (Err(NoLayout::Pool(what)), _) => {
                let content = Content::Pool {
                    what: what.clone(),
                    uuid: volume.uuid.to_string(),
                    size: volume.size,
                };
                (ExtentMap::default(), content, false)
            }
            (Err(NoLayout::ForLvm(reason)), activation) => {
                let content = Content::Dormant {
                    uuid: volume.uuid.to_string(),
                    reason: reason.clone(),
                    cause: match activation {
                        Some(Activation::Failed(cause)) => Some(cause.clone()),
                        _ => None,
                    },
                    size: volume.size,
                };
                (ExtentMap::default(), content, false)
            }
            (Err(NoLayout::Fault(reason)), _) => closed(reason),
        }
    }

    fn tree(&self, index: usize) -> Layer {
        let Some(layer) = self.found.get(index) else {
            return Layer {
                path: LayerPath::disk("?"),
                extents: ExtentMap::default(),
                role: None,
                read_only: false,
                content: Content::Unknown,
                notes: Vec::new(),
                children: Vec::new(),
            };
        };
        Layer {
            path: layer.path.clone(),
            extents: layer.extents.clone(),
            role: layer.role.clone(),
            read_only: layer.read_only,
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

/// One look at a layer, in the order of what may hide what: a partitioned disk may carry the label
/// or superblock of an earlier life; an array's member looks like what the array holds.
fn look(layer: &dyn ReadAt, place: Place, sector_size: SectorSize) -> Look {
    match try_look(layer, place, sector_size) {
        Ok(look) => look,
        Err(error) => Look::Content(Content::Unreadable {
            cause: format!("it cannot be read: {error}"),
        }),
    }
}

fn try_look(layer: &dyn ReadAt, place: Place, sector_size: SectorSize) -> io::Result<Look> {
    if place == Place::Disk {
        match partition::read(layer, sector_size) {
            Ok(Some(table)) => return Ok(Look::Table(table)),
            Ok(None) => {}
            Err(PartitionError::Read(error)) => return Err(error),
            Err(error) => {
                let content = opaque("partition table", None, &error.to_string());
                return Ok(Look::Content(content));
            }
        }
    }
    if let Some(member) = signature::array_member(layer)? {
        return Ok(Look::Content(content(member)));
    }
    match lvm::read(layer) {
        Ok(Some(volume)) => return Ok(Look::Volume(Box::new(volume))),
        Ok(None) => {}
        Err(LvmError::Read { cause }) => return Err(cause),
        Err(error) => {
            let content = opaque(
                "LVM2 physical volume",
                None,
                &crate::cause::sentence(&error),
            );
            return Ok(Look::Content(content));
        }
    }
    Ok(Look::Content(match signature::recognise(layer)? {
        Some(signature) => content(signature),
        None if signature::is_blank(layer)? => Content::Blank,
        None => Content::Unknown,
    }))
}

fn content(signature: Signature) -> Content {
    match signature {
        Signature::Filesystem(filesystem) => Content::Filesystem(filesystem),
        Signature::Swap {
            uuid,
            label,
            hibernated,
        } => Content::Swap {
            uuid,
            label,
            hibernated,
        },
        Signature::Opaque { what, uuid, reason } => Content::Opaque { what, uuid, reason },
    }
}
