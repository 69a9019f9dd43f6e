//! Odd partition tables: what shares bytes with something else is never repaired.

use crate::support::lab::Lab;

/// The damaged filesystem at two places, and another partition's entry over the end of the first.
#[test]
fn partitions_that_overlap_are_not_checked() {
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    lab.sh("truncate -s 64M disk.img; sfdisk -q disk.img <<'END'\n\
         label: gpt\nstart=2048, size=32768\nstart=40960, size=32768\nstart=81920, size=2048\nEND");
    lab.put("bad.img", "disk.img", 2048);
    lab.put("bad.img", "disk.img", 40960);
    // The third partition begins in the second, in both copies of the table.
    lab.sh("sgdisk -d 3 disk.img; python3 - <<'END'\n\
         import struct, zlib\n\
         disk = open('disk.img', 'r+b')\n\
         def change(header, entries):\n\
         \x20   disk.seek(entries); table = bytearray(disk.read(128 * 128))\n\
         \x20   table[256:384] = table[128:256]; table[272] ^= 1\n\
         \x20   struct.pack_into('<QQ', table, 256 + 32, 65536, 80000)\n\
         \x20   disk.seek(entries); disk.write(table)\n\
         \x20   disk.seek(header); data = bytearray(disk.read(92)); data[16:20] = bytes(4)\n\
         \x20   struct.pack_into('<I', data, 88, zlib.crc32(table))\n\
         \x20   struct.pack_into('<I', data, 16, zlib.crc32(data))\n\
         \x20   disk.seek(header); disk.write(data)\n\
         change(512, 1024)\n\
         change((64 << 20) - 512, (64 << 20) - 33 * 512)\n\
         END");
    let expected = [
        ("sda/p1", "errors-left"),
        ("sda/p2", "not-checked"),
        ("sda/p3", "nothing-to-check"),
    ];
    let found = lab.look("-n -a disk.img --image-format raw");
    found.is(132, &expected);
    found.says("sda/p2", &["overlaps p3"]);
    assert_eq!(found.layer("sda/p2")["kind"], "ext4");
    lab.cut("disk.img", 40960 * 512, 32 << 20, "before.img");
    lab.repair("-y -a disk.img --image-format raw")
        .is(129, &[("sda/p1", "corrected"), ("sda/p2", "not-checked")]);
    lab.cut("disk.img", 40960 * 512, 32 << 20, "after.img");
    assert_eq!(lab.checksum("before.img"), lab.checksum("after.img"));
}

#[test]
fn a_disk_in_a_partition_is_looked_into() {
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    lab.sh("truncate -s 64M disk.img; truncate -s 24M inner.img\n\
         sfdisk -q disk.img <<<$'label: gpt\\nstart=2048, size=49152'\n\
         sfdisk -q inner.img <<<$'label: dos\\nstart=2048, size=32768'");
    lab.put("bad.img", "inner.img", 2048);
    lab.put("inner.img", "disk.img", 2048);
    let found = lab.look("-n -a disk.img --image-format raw");
    found.is(4, &[("sda/p1/p1", "errors-left")]);
    assert_eq!(found.layer("sda/p1")["kind"], "dos");
    lab.repair("-y -a disk.img --image-format raw")
        .is(1, &[("sda/p1/p1", "corrected")]);
}

#[test]
fn an_image_for_cd_and_disk_is_not_repaired() {
    let lab = Lab::new();
    lab.sh(
        "mkdir root; truncate -s 1440K root/efi.img; mkfs.vfat root/efi.img >/dev/null\n\
         printf '\\1' | dd of=root/efi.img bs=1 seek=37 conv=notrunc status=none\n\
         head -c 2048 /dev/zero >root/boot.img\n\
         xorriso -as mkisofs -quiet -o cd.img -partition_offset 16 -c boot.cat -b boot.img \
             -no-emul-boot -boot-load-size 4 -eltorito-alt-boot -e efi.img -no-emul-boot \
             --protective-msdos-label -efi-boot-part --efi-boot-image root",
    );
    let before = lab.checksum("cd.img");
    for mode in ["-n", "-p", "-y"] {
        let outcome = lab.repair(&format!("{mode} -a cd.img --image-format raw"));
        outcome.is(0, &[("sda", "nothing-to-check")]);
        assert_eq!(outcome.layer("sda")["kind"], "iso9660");
        assert_eq!(before, lab.checksum("cd.img"));
    }
}
