//! Partition tables, against sfdisk, fdisk and sgdisk.

use proptest::prelude::*;
use virt_fsck::layers::filesystem::FilesystemKind;
use virt_fsck::layers::partition::{self, PartitionError};
use virt_fsck::layers::read::ReadAt;
use virt_fsck::layers::signature;
use virt_fsck::layers::tree::PartitionScheme;
use virt_fsck::units::{Bytes, SectorSize};

use crate::image::{Flipped, Image, MIB, write_md};

fn assert_agrees_with_sfdisk(image: &Image) {
    let table = image.table(512).unwrap().unwrap();
    let truth: serde_json::Value =
        serde_json::from_str(&image.run("sfdisk --json IMAGE", "")).unwrap();
    let truth = &truth["partitiontable"];
    assert_eq!(truth["label"], table.scheme.name());
    let truth: Vec<_> = truth["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|partition| !["5", "f", "85"].contains(&partition["type"].as_str().unwrap()))
        .collect();
    assert_eq!(truth.len(), table.partitions.len());
    for (truth, found) in truth.iter().zip(&table.partitions) {
        let node = truth["node"].as_str().unwrap();
        let path = image.path.to_str().unwrap();
        assert_eq!(node.trim_start_matches(path), found.number.to_string());
        let bytes = |key: &str| truth[key].as_u64().unwrap() * 512;
        assert_eq!(bytes("start"), found.start.get());
        assert_eq!(bytes("size"), found.length.get());
        let code = truth["type"].as_str().unwrap();
        match table.scheme {
            PartitionScheme::Gpt => {
                assert_eq!(code, found.role.type_code);
                assert_eq!(truth["name"].as_str(), found.role.name.as_deref());
            }
            PartitionScheme::Mbr | PartitionScheme::Bsd => {
                let byte = u8::from_str_radix(code, 16).unwrap();
                assert_eq!(format!("0x{byte:02x}"), found.role.type_code);
            }
        }
    }
    for note in table.notes {
        assert!(note.contains("is one that Linux does not see"), "{note}");
    }
}

const GPT_SCRIPT: &str = "label: gpt\n\
    size=2MiB, type=21686148-6449-6E6F-744E-656564454649\n\
    size=8MiB, type=uefi, name=\"EFI System Partition äß\"\n\
    size=8MiB, type=swap\n\
    size=8MiB, type=lvm, name=\"0123456789abcdef0123456789abcdef0123\"\n\
    9: size=4MiB, type=linux\n\
    128: type=linux\n";

const MBR_SCRIPT: &str = "label: dos\n\
    size=8MiB, type=83, bootable\n\
    size=8MiB, type=82\n\
    4: type=5\n\
    5: size=4MiB, type=8e\n\
    6: size=4MiB, type=7\n\
    7: size=4MiB, type=fd\n\
    8: size=4MiB, type=c\n";

#[test]
fn tables_are_what_sfdisk_says() {
    for script in [
        GPT_SCRIPT,
        MBR_SCRIPT,
        // The extended partition first and of the other type; a hole among the primary ones.
        "label: dos\n1: size=40MiB, type=f\n3: type=83\n5: size=4MiB\n6: size=4MiB\n",
        "label: gpt\ntable-length: 400\nsize=1MiB\n400: size=1MiB\n",
    ] {
        let image = Image::partitioned(64 * MIB, "sfdisk -q IMAGE", script);
        assert_agrees_with_sfdisk(&image);
    }
    // Logical partitions that were deleted and made again: the chain is out of order.
    let image = Image::partitioned(64 * MIB, "sfdisk -q IMAGE", MBR_SCRIPT);
    image.run("sfdisk -q --delete IMAGE 5", "");
    image.run("sfdisk -q --append IMAGE", "size=3MiB, type=83\n");
    assert_agrees_with_sfdisk(&image);
}

/// Commands for fdisk; sfdisk cannot be told a sector size.
const FDISK_GPT: &str = "g\nn\n1\n\n+8M\nn\n5\n\n+8M\nw\n";
const FDISK_MBR: &str = "o\nn\np\n1\n\n+8M\nn\ne\n2\n\n\nn\nl\n\n+8M\nn\nl\n\n+8M\nn\nl\n\n\nw\n";

#[test]
fn tables_of_large_sectors_are_what_fdisk_says() {
    for (script, count) in [(FDISK_GPT, 2), (FDISK_MBR, 4)] {
        let image = Image::partitioned(64 * MIB, "fdisk -b 4096 IMAGE", script);
        let table = image.table(4096).unwrap().unwrap();
        assert_eq!(table.partitions.len(), count);
        assert_eq!(table.notes, [""; 0]);
        let path = image.path.to_str().unwrap();
        let listed: Vec<String> = image
            .run("fdisk -b 4096 -l -o Device,Start,Sectors,Type IMAGE", "")
            .lines()
            .filter(|line| line.starts_with(path) && !line.ends_with("Extended"))
            .map(|line| {
                let words: Vec<_> = line.split_whitespace().take(3).collect();
                words.join(" ").replace(path, "")
            })
            .collect();
        let found: Vec<String> = table
            .partitions
            .iter()
            .map(|found| {
                let (start, length) = (found.start.get() / 4096, found.length.get() / 4096);
                format!("{} {start} {length}", found.number)
            })
            .collect();
        assert_eq!(found, listed);
    }
}

#[test]
fn boot_code_is_told_by_the_type() {
    let image = Image::partitioned(64 * MIB, "sfdisk -q IMAGE", GPT_SCRIPT);
    let table = image.table(512).unwrap().unwrap();
    let boot: Vec<_> = table
        .partitions
        .iter()
        .map(|partition| (partition.role.type_name, partition.role.holds_boot_code))
        .collect();
    assert_eq!(
        boot,
        [
            (Some("BIOS boot"), true),
            (Some("EFI System"), false),
            (Some("Linux swap"), false),
            (Some("Linux LVM"), false),
            (Some("Linux filesystem"), false),
            (Some("Linux filesystem"), false),
        ]
    );
}

#[test]
fn a_damaged_gpt_is_read_from_its_backup() {
    let last = 64 * MIB - 512;
    let pristine = || Image::partitioned(64 * MIB, "sfdisk -q IMAGE", GPT_SCRIPT);
    let expected = pristine().table(512).unwrap().unwrap().partitions;
    let sees = |image: &Image, note: &str| {
        let table = image.table(512).unwrap().unwrap();
        let same = |a: &partition::Partition, b: &partition::Partition| {
            (a.number, a.start, a.length) == (b.number, b.start, b.length)
        };
        assert!(
            table
                .partitions
                .iter()
                .zip(&expected)
                .all(|(a, b)| same(a, b))
        );
        assert_eq!(table.partitions.len(), expected.len());
        assert_eq!(table.notes.len(), 1, "{:?}", table.notes);
        assert!(table.notes[0].contains(note), "{:?}", table.notes);
    };
    let damage: [(&str, &[(u64, usize)]); 5] = [
        ("primary GPT is damaged (it is missing)", &[(512, 512)]),
        (
            "primary GPT is damaged (its header's checksum",
            &[(512 + 60, 4)],
        ),
        (
            "primary GPT is damaged (its entries' checksum",
            &[(1024, 64)],
        ),
        ("the backup GPT is missing", &[(last, 512)]),
        (
            "the backup GPT is damaged: its entries' checksum",
            &[(last - 128 * 128, 64)],
        ),
    ];
    for (note, places) in damage {
        let image = pristine();
        for (offset, length) in places {
            image.wipe(*offset, *length);
        }
        sees(&image, note);
    }
    let image = pristine();
    image.file.set_len(80 * MIB).unwrap();
    sees(&image, "the disk has grown");
    // Grown, and the primary's entries damaged: the header still knows where the backup is.
    image.wipe(1024, 64);
    sees(&image, "the backup at sector 131071");

    let image = pristine();
    image.wipe(512, 512);
    image.wipe(last, 512);
    let error = image.table(512).unwrap_err();
    assert!(
        matches!(error, PartitionError::GptDamaged { .. }),
        "{error}"
    );
}

#[test]
fn a_gpt_of_another_sector_size_is_an_error_that_names_it() {
    for (made, read) in [(4096, 512), (512, 4096)] {
        let command = format!("fdisk -b {made} IMAGE");
        let image = Image::partitioned(64 * MIB, &command, FDISK_GPT);
        let error = image.table(read).unwrap_err().to_string();
        assert!(
            error.contains(&format!("logical_block_size='{made}'")),
            "{error}"
        );
    }
    let image = Image::partitioned(64 * MIB, "sfdisk -q IMAGE", "label: dos\nstart=32768\n");
    let error = image.table(4096).unwrap_err().to_string();
    assert!(error.contains("logical_block_size='512'"), "{error}");
}

#[test]
fn gpt_and_mbr_beside_each_other() {
    // Hybrid: the GPT is in force.
    let image = Image::new(64 * MIB);
    image.run("sgdisk -n 1:0:+8M -n 2:0:+8M -h 1:2 IMAGE", "");
    let table = image.table(512).unwrap().unwrap();
    assert_eq!(table.scheme, PartitionScheme::Gpt);
    assert_eq!(table.partitions.len(), 2);

    // A GPT that was left behind when the disk got an MBR.
    let stale = Image::partitioned(64 * MIB, "sfdisk -q IMAGE", GPT_SCRIPT);
    let other = Image::partitioned(64 * MIB, "sfdisk -q IMAGE", MBR_SCRIPT);
    let mut record = vec![0; 512];
    other.read_exact_at(Bytes::ZERO, &mut record).unwrap();
    stale.write(0, &record);
    let table = stale.table(512).unwrap().unwrap();
    assert_eq!(table.scheme, PartitionScheme::Mbr);
    assert!(
        table
            .notes
            .iter()
            .any(|note| note.contains("a GPT lies beside"))
    );

    // Nothing in the first sector announces it.
    stale.wipe(0, 512);
    let error = stale.table(512).unwrap_err();
    assert!(matches!(error, PartitionError::GptUnprotected), "{error}");
    // But a filesystem took the disk over.
    stale.run("mkfs.ext4 -qF IMAGE", "");
    assert!(stale.has_no_table());
}

#[test]
fn a_disk_that_is_one_filesystem_has_no_table() {
    // GRUB's boot sector: jump, code, and the signature behind an empty table.
    let image = Image::made(64 * MIB, &["mkfs.ext4 -qF IMAGE"]);
    image.write(0, &[0xeb, 0x63, 0x90]);
    image.write(0x62, &[0xfa; 0x150]);
    image.write(510, &[0x55, 0xaa]);
    assert!(image.has_no_table());
    assert_eq!(image.filesystem().kind, FilesystemKind::Ext4);

    // A fresh table without partitions is one, as long as nothing else lies there.
    let image = Image::partitioned(64 * MIB, "sfdisk -q IMAGE", "label: dos\n");
    assert_eq!(image.table(512).unwrap().unwrap().partitions, []);
    image.write(100_000, b"data");
    assert!(image.has_no_table());
    assert_eq!(image.recognise(), None);
}

#[test]
fn an_mbr_wins_over_older_filesystems() {
    for mkfs in ["mkfs.ext4 -qF IMAGE", "mkfs.vfat IMAGE"] {
        let image = Image::made(64 * MIB, &[mkfs]);
        image.run("sfdisk -q --wipe never IMAGE", MBR_SCRIPT);
        let table = image.table(512).unwrap().unwrap();
        assert_eq!(table.scheme, PartitionScheme::Mbr);
        assert_eq!(table.partitions.len(), 6);
    }
}

#[test]
fn a_disk_cut_short_keeps_what_it_has() {
    let image = Image::partitioned(
        64 * MIB,
        "sfdisk -q IMAGE",
        "label: dos\nsize=8MiB\nsize=30MiB\nsize=4MiB\n",
    );
    image.file.set_len(20 * MIB).unwrap();
    let table = image.table(512).unwrap().unwrap();
    let places: Vec<_> = table
        .partitions
        .iter()
        .map(|partition| {
            (
                partition.number,
                partition.start.get(),
                partition.length.get(),
            )
        })
        .collect();
    assert_eq!(places, [(1, MIB, 8 * MIB), (2, 9 * MIB, 11 * MIB)]);
    assert_eq!(
        table.notes,
        [
            "partition 2 reaches past the end of the disk: 31457280 bytes by the table, 11534336 \
             of them on the disk",
            "partition 3 begins at byte 40894464, past the end of the disk of 20971520 bytes, and \
             is left out",
        ]
    );
    image.file.set_len(MIB).unwrap();
    let error = image.table(512).unwrap_err();
    assert!(matches!(error, PartitionError::PastTheEnd(_)), "{error}");
}

#[test]
fn half_a_mirror_of_a_whole_disk_has_no_table_of_its_own() {
    for version in ["1.0", "0.90"] {
        let script = "label: dos\nsize=8MiB\nsize=40MiB\n";
        let image = Image::partitioned(64 * MIB, "sfdisk -q IMAGE", script);
        assert!(!image.has_no_table());
        write_md(&image, version);
        assert!(image.has_no_table());
        assert_eq!(image.opaque().0, "RAID member");
    }
    // A last partition that is a member ends where the disk ends, and so does its metadata.
    let image = Image::partitioned(
        64 * MIB,
        "sfdisk -q IMAGE",
        "label: dos\nsize=8MiB\ntype=fd\n",
    );
    write_md(&image, "0.90");
    assert_eq!(image.table(512).unwrap().unwrap().partitions.len(), 2);
}

#[test]
fn flipped_bits_of_real_images_are_survived() {
    let images = [
        Image::made(16 * MIB, &["mkfs.ext4 -qF IMAGE"]),
        Image::made(320 * MIB, &["mkfs.xfs -q IMAGE"]),
        Image::made(64 * MIB, &["mkfs.vfat -F 32 IMAGE"]),
        Image::made(4 * MIB, &["mkswap -q IMAGE"]),
        Image::partitioned(64 * MIB, "sfdisk -q IMAGE", GPT_SCRIPT),
        Image::partitioned(64 * MIB, "sfdisk -q IMAGE", MBR_SCRIPT),
    ];
    let flips = proptest::collection::vec((0_u64..4096, 0_u8..8), 1..40);
    proptest!(ProptestConfig::with_cases(64), |(flips in flips)| {
        for image in &images {
            let flipped = Flipped { image, flips: &flips };
            prop_assert!(signature::recognise(&flipped).is_ok());
            if let Ok(Some(table)) = partition::read(&flipped, SectorSize::S512) {
                for found in table.partitions {
                    let end = found.start.checked_add(found.length).unwrap();
                    prop_assert!(found.length > Bytes::ZERO && end <= image.size());
                }
            }
        }
    });
}
