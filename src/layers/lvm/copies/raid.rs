//! What MD in device-mapper notes of a copy of a RAID volume (drivers/md/dm-raid.c, `struct
//! dm_raid_superblock`; drivers/md/md-bitmap.h, `struct bitmap_super_s`), little-endian.
//!
//! The superblock lies at the beginning of the `rmeta` volume, the bitmap from byte 4096 on: 256 bytes
//! of header, then a bit for each region, set while a write to it is not on all copies for sure.

use std::io;

use crate::layers::read::ReadAt;
use crate::layers::signature::field;
use crate::units::{Bytes, SectorSize, Sectors};

const MAGIC: &[u8] = b"DmRd";
const SUPERBLOCK: Bytes = Bytes::new(512);
/// `FEATURE_FLAG_SUPPORTS_V190`: the fields from byte 60 on are in use.
const EXTENDED: u32 = 1;
const LEVEL: u32 = 1;
/// `MAX_RAID_DEVICES`.
const MOST_DEVICES: u32 = 253;
/// `MaxSector`: all sectors are done.
const ALL: u64 = u64::MAX;

const BITMAP: Bytes = Bytes::kib(4);
const BITMAP_MAGIC: &[u8] = b"bitm";
const BITMAP_HEADER: u64 = 256;
/// `BITMAP_MAJOR_HI`, of bitmaps that are little-endian on all machines.
const BITMAP_VERSION: u32 = 4;
/// `BITMAP_STALE` and `BITMAP_WRITE_ERROR`: its bits tell nothing.
const BITMAP_VOID: u32 = 6;
/// No RAID volume has more regions (`validate_region_size`).
const MOST_REGIONS: u64 = 1 << 21;

/// What is noted of one copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// How many copies the volume has.
    pub devices: u64,
    /// Which of them this one is, counted from 0.
    pub position: u32,
    /// Raised with each change of the superblocks: the greatest is the newest.
    pub events: u64,
    /// A bit for each copy that has failed.
    failed: [u64; 4],
    /// This copy has been filled as a whole.
    pub recovered: bool,
    /// All copies had the same bytes when this was written, and nothing was being written.
    pub equal: bool,
    /// How much of this copy is in use; `None` if the superblock does not say.
    pub size: Option<Bytes>,
}

/// Why a superblock is none that a copy of a mirror has.
#[derive(Debug, thiserror::Error)]
pub enum RaidFault {
    /// It cannot be read.
    #[error("its superblock: {0}")]
    Read(#[from] io::Error),
    /// There is none: the volume was never active, or something has written over it.
    #[error("it has no superblock of a RAID volume")]
    Magic,
    /// Features that must be understood, and are not.
    #[error("its superblock has unknown features")]
    Features,
    /// That of a volume that became another kind, or is about to.
    #[error("its superblock is not that of a plain RAID 1")]
    Level,
    /// A number of devices that no volume has, or a place outside of them.
    #[error("its superblock says that it is number {position} of {devices}")]
    Position {
        /// Which.
        position: u32,
        /// Of how many.
        devices: u32,
    },
}

impl Metadata {
    /// Whether the copy of this number has failed.
    pub fn has_failed(&self, position: u32) -> bool {
        let word = usize::try_from(position / u64::BITS).unwrap_or(usize::MAX);
        let bit = position % u64::BITS;
        self.failed
            .get(word)
            .is_some_and(|word| word.checked_shr(bit).unwrap_or(0) & 1 == 1)
    }
}

/// Reads what is noted in an `rmeta` volume.
///
/// # Errors
/// [`RaidFault`] wherever the kernel would refuse it as that of a `raid1` volume, or change the volume.
pub fn read(metadata: &dyn ReadAt) -> Result<Metadata, RaidFault> {
    let block = metadata.read_at(Bytes::ZERO, SUPERBLOCK)?;
    // The block has all that is asked for.
    let le32 = |at| field::le32(&block, at).unwrap_or_default();
    let le64 = |at| field::le64(&block, at).unwrap_or_default();
    if !field::is(&block, 0, MAGIC) {
        return Err(RaidFault::Magic);
    }
    let features = le32(4);
    let extended = features == EXTENDED;
    if !matches!(features, 0 | EXTENDED) || extended && le32(144) != 0 {
        return Err(RaidFault::Features);
    }
    let [devices, position] = [le32(8), le32(12)];
    if devices > MOST_DEVICES || position >= devices {
        return Err(RaidFault::Position { position, devices });
    }
    // A new level, a change of the number of devices, other places of the data.
    let is_changing = extended
        && (le32(60) != 0
            || le64(64) != ALL
            || le32(72) != LEVEL
            || le32(84) != 0
            || le64(96) != 0
            || le64(104) != 0);
    if le32(48) != LEVEL || is_changing {
        return Err(RaidFault::Level);
    }
    let mut failed = [le64(24), 0, 0, 0];
    if extended {
        failed = [le64(24), le64(120), le64(128), le64(136)];
    }
    let sectors = Sectors::new(le64(112)).to_bytes(SectorSize::S512);
    Ok(Metadata {
        devices: devices.into(),
        position,
        events: le64(16),
        failed,
        recovered: le64(32) == ALL,
        equal: le64(40) == ALL && nothing_is_written(metadata)?,
        size: extended.then_some(sectors.unwrap_or_default()),
    })
}

/// Whether the bitmap says that all writes have reached all copies.
fn nothing_is_written(metadata: &dyn ReadAt) -> io::Result<bool> {
    let Ok(header) = metadata.read_at(BITMAP, Bytes::new(BITMAP_HEADER)) else {
        return Ok(false);
    };
    let le32 = |at| field::le32(&header, at).unwrap_or_default();
    let known = field::is(&header, 0, BITMAP_MAGIC)
        && le32(4) == BITMAP_VERSION
        && le32(48) & BITMAP_VOID == 0;
    let size = field::le64(&header, 40).and_then(|sectors| sectors.checked_mul(512));
    let regions = size.and_then(|size| Some(size.div_ceil(u64::from(nonzero(le32(52))?))));
    let Some(regions) = regions.filter(|regions| known && *regions <= MOST_REGIONS) else {
        return Ok(false);
    };
    let start = BITMAP.get().saturating_add(BITMAP_HEADER);
    let bits = metadata.read_at(Bytes::new(start), Bytes::new(regions.div_ceil(8)))?;
    Ok(bits.iter().all(|byte| *byte == 0))
}

fn nonzero(number: u32) -> Option<u32> {
    (number != 0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::super::tests::RaidMeta;
    use super::*;

    fn said(meta: &RaidMeta, at: usize, bytes: &[u8]) -> String {
        let mut block = meta.build();
        block[at..at + bytes.len()].copy_from_slice(bytes);
        read(&block).unwrap_err().to_string()
    }

    #[test]
    fn a_superblock_says_how_its_copy_stands() {
        let meta = RaidMeta::new(1, 2);
        let metadata = read(&meta.build()).unwrap();
        assert_eq!((metadata.devices, metadata.position), (2, 1));
        assert_eq!(metadata.events, 7);
        assert!(metadata.recovered && metadata.equal);
        assert_eq!(metadata.size, Some(Bytes::mib(8)));
        assert!((0..300).all(|position| !metadata.has_failed(position)));
        let failed = RaidMeta {
            failed: 1 << 1,
            ..meta
        };
        let metadata = read(&failed.build()).unwrap();
        assert!(metadata.has_failed(1) && !metadata.has_failed(0) && !metadata.has_failed(65));
    }

    #[test]
    fn what_the_kernel_would_not_take_is_refused() {
        let meta = RaidMeta::new(0, 2);
        assert!(said(&meta, 0, b"DmRe").contains("no superblock"));
        assert!(said(&meta, 4, &[3]).contains("unknown features"));
        assert!(said(&meta, 144, &[1]).contains("unknown features"));
        assert!(said(&meta, 8, &[0]).contains("number 0 of 0"));
        assert!(said(&meta, 8, &[0xff; 4]).contains("of 4294967295"));
        assert!(said(&meta, 12, &[2]).contains("number 2 of 2"));
        for (at, byte) in [
            (48, 5),
            (60, 1),
            (64, 0),
            (72, 5),
            (84, 1),
            (96, 8),
            (104, 8),
        ] {
            assert!(said(&meta, at, &[byte]).contains("plain RAID 1"), "{at}");
        }
        assert!(read(&meta.build()[..100].to_vec()).is_err());
    }

    #[test]
    fn a_region_that_is_written_makes_copies_unequal() {
        let equal = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut block = RaidMeta::new(0, 2).build();
            change(&mut block);
            read(&block).unwrap().equal
        };
        assert!(equal(&|_| {}));
        assert!(!equal(&|block| block[4096 + 256] = 4));
        assert!(!equal(&|block| block[4096 + 48] = 2));
        assert!(!equal(&|block| block[4096] = 0));
        assert!(!equal(&|block| block[4096 + 52..4096 + 56].fill(0)));
        assert!(!equal(&|block| block.truncate(4096)));
        // Resynchronisation has come as far as a sector.
        assert!(!equal(&|block| block[40] = 0));
        // Outside of its regions.
        assert!(equal(&|block| block[4096 + 258] = 1));
    }
}
