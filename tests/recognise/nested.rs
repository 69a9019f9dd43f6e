//! Tables in partitions, and images that are a filesystem and a table at once, against partx.

use std::collections::BTreeSet;

use virt_fsck::layers::filesystem::FilesystemKind;
use virt_fsck::layers::partition::{Inside, PartitionTable};
use virt_fsck::layers::read::ReadAt;
use virt_fsck::layers::tree::PartitionScheme;
use virt_fsck::units::Bytes;

use crate::image::{Image, MIB};

/// First sector and number of sectors of all partitions, those in partitions too.
fn places(table: &PartitionTable, base: u64) -> BTreeSet<(u64, u64)> {
    let mut found = BTreeSet::new();
    for partition in &table.partitions {
        let start = base + partition.start.get();
        found.insert((start / 512, partition.length.get() / 512));
        if let Some(Inside::Table(table)) = &partition.inside {
            found.extend(places(table, start));
        }
    }
    found
}

/// What partx makes of the image's table, as libblkid reads it.
fn partx(image: &Image) -> BTreeSet<(u64, u64)> {
    image
        .run("partx --show --noheadings -o START,SECTORS IMAGE", "")
        .lines()
        .map(|line| {
            let mut words = line.split_whitespace().map(|word| word.parse().unwrap());
            (words.next().unwrap(), words.next().unwrap())
        })
        .collect()
}

/// A disklabel in the second sector of what begins at `sector`; (sectors, start, type) each.
fn write_label(image: &Image, sector: u64, entries: &[(u32, u32, u8)]) {
    let mut label = [0_u8; 512];
    label[..4].copy_from_slice(&0x8256_4557_u32.to_le_bytes());
    label[132..136].copy_from_slice(&0x8256_4557_u32.to_le_bytes());
    label[138] = u8::try_from(entries.len()).unwrap();
    for (index, (length, start, kind)) in entries.iter().enumerate() {
        let at = 148 + index * 16;
        label[at..at + 4].copy_from_slice(&length.to_le_bytes());
        label[at + 4..at + 8].copy_from_slice(&start.to_le_bytes());
        label[at + 12] = *kind;
    }
    let sum = label
        .chunks_exact(2)
        .fold([0, 0], |sum, word| [sum[0] ^ word[0], sum[1] ^ word[1]]);
    label[136..138].copy_from_slice(&sum);
    image.write((sector + 1) * 512, &label);
}

#[test]
fn labels_of_bsd_are_what_partx_says() {
    for (kind, first) in [("a5", 0), ("a5", 2048), ("a6", 2048), ("a9", 2048)] {
        let script = format!("label: dos\nstart=2048, size=40960, type={kind}\nsize=2048\n");
        let image = Image::partitioned(64 * MIB, "sfdisk -q IMAGE", &script);
        let entries = [
            (4096, first, 7),
            (2048, first + 4096, 1),
            (40960, first, 0),
            (8192, first + 8192, 27),
        ];
        write_label(&image, 2048, &entries);
        let table = image.table(512).unwrap().unwrap();
        assert_eq!(places(&table, 0), partx(&image), "{kind} {first}");
        let Some(Inside::Table(label)) = &table.partitions[0].inside else {
            panic!("{table:?}");
        };
        assert_eq!(label.scheme, PartitionScheme::Bsd);
        assert_eq!(label.notes, [""; 0]);
        let names: Vec<_> = label
            .partitions
            .iter()
            .map(|found| (found.name.as_str(), found.role.type_name))
            .collect();
        let expected = [("a", Some("4.2BSD")), ("b", Some("swap")), ("d", None)];
        assert_eq!(names, expected);
        assert_eq!(label.partitions[1].inside, Some(Inside::Swap));
    }
}

#[test]
fn a_label_without_an_mbr_is_read_unless_something_newer_lies_there() {
    let image = Image::new(64 * MIB);
    write_label(
        &image,
        0,
        &[(4096, 64, 7), (2048, 8192, 1), (131_072, 0, 0)],
    );
    let table = image.table(512).unwrap().unwrap();
    assert_eq!(table.scheme, PartitionScheme::Bsd);
    assert_eq!(places(&table, 0), partx(&image));

    image.run("mkfs.ext4 -qF IMAGE", "");
    write_label(&image, 0, &[(4096, 64, 7)]);
    assert!(image.has_no_table());
    assert_eq!(image.filesystem().kind, FilesystemKind::Ext4);
}

#[test]
fn solaris_is_not_taken_for_swap() {
    let script = "label: dos\nstart=2048, size=40960, type=82\n";
    let image = Image::partitioned(64 * MIB, "sfdisk -q IMAGE", script);
    let inside = || {
        image.table(512).unwrap().unwrap().partitions[0]
            .inside
            .clone()
    };
    assert_eq!(inside(), None);
    image.write(2049 * 512 + 12, &0x600d_deee_u32.to_le_bytes());
    assert!(matches!(
        inside(),
        Some(Inside::Opaque {
            what: "Solaris slices",
            ..
        })
    ));
    // Made into Linux' swap later, with the label spared.
    image.write(2048 * 512 + 1024, &1_u32.to_le_bytes());
    image.write(2048 * 512 + 1028, &5000_u32.to_le_bytes());
    image.write(2048 * 512 + 4086, b"SWAPSPACE2");
    assert_eq!(inside(), None);
}

/// An image as the tools make it, from a folder with an EFI system partition's image in it.
fn iso(commands: &[&str]) -> Image {
    let image = Image::new(0);
    let folder = image.path.parent().unwrap().join("root");
    std::fs::create_dir(&folder).unwrap();
    let efi = folder.join("efi.img");
    std::fs::File::create(&efi)
        .unwrap()
        .set_len(1440 * 1024)
        .unwrap();
    image.run(&format!("mkfs.vfat {}", efi.display()), "");
    std::fs::write(folder.join("boot.img"), [0x90; 2048]).unwrap();
    for command in commands {
        image.run(&command.replace("ROOT", folder.to_str().unwrap()), "");
    }
    image
}

const XORRISO: &str = "xorriso -as mkisofs -quiet -o IMAGE -c boot.cat -b boot.img -no-emul-boot \
     -boot-load-size 4 -eltorito-alt-boot";

#[test]
fn images_for_cd_and_disk_are_a_read_only_filesystem() {
    let both = format!("{XORRISO} -e efi.img -no-emul-boot -partition_offset 16");
    for (command, count) in [
        (format!("{both} ROOT"), 1),
        (
            format!("{both} --protective-msdos-label -efi-boot-part --efi-boot-image ROOT"),
            3,
        ),
        (
            format!(
                "{XORRISO} -e --interval:appended_partition_2:all:: -no-emul-boot \
                 -partition_offset 16 -appended_part_as_gpt -append_partition 2 0xef \
                 ROOT/efi.img ROOT"
            ),
            2,
        ),
    ] {
        let image = iso(&[&command]);
        assert!(
            partx(&image).len() >= count,
            "{command}: {:?}",
            partx(&image)
        );
        assert!(image.has_no_table(), "{command}");
        assert_eq!(image.filesystem().kind, FilesystemKind::Iso9660);
    }
}

#[test]
fn what_follows_a_read_only_filesystem_is_still_seen() {
    // A copy of the EFI system partition behind the filesystem.
    let image = iso(&[&format!(
        "{XORRISO} -e efi.img -no-emul-boot -append_partition 2 0xef ROOT/efi.img ROOT"
    )]);
    let table = image.table(512).unwrap().unwrap();
    let last = partx(&image).pop_last();
    assert_eq!(
        places(&table, 0).into_iter().collect::<Vec<_>>(),
        [last.unwrap()]
    );
    let image = iso(&[&format!(
        "{XORRISO} -e efi.img -no-emul-boot -partition_offset 16 ROOT"
    )]);
    image.file.set_len(64 * MIB).unwrap();
    image.run(
        "sfdisk -q --append --no-reread IMAGE",
        "start=32768, type=83\n",
    );
    let table = image.table(512).unwrap().unwrap();
    assert_eq!(table.partitions.len(), 1);
    assert_eq!(table.partitions[0].start, Bytes::mib(16));
    assert_eq!(table.partitions[0].held, None);
    assert!(
        table
            .notes
            .iter()
            .any(|note| note.contains("read-only by nature"))
    );
}

#[test]
fn a_descriptor_left_over_hides_no_partitions() {
    let image = iso(&[&format!("{XORRISO} -e efi.img -no-emul-boot ROOT")]);
    image.file.set_len(64 * MIB).unwrap();
    image.run(
        "sfdisk -q --wipe never IMAGE",
        "label: gpt\nsize=1MiB\nsize=8MiB\n",
    );
    let mut magic = [0; 6];
    image.read_exact_at(Bytes::kib(32), &mut magic).unwrap();
    assert_eq!(&magic, b"\x01CD001");
    let table = image.table(512).unwrap().unwrap();
    assert_eq!(table.partitions.len(), 2);
    assert!(table.notes.iter().any(|note| note.contains("left over")));
}
