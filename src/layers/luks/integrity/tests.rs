use super::*;
use crate::layers::luks::{Header, Integrity, Version};

/// A superblock as Linux 6.1 writes it for `--integrity hmac-sha256` on 12 MiB.
fn superblock() -> Vec<u8> {
    let mut bytes = vec![0; 512];
    bytes[..8].copy_from_slice(b"integrt\0");
    bytes[8..12].copy_from_slice(&[4, 15, 32, 0]);
    bytes[12..16].copy_from_slice(&5_u32.to_le_bytes());
    bytes[16..24].copy_from_slice(&22080_u64.to_le_bytes());
    bytes[24..32].copy_from_slice(&[8, 0, 0, 0, 0, 15, 0, 0]);
    bytes
}

fn container(encryption: &str, kind: &str) -> Container {
    Container {
        version: Version::Two,
        uuid: Some("0a".to_owned()),
        header: Header {
            encryption: encryption.to_owned(),
            key_sizes: vec![96],
            offset: Bytes::mib(1),
            size: None,
            iv_tweak: 0,
            sector_size: SectorSize::S512,
            discards: false,
        },
        header_area: Bytes::mib(1),
        tokens: Vec::new(),
        integrity: Some(Integrity {
            kind: kind.to_owned(),
            journal_encryption: "none".to_owned(),
            journal_integrity: "none".to_owned(),
            key_size: None,
            no_journal: false,
        }),
        is_detached: false,
        notes: Vec::new(),
    }
}

fn layer(superblock: &[u8]) -> Box<dyn ReadAt> {
    struct Layer(Vec<u8>);
    impl ReadAt for Layer {
        fn size(&self) -> Bytes {
            Bytes::mib(13)
        }

        fn read_exact_at(&self, offset: Bytes, buffer: &mut [u8]) -> std::io::Result<()> {
            let start = Bytes::mib(1);
            assert_eq!(offset, start);
            buffer.copy_from_slice(&self.0[..buffer.len()]);
            Ok(())
        }
    }
    Box::new(Layer(superblock.to_vec()))
}

#[test]
fn a_superblock() {
    let expected = Superblock {
        tag_size: 32,
        provided: Bytes::new(22080 * 512),
        block_size: SectorSize::S512,
    };
    let sound = superblock();
    assert_eq!(Superblock::parse(&sound), Ok(expected));
    let container = container("aes-xts-plain64", "hmac(sha256)");
    let found = protected(&*layer(&sound), &container).unwrap().unwrap();
    assert_eq!(found.superblock, expected);
    assert_eq!(
        found.encryption,
        "capi:authenc(hmac(sha256),xts(aes))-plain64"
    );
    assert!(found.journal);
    for length in 0..29 {
        assert!(Superblock::parse(&sound[..length]).is_err(), "{length}");
    }
    let old = |mut bytes: Vec<u8>| {
        bytes[8] = 1;
        bytes[24] = 0;
        bytes
    };
    assert_eq!(Superblock::parse(&old(sound)), Ok(expected));
}

#[test]
fn a_damaged_superblock() {
    let wrong =
        |what: &str| format!("damaged (the superblock of its checksums has a wrong {what})");
    for (at, value, error) in [
        (
            0,
            0,
            "damaged (its checksums have no superblock)".to_owned(),
        ),
        (8, 0, "checksums of the unknown version 0".to_owned()),
        (8, 6, "checksums of the unknown version 6".to_owned()),
        (9, 2, wrong("interleave")),
        (9, 32, wrong("interleave")),
        (10, 0, wrong("checksum size")),
        (
            10,
            33,
            "damaged (its checksums are of another length)".to_owned(),
        ),
        (
            11,
            1,
            "damaged (its checksums are of another length)".to_owned(),
        ),
        (12, 0, wrong("journal")),
        (
            18,
            1,
            "damaged (its device is shorter than it says)".to_owned(),
        ),
        (23, 0x80, wrong("number of sectors")),
        (24, 9, wrong("set of flags")),
        (24, 2, wrong("set of flags")),
        (24, 4, wrong("set of flags")),
        (27, 1, wrong("set of flags")),
        (
            28,
            3,
            "damaged (its checksums are for other sectors)".to_owned(),
        ),
        (28, 4, wrong("block size")),
        (28, 255, wrong("block size")),
    ] {
        let mut bytes = superblock();
        bytes[at] = value;
        let container = container("aes-xts-plain64", "hmac(sha256)");
        let found = protected(&*layer(&bytes), &container).unwrap_err();
        assert!(found.to_string().contains(&error), "{at}: {found}");
        assert_eq!(found.uuid(), Some("0a"));
    }
    for at in 0..64 {
        for value in 0..=255 {
            let mut bytes = superblock();
            bytes[at] = value;
            let container = container("aes-xts-plain64", "hmac(sha256)");
            let _ = protected(&*layer(&bytes), &container);
        }
    }
}

/// What `dmsetup table` shows of what cryptsetup has opened, and the lengths in the superblocks.
#[test]
fn names_are_those_of_cryptsetup() {
    for (encryption, kind, name, tag_size) in [
        (
            "aes-xts-plain64",
            "hmac(sha256)",
            "capi:authenc(hmac(sha256),xts(aes))-plain64",
            32,
        ),
        (
            "aes-cbc-essiv:sha256",
            "hmac(sha256)",
            "capi:authenc(hmac(sha256),cbc(aes))-essiv:sha256",
            32,
        ),
        (
            "aes-xts-plain64",
            "hmac(sha512)",
            "capi:authenc(hmac(sha512),xts(aes))-plain64",
            64,
        ),
        (
            "aes-xts-plain64",
            "hmac(sha1)",
            "capi:authenc(hmac(sha1),xts(aes))-plain64",
            20,
        ),
        (
            "aes-xts-random",
            "hmac(sha256)",
            "capi:authenc(hmac(sha256),xts(aes))-random",
            48,
        ),
        ("aes-gcm-random", "aead", "capi:gcm(aes)-random", 28),
        (
            "aes-ccm-random",
            "aead",
            "capi:rfc4309(ccm(aes))-random",
            24,
        ),
        (
            "chacha20-random",
            "poly1305",
            "capi:rfc7539(chacha20,poly1305)-random",
            28,
        ),
        (
            "chacha20-plain64",
            "poly1305",
            "capi:rfc7539(chacha20,poly1305)-plain64",
            16,
        ),
        ("aegis128-random", "aead", "capi:aegis128-random", 32),
    ] {
        assert_eq!(names(encryption, kind), Ok((name.to_owned(), tag_size)));
    }
    for (encryption, kind) in [
        ("aes", "hmac(sha256)"),
        ("aes-xts-plain64", "crc32c"),
        ("aes-xts-plain64", "none"),
        ("aes-cbc-random", "hmac(sha256)"),
    ] {
        assert!(matches!(
            names(encryption, kind),
            Err(HeaderError::Beyond(_))
        ));
    }
    let mut container = container("aes-xts-plain64", "hmac(sha256)");
    let integrity = container.integrity.as_mut().unwrap();
    integrity.no_journal = true;
    let found = protected(&*layer(&superblock()), &container).unwrap();
    assert!(!found.unwrap().journal);
    let integrity = container.integrity.as_mut().unwrap();
    integrity.journal_integrity = "hmac(sha256)".to_owned();
    assert!(protected(&*layer(&superblock()), &container).is_err());
    container.integrity = None;
    assert!(
        protected(&*layer(&superblock()), &container)
            .unwrap()
            .is_none()
    );
}
