//! What a LUKS header says of the encrypted bytes: where they lie and how they are encrypted.

use std::borrow::Cow;

use super::luks1;
use super::metadata::Metadata;
use crate::layers::signature::field;
use crate::units::{Bytes, SectorSize};

/// How a header begins, in both versions.
pub const MAGIC: &[u8] = b"LUKS\xba\xbe";

/// Where the UUID is, in both versions.
const UUID: std::ops::Range<usize> = 168..208;

/// The length of a LUKS1 header without the key slots' material.
pub const LUKS1_LENGTH: usize = 592;

const VERSION: usize = 6;

/// The longest key in bytes; with the key of a checksum, ciphers take less than half as much.
pub const LONGEST_KEY: usize = 512;

/// The longest name of a cipher, or of something that is not known, in bytes.
const LONGEST_NAME: usize = 64;

/// The largest area of headers and key slots: two copies of LUKS2's metadata and the most that
/// cryptsetup takes for its key slots (`LUKS2_MAX_KEYSLOTS_SIZE`).
pub const LONGEST_HEADER_AREA: Bytes = Bytes::mib(2 * 4 + 128);

/// Why a device is not opened by its header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It cannot be so.
    #[error("its LUKS header is damaged ({0})")]
    Damaged(Cow<'static, str>),
    /// It is more than a device with one cipher.
    #[error("it {0}, which virt-fsck does not open")]
    Beyond(String),
    /// Only a part of it has its new encryption.
    #[error("it is being re-encrypted ({0}), which virt-fsck does not open")]
    Reencrypted(String),
}

impl HeaderError {
    pub(super) fn damaged(what: impl Into<Cow<'static, str>>) -> Self {
        Self::Damaged(what.into())
    }
}

use HeaderError::Beyond;

/// How a device is encrypted, and which part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Cipher, mode and initialisation vector, as dm-crypt takes them.
    pub encryption: String,
    /// How long the volume key may be, in bytes.
    pub key_sizes: Vec<usize>,
    /// Where the encrypted bytes begin.
    pub offset: Bytes,
    /// How many there are; all to the end of the device if `None`.
    pub size: Option<Bytes>,
    /// What is added to a sector's number for its initialisation vector, in sectors of 512 bytes.
    pub iv_tweak: u64,
    /// What is encrypted at once.
    pub sector_size: SectorSize,
    /// Whether the header itself allows discards.
    pub discards: bool,
}

impl Header {
    /// How many decrypted bytes a device of `device` bytes has.
    pub fn length(&self, device: Bytes) -> Result<Bytes, HeaderError> {
        let after = device.checked_sub(self.offset);
        let room = after.filter(|room| *room != Bytes::ZERO);
        let room = room.ok_or(HeaderError::damaged(
            "its device ends before the encrypted part",
        ))?;
        let length = self.size.unwrap_or(room);
        if length > room {
            return Err(HeaderError::damaged("its device is shorter than it says"));
        }
        let sector_size = u64::from(self.sector_size.get());
        if length.get().checked_rem(sector_size) != Some(0) {
            return Err(HeaderError::damaged(
                "its device has no whole number of its sectors",
            ));
        }
        Ok(length)
    }
}

/// The version of a header by its first bytes; `None` if they are none.
pub fn version(start: &[u8]) -> Option<u16> {
    if !start.starts_with(MAGIC) {
        return None;
    }
    field::be16(start, VERSION)
}

/// The UUID, by the first bytes of a header.
pub fn uuid(start: &[u8]) -> Option<String> {
    version(start)?;
    text(start, UUID).filter(|uuid| !uuid.is_empty())
}

/// A LUKS1 header, by its first [`LUKS1_LENGTH`] bytes; `detached` if it does not lie in the device.
pub fn luks1(start: &[u8], detached: bool) -> Result<Header, HeaderError> {
    let header = luks1::parse(start)?.header;
    if !detached && header.offset == Bytes::ZERO {
        return Err(HeaderError::damaged("its payload offset"));
    }
    Ok(header)
}

/// The metadata of a LUKS2 header; `detached` if it does not lie in the device.
pub fn luks2(metadata: &[u8], detached: bool) -> Result<Header, HeaderError> {
    let metadata = Metadata::parse(metadata)?;
    let header = metadata.header()?;
    if metadata.integrity()?.is_some() {
        return Err(Beyond("has checksums (dm-integrity)".to_owned()));
    }
    if !detached && header.offset == Bytes::ZERO {
        return Err(HeaderError::damaged("its offset"));
    }
    Ok(header)
}

/// What dm-crypt is told of the cipher: one word of a table, without its escapes.
pub(super) fn encryption(name: &str) -> Result<String, HeaderError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:.,()+".contains(&byte);
    if name.is_empty() || name.len() > 2 * LONGEST_NAME || !name.bytes().all(is_plain) {
        return Err(HeaderError::damaged("its cipher"));
    }
    if name.starts_with("cipher_null") || name.contains("cipher_null)") {
        return Err(Beyond(format!("is not encrypted ({})", shown(name))));
    }
    Ok(name.to_owned())
}

pub(super) fn key_length(bytes: u64) -> Result<usize, HeaderError> {
    usize::try_from(bytes)
        .ok()
        .filter(|length| (1..=LONGEST_KEY).contains(length))
        .ok_or_else(|| HeaderError::damaged("its key size"))
}

/// Text that ends at the first zero; the last byte of its field counts as one.
pub(super) fn text(bytes: &[u8], field: std::ops::Range<usize>) -> Option<String> {
    let (_, field) = bytes.get(field)?.split_last()?;
    let text = field.split(|byte| *byte == 0).next()?;
    String::from_utf8(text.to_vec()).ok()
}

/// A name out of a header, for the terminal.
pub(super) fn shown(name: &str) -> String {
    let letters = name.chars().take(LONGEST_NAME);
    letters
        .map(|letter| match letter.is_ascii_graphic() {
            true => letter,
            false => '?',
        })
        .collect()
}

#[cfg(test)]
mod tests;
