//! What becomes of a logical volume: its layout, LVM's activation, or its copies.

use super::{Peeler, opaque};
use crate::layers::dormant::{Activated, Activation, DormantId, Opener};
use crate::layers::extent::ExtentMap;
use crate::layers::lvm::{AssembledVolume, NoLayout, Readable};
use crate::layers::tree::{Content, ReadOnly};

/// Where a volume's bytes lie, and what it is as far as that is known.
pub(super) struct LaidOut {
    pub extents: ExtentMap,
    pub content: Content,
    /// Whether it can be looked into.
    pub known: bool,
    pub notes: Vec<String>,
}

impl LaidOut {
    fn at(extents: ExtentMap) -> Self {
        Self {
            extents,
            content: Content::Unknown,
            known: true,
            notes: Vec::new(),
        }
    }

    fn closed(content: Content) -> Self {
        Self {
            extents: ExtentMap::default(),
            content,
            known: false,
            notes: Vec::new(),
        }
    }
}

impl Peeler<'_> {
    /// Whether LVM is there, and has not been asked to activate the volume yet.
    pub(super) fn is_dormant(&self, volume: &AssembledVolume) -> bool {
        matches!(volume.layout, Err(NoLayout::ForLvm(_))) && !self.is_tried(volume)
    }

    /// Whether all was done that LVM could do for the volume. Where there is no LVM, this is nothing.
    fn is_tried(&self, volume: &AssembledVolume) -> bool {
        let tried = |activated: &Activated| activated.contains_key(&DormantId::Volume(volume.uuid));
        self.activated.is_none_or(tried)
    }

    /// What becomes of a volume. `readable_as` is its full name, where it may be read by its copies.
    pub(super) fn laid_out(
        &mut self,
        volume: &AssembledVolume,
        readable_as: Option<&String>,
    ) -> LaidOut {
        let activation = self
            .activated
            .and_then(|known| known.get(&DormantId::Volume(volume.uuid)));
        let reason = match (&volume.layout, activation) {
            (Ok(extents), _) => return LaidOut::at(extents.clone()),
            (Err(NoLayout::ForLvm(_)), Some(Activation::Active { image, size })) => {
                return LaidOut::at(ExtentMap::whole(*image, *size));
            }
            (Err(NoLayout::Pool(what)), _) => {
                return LaidOut::closed(Content::Pool {
                    what: what.clone(),
                    uuid: volume.uuid.to_string(),
                    size: volume.size,
                });
            }
            (Err(NoLayout::Fault(reason)), _) => {
                let uuid = Some(volume.uuid.to_string());
                return LaidOut::closed(opaque("logical volume", uuid, reason));
            }
            (Err(NoLayout::ForLvm(reason)), _) => reason,
        };
        let cause = match activation {
            Some(Activation::Failed(cause)) => Some(cause.clone()),
            _ => None,
        };
        let readable = readable_as
            .filter(|_| self.is_tried(volume))
            .and_then(|name| self.by_its_copies(volume, name));
        match readable {
            Some(Ok(readable)) => {
                let mut laid_out = LaidOut::at(readable.extents);
                laid_out.notes = readable.notes;
                laid_out.notes.extend(cause);
                laid_out
            }
            other => LaidOut::closed(Content::Dormant {
                by: Opener::Lvm,
                uuid: volume.uuid.to_string(),
                reason: match other {
                    Some(Err(fault)) => format!("{reason} ({fault})"),
                    _ => reason.clone(),
                },
                cause,
                size: volume.size,
            }),
        }
    }

    /// A mirrored volume without LVM; `None` if it is no such. Nothing may be written to it then.
    fn by_its_copies(
        &mut self,
        volume: &AssembledVolume,
        name: &str,
    ) -> Option<Result<Readable, String>> {
        let copies = volume.copies.as_ref()?;
        let readable = copies.readable(self.images);
        if readable.is_ok() {
            let read_only = ReadOnly::Copies {
                volume: name.to_owned(),
            };
            for place in copies.places() {
                self.no_writes.add(place, &read_only);
            }
        }
        Some(readable)
    }
}

#[cfg(test)]
mod tests;
