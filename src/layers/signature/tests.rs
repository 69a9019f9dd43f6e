//! What the real tools' images in `tests/recognise.rs` do not show, byte by byte.

use proptest::prelude::*;

use super::Signature;
use crate::layers::filesystem::FilesystemKind;
use crate::layers::read::ReadAt;
use crate::units::Bytes;

struct Bare<'a>(&'a [u8]);

impl ReadAt for Bare<'_> {
    fn size(&self) -> Bytes {
        self.0.size()
    }

    fn read_exact_at(&self, offset: Bytes, buffer: &mut [u8]) -> std::io::Result<()> {
        self.0.read_exact_at(offset, buffer)
    }
}

fn recognise(layer: &[u8]) -> std::io::Result<Option<Signature>> {
    super::recognise(&Bare(layer))
}

fn is_blank(layer: &[u8]) -> bool {
    super::is_blank(&Bare(layer)).unwrap()
}

const SIZE: usize = 1024 * 1024;

/// Bytes at an offset.
type Write = (usize, &'static [u8]);

/// A layer of zeros with these bytes at these places.
fn layer(size: usize, writes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; size];
    for (at, written) in writes {
        bytes[*at..*at + written.len()].copy_from_slice(written);
    }
    bytes
}

fn found(size: usize, writes: &[(usize, &[u8])]) -> Option<Signature> {
    recognise(layer(size, writes).as_slice()).unwrap()
}

fn name(signature: Option<&Signature>) -> &str {
    signature.map_or("nothing", Signature::name)
}

static ZFS: [u8; 8] = 0x00ba_b10c_u64.to_le_bytes();
const MD_1_1: &[Write] = &[(0, &[0xfc, 0x4e, 0x2b, 0xa9, 1])];
const EXT: &[Write] = &[
    (1024 + 4, &[1]),
    (1024 + 32, &[1]),
    (1024 + 40, &[1]),
    (1024 + 56, &[0x53, 0xef]),
];
const BTRFS: &[Write] = &[
    (0x1_0000 + 48, &0x1_0000_u64.to_le_bytes()),
    (0x1_0000 + 64, b"_BHRfS_M"),
];

#[test]
fn magics_are_known_by_name() {
    let cases: &[(&str, &[Write])] = &[
        ("nothing", &[]),
        ("nothing", &[(0x1_0000 + 64, b"_BHRfS_M")]),
        ("btrfs", BTRFS),
        ("ext2", EXT),
        ("ext2", &[(1024 + 56, &[0x53, 0xef])]),
        ("xfs", &[(0, b"XFSB")]),
        ("f2fs", &[(1024, &[0x10, 0x20, 0xf5, 0xf2])]),
        ("squashfs", &[(0, b"hsqs")]),
        ("iso9660", &[(0x8000, b"\x01CD001")]),
        ("UDF", &[(0x8001, b"BEA01")]),
        ("ntfs", &[(3, b"NTFS    "), (12, &[2, 8])]),
        ("nothing", &[(3, b"NTFS    ")]),
        ("exfat", &[(3, b"EXFAT   "), (108, &[9])]),
        ("BitLocker", &[(3, b"-FVE-FS-")]),
        (
            "BitLocker",
            &[
                (3, b"MSWIN4.1"),
                (
                    424,
                    b"\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01",
                ),
            ],
        ),
        ("ReiserFS", &[(0x1_0034, b"ReIsEr2Fs")]),
        ("JFS", &[(0x8000, b"JFS1")]),
        ("APFS", &[(32, b"NXSB")]),
        ("RAID member", MD_1_1),
        (
            "RAID member",
            &[(4096, &[0xfc, 0x4e, 0x2b, 0xa9, 1]), (4096 + 144, &[8])],
        ),
        // The superblock says that it was written elsewhere.
        ("nothing", &[(4096, &[0xfc, 0x4e, 0x2b, 0xa9, 1])]),
        (
            "RAID member",
            &[(SIZE - 1024, b"Intel Raid ISM Cfg Sig. 1.3.00")],
        ),
        ("RAID member", &[(SIZE - 512, &[0xde, 0x11, 0xde, 0x11])]),
        ("DRBD", &[(SIZE - 4096 + 60, &[0x83, 0x74, 0x02, 0x6b])]),
        ("DRBD", &[(SIZE - 4096 + 60, &[0x83, 0x74, 0x02, 0x6d])]),
        ("Stratis", &[(516, b"!Stra0tis\x86\xff\x02^Arh")]),
        ("VDO", &[(0, b"dmvdo001")]),
        ("BlueStore", &[(0, b"bluestore block device\n")]),
        (
            "ZFS",
            &[
                (0x2_0000, &ZFS),
                (0x2_0400, &ZFS),
                (SIZE - 0x2_0000, &ZFS),
                (SIZE - 0x1_fc00, &ZFS),
            ],
        ),
        ("nothing", &[(0x2_0000, &ZFS), (0x2_0400, &ZFS)]),
        ("swap", &[(4086, b"SWAP-SPACE")]),
        ("swap", &[(0, b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c")]),
    ];
    for (expected, writes) in cases {
        assert_eq!(name(found(SIZE, writes).as_ref()), *expected, "{writes:?}");
    }
}

#[test]
fn the_outermost_layer_wins() {
    let luks: &[Write] = &[(0, b"LUKS\xba\xbe\0\x02")];
    let hibernated: &[Write] = &[(1024, &[1, 0, 0, 0, 9]), (4086, b"S1SUSPEND\0")];
    let drbd: &[Write] = &[(SIZE - 4096 + 60, &[0x83, 0x74, 0x02, 0x6b])];
    for (expected, writes) in [
        ("DRBD", [EXT, drbd]),
        ("DRBD", [luks, drbd]),
        ("LUKS2", [luks, BTRFS]),
        ("RAID member", [MD_1_1, BTRFS]),
        ("swap", [hibernated, BTRFS]),
        ("btrfs or ext2", [EXT, BTRFS]),
        // A 16-bit magic alone is no match for a whole superblock.
        ("btrfs", [&[(1024 + 56, &[0x53, 0xef])], BTRFS]),
    ] {
        assert_eq!(name(found(SIZE, &writes.concat()).as_ref()), expected);
    }
}

#[test]
fn hibernation_is_seen_without_a_swap_header_too() {
    for (writes, expected) in [
        (&[(4086, &b"S2SUSPEND\0"[..])], "S2SUSPEND"),
        (&[(0, b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c")], "TuxOnIce"),
    ] {
        let Some(Signature::Swap { hibernated, .. }) = found(SIZE, writes) else {
            panic!("{writes:?}");
        };
        assert_eq!(hibernated.as_deref(), Some(expected));
    }
}

#[test]
fn absurd_fields_of_ext_are_left_out() {
    let mut writes = EXT.to_vec();
    writes.push((1024 + 24, &[0xff; 4]));
    writes.push((1024 + 54, &[0xff; 2]));
    let Some(Signature::Filesystem(ext)) = found(SIZE, &writes) else {
        panic!("not ext");
    };
    assert_eq!(ext.kind, FilesystemKind::Ext2);
    assert_eq!(ext.size, None);
    assert_eq!(ext.record.max_mount_count, None);
    assert_eq!(ext.record.last_check, None);
    assert_eq!((ext.uuid, ext.label), (None, None));
}

#[test]
fn md_says_what_array_it_belongs_to() {
    let with = |level: &[u8], devices: &[u8]| {
        let writes = [MD_1_1, &[(72, level), (92, devices)]].concat();
        match found(SIZE, &writes) {
            Some(Signature::Opaque { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    };
    for (level, devices, expected) in [
        (&[6][..], &[4][..], "(raid6, 4 devices, metadata 1.1)"),
        (&[0xff; 4], &[1], "(linear, 1 device, metadata 1.1)"),
        (
            &[0xfc, 0xff, 0xff, 0xff],
            &[2],
            "(multipath, 2 devices, metadata 1.1)",
        ),
        (&[77], &[0xff; 4], "(level 77, metadata 1.1)"),
    ] {
        let reason = with(level, devices);
        assert!(reason.contains(expected), "{reason}");
    }
}

#[test]
fn a_layer_shorter_than_its_superblock_has_none() {
    let whole = layer(
        0x1_1000,
        &[EXT, BTRFS, &[(0, b"XFSB"), (4086, b"SWAPSPACE2")]].concat(),
    );
    for length in [0, 1, 511, 1023, 1024, 1080, 2047, 4095, 4096, 65536, 65600] {
        assert!(recognise(&whole[..length]).is_ok(), "{length}");
        assert!(
            super::array_member(&Bare(&whole[..length])).is_ok(),
            "{length}"
        );
    }
    assert_eq!(recognise(&whole[..511]).unwrap(), None);
}

#[test]
fn blank_means_the_first_mebibyte() {
    assert!(is_blank(&[][..]));
    assert!(is_blank(&[0; 700][..]));
    assert!(!is_blank(layer(700, &[(699, &[1])]).as_slice()));
    assert!(!is_blank(layer(2 * SIZE, &[(SIZE - 1, &[1])]).as_slice()));
    assert!(is_blank(layer(2 * SIZE, &[(SIZE, &[1])]).as_slice()));
}

/// A disk that says it is huge: offsets near the end of the number range must not overflow.
struct Endless;

impl ReadAt for Endless {
    fn size(&self) -> Bytes {
        Bytes::new(u64::MAX)
    }

    fn read_exact_at(&self, _: Bytes, buffer: &mut [u8]) -> std::io::Result<()> {
        buffer.fill(0xff);
        Ok(())
    }
}

#[test]
fn the_largest_layer_is_read_too() {
    assert_eq!(super::recognise(&Endless).unwrap(), None);
    assert!(!super::is_blank(&Endless).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any bytes behind any magic give an answer.
    #[test]
    fn arbitrary_bytes_are_answered(
        noise in proptest::collection::vec(any::<u8>(), 6000),
        magic in 0_usize..8,
        at in prop::sample::select(vec![0_usize, 1024, 4096, 0x1_0000]),
    ) {
        let mut bytes = layer(SIZE, &[(at, &noise)]);
        let magics: [Write; 8] = [
            (1080, &[0x53, 0xef]),
            (0, b"XFSB"),
            (3, b"NTFS    "),
            (3, b"EXFAT   "),
            (510, &[0x55, 0xaa]),
            (0x1_0040, b"_BHRfS_M"),
            (1024, &[0x10, 0x20, 0xf5, 0xf2]),
            (0, &[0xfc, 0x4e, 0x2b, 0xa9]),
        ];
        let (place, written) = magics[magic];
        bytes[place..place + written.len()].copy_from_slice(written);
        prop_assert!(recognise(bytes.as_slice()).is_ok());
    }
}
