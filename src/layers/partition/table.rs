//! Which partition table a disk has, and its partitions.

use std::io;

use crate::layers::partition::gpt;
use crate::layers::partition::mbr::{RECORD, Record};
use crate::layers::partition::span::{Notes, Span, place};
use crate::layers::read::ReadAt;
use crate::layers::signature::{member_at_end, recognise};
use crate::layers::tree::{PartitionRole, PartitionScheme};
use crate::units::{Bytes, SectorSize};

/// One partition, as far as it lies on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number, as Linux counts: logical partitions of an MBR from 5.
    pub number: u32,
    /// Its first byte on the disk.
    pub start: Bytes,
    /// How many bytes it has; never zero, never past the disk's end.
    pub length: Bytes,
    /// What the table says of it.
    pub role: PartitionRole,
}

/// A disk's partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionTable {
    /// GPT or MBR.
    pub scheme: PartitionScheme,
    /// The sector size it was read with.
    pub sector_size: SectorSize,
    /// Its partitions in the order of their numbers, without an MBR's extended ones.
    pub partitions: Vec<Partition>,
    /// There may be partitions that are not among these; the notes tell why.
    pub incomplete: bool,
    /// What is wrong with it, as far as the partitions are usable all the same.
    pub notes: Vec<String>,
}

/// A table is there, but its partitions cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// The disk could not be read.
    #[error("the partition table cannot be read: {0}")]
    Read(io::Error),
    /// Neither copy of a GPT is whole.
    #[error("both copies of the GPT are damaged; {causes}")]
    GptDamaged {
        /// What is wrong with each.
        causes: String,
    },
    /// A GPT lies beside a first sector that does not announce it: guests take the disk for
    /// unpartitioned.
    #[error("a GPT lies here without the protective MBR that belongs in front of it")]
    GptUnprotected,
    /// The table was written with another sector size.
    #[error(
        "a {scheme} for {found}-byte sectors lies here, but the domain gives this disk \
         {given}-byte sectors; set <blockio logical_block_size='{found}'/>",
        found = .found.get(), given = .given.get()
    )]
    OtherSectorSize {
        /// What lies here: "GPT", "MBR".
        scheme: &'static str,
        /// The sector size it was written with.
        found: SectorSize,
        /// The guest's sector size.
        given: SectorSize,
    },
    /// None of the partitions lies on the disk.
    #[error("all partitions of the MBR begin past the end of the disk of {disk} bytes", disk = .0.get())]
    PastTheEnd(Bytes),
}

/// Reads the table of a disk with the guest's sector size; `None` if the disk has none, in which
/// case it may be one filesystem, or anything [`recognise`] knows.
///
/// # Errors
/// [`PartitionError`], if there is a table that cannot be used, or the disk cannot be read.
pub fn read(
    disk: &dyn ReadAt,
    sector_size: SectorSize,
) -> Result<Option<PartitionTable>, PartitionError> {
    let table = find(disk, sector_size);
    if matches!(table, Ok(None)) {
        return Ok(None);
    }
    // A mirror's half that keeps its metadata at the end has the mirror's table at its beginning.
    if let Some(member) = member_at_end(disk).map_err(PartitionError::Read)? {
        let is_a_partitions = match (&member.superblock, &table) {
            (Some(superblock), Ok(Some(table))) => table.spans.iter().any(|span| {
                span.start.get() <= superblock.start
                    && superblock.end <= span.end.get()
                    && span.end <= disk.size()
            }),
            _ => false,
        };
        if !is_a_partitions {
            return Ok(None);
        }
    }
    let Some(mut table) = table? else {
        return Ok(None);
    };
    let partitions = place(table.spans, disk.size(), &mut table.notes);
    Ok(Some(PartitionTable {
        scheme: table.scheme,
        sector_size,
        partitions,
        incomplete: table.notes.any_lost(),
        notes: table.notes.into_vec(),
    }))
}

struct Found {
    scheme: PartitionScheme,
    spans: Vec<Span>,
    notes: Notes,
}

fn find(disk: &dyn ReadAt, size: SectorSize) -> Result<Option<Found>, PartitionError> {
    if disk.size() < RECORD {
        return Ok(None);
    }
    let sector = disk
        .read_at(Bytes::ZERO, RECORD)
        .map_err(PartitionError::Read)?;
    let record = Record::parse(&sector);
    if let Some(record) = &record
        && record.is_protective()
    {
        return match gpt::read(disk, size).map_err(PartitionError::Read)? {
            Ok(gpt) => Ok(Some(Found {
                scheme: PartitionScheme::Gpt,
                spans: gpt.spans,
                notes: gpt.notes,
            })),
            Err(_) if record.is_fat() => Ok(None),
            Err(causes) => match gpt_of_other_size(disk, size)? {
                Some(error) => Err(error),
                None => Err(PartitionError::GptDamaged { causes }),
            },
        };
    }
    let has_gpt = gpt::has_header(disk, size).map_err(PartitionError::Read)?;
    let Some(record) = record.filter(|record| !record.is_empty()) else {
        return if has_gpt && nothing_else(disk)? {
            Err(PartitionError::GptUnprotected)
        } else {
            Ok(None)
        };
    };
    if !record.describes(disk.size(), size) {
        return if !record.is_fat() && nothing_else(disk)? {
            Err(past_the_end(&record, disk.size(), size))
        } else {
            Ok(None)
        };
    }
    let mut notes = Notes::default();
    if has_gpt {
        notes.add(
            "a GPT lies beside the MBR, which does not announce it; guests use the MBR".to_owned(),
        );
    }
    let spans = record
        .partitions(disk, size, &mut notes)
        .map_err(PartitionError::Read)?;
    Ok(Some(Found {
        scheme: PartitionScheme::Mbr,
        spans,
        notes,
    }))
}

/// Whether the disk as a whole is nothing that is recognised.
fn nothing_else(disk: &dyn ReadAt) -> Result<bool, PartitionError> {
    recognise(disk)
        .map(|found| found.is_none())
        .map_err(PartitionError::Read)
}

fn gpt_of_other_size(
    disk: &dyn ReadAt,
    given: SectorSize,
) -> Result<Option<PartitionError>, PartitionError> {
    for found in [SectorSize::S512, SectorSize::S4096] {
        if found != given && gpt::has_header(disk, found).map_err(PartitionError::Read)? {
            return Ok(Some(PartitionError::OtherSectorSize {
                scheme: "GPT",
                found,
                given,
            }));
        }
    }
    Ok(None)
}

fn past_the_end(record: &Record, disk: Bytes, given: SectorSize) -> PartitionError {
    let found = SectorSize::S512;
    if given != found && record.describes(disk, found) {
        PartitionError::OtherSectorSize {
            scheme: "MBR",
            found,
            given,
        }
    } else {
        PartitionError::PastTheEnd(disk)
    }
}
