//! dm-integrity below dm-crypt: the superblock in a segment whose sectors have checksums, and how
//! device-mapper is told of both.
//!
//! Linux: drivers/md/dm-integrity.c, `struct superblock`. cryptsetup: lib/integrity/integrity.c for
//! the lengths, `cipher_dm2c` in lib/libdevmapper.c for the names.

use super::container::{Container, LuksError};
use super::header::HeaderError;
use crate::layers::read::ReadAt;
use crate::layers::signature::field;
use crate::units::{Bytes, SectorSize, Sectors};

const MAGIC: &[u8] = b"integrt\0";
const LENGTH: Bytes = Bytes::new(512);

const VERSION: usize = 8;
const LOG2_INTERLEAVE_SECTORS: usize = 9;
const TAG_SIZE: usize = 10;
const JOURNAL_SECTIONS: usize = 12;
const PROVIDED_SECTORS: usize = 16;
const FLAGS: usize = 24;
const LOG2_SECTORS_PER_BLOCK: usize = 28;

/// The versions that have this form; a newer one keeps its checksums elsewhere.
const VERSIONS: std::ops::RangeInclusive<u8> = 1..=5;
const INTERLEAVES: std::ops::RangeInclusive<u8> = 3..=31;

/// `SB_FLAG_FIXED_PADDING` and `SB_FLAG_FIXED_HMAC`: how the kernel lays it out, and it sees to that.
const LAYOUT_FLAGS: u32 = 8 | 16;

/// The names of table lines are no longer than this.
const LONGEST_NAME: usize = 256;

/// What the superblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// How many bytes are kept beside each block.
    pub tag_size: u16,
    /// How many bytes the device has that lies on it.
    pub provided: Bytes,
    /// What has one checksum.
    pub block_size: SectorSize,
}

/// A container with checksums, as device-mapper is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protected {
    /// What dm-integrity is told, and how long both devices are.
    pub superblock: Superblock,
    /// dm-crypt's name of the cipher together with that of the checksums. The volume key is for both.
    pub encryption: String,
    /// Writes go through the journal, as the header wants it.
    pub journal: bool,
}

impl Superblock {
    /// The superblock in its first bytes.
    ///
    /// # Errors
    /// `Damaged` if there is none. The kernel must not see that: where there are zeros it makes a new
    /// one.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let wrong = |what: &str| {
            HeaderError::damaged(format!(
                "the superblock of its checksums has a wrong {what}"
            ))
        };
        if !field::is(bytes, 0, MAGIC) {
            return Err(HeaderError::damaged("its checksums have no superblock"));
        }
        let version = field::u8(bytes, VERSION).unwrap_or_default();
        if !VERSIONS.contains(&version) {
            let what = format!("has checksums of the unknown version {version}");
            return Err(HeaderError::Beyond(what));
        }
        let interleave = field::u8(bytes, LOG2_INTERLEAVE_SECTORS);
        if !interleave.is_some_and(|log| INTERLEAVES.contains(&log)) {
            return Err(wrong("interleave"));
        }
        if field::le32(bytes, JOURNAL_SECTIONS).unwrap_or_default() == 0 {
            return Err(wrong("journal"));
        }
        let flags = field::le32(bytes, FLAGS).ok_or_else(|| wrong("length"))?;
        if flags & !LAYOUT_FLAGS != 0 {
            // A journal with a key of its own, or checksums that the kernel makes: not below LUKS.
            return Err(wrong("set of flags"));
        }
        let block = field::u8(bytes, LOG2_SECTORS_PER_BLOCK).filter(|log| *log <= 3);
        let block = block.and_then(|log| SectorSize::new(512 << log));
        let block_size = block.ok_or_else(|| wrong("block size"))?;
        let tag_size = field::le16(bytes, TAG_SIZE).filter(|size| *size != 0);
        let provided = field::le64(bytes, PROVIDED_SECTORS)
            .and_then(|sectors| Sectors::new(sectors).to_bytes(SectorSize::S512))
            .filter(|bytes| *bytes != Bytes::ZERO)
            .filter(|bytes| bytes.get() % u64::from(block_size.get()) == 0);
        Ok(Self {
            tag_size: tag_size.ok_or_else(|| wrong("checksum size"))?,
            provided: provided.ok_or_else(|| wrong("number of sectors"))?,
            block_size,
        })
    }
}

/// What device-mapper is told of a container with checksums; `None` if it has none.
///
/// # Errors
/// [`LuksError`] if its superblock cannot be read, is damaged, or is not for this header.
pub fn protected(
    layer: &dyn ReadAt,
    container: &Container,
) -> Result<Option<Protected>, LuksError> {
    if container.integrity.is_none() {
        return Ok(None);
    }
    let offset = container.header.offset;
    let room = layer.size().saturating_sub(offset);
    let superblock = match room < LENGTH {
        true => Err(HeaderError::damaged("its checksums have no superblock")),
        false => Superblock::parse(&layer.look_at(offset, LENGTH)?),
    };
    superblock
        .and_then(|superblock| superblock.of(container, room))
        .map(Some)
        .map_err(|why| LuksError::Header {
            version: Some(container.version),
            uuid: container.uuid.clone(),
            why,
        })
}

impl Superblock {
    /// It together with the header, if each is for the other.
    fn of(self, container: &Container, room: Bytes) -> Result<Protected, HeaderError> {
        let header = &container.header;
        let Some(integrity) = &container.integrity else {
            return Err(HeaderError::damaged("it has no checksums"));
        };
        if integrity.journal_encryption != "none" || integrity.journal_integrity != "none" {
            let what = "has checksums with a key for their journal".to_owned();
            return Err(HeaderError::Beyond(what));
        }
        if self.block_size != header.sector_size {
            return Err(HeaderError::damaged("its checksums are for other sectors"));
        }
        if self.provided >= room {
            return Err(HeaderError::damaged("its device is shorter than it says"));
        }
        let (encryption, tag_size) = names(&header.encryption, &integrity.kind)?;
        if tag_size != self.tag_size {
            return Err(HeaderError::damaged("its checksums are of another length"));
        }
        Ok(Protected {
            superblock: self,
            encryption,
            journal: !integrity.no_journal,
        })
    }
}

/// dm-crypt's name of a cipher with checksums, and how many bytes it keeps beside each sector: the
/// checksum, and the initialisation vector where that is random.
fn names(encryption: &str, kind: &str) -> Result<(String, u16), HeaderError> {
    let unknown = || HeaderError::Beyond(format!("has the checksums {kind} for {encryption}"));
    let (cipher, rest) = encryption.split_once('-').ok_or_else(unknown)?;
    let (mode, vector) = match rest.split_once('-') {
        Some((mode, vector)) => (Some(mode), vector),
        None => (None, rest),
    };
    let inner = match mode {
        Some(mode) => format!("{mode}({cipher})"),
        None => cipher.to_owned(),
    };
    let (name, tag) = match kind {
        "aead" if mode == Some("ccm") => (format!("rfc4309({inner})"), 16),
        "aead" => (inner, 16),
        "poly1305" => (format!("rfc7539({inner},poly1305)"), 16),
        "cmac(aes)" => (format!("authenc({kind},{inner})"), 16),
        "hmac(sha1)" => (format!("authenc({kind},{inner})"), 20),
        "hmac(sha256)" => (format!("authenc({kind},{inner})"), 32),
        "hmac(sha512)" => (format!("authenc({kind},{inner})"), 64),
        _ => return Err(unknown()),
    };
    let beside = match (vector, mode) {
        ("random", _) if kind == "poly1305" => 12,
        ("random", Some("xts" | "ctr")) => 16,
        ("random", Some("gcm")) => 12,
        ("random", Some("ccm")) => 8,
        ("random", None) if cipher == "aegis256" => 32,
        ("random", None) => 16,
        ("random", Some(_)) => return Err(unknown()),
        _ => 0,
    };
    let name = format!("capi:{name}-{vector}");
    if name.len() > LONGEST_NAME {
        return Err(unknown());
    }
    Ok((name, tag + beside))
}

#[cfg(test)]
mod tests;
