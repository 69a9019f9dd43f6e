//! The chain of records inside an MBR's extended partition (kernel: block/partitions/msdos.c,
//! `parse_extended`).

use std::collections::HashSet;
use std::io;

use crate::layers::partition::mbr::{Entry, RECORD, entries};
use crate::layers::partition::span::{Notes, Reserved, Span};
use crate::layers::partition::types::mbr_role;
use crate::layers::partition::window::read_inside;
use crate::layers::read::ReadAt;
use crate::units::{SectorSize, Sectors};

/// The number of the first logical partition.
pub(super) const FIRST_LOGICAL: u32 = 5;
/// Linux has no more partitions on a disk (kernel: include/linux/blkdev.h, `DISK_MAX_PARTS`).
const LAST_LOGICAL: u32 = 255;
/// A longer chain can only be hostile.
const MAX_CHAIN: usize = 256;

/// An extended partition, in sectors of `size`.
pub(super) struct Chain<'a> {
    /// The disk.
    pub(super) disk: &'a dyn ReadAt,
    /// The size of its sectors.
    pub(super) size: SectorSize,
    /// The number of the extended partition.
    pub(super) number: u32,
    /// Its first sector, from which the links count.
    pub(super) first: u64,
    /// How many sectors it has.
    pub(super) length: u64,
}

/// What the chains of a disk have given.
#[derive(Default)]
pub(super) struct Logical {
    /// The partitions.
    pub(super) spans: Vec<Span>,
    /// Where the records lie.
    pub(super) records: Vec<Reserved>,
    /// How many numbers are taken.
    taken: u32,
}

impl Chain<'_> {
    /// Each record has a partition, counted from the record, and a link, counted from the extended
    /// partition's beginning.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub(super) fn follow(&self, logical: &mut Logical, notes: &mut Notes) -> io::Result<()> {
        let mut seen = HashSet::new();
        let mut here = self.first;
        let mut length_here = self.length;
        loop {
            let problem = if !seen.insert(here) {
                "the chain comes back to a record it has been at; partitions after it are not seen"
                    .to_owned()
            } else if seen.len() > MAX_CHAIN {
                format!(
                    "the chain has more than {MAX_CHAIN} records; partitions after them are not seen"
                )
            } else {
                match self.record(here, logical)? {
                    Ok(entries) => {
                        self.add(&entries, here, length_here, logical, notes);
                        let link = entries
                            .iter()
                            .find(|entry| entry.length > 0 && entry.is_extended());
                        let Some(link) = link else { return Ok(()) };
                        here = self.first.saturating_add(link.start.into());
                        length_here = link.length.into();
                        continue;
                    }
                    Err(problem) => problem.to_owned(),
                }
            };
            notes.add_lost(format!(
                "in the chain of extended partition {}, at sector {here}: {problem}",
                self.number
            ));
            return Ok(());
        }
    }

    fn record(
        &self,
        sector: u64,
        logical: &mut Logical,
    ) -> io::Result<Result<Vec<Entry>, &'static str>> {
        let start = Sectors::new(sector).to_bytes(self.size);
        let Some(bytes) = read_inside(self.disk, start, RECORD)? else {
            return Ok(Err(
                "the chain leaves the disk; partitions after it are not seen",
            ));
        };
        let Some(entries) = entries(&bytes) else {
            return Ok(Err(
                "there is no boot record; partitions after it are not seen",
            ));
        };
        if let Some(start) = start
            && let Some(end) = start.checked_add(RECORD)
        {
            logical.records.push(Reserved {
                start,
                end,
                what: "a record of the extended partition",
            });
        }
        Ok(Ok(entries))
    }

    fn add(
        &self,
        entries: &[Entry],
        here: u64,
        length_here: u64,
        logical: &mut Logical,
        notes: &mut Notes,
    ) {
        for (index, entry) in entries.iter().enumerate() {
            if entry.length == 0
                || entry.is_extended()
                || (index >= 2 && !self.holds(*entry, here, length_here))
            {
                continue;
            }
            let number = FIRST_LOGICAL.saturating_add(logical.taken);
            if number > LAST_LOGICAL {
                notes.add_lost(format!(
                    "there are more partitions than the {LAST_LOGICAL} that Linux sees; the rest \
                     is left out"
                ));
                return;
            }
            logical.taken = logical.taken.saturating_add(1);
            if !self.reaches(*entry, here) {
                notes.add(format!(
                    "logical partition {number} reaches out of the extended partition {}",
                    self.number
                ));
            }
            if let Some((start, end)) = entry.bytes(here, self.size) {
                logical.spans.push(Span {
                    number,
                    start,
                    end,
                    role: mbr_role(entry.type_byte),
                    held: None,
                });
            }
        }
    }

    /// The third and fourth entry are often garbage, and count only if they lie where they may.
    fn holds(&self, entry: Entry, here: u64, length_here: u64) -> bool {
        let end = u64::from(entry.start).saturating_add(entry.length.into());
        end <= length_here && self.reaches(entry, here)
    }

    /// Whether a partition of the record at `here` lies in the extended partition.
    fn reaches(&self, entry: Entry, here: u64) -> bool {
        let start = here.saturating_add(entry.start.into());
        start >= self.first
            && start.saturating_add(entry.length.into()) <= self.first.saturating_add(self.length)
    }
}
