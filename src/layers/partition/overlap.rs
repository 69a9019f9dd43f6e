//! Partitions that share bytes: with each other, or with the table that describes them.

use crate::layers::partition::span::{Notes, Reserved};
use crate::layers::partition::table::Partition;
use crate::units::Bytes;

/// Names every two neighbours that overlap, and holds each partition whose bytes are not its own
/// alone: a repair of one would damage the other. Of several with the very same bytes the first is
/// as good as if it were alone.
pub(super) fn hold(partitions: &mut [Partition], reserved: &[Reserved], notes: &mut Notes) {
    note_overlaps(partitions, notes);
    let places: Vec<Place> = partitions.iter().map(Place::of).collect();
    for (partition, place) in partitions.iter_mut().zip(&places) {
        let reason = place.conflict(&places, reserved);
        if let Some(reason) = reason
            && partition.held.is_none()
        {
            partition.held = Some(reason);
        }
    }
}

struct Place {
    number: u32,
    name: String,
    start: Bytes,
    end: Bytes,
}

impl Place {
    fn of(partition: &Partition) -> Self {
        Self {
            number: partition.number,
            name: partition.name.clone(),
            start: partition.start,
            end: partition.end(),
        }
    }

    fn shares(&self, start: Bytes, end: Bytes) -> bool {
        self.start < end && start < self.end
    }

    fn conflict(&self, places: &[Self], reserved: &[Reserved]) -> Option<String> {
        let mut twin = None;
        for other in places {
            if other.number == self.number || !self.shares(other.start, other.end) {
                continue;
            }
            if (other.start, other.end) != (self.start, self.end) {
                return Some(format!(
                    "it overlaps {} from byte {}, and a repair of one would damage the other",
                    other.name,
                    self.start.max(other.start).get()
                ));
            }
            if other.number < self.number {
                twin = twin.or(Some(&other.name));
            }
        }
        let over = reserved
            .iter()
            .find(|reserved| self.shares(reserved.start, reserved.end));
        if let Some(over) = over {
            return Some(format!(
                "it reaches over {}, at byte {}, and a repair could damage that",
                over.what,
                over.start.get()
            ));
        }
        twin.map(|name| format!("it has the same bytes as {name}, which stands for both"))
    }
}

fn note_overlaps(partitions: &[Partition], notes: &mut Notes) {
    let mut sorted: Vec<&Partition> = partitions.iter().collect();
    sorted.sort_by_key(|partition| (partition.start, partition.number));
    let mut furthest: Option<&Partition> = None;
    for partition in sorted {
        if let Some(before) = furthest
            && partition.start < before.end()
        {
            notes.add(format!(
                "partitions {} and {} overlap from byte {}",
                before.number,
                partition.number,
                partition.start.get()
            ));
        }
        if furthest.is_none_or(|before| partition.end() > before.end()) {
            furthest = Some(partition);
        }
    }
}
