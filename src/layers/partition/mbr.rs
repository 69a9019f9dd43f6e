//! The master boot record (kernel: block/partitions/msdos.c).

use std::io;

use crate::layers::partition::extended::{Chain, Logical};
use crate::layers::partition::span::{Notes, Reserved, Span};
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
/// Where the protective entry begins, for Linux to believe it.
const PROTECTED_FROM: u32 = 1;

/// One of the four entries; sectors as the table writes them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// The type.
    pub(super) type_byte: u8,
    /// The first sector.
    pub(super) start: u32,
    /// How many sectors; none if the entry is not used.
    pub(super) length: u32,
}

impl Entry {
    /// Whether it holds a chain of logical partitions.
    pub(super) fn is_extended(self) -> bool {
        matches!(self.type_byte, 0x05 | 0x0f | 0x85)
    }

    /// The first byte and the one after the last, if `base` is what its start counts from.
    pub(super) fn bytes(self, base: u64, size: SectorSize) -> Option<(Bytes, Bytes)> {
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
    flags_are_sane: bool,
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
        let record = Self {
            entries: entries(sector)?,
            is_fat: is_fat_boot_sector(sector),
            flags_are_sane,
        };
        // Of a protective entry nobody wants to see the flag.
        (flags_are_sane || record.is_protective()).then_some(record)
    }

    /// Whether it says that the disk has a GPT.
    pub(super) fn is_protective(&self) -> bool {
        self.protective().is_some()
    }

    /// Whether the sector may well be something else than a record.
    pub(super) fn is_doubtful(&self) -> bool {
        self.is_fat || !self.flags_are_sane
    }

    /// How many sectors the protective entry covers, and whether Linux believes it.
    pub(super) fn protective(&self) -> Option<(u32, bool)> {
        let all = || {
            self.entries
                .iter()
                .filter(|entry| entry.type_byte == PROTECTIVE)
        };
        let believed = all().find(|entry| entry.start == PROTECTED_FROM);
        believed
            .map(|entry| (entry.length, true))
            .or_else(|| all().next().map(|entry| (entry.length, false)))
    }

    /// The entries beside the protective one, with their numbers.
    pub(super) fn beside_protective(&self) -> Vec<(u32, Entry)> {
        (1..)
            .zip(self.entries.iter().copied())
            .filter(|(_, entry)| ![0, PROTECTIVE].contains(&entry.type_byte) && entry.length > 0)
            .collect()
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

    /// Whether it has no partitions at all, wherever they would lie.
    pub(super) fn is_empty(&self) -> bool {
        !self
            .entries
            .iter()
            .any(|entry| entry.type_byte != 0 && entry.length > 0 && entry.start > 0)
    }

    /// Whether no entry is used, not even for what begins at sector 0.
    pub(super) fn is_unused(&self) -> bool {
        self.entries.iter().all(|entry| entry.length == 0)
    }

    /// Whether all that it has are partitions that begin at sector 0.
    pub(super) fn has_only_the_whole(&self) -> bool {
        self.entries
            .iter()
            .all(|entry| entry.length == 0 || entry.start == 0)
    }

    /// The primary and logical partitions, in the order of their numbers, and where the table's own
    /// records lie; the extended one is only what holds the logical.
    ///
    /// # Errors
    /// If the chain cannot be read. A chain that goes astray gives what it has up to there.
    pub(super) fn partitions(
        &self,
        disk: &dyn ReadAt,
        size: SectorSize,
        notes: &mut Notes,
    ) -> io::Result<(Vec<Span>, Vec<Reserved>)> {
        let mut spans = Vec::new();
        let mut logical = Logical::default();
        for (number, entry) in (1..).zip(&self.entries) {
            if entry.length == 0 {
                if entry.type_byte != 0 {
                    notes.add(format!(
                        "partition {number} has a type, 0x{:02x}, and no sectors, and is left out",
                        entry.type_byte
                    ));
                }
                continue;
            }
            if entry.is_extended() && entry.start > 0 {
                Chain {
                    disk,
                    size,
                    number,
                    first: entry.start.into(),
                    length: entry.length.into(),
                }
                .follow(&mut logical, notes)?;
            } else if let Some((start, end)) = entry.bytes(0, size) {
                spans.push(Span {
                    number,
                    start,
                    end,
                    role: mbr_role(entry.type_byte),
                    held: None,
                });
            }
        }
        spans.append(&mut logical.spans);
        Ok((spans, logical.records))
    }
}

/// The entries of a record, or `None` without its signature.
pub(super) fn entries(sector: &[u8]) -> Option<Vec<Entry>> {
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
