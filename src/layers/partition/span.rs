//! Partitions as a table writes them, and how they are fitted to the disk.

use crate::layers::partition::table::Partition;
use crate::layers::tree::PartitionRole;
use crate::units::Bytes;

/// A hostile table could give one for each of its partitions.
const MAX_NOTES: usize = 32;

/// What a reader should know of a table; only so many are kept.
#[derive(Debug, Default)]
pub(super) struct Notes {
    kept: Vec<String>,
    more: usize,
    /// A partition could not be seen, or only its name.
    lost: bool,
}

impl Notes {
    /// Keeps a note, or counts it.
    pub(super) fn add(&mut self, note: String) {
        if self.kept.len() < MAX_NOTES {
            self.kept.push(note);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    /// As [`Notes::add`], where a partition that there may be is not among those found.
    pub(super) fn add_lost(&mut self, note: String) {
        self.lost = true;
        self.add(note);
    }

    /// Whether there may be partitions that were not found.
    pub(super) const fn any_lost(&self) -> bool {
        self.lost
    }

    /// All that were kept, and how many were not.
    pub(super) fn into_vec(mut self) -> Vec<String> {
        if self.more > 0 {
            self.kept.push(format!("and {} more of these", self.more));
        }
        self.kept
    }
}

/// A partition as the table has it, wherever it may lie.
#[derive(Debug)]
pub(super) struct Span {
    /// Its number.
    pub(super) number: u32,
    /// Its first byte.
    pub(super) start: Bytes,
    /// The byte after its last; above `start`.
    pub(super) end: Bytes,
    /// What the table says of it.
    pub(super) role: PartitionRole,
    /// Why nothing in it may be checked.
    pub(super) held: Option<String>,
}

/// Bytes of the disk that belong to the table itself.
#[derive(Debug)]
pub(super) struct Reserved {
    /// The first byte.
    pub(super) start: Bytes,
    /// The byte after the last.
    pub(super) end: Bytes,
    /// What they hold, as in "it reaches over the GPT itself".
    pub(super) what: &'static str,
}

impl Span {
    fn length(&self) -> Bytes {
        self.end.saturating_sub(self.start)
    }
}

/// The partitions that lie on the disk, each only as far as the disk goes. As with Linux, a
/// partition beyond the end leaves its number unused.
pub(super) fn place(spans: Vec<Span>, disk: Bytes, notes: &mut Notes) -> Vec<Partition> {
    let mut partitions = Vec::with_capacity(spans.len());
    for span in spans {
        let number = span.number;
        // So isohybrid images do; inside would be the same table again.
        if span.start == Bytes::ZERO {
            notes.add(format!(
                "partition {number} begins at sector 0, with the table itself inside, and is left \
                 out"
            ));
            continue;
        }
        if span.start >= disk {
            notes.add_lost(format!(
                "partition {number} begins at byte {}, past the end of the disk of {} bytes, and \
                 is left out",
                span.start.get(),
                disk.get()
            ));
            continue;
        }
        let length = span.end.min(disk).saturating_sub(span.start);
        if length < span.length() {
            notes.add(format!(
                "partition {number} reaches past the end of the disk: {} bytes by the table, {} \
                 of them on the disk",
                span.length().get(),
                length.get()
            ));
        }
        partitions.push(Partition {
            number,
            name: format!("p{number}"),
            start: span.start,
            length,
            role: span.role,
            held: span.held,
            inside: None,
        });
    }
    partitions
}
