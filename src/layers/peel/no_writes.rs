//! The places that nothing may be written to: members of mirrors, and arrays that are not sound.

use std::collections::BTreeMap;

use crate::layers::extent::{Extent, ExtentMap, ImageIndex};
use crate::layers::tree::ReadOnly;

/// Places that nothing may be written to. A hostile guest can have thousands of arrays, and a volume
/// in as many pieces, so they are kept in order: none of them overlaps another.
#[derive(Debug, Default)]
pub(super) struct NoWrites(BTreeMap<(ImageIndex, u64), (u64, ReadOnly)>);

impl NoWrites {
    /// Adds all places of a map.
    pub(super) fn add(&mut self, map: &ExtentMap, why: &ReadOnly) {
        for place in map.places() {
            let (mut start, mut end) = range(place);
            let mut why = why.clone();
            while let Some((at, (reaches, first))) = self.last_before(place.image, end)
                && reaches > start
            {
                why = first.clone();
                start = start.min(at);
                end = end.max(reaches);
                self.0.remove(&(place.image, at));
            }
            self.0.insert((place.image, start), (end, why));
        }
    }

    /// Why nothing may be written to all of a map.
    pub(super) fn over(&self, map: &ExtentMap) -> Option<&ReadOnly> {
        if self.0.is_empty() {
            return None;
        }
        map.places().find_map(|place| {
            let (start, end) = range(place);
            let (_, (reaches, why)) = self.last_before(place.image, end)?;
            (reaches > start).then_some(why)
        })
    }

    fn last_before(&self, image: ImageIndex, end: u64) -> Option<(u64, (u64, &ReadOnly))> {
        let before = self.0.range((image, 0)..(image, end));
        let ((_, start), (reaches, why)) = before.into_iter().next_back()?;
        Some((*start, (*reaches, why)))
    }
}

fn range(place: Extent) -> (u64, u64) {
    let start = place.offset.get();
    (start, start.saturating_add(place.length.get()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Bytes;

    fn map(image: usize, offset: u64, length: u64) -> ExtentMap {
        let mut map = ExtentMap::default();
        map.push(Extent {
            image: ImageIndex(image),
            offset: Bytes::new(offset),
            length: Bytes::new(length),
        });
        map
    }

    #[test]
    fn every_byte_of_a_member_is_known() {
        let mut no_writes = NoWrites::default();
        let taken = [(0, 10, 5), (1, 0, 3), (0, 30, 5), (0, 12, 20), (0, 50, 1)];
        for (image, offset, length) in taken {
            no_writes.add(&map(image, offset, length), &ReadOnly::ForTheGuest);
        }
        assert_eq!(no_writes.0.len(), 3);
        for image in 0..3 {
            for offset in 0..60 {
                for length in 1..12 {
                    let expected = taken.iter().any(|(of, start, many)| {
                        *of == image && offset < start + many && *start < offset + length
                    });
                    let found = no_writes.over(&map(image, offset, length)).is_some();
                    assert_eq!(found, expected, "{image} {offset} {length}");
                }
            }
        }
    }
}
