//! Encrypted containers among the layers.

use super::{Found, Peeler, Place, look, opaque};
use crate::layers::dormant::{ClosedContainer, Unlocking};
use crate::layers::extent::ExtentMap;
use crate::layers::luks::{Container, LuksError, integrity};
use crate::layers::read::LayerReader;
use crate::layers::tree::{Closed, Content};

/// What the layer inside a container is called.
const INSIDE: &str = "luks";

impl Peeler<'_> {
    /// As [`Self::expand_container`], for one whose header was given.
    pub(super) fn expand_detached(
        &mut self,
        index: usize,
        container: Result<Option<Container>, LuksError>,
    ) {
        let content = match container {
            Ok(Some(container)) => return self.expand_container(index, container, true),
            Ok(None) => opaque("LUKS", None, "what was given as its header is none"),
            Err(error) => look::closed_for_good(&error),
        };
        self.set_content(index, content);
    }

    /// Puts what is in a container into it, if it was opened.
    pub(super) fn expand_container(
        &mut self,
        index: usize,
        container: Container,
        is_detached: bool,
    ) {
        let Some(layer) = self.found.get_mut(index) else {
            return;
        };
        layer.notes.extend(container.notes.iter().cloned());
        let what = container.version.to_string();
        if container.is_detached && !is_detached {
            let reason = "it is only the header of a container whose data lie elsewhere; --header \
                          names it for them";
            layer.content = opaque(&what, container.uuid, reason);
            return;
        }
        if let Some(reason) = self.held.get(&index) {
            layer.content = opaque(&what, container.uuid, reason);
            return;
        }
        let reader = LayerReader::new(self.images, &layer.extents);
        let protected = match integrity::protected(&reader, &container) {
            Ok(protected) => protected,
            Err(error) => {
                layer.content = look::closed_for_good(&error);
                return;
            }
        };
        let closed = match self.unlocked.get(&layer.path) {
            Some(Unlocking::Open { image, size }) => {
                let child = Found {
                    path: layer.path.join(INSIDE),
                    extents: ExtentMap::whole(*image, *size),
                    role: None,
                    read_only: None,
                    sector_size: layer.sector_size.max(container.header.sector_size),
                    place: Place::Disk,
                    depth: 0,
                    content: Content::Unknown,
                    notes: Vec::new(),
                    children: Vec::new(),
                };
                if let Some(read_only) = self.no_writes.over(&layer.extents).cloned() {
                    self.no_writes.add(&child.extents, &read_only);
                }
                self.add_child(index, child, true);
                None
            }
            Some(Unlocking::Closed(closed)) => Some(closed.clone()),
            None => {
                let is_read_only = self.no_writes.over(&layer.extents).is_some();
                self.containers.push(ClosedContainer {
                    path: layer.path.clone(),
                    extents: layer.extents.clone(),
                    read_only: is_read_only || layer.read_only.is_some(),
                    container: container.clone(),
                    protected,
                    is_detached,
                });
                Some(Closed::NotTried)
            }
        };
        let content = Content::Luks {
            version: container.version,
            uuid: container.uuid,
            cipher: container.header.encryption,
            closed,
        };
        self.set_content(index, content);
    }
}

#[cfg(test)]
mod tests;
