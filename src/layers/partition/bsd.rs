//! BSD disklabels (FreeBSD: sys/sys/disk/bsd.h; kernel: block/partitions/msdos.c, `parse_bsd`).

use std::io;

use crate::layers::partition::inside::Inside;
use crate::layers::partition::overlap;
use crate::layers::partition::span::Notes;
use crate::layers::partition::table::{Partition, PartitionTable};
use crate::layers::partition::types::{BSD_SWAP, bsd_role};
use crate::layers::partition::window::{Window, read_inside};
use crate::layers::read::ReadAt;
use crate::layers::signature::{field, recognise};
use crate::layers::tree::PartitionScheme;
use crate::units::{Bytes, SectorSize};

/// Where Linux looks for a label, and the sectors in which it counts, whatever the disk's are.
const SECTOR: Bytes = Bytes::new(512);
const MAGIC: u32 = 0x8256_4557;
const MAGIC_AGAIN: usize = 132;
const SECTOR_SIZE: usize = 40;
const VERSION: usize = 114;
const COUNT: usize = 138;
const ENTRIES: usize = 148;
const ENTRY_LENGTH: usize = 16;

/// So many fit in the sector: `a` to `v`.
const MOST_PARTITIONS: usize = 22;
/// So many Linux reads.
const LINUX_PARTITIONS: usize = 16;
/// The entry that describes all of what the label is for: `c`.
const WHOLE: usize = 2;
const UNUSED: u8 = 0;

/// What a label's entries count from, by the type of the partition that it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counting {
    /// FreeBSD: from the partition if `c` begins at 0, else from the disk.
    Relative,
    /// NetBSD.
    Absolute,
    /// OpenBSD: with 48 bits.
    AbsoluteWide,
}

/// A part of the disk that may have a label in its second sector.
pub(super) struct Place<'a> {
    /// The disk.
    pub(super) disk: &'a dyn ReadAt,
    /// The size of its sectors.
    pub(super) sector_size: SectorSize,
    /// The first byte of the part.
    pub(super) start: Bytes,
    /// How long it is.
    pub(super) length: Bytes,
    /// The other partitions of the disk: OpenBSD's labels list them too.
    pub(super) others: &'a [(Bytes, Bytes)],
}

struct Entry {
    start: u64,
    length: u64,
    type_byte: u8,
}

impl Place<'_> {
    /// The label's partitions, counted from the part's beginning; `None` if there is no label.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub(super) fn read(&self, counting: Counting) -> io::Result<Option<Inside>> {
        let window = Window::new(self.disk, self.start, self.length);
        if let Some(label) = read_inside(&window, Some(SECTOR), SECTOR)?
            && field::le32(&label, 0) == Some(MAGIC)
        {
            return self.partitions(&label, counting).map(Some);
        }
        let second = Bytes::new(self.sector_size.get().into());
        if second != SECTOR
            && let Some(label) = read_inside(&window, Some(second), SECTOR)?
            && field::le32(&label, 0) == Some(MAGIC)
        {
            return Ok(Some(unreadable(second)));
        }
        Ok(None)
    }

    /// As [`Place::read`], of a part that nothing says has a label: more is asked of it.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub(super) fn read_bare(&self) -> io::Result<Option<Inside>> {
        let window = Window::new(self.disk, self.start, self.length);
        let Some(label) = read_inside(&window, Some(SECTOR), SECTOR)? else {
            return Ok(None);
        };
        if field::le32(&label, MAGIC_AGAIN) != Some(MAGIC) || !has_right_checksum(&label) {
            return Ok(None);
        }
        self.read(Counting::Relative)
    }

    fn partitions(&self, label: &[u8], counting: Counting) -> io::Result<Inside> {
        let sector = field::le32(label, SECTOR_SIZE).map_or(0, u64::from);
        if ![0, SECTOR.get()].contains(&sector) {
            return Ok(unreadable(Bytes::new(sector)));
        }
        let mut notes = Notes::default();
        if !has_right_checksum(label) {
            notes.add(
                "the checksum of the BSD disklabel is wrong; Linux does not look at it, BSD does"
                    .to_owned(),
            );
        }
        let count = usize::from(field::le16(label, COUNT).unwrap_or(0));
        if count > MOST_PARTITIONS {
            notes.add_lost(format!(
                "the BSD disklabel has {count} partitions; those after the first \
                 {MOST_PARTITIONS} are not read"
            ));
        }
        let base = self.base(label, counting);
        let mut found = Vec::new();
        for (index, letter) in ('a'..).take(count.min(MOST_PARTITIONS)).enumerate() {
            let Some(entry) = entry(label, index, counting) else {
                break;
            };
            if entry.type_byte == UNUSED || entry.length == 0 {
                continue;
            }
            if let Some(partition) = self.partition(&entry, index, letter, base, &mut notes)? {
                found.push(partition);
            }
        }
        overlap::hold(&mut found, &[], &mut notes);
        Ok(Inside::Table(PartitionTable {
            scheme: PartitionScheme::Bsd,
            sector_size: self.sector_size,
            partitions: found,
            incomplete: notes.any_lost(),
            notes: notes.into_vec(),
        }))
    }

    /// What the entries count from, in bytes from the disk's beginning.
    fn base(&self, label: &[u8], counting: Counting) -> Bytes {
        let whole = entry(label, WHOLE, counting).map(|whole| whole.start);
        if counting == Counting::Relative && whole == Some(0) {
            self.start
        } else {
            Bytes::ZERO
        }
    }

    fn partition(
        &self,
        entry: &Entry,
        index: usize,
        letter: char,
        base: Bytes,
        notes: &mut Notes,
    ) -> io::Result<Option<Partition>> {
        let start = SECTOR
            .checked_mul(entry.start)
            .and_then(|start| start.checked_add(base));
        let length = SECTOR.checked_mul(entry.length);
        let whole_end = self.start.checked_add(self.length);
        let end = start
            .zip(length)
            .and_then(|(start, length)| start.checked_add(length));
        let (Some(start), Some(length), Some(end), Some(whole_end)) =
            (start, length, end, whole_end)
        else {
            notes.add_lost(format!(
                "partition {letter} lies where no disk reaches, and is left out"
            ));
            return Ok(None);
        };
        if (start, end) == (self.start, whole_end) {
            return Ok(None);
        }
        if start < self.start || end > whole_end {
            let note = format!(
                "partition {letter} of the BSD disklabel reaches out of what the label is for, \
                 and is left out"
            );
            // Another partition, with a name in the label only.
            if self
                .others
                .iter()
                .any(|(from, to)| *from <= start && end <= *to)
            {
                notes.add(note);
            } else {
                notes.add_lost(note);
            }
            return Ok(None);
        }
        if index >= LINUX_PARTITIONS {
            notes.add(format!(
                "partition {letter} is one that Linux does not see: it reads no more than \
                 {LINUX_PARTITIONS} of a BSD disklabel"
            ));
        }
        let is_swap = entry.type_byte == BSD_SWAP
            && recognise(&Window::new(self.disk, start, length))?.is_none();
        Ok(Some(Partition {
            number: u32::try_from(index).map_or(0, |index| index.saturating_add(1)),
            name: letter.to_string(),
            start: start.saturating_sub(self.start),
            length,
            role: bsd_role(entry.type_byte),
            held: None,
            inside: is_swap.then_some(Inside::Swap),
        }))
    }
}

fn unreadable(sector: Bytes) -> Inside {
    Inside::Opaque {
        what: "BSD disklabel",
        reason: format!(
            "it counts in sectors of {} bytes, which Linux does not read",
            sector.get()
        ),
    }
}

fn entry(label: &[u8], index: usize, counting: Counting) -> Option<Entry> {
    let at = index.checked_mul(ENTRY_LENGTH)?.checked_add(ENTRIES)?;
    let entry = label.get(at..at.checked_add(ENTRY_LENGTH)?)?;
    let has_high = counting == Counting::AbsoluteWide && field::le16(label, VERSION)? == 1;
    let high = |at| {
        let high = if has_high {
            field::le16(entry, at)
        } else {
            None
        };
        u64::from(high.unwrap_or(0)) << 32
    };
    Some(Entry {
        length: u64::from(field::le32(entry, 0)?) | high(10),
        start: u64::from(field::le32(entry, 4)?) | high(8),
        type_byte: field::u8(entry, 12)?,
    })
}

/// All 16-bit words of the label, with its partitions, give zero by exclusive or.
fn has_right_checksum(label: &[u8]) -> bool {
    let count = usize::from(field::le16(label, COUNT).unwrap_or(0)).min(MOST_PARTITIONS);
    let end = count.saturating_mul(ENTRY_LENGTH).saturating_add(ENTRIES);
    let words = label.get(..end).unwrap_or_default().chunks_exact(2);
    words.fold(0, |sum, word| sum ^ field::le16(word, 0).unwrap_or(0)) == 0
}
