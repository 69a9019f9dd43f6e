//! The arrays of MD among the layers.

use super::{Found, Peeler, Place, opaque};
use crate::layers::extent::ExtentMap;
use crate::layers::md::{self, AssembledArray};
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

    fn expand_array(&mut self, array: AssembledArray) {
        let members = array.members;
        self.placed.extend(&members);
        if array.is_mirror {
            let read_only = ReadOnly::Mirror {
                array: array.name.clone(),
            };
            for member in members.iter().filter_map(|at| self.members.get(*at)) {
                self.mirrors.add(&member.extents, &read_only);
            }
        }
        let Some(parent) = self.member_layers.get(array.first).copied() else {
            return;
        };
        let Some(around) = self.found.get(parent) else {
            return;
        };
        let (extents, content, known) = match array.layout {
            Ok(extents) => (extents, Content::Unknown, true),
            Err(reason) => {
                let content = opaque("RAID array", Some(array.id.to_string()), &reason);
                (ExtentMap::default(), content, false)
            }
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
        let layers = members.iter().filter_map(|at| self.member_layers.get(*at));
        let held = layers
            .filter_map(|layer| self.held.get(layer))
            .next()
            .cloned();
        let child = self.add_child(parent, child, known);
        if let Some((child, reason)) = child.zip(held) {
            self.held.insert(child, reason);
        }
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
