//! Where LUKS2 keeps its metadata: two copies, each with a checksum over all of it.
//!
//! cryptsetup: docs/on-disk-format-luks2.pdf, 2.1 and 2.2; lib/luks2/luks2_disk_metadata.c.

use std::ops::Range;

use sha2::{Digest, Sha256};

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
const BINARY: usize = 4096;

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
    let is = |field, bytes: &[u8]| copy.get(field) == Some(bytes);
    is(MAGIC, magic)
        && is(VERSION, &[0, 2])
        && is(OFFSET, &offset.to_be_bytes())
        && size(copy) == u64::try_from(copy.len()).ok()
        && super::header::text(copy, CHECKSUM_NAME).as_deref() == Some("sha256")
        && checksum(copy).is_some_and(|sum| is(CHECKSUM.start..CHECKSUM.start + sum.len(), &sum))
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
    let size = field::be64(copy, SIZE)?;
    (SIZES.contains(&size) && size.is_power_of_two()).then_some(size)
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
