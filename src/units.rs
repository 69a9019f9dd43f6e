//! Bytes and sectors are different types, so that one is never taken for the other.

use std::fmt;

/// A number of bytes: an offset or a length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct Bytes(u64);

impl Bytes {
    /// No bytes; also the offset of the first byte.
    pub const ZERO: Self = Self(0);

    /// `count` bytes.
    pub const fn new(count: u64) -> Self {
        Self(count)
    }

    /// `count` times 1024 bytes. For constants; panics at compile time when it overflows.
    pub const fn kib(count: u64) -> Self {
        Self(count * 1024)
    }

    /// `count` times 1024 KiB. For constants; panics at compile time when it overflows.
    pub const fn mib(count: u64) -> Self {
        Self(count * 1024 * 1024)
    }

    /// The plain number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The sum, or `None` past 2^64.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The difference, or `None` below zero.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(difference) => Some(Self(difference)),
            None => None,
        }
    }

    /// The product, or `None` past 2^64.
    pub const fn checked_mul(self, factor: u64) -> Option<Self> {
        match self.0.checked_mul(factor) {
            Some(product) => Some(Self(product)),
            None => None,
        }
    }

    /// The difference, or zero where it would be negative.
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// Three significant figures with a binary unit, as `lsblk` and `virt-filesystems -h` do: `10.0 GiB`.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return f.pad(&format!("{} B", self.0));
        }
        #[expect(clippy::cast_precision_loss, reason = "three figures are shown")]
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = "KiB";
        for next in UNITS.iter().skip(1) {
            if value < 1023.95 {
                break;
            }
            value /= 1024.0;
            unit = next;
        }
        f.pad(&format!("{value:.1} {unit}"))
    }
}

/// A number of sectors; worth nothing until a [`SectorSize`] is named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sectors(u64);

impl Sectors {
    /// `count` sectors.
    pub const fn new(count: u64) -> Self {
        Self(count)
    }

    /// The plain number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The sum, or `None` past 2^64.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The same place in bytes, or `None` past 2^64.
    pub const fn to_bytes(self, size: SectorSize) -> Option<Bytes> {
        Bytes(self.0).checked_mul(size.0 as u64)
    }
}

/// The length of one sector in bytes: a power of two from 512 to 32768, the range QEMU
/// accepts for `logical_block_size` (hw/block/block.c, MIN_BLOCK_SIZE and its limit).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct SectorSize(u32);

impl SectorSize {
    /// What a guest sees unless its XML says otherwise, and the unit of LVM2 metadata.
    pub const S512: Self = Self(512);
    /// "4Kn" disks.
    pub const S4096: Self = Self(4096);

    /// The size, or `None` if no disk has such sectors.
    pub const fn new(bytes: u32) -> Option<Self> {
        if bytes.is_power_of_two() && bytes >= 512 && bytes <= 32768 {
            Some(Self(bytes))
        } else {
            None
        }
    }

    /// The plain number of bytes.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for SectorSize {
    fn default() -> Self {
        Self::S512
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_as_people_write_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (10 << 30, "10.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(Bytes::new(bytes).to_string(), text);
        }
    }

    #[test]
    fn sectors_need_a_size() {
        assert_eq!(
            Sectors::new(2048).to_bytes(SectorSize::S512),
            Some(Bytes::mib(1))
        );
        assert_eq!(Sectors::new(u64::MAX).to_bytes(SectorSize::S512), None);
        assert_eq!(SectorSize::new(520), None);
        assert_eq!(SectorSize::new(65536), None);
        assert_eq!(SectorSize::new(4096), Some(SectorSize::S4096));
    }
}
