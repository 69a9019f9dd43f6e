//! What some types of partitions promise to hold: tables of their own, parts of something larger.

use std::io;

use crate::layers::partition::bsd::{self, Counting};
use crate::layers::partition::table::{Partition, PartitionTable};
use crate::layers::partition::types::{
    FREEBSD_DATA, FREEBSD_SWAP, LDM_DATA, LDM_METADATA, NETBSD_SWAP, OPENBSD_DATA,
};
use crate::layers::partition::window::{Window, read_inside};
use crate::layers::read::ReadAt;
use crate::layers::signature::{Signature, field, recognise};
use crate::units::{Bytes, SectorSize};

/// What lies in a partition that is not looked at further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inside {
    /// A table of its own; its partitions' places count from the beginning of this partition.
    Table(PartitionTable),
    /// Swap space of a system that puts no signature into it.
    Swap,
    /// Something that is only named.
    Opaque {
        /// What it is: "Solaris slices".
        what: &'static str,
        /// Why it goes no further, as the rest of a sentence.
        reason: String,
    },
}

/// Linux counts the sectors of these tables so, whatever the disk's are.
const SECTOR: u64 = 512;
const RECORD: Bytes = Bytes::new(SECTOR);
/// Linux looks for tables in primary partitions only.
const LAST_PRIMARY: u32 = 4;

/// Finds out for each partition what its type promises.
///
/// # Errors
/// If the disk cannot be read.
pub(super) fn look(
    disk: &dyn ReadAt,
    sector_size: SectorSize,
    partitions: &mut [Partition],
) -> io::Result<()> {
    let places: Vec<(Bytes, Bytes)> = partitions
        .iter()
        .map(|partition| (partition.start, partition.end()))
        .collect();
    for partition in partitions {
        let place = bsd::Place {
            disk,
            sector_size,
            start: partition.start,
            length: partition.length,
            others: &places,
        };
        let code = partition.role.type_code.as_str();
        let has_byte = code.starts_with("0x") && partition.number <= LAST_PRIMARY;
        let window = Window::new(disk, partition.start, partition.length);
        partition.inside = match code {
            FREEBSD_DATA => place.read(Counting::Relative)?,
            OPENBSD_DATA => place.read(Counting::AbsoluteWide)?,
            FREEBSD_SWAP | NETBSD_SWAP => recognise(&window)?.is_none().then_some(Inside::Swap),
            LDM_METADATA | LDM_DATA => Some(dynamic_disk()),
            "0xa5" if has_byte => place.read(Counting::Relative)?,
            "0xa6" if has_byte => place.read(Counting::AbsoluteWide)?,
            "0xa9" if has_byte => place.read(Counting::Absolute)?,
            "0x82" | "0xbf" if has_byte => solaris(&window)?,
            "0x81" if has_byte => minix(&window)?,
            "0x63" if has_byte => unixware(&window)?,
            "0x42" => has_dynamic_disk(disk)?.then(dynamic_disk),
            _ => None,
        };
    }
    Ok(())
}

fn opaque(what: &'static str) -> Inside {
    Inside::Opaque {
        what,
        reason: "a table of its own, which this version does not read".to_owned(),
    }
}

/// The volume table in the second sector (kernel: block/partitions/msdos.c,
/// `struct solaris_x86_vtoc`). Linux' swap has the same type, and may have come later.
fn solaris(partition: &dyn ReadAt) -> io::Result<Option<Inside>> {
    const SANE: u32 = 0x600d_deee;
    if !has_number(partition, 1, 12, SANE)? {
        return Ok(None);
    }
    Ok(match recognise(partition)? {
        Some(Signature::Swap { .. }) => None,
        _ => Some(opaque("Solaris slices")),
    })
}

/// A second MBR, whose first entry is a Minix partition too.
fn minix(partition: &dyn ReadAt) -> io::Result<Option<Inside>> {
    const FIRST_TYPE: usize = 446 + 4;
    let record = read_inside(partition, Some(Bytes::ZERO), RECORD)?.unwrap_or_default();
    let is_table =
        field::is(&record, 510, &[0x55, 0xaa]) && field::u8(&record, FIRST_TYPE) == Some(0x81);
    Ok(is_table.then(|| opaque("Minix subpartitions")))
}

/// The disklabel in sector 29 (kernel: block/partitions/msdos.c, `struct unixware_disklabel`).
fn unixware(partition: &dyn ReadAt) -> io::Result<Option<Inside>> {
    const MAGIC: u32 = 0xca5e_600d;
    let is_table = has_number(partition, 29, 4, MAGIC)?;
    Ok(is_table.then(|| opaque("UnixWare slices")))
}

/// Windows' logical disk manager puts a header behind the MBR (kernel: block/partitions/ldm.c).
fn has_dynamic_disk(disk: &dyn ReadAt) -> io::Result<bool> {
    let header = read_inside(disk, Some(Bytes::new(6 * SECTOR)), RECORD)?;
    Ok(header.is_some_and(|header| field::is(&header, 0, b"PRIVHEAD")))
}

fn dynamic_disk() -> Inside {
    Inside::Opaque {
        what: "Windows dynamic disk",
        reason: "its volumes may be spread or mirrored over several disks, and this version does \
                 not lay them out"
            .to_owned(),
    }
}

fn has_number(partition: &dyn ReadAt, sector: u64, at: usize, number: u32) -> io::Result<bool> {
    let start = RECORD.checked_mul(sector);
    let bytes = read_inside(partition, start, RECORD)?;
    Ok(bytes.is_some_and(|bytes| field::le32(&bytes, at) == Some(number)))
}
