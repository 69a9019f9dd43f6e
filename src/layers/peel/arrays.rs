//! The arrays of MD among the layers.

use super::{Found, Peeler, Place, WholeMirrors, opaque};
use crate::layers::dormant::{Activation, DormantArray, DormantId, Opener};
use crate::layers::extent::ExtentMap;
use crate::layers::md::{self, AssembledArray, ForMd};
use crate::layers::tree::{Content, ReadOnly};

impl Peeler<'_> {
    /// Puts arrays together that were not before. Tells whether there were any.
    pub(super) fn expand_arrays(&mut self, incomplete_too: bool) -> bool {
        let mut any = false;
        for array in md::assemble(&self.members) {
            if (incomplete_too || array.complete) && self.arrays.insert(array.id) {
                self.expand_array(array);
                any = true;
            }
        }
        any
    }

    fn expand_array(&mut self, mut array: AssembledArray) {
        let members = std::mem::take(&mut array.members);
        self.placed.extend(&members);
        let layers = members.iter().filter_map(|at| self.member_layers.get(*at));
        let held = layers
            .filter_map(|layer| self.held.get(layer))
            .next()
            .cloned();
        let (extents, content, known) = self.laid_out_array(&mut array, &members, held.is_some());
        let Some(parent) = self.member_layers.get(array.first).copied() else {
            return;
        };
        let Some(around) = self.found.get(parent) else {
            return;
        };
        let child = Found {
            path: around.path.join(&array.name),
            extents,
            role: None,
            read_only: None,
            sector_size: array.sector_size.unwrap_or(around.sector_size),
            place: Place::Disk,
            depth: 0,
            content,
            notes: array.notes,
            children: Vec::new(),
        };
        let child = self.add_child(parent, child, known);
        if let Some((child, reason)) = child.zip(held) {
            self.held.insert(child, reason);
        }
    }

    /// Where an array's bytes lie, what it is as far as that is known, and whether it can be looked
    /// into. What MD has started lies in an image of its own.
    fn laid_out_array(
        &mut self,
        array: &mut AssembledArray,
        members: &[usize],
        is_held: bool,
    ) -> (ExtentMap, Content, bool) {
        let plan = array.by_md.take().filter(|_| !is_held);
        let read_only = plan
            .as_ref()
            .and_then(|plan| self.no_writes_to(array, plan));
        let may_be_started = array.is_mirror && plan.is_some() && read_only.is_none();
        let plan = plan.filter(|_| {
            !array.is_mirror || may_be_started && self.whole_mirrors == WholeMirrors::ToBeStarted
        });
        let known = self.activated;
        let activation = known.and_then(|known| known.get(&DormantId::Array(array.id)));
        let cause = match (&plan, activation.cloned()) {
            (Some(_), Some(Activation::Active { image, size })) => {
                let extents = ExtentMap::whole(image, size);
                if let Some(read_only) = read_only {
                    self.no_writes.add(&extents, &read_only);
                }
                return (extents, Content::Unknown, true);
            }
            (_, Some(Activation::Failed(cause))) => Some(cause),
            (Some(plan), None) => {
                self.dormant_arrays.push(DormantArray {
                    id: array.id,
                    name: array.name.clone(),
                    version: plan.version,
                    members: self.extents_of(&plan.members),
                    read_only: read_only.is_some(),
                });
                None
            }
            (None, _) => None,
        };
        if array.is_mirror {
            let read_only = ReadOnly::Mirror {
                array: array.name.clone(),
                may_be_started: may_be_started && cause.is_none(),
            };
            for extents in self.extents_of(members) {
                self.no_writes.add(&extents, &read_only);
            }
            let cause = cause.as_ref();
            array
                .notes
                .extend(cause.map(|cause| format!("MD does not start it: {cause}")));
        }
        let uuid = array.id.to_string();
        // A mirror that MD does not start can still be read.
        let plan = plan.filter(|_| array.layout.is_err() || cause.is_none());
        match (&array.layout, plan) {
            (Ok(extents), None) => (extents.clone(), Content::Unknown, true),
            (layout, Some(plan)) => {
                let content = Content::Dormant {
                    by: Opener::Md,
                    uuid,
                    reason: match layout {
                        Ok(_) => format!("{}: only MD itself can write to it", array.level),
                        Err(reason) => reason.clone(),
                    },
                    cause,
                    size: plan.size,
                };
                (ExtentMap::default(), content, false)
            }
            (Err(reason), None) => {
                let content = opaque("RAID array", Some(uuid), reason);
                (ExtentMap::default(), content, false)
            }
        }
    }

    /// Why nothing may be written to an array that MD starts.
    fn no_writes_to(&self, array: &AssembledArray, plan: &ForMd) -> Option<ReadOnly> {
        let of_array = plan.unsound.map(|unsound| ReadOnly::Array {
            level: array.level.to_string(),
            array: array.name.clone(),
            unsound,
        });
        let members = self.extents_of(&plan.members);
        let mut below = members.iter();
        of_array.or_else(|| {
            below
                .find_map(|extents| self.no_writes.over(extents))
                .cloned()
        })
    }

    fn extents_of(&self, members: &[usize]) -> Vec<ExtentMap> {
        let members = members.iter().filter_map(|at| self.members.get(*at));
        members.map(|member| member.extents.clone()).collect()
    }

    /// A member that came to light after its array was put together: inside the array itself, say.
    pub(super) fn name_stray_members(&mut self) {
        for (position, index) in self.member_layers.iter().enumerate() {
            if self.placed.contains(&position) {
                continue;
            }
            if let Some(layer) = self.found.get_mut(*index)
                && let Content::RaidMember { uuid, array, .. } = &layer.content
            {
                let reason =
                    format!("it belongs to the array {array}, which was put together without it");
                layer.content = opaque("RAID member", Some(uuid.clone()), &reason);
            }
        }
    }
}

#[cfg(test)]
mod tests;
