//! What a LUKS header says of the encrypted bytes: where they lie and how they are encrypted.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::layers::signature::field;
use crate::units::{Bytes, SectorSize, Sectors};

/// How a header begins, in both versions.
pub const MAGIC: &[u8] = b"LUKS\xba\xbe";

/// Where the UUID is, in both versions.
const UUID: std::ops::Range<usize> = 168..208;

/// The length of a LUKS1 header without the key slots' material.
pub const LUKS1_LENGTH: usize = 592;

const VERSION: usize = 6;
const CIPHER_NAME: std::ops::Range<usize> = 8..40;
const CIPHER_MODE: std::ops::Range<usize> = 40..72;
const PAYLOAD_OFFSET: usize = 104;
const KEY_BYTES: usize = 108;

/// The longest key in bytes; with the key of a checksum, ciphers take less than half as much.
pub const LONGEST_KEY: usize = 512;

/// The longest metadata in bytes: LUKS2 has at most 4 MiB, and cryptsetup prints it with blanks.
const LONGEST_METADATA: usize = 64 * 1024 * 1024;

/// The longest name of a cipher, or of something that is not known, in bytes.
const LONGEST_NAME: usize = 64;

/// Why a device is not opened by its header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It cannot be so.
    #[error("its LUKS header is damaged ({0})")]
    Damaged(&'static str),
    /// It is more than a device with one cipher.
    #[error("it {0}, which virt-fsck does not open")]
    Beyond(String),
}

use HeaderError::{Beyond, Damaged};

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
        let room = room.ok_or(Damaged("its device ends before the encrypted part"))?;
        let length = self.size.unwrap_or(room);
        if length > room {
            return Err(Damaged("its device is shorter than it says"));
        }
        let sector_size = u64::from(self.sector_size.get());
        if length.get().checked_rem(sector_size) != Some(0) {
            return Err(Damaged("its device has no whole number of its sectors"));
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
    if version(start) != Some(1) {
        return Err(Damaged("its version"));
    }
    let cipher = text(start, CIPHER_NAME).ok_or(Damaged("its cipher"))?;
    let mode = text(start, CIPHER_MODE).ok_or(Damaged("its cipher mode"))?;
    if cipher.is_empty() || mode.is_empty() {
        return Err(Damaged("its cipher"));
    }
    let sectors = field::be32(start, PAYLOAD_OFFSET).ok_or(Damaged("its length"))?;
    let key_size = field::be32(start, KEY_BYTES).ok_or(Damaged("its length"))?;
    let offset = Sectors::new(sectors.into()).to_bytes(SectorSize::S512);
    let offset = offset.ok_or(Damaged("its payload offset"))?;
    if !detached && offset < Bytes::new(LUKS1_LENGTH as u64) {
        return Err(Damaged("its payload offset"));
    }
    Ok(Header {
        encryption: encryption(&format!("{cipher}-{mode}"))?,
        key_sizes: vec![key_length(key_size.into())?],
        offset,
        size: None,
        iv_tweak: 0,
        sector_size: SectorSize::S512,
        discards: false,
    })
}

/// The metadata of LUKS2, as far as it says what is encrypted how.
#[derive(Deserialize)]
struct Metadata {
    keyslots: BTreeMap<String, KeySlot>,
    segments: BTreeMap<String, Segment>,
    digests: BTreeMap<String, Digest>,
    config: Config,
}

#[derive(Deserialize)]
struct KeySlot {
    key_size: u64,
}

#[derive(Deserialize)]
struct Segment {
    #[serde(rename = "type")]
    kind: String,
    offset: String,
    size: String,
    #[serde(default)]
    flags: Vec<String>,
    integrity: Option<Value>,
    // Only a segment of the type `crypt` must have these.
    iv_tweak: Option<String>,
    encryption: Option<String>,
    sector_size: Option<u32>,
}

#[derive(Deserialize)]
struct Digest {
    keyslots: Vec<String>,
    segments: Vec<String>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    requirements: BTreeMap<String, Vec<String>>,
}

/// The metadata of a LUKS2 header; `detached` if it does not lie in the device.
pub fn luks2(metadata: &[u8], detached: bool) -> Result<Header, HeaderError> {
    const UNREADABLE: HeaderError = Damaged("its metadata");
    if metadata.len() > LONGEST_METADATA {
        return Err(UNREADABLE);
    }
    let metadata: Metadata = serde_json::from_slice(metadata).map_err(|_| UNREADABLE)?;
    let mut requirements = metadata.config.requirements.values().flatten();
    if let Some(requirement) = requirements.next() {
        let what = match requirement.contains("reencrypt") {
            true => "is being re-encrypted",
            false => "needs something special",
        };
        return Err(Beyond(format!("{what} ({})", shown(requirement))));
    }
    let mut segments = metadata.segments.iter();
    let (Some((id, segment)), None) = (segments.next(), segments.next()) else {
        let count = metadata.segments.len();
        return Err(Beyond(format!("has {count} segments")));
    };
    if segment.kind != "crypt" {
        let kind = shown(&segment.kind);
        return Err(Beyond(format!("is of the type {kind}")));
    }
    if segment.integrity.is_some() {
        return Err(Beyond("has checksums (dm-integrity)".to_owned()));
    }
    if let Some(flag) = segment.flags.first() {
        return Err(Beyond(format!("has the flag {}", shown(flag))));
    }
    let digests = metadata.digests.values();
    let slots = digests
        .filter(|digest| digest.segments.contains(id))
        .flat_map(|digest| &digest.keyslots)
        .filter_map(|slot| metadata.keyslots.get(slot));
    let key_sizes: Vec<usize> = slots
        .map(|slot| key_length(slot.key_size))
        .collect::<Result<_, _>>()?;
    if key_sizes.is_empty() {
        return Err(Beyond("has no key slot".to_owned()));
    }
    let offset = whole_sectors(&segment.offset).ok_or(Damaged("its offset"))?;
    if !detached && offset == Bytes::ZERO {
        return Err(Damaged("its offset"));
    }
    let size = match segment.size.as_str() {
        "dynamic" => None,
        number => Some(
            whole_sectors(number)
                .filter(|size| *size != Bytes::ZERO)
                .ok_or(Damaged("its size"))?,
        ),
    };
    let iv_tweak = segment.iv_tweak.as_ref();
    let sector_size = segment.sector_size.and_then(SectorSize::new);
    Ok(Header {
        encryption: encryption(segment.encryption.as_deref().unwrap_or_default())?,
        key_sizes,
        offset,
        size,
        iv_tweak: iv_tweak
            .and_then(|tweak| number(tweak))
            .ok_or(Damaged("its IV tweak"))?,
        sector_size: sector_size
            .filter(|size| size.get() <= SectorSize::S4096.get())
            .ok_or(Damaged("its sector size"))?,
        discards: metadata.config.flags.iter().any(|f| f == "allow-discards"),
    })
}

/// What dm-crypt is told of the cipher: one word of a table, without its escapes.
fn encryption(name: &str) -> Result<String, HeaderError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:.,()+".contains(&byte);
    if name.is_empty() || name.len() > 2 * LONGEST_NAME || !name.bytes().all(is_plain) {
        return Err(Damaged("its cipher"));
    }
    if name.starts_with("cipher_null") || name.contains("cipher_null)") {
        return Err(Beyond(format!("is not encrypted ({})", shown(name))));
    }
    Ok(name.to_owned())
}

fn key_length(bytes: u64) -> Result<usize, HeaderError> {
    usize::try_from(bytes)
        .ok()
        .filter(|length| (1..=LONGEST_KEY).contains(length))
        .ok_or(Damaged("its key size"))
}

/// A number of bytes that is a multiple of 512.
fn whole_sectors(text: &str) -> Option<Bytes> {
    let bytes = number(text)?;
    (bytes.checked_rem(512)? == 0).then_some(Bytes::new(bytes))
}

/// A number without a sign.
fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// Text that ends at the first zero, or fills its field.
pub(super) fn text(bytes: &[u8], field: std::ops::Range<usize>) -> Option<String> {
    let text = bytes.get(field)?.split(|byte| *byte == 0).next()?;
    String::from_utf8(text.to_vec()).ok()
}

/// A name out of a header, for the terminal.
fn shown(name: &str) -> String {
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
