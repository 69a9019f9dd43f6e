//! Which partition table a disk has, and its partitions.

use std::io;

use crate::layers::lvm;
use crate::layers::partition::inside::{self, Inside};
use crate::layers::partition::mbr::{RECORD, Record};
use crate::layers::partition::span::{Notes, Reserved, Span, place};
use crate::layers::partition::{bsd, gpt, iso, overlap, protective, sector_size};
use crate::layers::read::ReadAt;
use crate::layers::signature::{Signature, is_blank_from, member_at_end, recognise};
use crate::layers::tree::{PartitionRole, PartitionScheme};
use crate::units::{Bytes, SectorSize};

/// One partition, as far as it lies on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number, as Linux counts: logical partitions of an MBR from 5. Those of a BSD label count
    /// from 1.
    pub number: u32,
    /// What it is called: `p5`, or the letter of a BSD label.
    pub name: String,
    /// Its first byte on the disk.
    pub start: Bytes,
    /// How many bytes it has; never zero, never past the disk's end.
    pub length: Bytes,
    /// What the table says of it.
    pub role: PartitionRole,
    /// Why nothing in it may be checked, as the rest of a sentence: its bytes are not its own alone.
    pub held: Option<String>,
    /// What its type promises, if that is there.
    pub inside: Option<Inside>,
}

impl Partition {
    /// The byte after its last.
    pub(super) fn end(&self) -> Bytes {
        self.start.checked_add(self.length).unwrap_or(self.start)
    }
}

/// A disk's partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionTable {
    /// GPT, MBR or BSD.
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
    /// Of a GPT only the end of the disk has a copy.
    #[error(
        "only the backup of a GPT is left, at the end of the disk: its beginning was overwritten, \
         and guests take the disk for unpartitioned"
    )]
    GptBackupOnly,
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
            (Some(superblock), Ok(Some(Found::Spans(table)))) => table.spans.iter().any(|span| {
                span.start.get() <= superblock.start
                    && superblock.end <= span.end.get()
                    && span.end <= disk.size()
            }),
            // Whose it is cannot be told without the table.
            (Some(_), Err(_)) => true,
            _ => false,
        };
        if !is_a_partitions {
            return Ok(None);
        }
    }
    Ok(match table? {
        Some(Found::Spans(table)) => {
            finish(disk, sector_size, table).map_err(PartitionError::Read)?
        }
        Some(Found::Bare(table)) => Some(table),
        None => None,
    })
}

/// Reads the table in a layer that is a partition itself and holds nothing else: Linux does not look
/// for partitions in partitions, but people map them with kpartx(8), and give them to guests. Only
/// a table without any fault is one there.
///
/// # Errors
/// If the layer cannot be read.
pub fn read_nested(
    layer: &dyn ReadAt,
    sector_size: SectorSize,
) -> io::Result<Option<PartitionTable>> {
    match read(layer, sector_size) {
        Ok(Some(table)) if !table.incomplete && !table.partitions.is_empty() => Ok(Some(table)),
        Err(PartitionError::Read(error)) => Err(error),
        Ok(_) | Err(_) => Ok(None),
    }
}

/// Partitions that are still to be fitted to the disk.
struct Spans {
    scheme: PartitionScheme,
    spans: Vec<Span>,
    reserved: Vec<Reserved>,
    notes: Notes,
}

enum Found {
    Spans(Spans),
    /// A BSD label without an MBR around it.
    Bare(PartitionTable),
}

fn finish(
    disk: &dyn ReadAt,
    sector_size: SectorSize,
    mut table: Spans,
) -> io::Result<Option<PartitionTable>> {
    if iso::take_out(disk, &mut table.spans, &mut table.notes)? {
        return Ok(None);
    }
    let mut partitions = place(table.spans, disk.size(), &mut table.notes);
    overlap::hold(&mut partitions, &table.reserved, &mut table.notes);
    inside::look(disk, sector_size, &mut partitions)?;
    Ok(Some(PartitionTable {
        scheme: table.scheme,
        sector_size,
        partitions,
        incomplete: table.notes.any_lost(),
        notes: table.notes.into_vec(),
    }))
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
        return find_gpt(disk, size, record);
    }
    let has_gpt = gpt::has_header(disk, size).map_err(PartitionError::Read)?;
    let Some(record) = record.filter(|record| !record.is_empty()) else {
        return find_without_record(disk, size, &sector, has_gpt);
    };
    if !record.describes(disk.size(), size) {
        if record.has_only_the_whole()
            && let Some(table) = bare_label(disk, size)?
        {
            return Ok(Some(Found::Bare(table)));
        }
        return if !record.is_doubtful() && nothing_else(disk)? {
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
    let (spans, reserved) = record
        .partitions(disk, size, &mut notes)
        .map_err(PartitionError::Read)?;
    if let Some(found) =
        sector_size::of_mbr(disk, &record, size, &spans).map_err(PartitionError::Read)?
    {
        return Err(other_sector_size("MBR", found, size));
    }
    Ok(Some(Found::Spans(Spans {
        scheme: PartitionScheme::Mbr,
        spans,
        reserved,
        notes,
    })))
}

fn find_gpt(
    disk: &dyn ReadAt,
    size: SectorSize,
    record: &Record,
) -> Result<Option<Found>, PartitionError> {
    match gpt::read(disk, size).map_err(PartitionError::Read)? {
        Ok(mut gpt) => {
            let mut notes = std::mem::take(&mut gpt.notes);
            let last = gpt::last_sector(disk, size);
            protective::note(record, &gpt, last, size, &mut notes);
            Ok(Some(Found::Spans(Spans {
                scheme: PartitionScheme::Gpt,
                spans: gpt.spans,
                reserved: gpt.reserved,
                notes,
            })))
        }
        Err(_) if record.is_doubtful() => Ok(None),
        Err(causes) => {
            let other = sector_size::of_gpt(disk, size).map_err(PartitionError::Read)?;
            Err(match other {
                Some(found) => other_sector_size("GPT", found, size),
                None => PartitionError::GptDamaged { causes },
            })
        }
    }
}

/// The first sector has no partitions: what there is all the same, or was.
fn find_without_record(
    disk: &dyn ReadAt,
    size: SectorSize,
    sector: &[u8],
    has_gpt: bool,
) -> Result<Option<Found>, PartitionError> {
    if let Some(table) = bare_label(disk, size)? {
        return Ok(Some(Found::Bare(table)));
    }
    if !nothing_else(disk)? {
        return Ok(None);
    }
    if has_gpt {
        return Err(PartitionError::GptUnprotected);
    }
    if gpt::has_backup(disk, size).map_err(PartitionError::Read)? {
        return Err(PartitionError::GptBackupOnly);
    }
    let is_new = Record::parse(sector).is_some_and(|record| record.is_unused())
        && is_blank_from(disk, RECORD).map_err(PartitionError::Read)?;
    Ok(is_new.then(|| {
        Found::Spans(Spans {
            scheme: PartitionScheme::Mbr,
            spans: Vec::new(),
            reserved: Vec::new(),
            notes: Notes::default(),
        })
    }))
}

/// A BSD label for the whole disk, which BSD calls dangerously dedicated. Linux does not look for
/// it, blkid(8) does. It may be older than what lies on the disk, unless that is what BSD makes.
fn bare_label(
    disk: &dyn ReadAt,
    sector_size: SectorSize,
) -> Result<Option<PartitionTable>, PartitionError> {
    let place = bsd::Place {
        disk,
        sector_size,
        start: Bytes::ZERO,
        length: disk.size(),
        others: &[],
    };
    let Some(Inside::Table(table)) = place.read_bare().map_err(PartitionError::Read)? else {
        return Ok(None);
    };
    let is_bsd = match recognise(disk).map_err(PartitionError::Read)? {
        None => true,
        Some(Signature::Opaque { what, .. }) => what.starts_with("UFS"),
        Some(_) => false,
    };
    Ok(is_bsd.then_some(table))
}

/// Whether the disk as a whole is nothing that is recognised.
fn nothing_else(disk: &dyn ReadAt) -> Result<bool, PartitionError> {
    let is_unknown = recognise(disk).map_err(PartitionError::Read)?.is_none();
    Ok(is_unknown && matches!(lvm::read(disk), Ok(None)))
}

fn other_sector_size(scheme: &'static str, found: SectorSize, given: SectorSize) -> PartitionError {
    PartitionError::OtherSectorSize {
        scheme,
        found,
        given,
    }
}

fn past_the_end(record: &Record, disk: Bytes, given: SectorSize) -> PartitionError {
    let found = SectorSize::S512;
    if given != found && record.describes(disk, found) {
        other_sector_size("MBR", found, given)
    } else {
        PartitionError::PastTheEnd(disk)
    }
}
