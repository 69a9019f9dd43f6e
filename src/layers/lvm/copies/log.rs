//! The log of `mirror` volumes (drivers/md/dm-log.c, `struct log_header_disk`), little-endian.
//!
//! A header, and from byte 1024 on a bit for each region, set while all copies have the same there.

use crate::layers::read::ReadAt;
use crate::layers::signature::field;
use crate::units::Bytes;

/// `MIRROR_MAGIC`.
const MAGIC: u32 = 0x4d69_5272;
/// `MIRROR_DISK_VERSION`.
const VERSION: u32 = 2;
const HEADER: Bytes = Bytes::new(16);
/// `LOG_OFFSET`, in bytes.
const BITS: Bytes = Bytes::kib(1);

/// The most regions a log is read for: a volume of 2 TiB with LVM's default region size of 2 MiB has
/// a million of them, and LVM makes regions larger rather than logs.
const MOST_REGIONS: u64 = 1 << 24;

/// Why a log does not say that all copies are equal.
#[derive(Debug, thiserror::Error)]
pub enum LogFault {
    /// It cannot be read.
    #[error("{0}")]
    Read(#[from] std::io::Error),
    /// There is none.
    #[error("it has no header")]
    Magic,
    /// One that is not known.
    #[error("unknown version {0}")]
    Version(u32),
    /// It is that of a volume of another length.
    #[error("it has {found} regions, and the volume has {wanted}")]
    Regions {
        /// As the header says.
        found: u64,
        /// By the volume's length.
        wanted: u64,
    },
    /// More than any log has.
    #[error("{0} regions are more than any log has")]
    TooMany(u64),
    /// Some copies are older than others.
    #[error("{0} of the volume's regions are not the same in all copies")]
    OutOfSync(u64),
}

/// Succeeds if the log says that all `regions` are the same in all copies.
///
/// # Errors
/// [`LogFault`].
pub fn all_in_sync(log: &dyn ReadAt, regions: u64) -> Result<(), LogFault> {
    let header = log.read_at(Bytes::ZERO, HEADER)?;
    if field::le32(&header, 0) != Some(MAGIC) {
        return Err(LogFault::Magic);
    }
    let version = field::le32(&header, 4).unwrap_or_default();
    if version != VERSION {
        return Err(LogFault::Version(version));
    }
    let found = field::le64(&header, 8).unwrap_or_default();
    if found != regions {
        return Err(LogFault::Regions {
            found,
            wanted: regions,
        });
    }
    if regions > MOST_REGIONS {
        return Err(LogFault::TooMany(regions));
    }
    let mut left = regions;
    let mut in_sync = 0_u64;
    for byte in log.read_at(BITS, Bytes::new(regions.div_ceil(8)))? {
        let bits = u8::try_from(left.min(8)).unwrap_or(8);
        let mask = 0xff_u8.checked_shr(u32::from(8_u8.saturating_sub(bits)));
        let set = byte & mask.unwrap_or_default();
        in_sync = in_sync.saturating_add(u64::from(set.count_ones()));
        left = left.saturating_sub(8);
    }
    match regions.saturating_sub(in_sync) {
        0 => Ok(()),
        more => Err(LogFault::OutOfSync(more)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `disk_resume` writes it, with these bytes of bits.
    fn log(regions: u64, bits: &[u8]) -> Vec<u8> {
        let mut log = b"rRiM\x02\0\0\0".to_vec();
        log.extend(regions.to_le_bytes());
        log.resize(1024, 0);
        log.extend(bits);
        log.resize(4096, 0);
        log
    }

    fn said(log: &dyn ReadAt, regions: u64) -> String {
        all_in_sync(log, regions).unwrap_err().to_string()
    }

    #[test]
    fn each_region_counts() {
        for regions in [1, 7, 8, 9, 16, 20] {
            let mut bits = vec![0xff; 2];
            bits.push(0x0f);
            assert!(all_in_sync(&log(regions, &bits), regions).is_ok());
            for region in 0..usize::try_from(regions).unwrap() {
                let mut bits = bits.clone();
                bits[region / 8] &= !(1 << (region % 8));
                assert!(said(&log(regions, &bits), regions).contains("1 of the"));
            }
        }
    }

    #[test]
    fn what_is_no_log_of_the_volume_says_nothing() {
        let good = log(8, &[0xff]);
        assert!(said(&vec![0; 4096], 8).contains("no header"));
        assert!(said(&good, 9).contains("8 regions"));
        assert!(said(&good[..1024].to_vec(), 8).contains("past the end"));
        let mut newer = good;
        newer[4] = 3;
        assert!(said(&newer, 8).contains("version 3"));
        let many = u64::MAX - 8;
        assert!(said(&log(many, &[]), many).contains("more than"));
    }
}
