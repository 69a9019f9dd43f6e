//! A copy of the GUID partition table: its header and its entries (UEFI 2.10, 5.3.2 and 5.3.3).

use std::io;

use crate::layers::partition::window::read_inside;
use crate::layers::read::{MAX_READ, ReadAt};
use crate::layers::signature::field;
use crate::units::{Bytes, SectorSize, Sectors};

const MAGIC: &[u8] = b"EFI PART";
const MIN_HEADER: usize = 92;
const HEADER_CRC: usize = 16;
const MIN_ENTRY: u32 = 128;
const MAX_ENTRY: u32 = 4096;

/// A header whose checksum is right, and its entries, whose checksum is right too.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// The sector it lies in.
    pub(super) own_sector: u64,
    /// The sector of the other copy's header.
    pub(super) alternate: u64,
    /// The first and last sector that partitions may use.
    pub(super) usable: (u64, u64),
    /// The disk's GUID.
    pub(super) disk_guid: [u8; 16],
    /// The sector of the first entry.
    pub(super) entries_sector: u64,
    /// How long an entry is.
    pub(super) entry_size: u32,
    /// All entries.
    pub(super) entries: Vec<u8>,
}

/// What lies where a header should.
pub(super) enum Copy {
    /// A table.
    Valid(Table),
    /// The cause, as the rest of a sentence; and the other copy's place, if the header is valid.
    Damaged(String, Option<u64>),
    /// Something else, or the sector is not on the disk.
    Absent,
}

/// The copy whose header lies at `sector`.
///
/// # Errors
/// If the disk cannot be read.
pub(super) fn copy(disk: &dyn ReadAt, size: SectorSize, sector: u64) -> io::Result<Copy> {
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
        own_sector: found.own_sector,
        alternate: found.alternate,
        usable: found.usable,
        disk_guid: found.disk_guid,
        entries_sector: found.entries_sector,
        entry_size: found.entry_size,
        entries,
    }))
}

/// The fields of a header whose checksum is right.
struct Header {
    own_sector: u64,
    alternate: u64,
    usable: (u64, u64),
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
            usable: (field::le64(&header, 40)?, field::le64(&header, 48)?),
            disk_guid: *header.get(56..)?.first_chunk()?,
            entries_sector: field::le64(&header, 72)?,
            entry_count: field::le32(&header, 80)?,
            entry_size: field::le32(&header, 84)?,
            entries_crc: field::le32(&header, 88)?,
        })
    }
}
