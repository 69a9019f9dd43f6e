//! GUID partition table (UEFI 2.10, chapter 5.3).

use std::io;

use crate::layers::partition::span::{Notes, Span};
use crate::layers::partition::types::gpt_role;
use crate::layers::read::{MAX_READ, ReadAt};
use crate::layers::signature::field;
use crate::units::{Bytes, SectorSize, Sectors};

const MAGIC: &[u8] = b"EFI PART";
const MIN_HEADER: usize = 92;
const HEADER_CRC: usize = 16;
const PRIMARY: u64 = 1;
const MIN_ENTRY: u32 = 128;
const MAX_ENTRY: u32 = 4096;
const NAME: usize = 56;
const NAME_LENGTH: usize = 72;

/// Tables have 128 entries unless somebody asked for more; further ones are not read.
const MAX_ENTRIES: usize = 1024;

/// A table of either header with its entries, both with the right checksums.
#[derive(Debug, PartialEq, Eq)]
struct Table {
    alternate: u64,
    disk_guid: [u8; 16],
    entry_size: u32,
    entries: Vec<u8>,
}

/// What lies where a header should.
enum Copy {
    Valid(Table),
    /// The cause, as the rest of a sentence; and the other copy's place, if the header is valid.
    Damaged(String, Option<u64>),
    Absent,
}

/// A GPT as far as it could be read.
pub(super) struct Gpt {
    /// The partitions, in the order of their numbers.
    pub(super) spans: Vec<Span>,
    /// What was found of both copies.
    pub(super) notes: Notes,
}

/// Whether a whole header lies at the second sector of this size.
pub(super) fn has_header(disk: &dyn ReadAt, size: SectorSize) -> io::Result<bool> {
    Ok(matches!(copy(disk, size, PRIMARY)?, Copy::Valid(_)))
}

/// The GPT by its primary or, if that is damaged, its backup; the inner error says what is wrong
/// with both.
///
/// # Errors
/// If the disk cannot be read.
pub(super) fn read(disk: &dyn ReadAt, size: SectorSize) -> io::Result<Result<Gpt, String>> {
    let mut notes = Notes::default();
    let last = (disk.size().get() / u64::from(size.get())).saturating_sub(1);
    let (primary_cause, alternate) = match copy(disk, size, PRIMARY)? {
        Copy::Valid(table) => {
            compare_backup(disk, size, &table, last, &mut notes)?;
            let spans = spans(&table, size, &mut notes);
            return Ok(Ok(Gpt { spans, notes }));
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
                     is used"
                ));
                let spans = spans(&table, size, &mut notes);
                return Ok(Ok(Gpt { spans, notes }));
            }
            Copy::Damaged(cause, _) => backup_cause = cause,
            Copy::Absent => {}
        }
    }
    Ok(Err(format!(
        "the primary: {primary_cause}; the backup: {backup_cause}"
    )))
}

fn compare_backup(
    disk: &dyn ReadAt,
    size: SectorSize,
    primary: &Table,
    last: u64,
    notes: &mut Notes,
) -> io::Result<()> {
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
        return Ok(());
    }
    match copy(disk, size, place)? {
        Copy::Valid(backup)
            if backup.entries == primary.entries && backup.disk_guid == primary.disk_guid => {}
        Copy::Valid(_) => notes.add(
            "the backup GPT differs from the primary; the primary is used, as guests do".to_owned(),
        ),
        Copy::Damaged(cause, _) => notes.add(format!("the backup GPT is damaged: {cause}")),
        Copy::Absent => notes.add(format!("the backup GPT is missing at sector {place}")),
    }
    Ok(())
}

fn copy(disk: &dyn ReadAt, size: SectorSize, sector: u64) -> io::Result<Copy> {
    let length = Bytes::new(size.get().into());
    let Some(header) = read_inside(disk, Sectors::new(sector).to_bytes(size), length)? else {
        return Ok(Copy::Absent);
    };
    if !field::is(&header, 0, MAGIC) {
        return Ok(Copy::Absent);
    }
    let Some(found) = Header::parse(&header) else {
        return Ok(Copy::Damaged(
            "its header's checksum is wrong".to_owned(),
            None,
        ));
    };
    let damaged = |cause: &str| Ok(Copy::Damaged(cause.to_owned(), Some(found.alternate)));
    if found.own_sector != sector {
        return Ok(Copy::Damaged(
            format!(
                "its header is that of sector {}, not {sector}",
                found.own_sector
            ),
            None,
        ));
    }
    if !(MIN_ENTRY..=MAX_ENTRY).contains(&found.entry_size) || !found.entry_size.is_power_of_two() {
        return damaged("its entries have a size that no table has");
    }
    let length = Bytes::new(u64::from(found.entry_size) * u64::from(found.entry_count));
    if length > MAX_READ {
        return damaged("it claims more entries than any table has");
    }
    let start = Sectors::new(found.entries_sector).to_bytes(size);
    let Some(entries) = read_inside(disk, start, length)? else {
        return damaged("its entries lie outside the disk");
    };
    if crc32fast::hash(&entries) != found.entries_crc {
        return damaged("its entries' checksum is wrong");
    }
    Ok(Copy::Valid(Table {
        alternate: found.alternate,
        disk_guid: found.disk_guid,
        entry_size: found.entry_size,
        entries,
    }))
}

fn read_inside(
    disk: &dyn ReadAt,
    start: Option<Bytes>,
    length: Bytes,
) -> io::Result<Option<Vec<u8>>> {
    let Some(start) = start else { return Ok(None) };
    match start.checked_add(length) {
        Some(end) if end <= disk.size() => disk.read_at(start, length).map(Some),
        _ => Ok(None),
    }
}

/// The fields of a header whose checksum is right.
struct Header {
    own_sector: u64,
    alternate: u64,
    disk_guid: [u8; 16],
    entries_sector: u64,
    entry_count: u32,
    entry_size: u32,
    entries_crc: u32,
}

impl Header {
    fn parse(sector: &[u8]) -> Option<Self> {
        let length = usize::try_from(field::le32(sector, 12)?).ok()?;
        if length < MIN_HEADER {
            return None;
        }
        let mut header = sector.get(..length)?.to_vec();
        let crc = field::le32(&header, HEADER_CRC)?;
        header.get_mut(HEADER_CRC..HEADER_CRC + 4)?.fill(0);
        if crc32fast::hash(&header) != crc {
            return None;
        }
        Some(Self {
            own_sector: field::le64(&header, 24)?,
            alternate: field::le64(&header, 32)?,
            disk_guid: *header.get(56..)?.first_chunk()?,
            entries_sector: field::le64(&header, 72)?,
            entry_count: field::le32(&header, 80)?,
            entry_size: field::le32(&header, 84)?,
            entries_crc: field::le32(&header, 88)?,
        })
    }
}

fn spans(table: &Table, size: SectorSize, notes: &mut Notes) -> Vec<Span> {
    let mut spans = Vec::new();
    let entry_size = usize::try_from(table.entry_size).unwrap_or(usize::MAX);
    let count = table.entries.chunks_exact(entry_size).len();
    if count > MAX_ENTRIES {
        notes.add(format!(
            "the GPT has {count} entries; those after the first {MAX_ENTRIES} are not read"
        ));
    }
    let entries = table.entries.chunks_exact(entry_size).take(MAX_ENTRIES);
    for (number, entry) in (1_u32..).zip(entries) {
        let Some(type_guid) = entry.first_chunk::<16>().filter(|guid| **guid != [0; 16]) else {
            continue;
        };
        let (Some(first), Some(last)) = (field::le64(entry, 32), field::le64(entry, 40)) else {
            continue;
        };
        if first == 0 {
            notes.add(format!(
                "partition {number} begins at sector 0, with the table itself inside, and is left \
                 out"
            ));
            continue;
        }
        if first > last {
            notes.add_lost(format!(
                "partition {number} ends at sector {last}, before its beginning at sector \
                 {first}, and is left out"
            ));
            continue;
        }
        let end = last
            .checked_add(1)
            .and_then(|end| Sectors::new(end).to_bytes(size));
        let (Some(start), Some(end)) = (Sectors::new(first).to_bytes(size), end) else {
            notes.add_lost(format!(
                "partition {number} lies at sectors {first} to {last}, where no disk reaches, and \
                 is left out"
            ));
            continue;
        };
        spans.push(Span {
            number,
            start,
            end,
            role: gpt_role(*type_guid, field::utf16(entry, NAME, NAME_LENGTH)),
        });
    }
    spans
}
