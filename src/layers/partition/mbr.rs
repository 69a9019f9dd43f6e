//! The master boot record and the extended partition's chain (kernel: block/partitions/msdos.c).

use std::collections::HashSet;
use std::io;

use crate::layers::partition::span::{Notes, Span};
use crate::layers::partition::types::mbr_role;
use crate::layers::read::ReadAt;
use crate::layers::signature::field;
use crate::layers::signature::{is_fat_boot_sector, is_windows_boot_sector};
use crate::units::{Bytes, SectorSize, Sectors};

/// A record is 512 bytes whatever the sector size.
pub(super) const RECORD: Bytes = Bytes::new(512);

const ENTRIES: usize = 446;
const ENTRY_LENGTH: usize = 16;
const ENTRIES_IN_RECORD: usize = 4;
const SIGNATURE: usize = 510;
const PROTECTIVE: u8 = 0xee;
const FIRST_LOGICAL: u32 = 5;

/// Linux has no more than 256 partitions on a disk; a longer chain can only be hostile.
const MAX_CHAIN: usize = 256;

/// One of the four entries; sectors as the table writes them.
#[derive(Clone, Copy, Debug)]
struct Entry {
    type_byte: u8,
    start: u32,
    length: u32,
}

impl Entry {
    fn is_extended(self) -> bool {
        matches!(self.type_byte, 0x05 | 0x0f | 0x85)
    }

    /// The first byte and the one after the last, if `base` is what its start counts from.
    fn bytes(self, base: u64, size: SectorSize) -> Option<(Bytes, Bytes)> {
        let start = base.checked_add(self.start.into())?;
        let end = start.checked_add(self.length.into())?;
        Some((
            Sectors::new(start).to_bytes(size)?,
            Sectors::new(end).to_bytes(size)?,
        ))
    }
}

/// A master boot record.
#[derive(Debug)]
pub(super) struct Record {
    entries: Vec<Entry>,
    is_fat: bool,
}

impl Record {
    /// The record in a disk's first 512 bytes, or `None` if they are something else: without the
    /// signature, or the boot sector of an NTFS or exFAT volume, which has it too.
    pub(super) fn parse(sector: &[u8]) -> Option<Self> {
        if is_windows_boot_sector(sector) {
            return None;
        }
        // Boot code where the table would be hardly ever has the only two flags there are.
        let flags_are_sane = (0..ENTRIES_IN_RECORD).all(|index| {
            matches!(
                field::u8(sector, ENTRIES + index * ENTRY_LENGTH),
                Some(0 | 0x80)
            )
        });
        if !flags_are_sane {
            return None;
        }
        Some(Self {
            entries: entries(sector)?,
            is_fat: is_fat_boot_sector(sector),
        })
    }

    /// Whether it says that the disk has a GPT.
    pub(super) fn is_protective(&self) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.type_byte == PROTECTIVE)
    }

    /// Whether the sector is a FAT boot sector as well.
    pub(super) fn is_fat(&self) -> bool {
        self.is_fat
    }

    /// Whether it has a partition that begins on a disk of this size.
    ///
    /// An empty table is none: mkfs and boot loaders leave the signature in front of filesystems.
    /// Neither is a partition that begins at sector 0: so dosfstools pretends to have a table on a
    /// disk that is one FAT filesystem. Of a FAT boot sector more is asked, as the table may be
    /// boot code or an older table that mkfs kept; if all of it makes sense the table is the newer.
    pub(super) fn describes(&self, disk: Bytes, size: SectorSize) -> bool {
        let used = || self.entries.iter().filter(|entry| entry.length > 0);
        let on_disk = |entry: &Entry| {
            entry
                .bytes(0, size)
                .is_some_and(|(start, _)| entry.start > 0 && start < disk)
        };
        let whole = |entry: &Entry| entry.bytes(0, size).is_some_and(|(_, end)| end <= disk);
        if self.is_fat {
            used().next().is_some()
                && used().all(|entry| entry.type_byte != 0 && on_disk(entry) && whole(entry))
        } else {
            used().any(|entry| entry.type_byte != 0 && on_disk(entry))
        }
    }

    /// Whether it has partitions at all, wherever they lie.
    pub(super) fn is_empty(&self) -> bool {
        !self
            .entries
            .iter()
            .any(|entry| entry.type_byte != 0 && entry.length > 0 && entry.start > 0)
    }

    /// The primary and logical partitions; the extended one is only what holds the latter.
    ///
    /// # Errors
    /// If the chain cannot be read. A chain that goes astray gives what it has up to there.
    pub(super) fn partitions(
        &self,
        disk: &dyn ReadAt,
        size: SectorSize,
        notes: &mut Notes,
    ) -> io::Result<Vec<Span>> {
        let mut spans = Vec::new();
        let mut next_logical = FIRST_LOGICAL;
        for (number, entry) in (1..).zip(&self.entries) {
            if entry.length == 0 {
                continue;
            }
            // So isohybrid images do; inside would be the same table again.
            if entry.start == 0 {
                notes.add(format!(
                    "partition {number} begins at sector 0, with the table itself inside, and is \
                     left out"
                ));
                continue;
            }
            if entry.is_extended() {
                Chain {
                    disk,
                    size,
                    first: u64::from(entry.start),
                    length: u64::from(entry.length),
                }
                .follow(number, &mut next_logical, &mut spans, notes)?;
            } else if let Some((start, end)) = entry.bytes(0, size) {
                spans.push(Span {
                    number,
                    start,
                    end,
                    role: mbr_role(entry.type_byte),
                });
            }
        }
        spans.sort_by_key(|span| span.number);
        Ok(spans)
    }
}

fn entries(sector: &[u8]) -> Option<Vec<Entry>> {
    if !field::is(sector, SIGNATURE, &[0x55, 0xaa]) {
        return None;
    }
    (0..ENTRIES_IN_RECORD)
        .map(|index| {
            let at = ENTRIES + index * ENTRY_LENGTH;
            Some(Entry {
                type_byte: field::u8(sector, at + 4)?,
                start: field::le32(sector, at + 8)?,
                length: field::le32(sector, at + 12)?,
            })
        })
        .collect()
}

/// The chain of records inside an extended partition, in sectors of `size`.
struct Chain<'a> {
    disk: &'a dyn ReadAt,
    size: SectorSize,
    first: u64,
    length: u64,
}

impl Chain<'_> {
    /// Each record has a partition, counted from the record, and a link, counted from the extended
    /// partition's beginning.
    fn follow(
        &self,
        extended: u32,
        next_logical: &mut u32,
        spans: &mut Vec<Span>,
        notes: &mut Notes,
    ) -> io::Result<()> {
        let mut seen = HashSet::new();
        let mut here = self.first;
        let mut length_here = self.length;
        loop {
            let place = format!("in the chain of extended partition {extended}, at sector {here}");
            if !seen.insert(here) {
                notes.add_lost(format!(
                    "{place}: the chain comes back to a record it has been at; partitions after \
                     it are not seen"
                ));
                return Ok(());
            }
            if seen.len() > MAX_CHAIN {
                notes.add_lost(format!(
                    "{place}: the chain has more than {MAX_CHAIN} records; partitions after them \
                     are not seen"
                ));
                return Ok(());
            }
            let Some(sector) = self.record(here)? else {
                notes.add_lost(format!(
                    "{place}: the chain leaves the disk; partitions after it are not seen"
                ));
                return Ok(());
            };
            let Some(entries) = entries(&sector) else {
                notes.add_lost(format!(
                    "{place}: there is no boot record; partitions after it are not seen"
                ));
                return Ok(());
            };
            for (index, entry) in entries.iter().enumerate() {
                if entry.length == 0
                    || entry.is_extended()
                    || (index >= 2 && !self.holds(*entry, here, length_here))
                {
                    continue;
                }
                if let Some((start, end)) = entry.bytes(here, self.size) {
                    spans.push(Span {
                        number: *next_logical,
                        start,
                        end,
                        role: mbr_role(entry.type_byte),
                    });
                }
                *next_logical = next_logical.saturating_add(1);
            }
            let Some(link) = entries
                .iter()
                .find(|entry| entry.length > 0 && entry.is_extended())
            else {
                return Ok(());
            };
            here = self.first.saturating_add(link.start.into());
            length_here = link.length.into();
        }
    }

    fn record(&self, sector: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(offset) = Sectors::new(sector).to_bytes(self.size) else {
            return Ok(None);
        };
        match offset.checked_add(RECORD) {
            Some(end) if end <= self.disk.size() => self.disk.read_at(offset, RECORD).map(Some),
            _ => Ok(None),
        }
    }

    /// The third and fourth entry are often garbage, and count only if they lie where they may.
    fn holds(&self, entry: Entry, here: u64, length_here: u64) -> bool {
        let start = u64::from(entry.start);
        let length = u64::from(entry.length);
        start.saturating_add(length) <= length_here
            && here.saturating_add(start).saturating_add(length)
                <= self.first.saturating_add(self.length)
    }
}
