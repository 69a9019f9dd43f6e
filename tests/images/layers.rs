//! What lies between the disk and its filesystems.

use crate::support::lab::{Lab, Loop, is_root};

fn lab() -> Lab {
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    lab.ext4("good.img");
    lab
}

fn table(lab: &Lab, size: &str, script: &str) {
    lab.sh(&format!(
        "truncate -s {size} disk.img; sfdisk -q disk.img <<'END'\n{script}\nEND"
    ));
}

#[test]
fn extended_and_logical_partitions() {
    let lab = lab();
    table(
        &lab,
        "80M",
        "label: dos\n\
         start=2048, size=32768, type=83\n\
         start=34816, size=2048, type=82\n\
         start=36864, size=98304, type=5\n\
         start=38912, size=32768, type=83\n\
         start=73728, size=32768, type=83\n\
         start=108544, size=2048, type=83",
    );
    lab.put("good.img", "disk.img", 2048);
    lab.put("good.img", "disk.img", 38912);
    lab.put("bad.img", "disk.img", 73728);
    lab.sh("truncate -s 1M swap.img; mkswap -q swap.img");
    lab.put("swap.img", "disk.img", 34816);
    let verdicts = [
        ("sda/p1", "clean"),
        ("sda/p2", "nothing-to-check"),
        ("sda/p5", "clean"),
        ("sda/p6", "errors-left"),
        ("sda/p7", "nothing-to-check"),
    ];
    let found = lab.look("-n -a disk.img --image-format raw");
    found.is(4, &verdicts);
    assert_eq!(found.layer("sda/p2")["type"], "swap");
    assert_eq!(found.layer("sda/p6")["offset_bytes"], 73728 * 512);
    lab.repair("-y -a disk.img --image-format raw --filesystem sda/p6")
        .is(1, &[("sda/p6", "corrected")]);
    lab.cut("disk.img", 73728 * 512, 16 << 20, "back.img");
    assert_eq!(lab.checksum("back.img"), lab.checksum("bad.img.repaired"));
    lab.look("-n -a disk.img --image-format raw").is(0, &[]);
}

#[test]
fn a_gpt_and_its_backup() {
    let lab = lab();
    table(&lab, "24M", "label: gpt\nstart=2048, size=32768, name=root");
    lab.put("bad.img", "disk.img", 2048);
    lab.sh("cp disk.img whole.img");
    let errors = [("sda/p1", "errors-left")];
    let whole = lab.look("-n -a whole.img");
    whole.is(4, &errors);
    assert_eq!(whole.layer("sda")["kind"], "gpt");
    assert_eq!(whole.layer("sda/p1")["partition"]["name"], "root");
    assert_eq!(whole.notes("sda"), "");

    // The backup wiped; the disk grown, so that the backup is not at its end.
    lab.sh("cp disk.img missing.img; dd if=/dev/zero of=missing.img bs=512 seek=$((49152 - 33)) count=33 conv=notrunc status=none");
    lab.sh("cp disk.img moved.img; truncate -s 32M moved.img");
    for name in ["missing.img", "moved.img"] {
        let outcome = lab.look(&format!("-n -a {name}"));
        outcome.is(4, &errors);
        assert!(outcome.notes("sda").contains("backup"), "{name}: {outcome}");
    }
    // The primary wiped: the backup serves.
    lab.sh("cp disk.img primary.img; dd if=/dev/zero of=primary.img bs=512 seek=1 count=33 conv=notrunc status=none");
    let outcome = lab.look("-n -a primary.img");
    outcome.is(4, &errors);
    assert_ne!(outcome.notes("sda"), "", "{outcome}");
}

#[test]
fn a_volume_group_over_two_disks() {
    if !is_root() {
        return;
    }
    let lab = lab();
    lab.sh("truncate -s 24M pv0.img pv1.img");
    {
        let loops = [
            Loop::attach(&lab, "", "pv0.img"),
            Loop::attach(&lab, "", "pv1.img"),
        ];
        lab.lvm(
            &loops.iter().collect::<Vec<_>>(),
            &[
                "pvcreate -q @0 @1",
                "vgcreate -q -s 1m lvg1 @0 @1",
                "lvcreate -q -an -Zn -Wn -n lvroot -l 16 lvg1 @0",
                "lvcreate -q -an -Zn -Wn -n lv-home -l 16 lvg1 @1",
                "lvcreate -q -an -Zn -Wn -n both -l 12 lvg1",
            ],
        );
    }
    // The data begins after 1 MiB, as LVM lays it out.
    lab.put("bad.img", "pv0.img", 2048);
    lab.put("good.img", "pv1.img", 2048);
    let found = lab.look("-n -a pv0.img -a pv1.img --image-format raw");
    found.is(
        4,
        &[
            ("sda/lvg1/lvroot", "errors-left"),
            ("sdb/lvg1/lv-home", "clean"),
        ],
    );
    assert_eq!(found.layer("sda")["volume_group"], "lvg1");
    let both = found
        .find("sda/lvg1/both")
        .or_else(|| found.find("sdb/lvg1/both"))
        .unwrap();
    assert_eq!(both["extents"].as_array().unwrap().len(), 2, "{found}");

    // One disk of two is enough for what lies on it.
    let half = lab.look("-n -a pv1.img --image-format raw");
    assert_eq!(half.layer("sda/lvg1/lv-home")["result"]["verdict"], "clean");

    lab.repair("-y -a pv0.img -a pv1.img --image-format raw")
        .is(
            1,
            &[
                ("sda/lvg1/lvroot", "corrected"),
                ("sdb/lvg1/lv-home", "clean"),
            ],
        );
    lab.cut("pv0.img", 1 << 20, 16 << 20, "back.img");
    assert_eq!(lab.checksum("back.img"), lab.checksum("bad.img.repaired"));
}

#[test]
fn a_hibernated_guest_is_refused_as_a_whole() {
    let lab = lab();
    table(
        &lab,
        "24M",
        "label: gpt\nstart=2048, size=32768\nstart=34816, size=2048",
    );
    lab.put("bad.img", "disk.img", 2048);
    lab.sh("truncate -s 1M swap.img; mkswap -q swap.img");
    lab.put("swap.img", "disk.img", 34816);
    lab.look("-n -a disk.img")
        .is(4, &[("sda/p2", "nothing-to-check")]);
    // kernel/power/swap.c: the signature is replaced while the memory lies there.
    lab.patch("disk.img", 34816 * 512 + 4086, b"S1SUSPEND\0");
    for mode in ["-n", "-p", "-y"] {
        lab.look(&format!("{mode} -a disk.img"))
            .is(64, &[("domain", "refused")])
            .says("domain", &["hibernated", "sda/p2", "shut it down"]);
    }
    let listed = lab.look("--list -a disk.img");
    listed.is(0, &[]);
    assert_eq!(listed.layer("sda/p2")["hibernated"], "S1SUSPEND");
}

#[test]
fn what_cannot_be_looked_into_is_not_called_clean() {
    let lab = lab();
    lab.sh("truncate -s 20M luks.img; echo -n secret >key\n\
         cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
             --key-file key luks.img\n\
         truncate -s 4M luks1.img\n\
         cryptsetup luksFormat -q --type luks1 --pbkdf-force-iterations 1000 \
             --key-file key luks1.img\n\
         head -c 1M /dev/urandom >unknown.img; truncate -s 1M blank.img");
    for (name, status, verdict, kind) in [
        ("luks.img", 128, "not-checked", "opaque"),
        ("luks1.img", 128, "not-checked", "opaque"),
        ("unknown.img", 128, "not-checked", "unknown"),
        ("blank.img", 0, "nothing-to-check", "blank"),
    ] {
        for mode in ["-n", "-p", "-y"] {
            let outcome = lab.look(&format!("{mode} -a {name} --image-format raw"));
            outcome.is(status, &[("sda", verdict)]);
            assert_eq!(outcome.layer("sda")["type"], kind, "{outcome}");
        }
    }
    let luks = lab.look("-n -a luks.img --image-format raw");
    assert_eq!(luks.layer("sda")["kind"], "LUKS2");
    luks.says("sda", &["encrypted"]);

    // A partition of each, beside one that is checked.
    table(
        &lab,
        "64M",
        "label: gpt\nstart=2048, size=32768\nstart=34816, size=40960",
    );
    lab.put("bad.img", "disk.img", 2048);
    lab.put("luks.img", "disk.img", 34816);
    lab.look("-n -a disk.img")
        .is(132, &[("sda/p1", "errors-left"), ("sda/p2", "not-checked")]);
}

#[test]
fn a_filesystem_is_chosen_by_its_uuid() {
    let lab = lab();
    table(
        &lab,
        "48M",
        "label: gpt\nstart=2048, size=32768\nstart=34816, size=32768",
    );
    lab.sh("tune2fs -U 11111111-2222-3333-4444-555555555555 good.img");
    lab.put("bad.img", "disk.img", 2048);
    lab.put("good.img", "disk.img", 34816);
    lab.look("-n -a disk.img --filesystem 11111111-2222-3333-4444-555555555555")
        .is(0, &[("sda/p2", "clean")]);
    lab.look("-n -a disk.img --filesystem sda/p9 --disk sdz")
        .is(8, &[("domain", "failed")])
        .says("domain", &["sda/p9", "sdz", "--list"]);
}

/// What lies in a volume that is read-only for the guest is so too, however deep.
#[test]
fn a_partition_of_a_read_only_volume_is_only_checked() {
    if !is_root() {
        return;
    }
    let lab = lab();
    table(&lab, "20M", "label: gpt\nstart=2048, size=32768");
    lab.put("bad.img", "disk.img", 2048);
    lab.sh("truncate -s 32M pv.img");
    {
        let device = Loop::attach(&lab, "", "pv.img");
        lab.lvm(
            &[&device],
            &[
                "pvcreate -q --dataalignment 1m @0",
                "vgcreate -q -s 1m guest @0",
                "lvcreate -q -an -Zn -Wn -p r -n disk -l 20 guest",
            ],
        );
    }
    lab.put("disk.img", "pv.img", 2048);
    let found = lab.look("-y --engine user -a pv.img --image-format raw");
    found.is(4, &[("sda/guest/disk/p1", "errors-left")]);
    assert!(
        found
            .notes("sda/guest/disk/p1")
            .contains("read-only for the guest"),
        "{found}"
    );
}
