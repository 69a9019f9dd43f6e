//! Where LUKS2 keeps its metadata: two copies, each with a checksum over all of it.
//!
//! cryptsetup: docs/on-disk-format-luks2.pdf, 2.1 and 2.2; lib/luks2/luks2_disk_metadata.c.

use std::io;
use std::ops::Range;

use sha2::{Digest, Sha256};

use super::header::HeaderError;
use crate::layers::read::ReadAt;
use crate::layers::signature::field;
use crate::units::Bytes;

/// How the second copy begins; the first as every LUKS header does.
const SECOND_MAGIC: &[u8] = b"SKUL\xba\xbe";

const MAGIC: Range<usize> = 0..6;
const VERSION: Range<usize> = 6..8;
const SIZE: usize = 8;
const SEQUENCE_NUMBER: Range<usize> = 16..24;
const CHECKSUM_NAME: Range<usize> = 72..104;
const OFFSET: Range<usize> = 256..264;
const CHECKSUM: Range<usize> = 448..512;

/// The length of the binary header, which the text follows.
pub(super) const BINARY: usize = 4096;

/// How long a copy may be, in bytes; between these, a power of two.
const SIZES: std::ops::RangeInclusive<u64> = 16 * 1024..=4 * 1024 * 1024;

/// The metadata as text, if both copies are sound and of the same age. Whatever else there is,
/// cryptsetup decides about it. `read` gives the bytes at a place, as many as asked for.
pub fn sound_metadata<E>(
    mut read: impl FnMut(Bytes, usize) -> Result<Vec<u8>, E>,
) -> Result<Option<Vec<u8>>, E> {
    let start = read(Bytes::ZERO, BINARY)?;
    let Some(size) = size(&start) else {
        return Ok(None);
    };
    let Ok(length) = usize::try_from(size) else {
        return Ok(None);
    };
    let first = read(Bytes::ZERO, length)?;
    let second = read(Bytes::new(size), length)?;
    let both_sound = is_sound(&first, super::header::MAGIC, 0)
        && is_sound(&second, SECOND_MAGIC, size)
        && first.get(SEQUENCE_NUMBER) == second.get(SEQUENCE_NUMBER)
        && text(&first) == text(&second);
    Ok(text(&first).filter(|_| both_sound).map(<[u8]>::to_vec))
}

/// The text of a copy, up to the first NUL.
fn text(copy: &[u8]) -> Option<&[u8]> {
    copy.get(BINARY..)?.split(|byte| *byte == 0).next()
}

fn is_sound(copy: &[u8], magic: &[u8], offset: u64) -> bool {
    is_whole(copy, magic, offset) && has_known_checksum(copy) && is_checksum_right(copy)
}

/// Whether it begins as a copy at `offset` does.
fn is_copy(start: &[u8], magic: &[u8], offset: u64) -> bool {
    let is = |field, bytes: &[u8]| start.get(field) == Some(bytes);
    is(MAGIC, magic) && is(VERSION, &[0, 2]) && is(OFFSET, &offset.to_be_bytes())
}

fn is_whole(copy: &[u8], magic: &[u8], offset: u64) -> bool {
    is_copy(copy, magic, offset) && size(copy) == u64::try_from(copy.len()).ok()
}

fn has_known_checksum(copy: &[u8]) -> bool {
    super::header::text(copy, CHECKSUM_NAME).as_deref() == Some("sha256")
}

fn is_checksum_right(copy: &[u8]) -> bool {
    let stands = copy.get(CHECKSUM.start..);
    checksum(copy)
        .zip(stands)
        .is_some_and(|(sum, stands)| stands.starts_with(&sum))
}

/// SHA-256 of a copy, in which its own place counts as zeros.
fn checksum(copy: &[u8]) -> Option<[u8; 32]> {
    let mut digest = Sha256::new();
    digest.update(copy.get(..CHECKSUM.start)?);
    digest.update([0; CHECKSUM.end - CHECKSUM.start]);
    digest.update(copy.get(CHECKSUM.end..)?);
    Some(digest.finalize().into())
}

/// How long a copy says that it is, in bytes.
fn size(copy: &[u8]) -> Option<u64> {
    field::be64(copy, SIZE).filter(|size| is_size(*size))
}

/// Whether a copy may be so long.
pub(super) fn is_size(size: u64) -> bool {
    SIZES.contains(&size) && size.is_power_of_two()
}

/// The copies that lie in a layer, each with the sum that its own header names.
pub(super) struct Copies {
    first: Copy,
    second: Copy,
}

/// What has become of a copy.
enum Copy {
    Sound(Vec<u8>),
    /// It has a checksum that virt-fsck does not know. It may be sound.
    Unknown(Vec<u8>),
    Damaged,
}

/// The copy that counts, and what is odd about the other one.
pub(super) struct Found<'a> {
    pub(super) copy: &'a [u8],
    pub(super) note: Option<&'static str>,
}

impl Copies {
    /// Reads both. Where the first is damaged, the second may lie at any place that it can have.
    pub(super) fn read(layer: &dyn ReadAt) -> io::Result<Self> {
        let first = Copy::read(layer, super::header::MAGIC, 0)?;
        if let Some(size) = first.bytes().and_then(size) {
            let second = Copy::read(layer, SECOND_MAGIC, size)?;
            return Ok(Self { first, second });
        }
        let mut offset = *SIZES.start();
        while SIZES.contains(&offset) {
            let second = Copy::read(layer, SECOND_MAGIC, offset)?;
            if second.bytes().is_some() {
                return Ok(Self { first, second });
            }
            offset = offset.saturating_mul(2);
        }
        let second = Copy::Damaged;
        Ok(Self { first, second })
    }

    /// The newer of those that are sound; the first if both are of the same age.
    pub(super) fn newest(&self) -> Result<Found<'_>, HeaderError> {
        const UNKNOWN: &str = "its metadata has an unknown checksum";
        let (copy, rival, note) = match (&self.first, &self.second) {
            (Copy::Sound(first), Copy::Sound(second)) => match age(first).cmp(&age(second)) {
                std::cmp::Ordering::Less => (
                    second,
                    None,
                    Some("the first copy of its metadata is older; the second was used"),
                ),
                std::cmp::Ordering::Greater => (
                    first,
                    None,
                    Some("the second copy of its metadata is older; the first was used"),
                ),
                std::cmp::Ordering::Equal => {
                    let differ = text(first) != text(second);
                    let note = "the copies of its metadata differ; the first was used";
                    (first, None, differ.then_some(note))
                }
            },
            (Copy::Sound(first), second) => (
                first,
                second.bytes().filter(|second| age(second) > age(first)),
                Some("the second copy of its metadata is damaged; the first was used"),
            ),
            (first, Copy::Sound(second)) => (
                second,
                first.bytes().filter(|first| age(first) >= age(second)),
                Some("the first copy of its metadata is damaged; the second was used"),
            ),
            (Copy::Damaged, Copy::Damaged) => {
                return Err(HeaderError::damaged("both copies of its metadata"));
            }
            _ => return Err(HeaderError::damaged(UNKNOWN)),
        };
        // It would count, if it is sound.
        if rival.is_some() {
            return Err(HeaderError::damaged(UNKNOWN));
        }
        Ok(Found { copy, note })
    }
}

impl Copy {
    fn read(layer: &dyn ReadAt, magic: &[u8], offset: u64) -> io::Result<Self> {
        let Some(start) = bytes(layer, offset, BINARY as u64)? else {
            return Ok(Self::Damaged);
        };
        let Some(size) = size(&start).filter(|_| is_copy(&start, magic, offset)) else {
            return Ok(Self::Damaged);
        };
        let is_placed = offset == 0 || offset == size;
        let Some(copy) = bytes(layer, offset, size)?.filter(|_| is_placed) else {
            return Ok(Self::Damaged);
        };
        Ok(
            match (has_known_checksum(&copy), is_checksum_right(&copy)) {
                (false, _) => Self::Unknown(copy),
                (true, true) => Self::Sound(copy),
                (true, false) => Self::Damaged,
            },
        )
    }

    /// Its bytes, unless they are damaged.
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Sound(copy) | Self::Unknown(copy) => Some(copy),
            Self::Damaged => None,
        }
    }
}

/// Bytes of a layer, if it is long enough.
fn bytes(layer: &dyn ReadAt, offset: u64, length: u64) -> io::Result<Option<Vec<u8>>> {
    let end = offset.saturating_add(length);
    match end <= layer.size().get() {
        true => layer
            .read_at(Bytes::new(offset), Bytes::new(length))
            .map(Some),
        false => Ok(None),
    }
}

/// How often it was written.
fn age(copy: &[u8]) -> Option<u64> {
    field::be64(copy, SEQUENCE_NUMBER.start)
}

/// The text of a copy, which is an object with nothing but zeros behind it.
pub(super) fn text_alone(copy: &[u8]) -> Result<&[u8], HeaderError> {
    let area = copy.get(BINARY..).unwrap_or_default();
    let text = text(copy).unwrap_or_default();
    let rest = area.get(text.len()..).unwrap_or_default();
    let is_alone = !rest.is_empty() && rest.iter().all(|byte| *byte == 0);
    if text.starts_with(b"{") && text.ends_with(b"}") && is_alone {
        Ok(text)
    } else {
        Err(HeaderError::damaged("its metadata"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::process::Command;

    fn made(folder: &Path, options: &[&str]) -> Vec<u8> {
        let (image, key) = (folder.join("image"), folder.join("key"));
        std::fs::write(&key, "secret").unwrap();
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(24 << 20).unwrap();
        let fast = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
        let status = Command::new("cryptsetup")
            .args(["luksFormat", "-q", "--type", "luks2"])
            .args(fast)
            .args(options)
            .args([&image, &key])
            .status()
            .unwrap();
        assert!(status.success());
        std::fs::read(&image).unwrap()
    }

    fn metadata(image: &[u8]) -> Option<Vec<u8>> {
        let read = |offset: Bytes, length: usize| {
            let start = usize::try_from(offset.get()).unwrap();
            image
                .get(start..start + length)
                .map(<[u8]>::to_vec)
                .ok_or(())
        };
        sound_metadata(read).ok().flatten()
    }

    #[test]
    fn it_is_what_cryptsetup_reads() {
        let folder = tempfile::tempdir().unwrap();
        for options in [
            &[][..],
            &[
                "--luks2-metadata-size",
                "256k",
                "--luks2-keyslots-size",
                "1m",
            ],
        ] {
            let image = made(folder.path(), options);
            let dumped = Command::new("cryptsetup")
                .args(["luksDump", "--dump-json-metadata"])
                .arg(folder.path().join("image"))
                .output()
                .unwrap();
            let expected: serde_json::Value = serde_json::from_slice(&dumped.stdout).unwrap();
            let read: serde_json::Value =
                serde_json::from_slice(&metadata(&image).unwrap()).unwrap();
            assert_eq!(read, expected, "{options:?}");
        }
    }

    #[test]
    fn a_copy_that_is_not_sound_is_left_to_cryptsetup() {
        let folder = tempfile::tempdir().unwrap();
        let sound = made(folder.path(), &[]);
        assert!(metadata(&sound).is_some());
        let second = 16 * 1024;
        for at in [0, 7, 8, 16, 72, 256, 448, 600, 4097, 16383] {
            for at in [at, second + at] {
                let mut damaged = sound.clone();
                damaged[at] ^= 0x10;
                assert_eq!(metadata(&damaged), None, "byte {at}");
            }
        }
        // Sound in itself, but older than the other.
        let mut older = sound.clone();
        older[SEQUENCE_NUMBER.end - 1] ^= 1;
        let sum = checksum(&older[..second]).unwrap();
        older[CHECKSUM.start..][..32].copy_from_slice(&sum);
        assert!(is_sound(&older[..second], super::super::header::MAGIC, 0));
        assert_eq!(metadata(&older), None);
        for length in [0, 100, 4096, second, second + 4096, 2 * second - 1] {
            assert_eq!(metadata(&sound[..length]), None, "{length}");
        }
    }
}
