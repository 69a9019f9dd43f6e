//! dm-integrity, and dm-crypt on it: each sector is kept with a checksum that cannot be forged.
//!
//! The kernel's `Documentation/admin-guide/device-mapper/dm-integrity.rst` and `dm-crypt.rst`.

use std::fmt::Display;

use zeroize::Zeroizing;

use super::{Cipher, TableError, crypt_line, sectors, whole};
use crate::units::{Bytes, SectorSize};

/// What dm-integrity keeps beside each block. It must be what its superblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tags {
    /// How many bytes.
    pub size: u16,
    /// What has one tag.
    pub block_size: SectorSize,
    /// Writes go through its journal.
    pub journal: bool,
}

/// The table of a device of `length` bytes whose blocks lie with their tags on another one, behind
/// a superblock at `offset`.
///
/// There must be a superblock: where there are zeros, the kernel makes a new one. It replays the
/// journal when the device is resumed, and writes that to what lies below; that must be something
/// that may be written, even where the device itself is read-only (cryptsetup has the same mode `J`
/// for that). The mode `R` would write nothing, but it leaves out what stands in the journal only,
/// and so shows a filesystem that never was.
///
/// # Errors
/// [`TableError`] if these are no whole blocks, or none at all.
pub fn integrity(
    length: Bytes,
    tags: Tags,
    device: impl Display,
    offset: Bytes,
) -> Result<String, TableError> {
    if length == Bytes::ZERO {
        return Err(TableError::Empty);
    }
    whole("a length", length, tags.block_size)?;
    let length = sectors("a length", length)?;
    let offset = sectors("an offset", offset)?;
    let mode = if tags.journal { 'J' } else { 'D' };
    let (size, block_size) = (tags.size, tags.block_size.get());
    Ok(format!(
        "0 {length} integrity {device} {offset} {size} {mode} 1 block_size:{block_size}\n"
    ))
}

/// The table of a device that decrypts all of one with tags, and checks them. The cipher's name is
/// the kernel's, with `capi:`; discards are left out, which do not go with tags.
///
/// # Errors
/// As [`super::encrypted`].
pub fn authenticated(
    length: Bytes,
    cipher: Cipher<'_>,
    tag_size: u16,
    device: impl Display,
) -> Result<Zeroizing<String>, TableError> {
    let cipher = Cipher {
        discards: false,
        ..cipher
    };
    crypt_line(length, cipher, device, Bytes::ZERO, Some(tag_size))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAGS: Tags = Tags {
        size: 32,
        block_size: SectorSize::S512,
        journal: true,
    };

    #[test]
    fn lines() {
        let length = Bytes::new(22080 * 512);
        let line = integrity(length, TAGS, "7:0", Bytes::mib(16)).unwrap();
        assert_eq!(line, "0 22080 integrity 7:0 32768 32 J 1 block_size:512\n");
        let tags = Tags {
            size: 28,
            block_size: SectorSize::S4096,
            journal: false,
        };
        let line = integrity(length, tags, "7:0", Bytes::mib(16)).unwrap();
        assert_eq!(line, "0 22080 integrity 7:0 32768 28 D 1 block_size:4096\n");
        let cipher = Cipher {
            name: "capi:authenc(hmac(sha256),xts(aes))-plain64",
            key: "00ff",
            iv_tweak: 8,
            sector_size: SectorSize::S512,
            discards: true,
        };
        let line = authenticated(length, cipher, 32, "253:0").unwrap();
        let expected = "0 22080 crypt capi:authenc(hmac(sha256),xts(aes))-plain64 00ff 8 253:0 0 \
                        1 integrity:32:aead\n";
        assert_eq!(*line, expected);
        let cipher = Cipher {
            sector_size: SectorSize::S4096,
            ..cipher
        };
        let line = authenticated(length, cipher, 32, "253:0").unwrap();
        assert!(line.ends_with(" 253:0 0 2 sector_size:4096 integrity:32:aead\n"));
        let odd = Bytes::new(22081 * 512);
        assert!(authenticated(odd, cipher, 32, "253:0").is_err());
        assert!(integrity(odd, tags, "7:0", Bytes::ZERO).is_err());
        assert!(integrity(Bytes::ZERO, TAGS, "7:0", Bytes::ZERO).is_err());
        assert!(integrity(length, TAGS, "7:0", Bytes::new(1)).is_err());
    }
}
