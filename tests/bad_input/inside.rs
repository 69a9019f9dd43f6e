//! Disks whose insides were made to mislead, or were cut.

use crate::support::lab::{Lab, Loop, is_root};

#[test]
fn a_loop_of_extended_partitions() {
    let lab = Lab::new();
    lab.sh("truncate -s 64M disk.img; sfdisk -q disk.img <<'END'\n\
         label: dos\n\
         start=2048, size=126976, type=5\n\
         start=4096, size=2048, type=83\n\
         start=8192, size=2048, type=83\n\
         END");
    // The second link of the chain leads to itself; entry 1 is relative to the first.
    let second = u64::from(8192_u32 - 2048) * 512;
    let link = lab.sh(&format!(
        "od -An -tu4 -j {} -N 4 disk.img",
        2048 * 512 + 446 + 16 + 8
    ));
    let link: u64 = link.trim().parse().unwrap();
    let place = (2048 + link) * 512;
    assert!(place >= second);
    let mut entry = [0_u8; 16];
    entry[4] = 5;
    entry[8..12].copy_from_slice(&u32::try_from(link).unwrap().to_le_bytes());
    entry[12..16].copy_from_slice(&4096_u32.to_le_bytes());
    lab.patch("disk.img", place + 446 + 16, &entry);
    for mode in ["-n", "-y", "--list"] {
        let outcome = lab.look(&format!("{mode} -a disk.img --image-format raw"));
        let told = format!("{}{}", outcome.notes("sda"), outcome.layer("sda")["reason"]);
        assert!(told.contains("comes back"), "{outcome}");
        if mode != "--list" {
            outcome.is(
                128,
                &[("sda", "not-checked"), ("sda/p5", "nothing-to-check")],
            );
        }
    }
}

#[test]
fn a_partition_beyond_the_end_of_the_disk() {
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    for label in ["dos", "gpt"] {
        lab.sh(&format!(
            "truncate -s 64M disk.img; sfdisk -q disk.img <<'END'\n\
             label: {label}\nstart=2048, size=32768\nstart=65536, size=32768\nstart=98304, size=16384\nEND"
        ));
        lab.put("bad.img", "disk.img", 2048);
        lab.put("bad.img", "disk.img", 65536);
        lab.sh("truncate -s 40M disk.img");
        let found = lab.look("-n -a disk.img --image-format raw");
        let status = found.status.unwrap();
        assert_eq!(status & 4, 4, "the first partition is whole: {found}");
        assert_ne!(status & (8 | 128), 0, "the second is not: {found}");
        found.is(status, &[("sda/p1", "errors-left")]);
        // The second is not repaired: half of it is not there.
        let before = lab.checksum("bad.img");
        let repaired = lab.repair("-y -a disk.img --image-format raw");
        assert_eq!(repaired.status.unwrap() & 1, 1, "{repaired}");
        lab.cut("disk.img", 32 << 20, 8 << 20, "after.img");
        lab.cut("bad.img", 0, 8 << 20, "expected.img");
        assert_eq!(lab.checksum("after.img"), lab.checksum("expected.img"));
        assert_eq!(before, lab.checksum("bad.img"));
        lab.sh("rm disk.img");
    }
}

#[test]
fn a_filesystem_that_is_cut_off_is_neither_clean_nor_repaired() {
    let lab = Lab::new();
    for (size, make) in [
        (8, "mke2fs -q -F -t ext2"),
        (8, "mke2fs -q -F -t ext4"),
        (16, "mkfs.fat -F 16"),
        (300, "mkfs.xfs -q"),
    ] {
        lab.sh(&format!(
            "truncate -s {size}M whole.img; {make} whole.img\n\
             truncate -s $(({size} * 1024 * 512 + 100)) whole.img\n\
             qemu-img convert -f raw -O qcow2 whole.img cut.qcow2; rm whole.img"
        ));
        for mode in ["-n", "-p", "-y"] {
            lab.look(&format!("{mode} -a cut.qcow2"))
                .is(8, &[("sda", "failed")])
                .says("sda", &["cut off", "full size"]);
        }
    }
}

/// A physical volume with one volume group, and where the text of its metadata begins.
fn volume_group(lab: &Lab) -> u64 {
    lab.sh("truncate -s 24M pv.img");
    {
        let device = Loop::attach(lab, "", "pv.img");
        lab.lvm(
            &[&device],
            &[
                "pvcreate -q @0",
                "vgcreate -q -s 1m lvg1 @0",
                "lvcreate -q -an -Zn -Wn -n lvroot -l 16 lvg1",
            ],
        );
    }
    let text = lab.sh("grep -abo 'lvg1 {' pv.img | tail -1");
    text.split(':').next().unwrap().parse().unwrap()
}

#[test]
fn lvm_metadata_that_lies() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    let text = volume_group(&lab);
    let whole = lab.look("--list -a pv.img --image-format raw");
    assert!(whole.find("sda/lvg1/lvroot").is_some(), "{whole}");
    // lib/format_text/layout.h: the header of the metadata area is at 4096; from byte 40 of it
    // the place and the size of the text. What is there must match its checksum.
    for (name, offset, bytes) in [
        ("no text", text, &[0_u8; 512][..]),
        ("text cut off", text + 300, &[0; 64]),
        ("absurd size", 4096 + 48, &[0xff; 8]),
        ("absurd place", 4096 + 40, &[0xff; 8]),
        ("header of the area", 4096, &[0x5a; 64]),
        ("label", 512 + 24, &[0xff; 8]),
        ("absurd area", 512 + 32 + 72, &[0xff; 16]),
    ] {
        lab.sh("cp pv.img lying.img");
        lab.patch("lying.img", offset, bytes);
        for mode in ["-n", "-y", "--list"] {
            let outcome = lab.look(&format!("{mode} -a lying.img --image-format raw"));
            assert!(
                outcome.find("sda/lvg1/lvroot").is_none(),
                "{name}: {outcome}"
            );
            if mode != "--list" {
                assert_ne!(outcome.status, Some(0), "{name}: {outcome}");
            }
        }
    }
}

#[test]
fn a_physical_volume_inside_its_own_volume() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    volume_group(&lab);
    // The logical volume begins with the whole physical volume's own first MiB.
    lab.cut("pv.img", 0, 1 << 20, "label.img");
    lab.put("label.img", "pv.img", 2048);
    for mode in ["-n", "-y", "--list"] {
        let outcome = lab.look(&format!("{mode} -a pv.img --image-format raw"));
        assert_eq!(
            outcome.layer("sda/lvg1/lvroot")["children"],
            serde_json::json!([])
        );
        if mode != "--list" {
            outcome
                .is(128, &[("sda/lvg1/lvroot", "not-checked")])
                .says("sda/lvg1/lvroot", &["laid out without it"]);
        }
    }
    // The same disk twice, as two disks of a guest: nobody can tell which is meant.
    lab.sh("cp pv.img copy.img");
    let outcome = lab.look("-y -a pv.img -a copy.img --image-format raw");
    assert_ne!(outcome.status, Some(0), "{outcome}");
}
