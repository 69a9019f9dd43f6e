use proptest::prelude::*;

use super::super::superblock::{Level, Obstacle, Role};
use super::super::writer::{MemberImage, seal};
use super::*;
use crate::units::{Bytes, SectorSize};

const ALL: [Version; 4] = [Version::V0_90, Version::V1_0, Version::V1_1, Version::V1_2];

#[expect(clippy::ptr_arg, reason = "a layer must have a size of its own")]
fn error(bytes: &Vec<u8>) -> String {
    read(bytes).unwrap_err().to_string()
}

/// A sound member with some bytes of its superblock changed, and the checksum right again.
fn changed(image: &MemberImage, changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = image.build();
    let at = image.version.superblock_at(image.size()).unwrap();
    let at = usize::try_from(at.get()).unwrap();
    let block = &mut bytes[at..at + 4096];
    for (at, change) in changes {
        block[*at..*at + change.len()].copy_from_slice(change);
    }
    seal(block);
    bytes
}

#[test]
fn each_version_is_read() {
    for version in ALL {
        let mut image = MemberImage::new(version, 1, 1, 2);
        image.roles.push(Role::Spare);
        image.roles.push(Role::Faulty);
        let found = image.read();
        assert_eq!(found.version, version);
        assert_eq!(
            found.array.to_string(),
            "11111111-1111-1111-1111-111111111111"
        );
        assert_eq!(found.level, Level::RAID1);
        assert_eq!(found.devices, 2);
        assert_eq!(found.role(), Role::Active(1));
        assert_eq!(&found.roles[..4], image.roles);
        assert_eq!(found.role_of(2000), Role::Spare);
        assert_eq!(found.component, Bytes::kib(512));
        assert_eq!(found.chunk, Bytes::kib(4));
        assert_eq!(found.data_offset, Bytes::new(image.data_offset * 512));
        assert_eq!(found.data_size, Bytes::new(image.data_size * 512));
        assert_eq!(
            (found.created, found.updated),
            (1_700_000_000, 1_700_000_100)
        );
        assert_eq!(found.events, 10);
        assert!(found.in_step && found.recovered && found.obstacles.is_empty());
        let name = if version == Version::V0_90 {
            "md3"
        } else {
            "md/data"
        };
        assert_eq!(found.array_name(), name);

        let dirty = MemberImage {
            resync_offset: 0,
            ..image
        };
        assert!(!dirty.read().in_step);
    }
}

#[test]
fn names_are_shown_as_device_nodes() {
    for (name, expected) in [
        ("host:0", "md0"),
        ("root", "md/root"),
        ("host:", "md/host_"),
        ("a:b:c", "md/b_c"),
        ("", "md/11111111-1111-1111-1111-111111111111"),
    ] {
        let image = MemberImage {
            name,
            ..MemberImage::new(Version::V1_2, 1, 0, 2)
        };
        assert_eq!(image.read().array_name(), expected);
    }
}

#[test]
fn a_superblock_that_was_changed_is_refused() {
    for version in ALL {
        let image = MemberImage::new(version, 1, 0, 2);
        let mut bytes = image.build();
        let at = image.version.superblock_at(image.size()).unwrap();
        bytes[usize::try_from(at.get()).unwrap() + 240] ^= 1;
        let expected = format!(
            "RAID superblock, metadata {}: wrong checksum",
            version.name()
        );
        assert_eq!(error(&bytes), expected);
    }
}

#[test]
fn one_that_was_written_elsewhere_is_none() {
    let mut bytes = MemberImage::new(Version::V1_2, 1, 0, 2).build();
    bytes.drain(..4096);
    assert_eq!(read(&bytes).unwrap(), None);
    assert_eq!(read(&vec![0; 1 << 20]).unwrap(), None);
    assert_eq!(read(&vec![0; 100]).unwrap(), None);
}

#[test]
fn what_is_not_understood_is_refused() {
    let one = MemberImage::new(Version::V1_2, 1, 0, 2);
    let zero = MemberImage::new(Version::V0_90, 1, 0, 2);
    for (image, at, value, expected) in [
        (&one, 8, 1 << 13, "unknown feature flags 0x2000"),
        (&one, 8, 4096, "unknown feature flags 0x1000"),
        (
            &one,
            12,
            1,
            "reserved bytes are in use, by a newer version of MD",
        ),
        (
            &one,
            228,
            1,
            "reserved bytes are in use, by a newer version of MD",
        ),
        (
            &one,
            224,
            513,
            "reserved bytes are in use, by a newer version of MD",
        ),
        (&one, 92, 0, "impossible number of devices, 0"),
        (&one, 220, 1921, "impossible number of devices, 1921"),
        (&one, 84, u32::MAX, "a size of 18446744069414585344 sectors"),
        (&zero, 8, 92, "unknown minor version 92"),
        (&zero, 40, 28, "impossible number of devices, 28"),
        (&zero, 260, 513, "impossible chunk size of 513 bytes"),
    ] {
        let bytes = changed(image, &[(at, &value.to_le_bytes())]);
        let error = error(&bytes);
        assert!(error.ends_with(expected), "{error}");
    }
    let big: Vec<u8> = zero
        .superblock()
        .chunks(4)
        .flat_map(|word| word.iter().rev())
        .copied()
        .collect();
    let mut bytes = zero.build();
    let at = bytes.len() - 65536;
    bytes[at..at + 4096].copy_from_slice(&big);
    assert!(error(&bytes).contains("big-endian"), "{}", error(&bytes));
}

#[test]
fn data_must_lie_on_the_member() {
    for (version, offset, size) in [
        (Version::V1_0, 0, 2033),
        (Version::V1_0, 8, 2032),
        (Version::V1_1, 256, 2048 - 255),
        (Version::V1_1, 1, 100),
        (Version::V1_2, 9, 100),
        (Version::V1_2, 256, 0),
        (Version::V1_2, u64::MAX >> 9, 1 << 54),
    ] {
        let image = MemberImage {
            data_offset: offset,
            data_size: size,
            ..MemberImage::new(version, 1, 0, 2)
        };
        let error = error(&image.build());
        assert!(
            error.contains("do not fit") || error.contains("a size of"),
            "{error}"
        );
    }
}

#[test]
fn what_stands_in_the_way_is_named() {
    let image = MemberImage::new(Version::V1_2, 1, 0, 2);
    let with = |features: u32| changed(&image, &[(8, &features.to_le_bytes())]);
    for (features, expected) in [
        (4, Obstacle::Reshape),
        (512, Obstacle::Journal),
        (1024, Obstacle::PartialParityLog),
        (256, Obstacle::Cluster),
    ] {
        let found = read(&with(features)).unwrap().unwrap();
        assert_eq!(found.obstacles, [expected]);
    }
    for features in [2, 16, 128] {
        assert!(!read(&with(features)).unwrap().unwrap().recovered);
    }
    assert!(read(&with(1)).unwrap().unwrap().bitmap);

    // A list of bad blocks, 8 sectors after the superblock.
    let list = [
        (8, &8_u32.to_le_bytes()[..]),
        (186, &1_u16.to_le_bytes()),
        (188, &8_u32.to_le_bytes()),
    ];
    let mut bytes = changed(&image, &list);
    let at = 4096 + 8 * 512;
    for (entry, bad) in [([0xff; 8], false), ([1; 8], true)] {
        bytes[at..at + 8].copy_from_slice(&entry);
        let obstacles = read(&bytes).unwrap().unwrap().obstacles;
        assert_eq!(obstacles.contains(&Obstacle::BadBlocks), bad);
    }
}

#[test]
fn the_arrays_own_sectors_are_known() {
    let image = MemberImage::new(Version::V1_2, 1, 0, 2);
    let bytes = changed(&image, &[(224, &4096_u32.to_le_bytes())]);
    let found = read(&bytes).unwrap().unwrap();
    assert_eq!(found.logical_block, Some(SectorSize::S4096));
}

#[test]
fn a_mirror_may_hold_a_member_but_leftovers_are_refused() {
    let outer = MemberImage {
        component: 2032,
        ..MemberImage::new(Version::V1_0, 1, 0, 2)
    };
    let inner = MemberImage {
        uuid: 0x22,
        ..MemberImage::new(Version::V1_2, 0, 0, 2)
    };
    let both = |inner: &MemberImage| {
        let mut bytes = outer.build();
        bytes[4096..8192].copy_from_slice(&inner.superblock());
        bytes
    };
    let small = MemberImage {
        data_size: inner.data_size - 16,
        ..inner.clone()
    };
    let found = read(&both(&small)).unwrap().unwrap();
    assert_eq!(found.version, Version::V1_0);
    let error = error(&both(&inner));
    assert!(
        error.starts_with("two RAID superblocks, metadata 1.0 and 1.2"),
        "{error}"
    );
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..9000)) {
        let _ = read(&bytes);
    }

    /// With the checksum set right again, the damage reaches the code behind it.
    #[test]
    fn changed_superblocks_never_panic(
        version in 0_usize..4,
        changes in proptest::collection::vec((8_usize..400, any::<u8>()), 1..8),
    ) {
        let image = MemberImage::new(ALL[version], 1, 0, 2);
        let changes: Vec<_> = changes.iter().map(|(at, byte)| (*at, std::slice::from_ref(byte))).collect();
        let _ = read(&changed(&image, &changes));
    }
}
