//! GUID partition table (UEFI 2.10, chapter 5.3): which copy counts, and its partitions.

use std::io;

use crate::layers::partition::gpt_header::{Copy, Table, copy};
use crate::layers::partition::span::{Notes, Reserved, Span};
use crate::layers::partition::types::gpt_role;
use crate::layers::read::ReadAt;
use crate::layers::signature::field;
use crate::units::{Bytes, SectorSize, Sectors};

const PRIMARY: u64 = 1;
const NAME: usize = 56;
const NAME_LENGTH: usize = 72;

/// The only size of entries that Linux and util-linux read; UEFI allows 128, 256, 512...
const LINUX_ENTRY: u32 = 128;
/// The most partitions that Linux gives a disk (kernel: include/linux/blkdev.h, `DISK_MAX_PARTS`,
/// one of which is the disk).
const LINUX_PARTITIONS: u32 = 255;
/// Tables have 128 entries unless somebody asked for more; further ones are not read.
const MAX_ENTRIES: usize = 1024;

/// A GPT as far as it could be read.
pub(super) struct Gpt {
    /// The partitions, in the order of their numbers.
    pub(super) spans: Vec<Span>,
    /// Where the copies lie that are sound.
    pub(super) reserved: Vec<Reserved>,
    /// What was found of both copies.
    pub(super) notes: Notes,
    /// The backup is not at the disk's end, so the disk has another size than it had once.
    pub(super) is_resized: bool,
}

/// Whether a whole header lies at the second sector of this size.
pub(super) fn has_header(disk: &dyn ReadAt, size: SectorSize) -> io::Result<bool> {
    Ok(matches!(copy(disk, size, PRIMARY)?, Copy::Valid(_)))
}

/// Whether a whole backup lies at the last sector of this size.
pub(super) fn has_backup(disk: &dyn ReadAt, size: SectorSize) -> io::Result<bool> {
    let last = last_sector(disk, size);
    Ok(last > PRIMARY && matches!(copy(disk, size, last)?, Copy::Valid(_)))
}

/// The number of the disk's last whole sector.
pub(super) fn last_sector(disk: &dyn ReadAt, size: SectorSize) -> u64 {
    (disk.size().get() / u64::from(size.get())).saturating_sub(1)
}

/// The GPT by its primary or, if that is damaged, its backup; the inner error says what is wrong
/// with both.
///
/// # Errors
/// If the disk cannot be read.
pub(super) fn read(disk: &dyn ReadAt, size: SectorSize) -> io::Result<Result<Gpt, String>> {
    let mut notes = Notes::default();
    let last = last_sector(disk, size);
    let (primary_cause, alternate) = match copy(disk, size, PRIMARY)? {
        Copy::Valid(table) => {
            let mut reserved = own_sectors(&table, size);
            if let Some(backup) = compare_backup(disk, size, &table, last, &mut notes)? {
                reserved.extend(own_sectors(&backup, size));
            }
            note_what_linux_refuses(&table, last, &mut notes);
            return Ok(Ok(Gpt {
                spans: spans(&table, size, last, &mut notes),
                reserved,
                notes,
                is_resized: table.alternate != last,
            }));
        }
        Copy::Damaged(cause, alternate) => (cause, alternate),
        Copy::Absent => ("it is missing".to_owned(), None),
    };
    let mut backup_cause = "it is missing".to_owned();
    for sector in [Some(last), alternate.filter(|other| *other != last)]
        .into_iter()
        .flatten()
    {
        match copy(disk, size, sector)? {
            Copy::Valid(table) => {
                notes.add(format!(
                    "the primary GPT is damaged ({primary_cause}); the backup at sector {sector} \
                     is used; Linux itself takes no partitions from this disk unless it is booted \
                     with `gpt`"
                ));
                return Ok(Ok(Gpt {
                    spans: spans(&table, size, last, &mut notes),
                    reserved: own_sectors(&table, size),
                    notes,
                    is_resized: sector != last,
                }));
            }
            Copy::Damaged(cause, _) => backup_cause = cause,
            Copy::Absent => {}
        }
    }
    Ok(Err(format!(
        "the primary: {primary_cause}; the backup: {backup_cause}"
    )))
}

/// The backup, if it is sound.
fn compare_backup(
    disk: &dyn ReadAt,
    size: SectorSize,
    primary: &Table,
    last: u64,
    notes: &mut Notes,
) -> io::Result<Option<Table>> {
    let place = primary.alternate;
    if place < last {
        notes.add(format!(
            "the backup GPT belongs at sector {place}, but the disk's last is {last}; the disk \
             has grown since"
        ));
    } else if place > last {
        notes.add(format!(
            "the backup GPT belongs at sector {place}, but the disk's last is {last}; the disk \
             has been cut short"
        ));
        return Ok(None);
    }
    match copy(disk, size, place)? {
        Copy::Valid(backup) => {
            if backup.entries != primary.entries || backup.disk_guid != primary.disk_guid {
                notes.add(
                    "the backup GPT differs from the primary; the primary is used, as guests do"
                        .to_owned(),
                );
            }
            return Ok(Some(backup));
        }
        Copy::Damaged(cause, _) => notes.add(format!("the backup GPT is damaged: {cause}")),
        Copy::Absent => notes.add(format!("the backup GPT is missing at sector {place}")),
    }
    Ok(None)
}

/// Both Linux and util-linux ask more of a header than its checksum (kernel:
/// block/partitions/efi.c, `is_gpt_valid`).
fn note_what_linux_refuses(table: &Table, last: u64, notes: &mut Notes) {
    let (first_usable, last_usable) = table.usable;
    let cause = if last_usable < first_usable || last_usable > last {
        format!(
            "its usable sectors are {first_usable} to {last_usable}, and the disk's last is {last}"
        )
    } else if table.entry_size != LINUX_ENTRY {
        format!("its entries have {} bytes each", table.entry_size)
    } else {
        return;
    };
    notes.add(format!("Linux takes no partitions from this GPT: {cause}"));
}

fn own_sectors(table: &Table, size: SectorSize) -> Vec<Reserved> {
    let header = Sectors::new(table.own_sector).to_bytes(size);
    let after = table.own_sector.checked_add(1);
    let after = after.and_then(|after| Sectors::new(after).to_bytes(size));
    let entries = Sectors::new(table.entries_sector).to_bytes(size);
    let entries_end =
        entries.and_then(|start| start.checked_add(Bytes::new(table.entries.len() as u64)));
    [header.zip(after), entries.zip(entries_end)]
        .into_iter()
        .flatten()
        .map(|(start, end)| Reserved {
            start,
            end,
            what: "the GPT itself",
        })
        .collect()
}

fn spans(table: &Table, size: SectorSize, last: u64, notes: &mut Notes) -> Vec<Span> {
    let mut spans = Vec::new();
    let entry_size = usize::try_from(table.entry_size).unwrap_or(usize::MAX);
    let entries = || table.entries.chunks_exact(entry_size);
    let is_used = |entry: &&[u8]| {
        entry
            .first_chunk::<16>()
            .is_some_and(|guid| *guid != [0; 16])
    };
    if entries().skip(MAX_ENTRIES).any(|entry| is_used(&entry)) {
        notes.add_lost(format!(
            "the GPT has {} entries; those after the first {MAX_ENTRIES} are not read",
            entries().len()
        ));
    }
    for (number, entry) in (1_u32..).zip(entries().take(MAX_ENTRIES)) {
        let Some(type_guid) = entry.first_chunk::<16>().filter(|guid| **guid != [0; 16]) else {
            continue;
        };
        let (Some(first), Some(end)) = (field::le64(entry, 32), field::le64(entry, 40)) else {
            continue;
        };
        if first > end {
            notes.add_lost(format!(
                "partition {number} ends at sector {end}, before its beginning at sector {first}, \
                 and is left out"
            ));
            continue;
        }
        let after = end
            .checked_add(1)
            .and_then(|after| Sectors::new(after).to_bytes(size));
        let (Some(start), Some(after)) = (Sectors::new(first).to_bytes(size), after) else {
            notes.add_lost(format!(
                "partition {number} lies at sectors {first} to {end}, where no disk reaches, and \
                 is left out"
            ));
            continue;
        };
        let is_whole = end <= last;
        let (first_usable, last_usable) = table.usable;
        if is_whole && first > 0 && (first < first_usable || end > last_usable) {
            notes.add(format!(
                "partition {number} lies outside the sectors that the GPT calls usable, \
                 {first_usable} to {last_usable}; Linux uses it, util-linux does not"
            ));
        }
        if number > LINUX_PARTITIONS {
            notes.add(format!(
                "partition {number} is one that Linux does not see: it has no more than \
                 {LINUX_PARTITIONS} on a disk"
            ));
        }
        spans.push(Span {
            number,
            start,
            end: after,
            role: gpt_role(*type_guid, field::utf16(entry, NAME, NAME_LENGTH)),
            held: (!is_whole).then(|| {
                "it reaches past the end of the disk, and Linux leaves out such a partition of a \
                 GPT"
                .to_owned()
            }),
        });
    }
    spans
}
