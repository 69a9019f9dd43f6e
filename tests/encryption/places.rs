//! Where a container can lie, and what it can be.

use crate::containers::KEY;
use crate::support::lab::{Lab, Loop, is_root};

fn lab() -> Lab {
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    lab.ext4("good.img");
    lab
}

/// A filesystem in a container is repaired as the checker alone repairs it, and cryptsetup reads what
/// was written.
fn is_repaired(lab: &Lab, container: &str) {
    let key = format!("--key all:file:{KEY}");
    let found = lab.look(&format!(
        "-n --engine user {key} -a {container} --image-format raw"
    ));
    found.is(4, &[("sda/luks", "errors-left")]);
    let repaired = lab.repair(&format!(
        "-y --engine user {key} -a {container} --image-format raw"
    ));
    repaired.is(1, &[("sda/luks", "corrected")]);
    lab.decrypted(container, "back.img");
    lab.cut("back.img", 0, 16 << 20, "part.img");
    assert_eq!(lab.checksum("part.img"), lab.checksum("bad.img.repaired"));
    lab.look(&format!(
        "-n --engine user {key} -a {container} --image-format raw"
    ))
    .is(0, &[("sda/luks", "clean")]);
}

#[test]
fn a_whole_disk_with_luks2() {
    let lab = lab();
    lab.encrypt("bad.img", "disk.img", "");
    is_repaired(&lab, "disk.img");
    let listed = lab.look(&format!("--list --key all:file:{KEY} -a disk.img"));
    let disk = listed.layer("sda");
    assert_eq!(disk["type"], "luks");
    assert_eq!(disk["kind"], "LUKS2");
    assert_eq!(disk["cipher"], "aes-xts-plain64");
    assert_eq!(listed.layer("sda/luks")["kind"], "ext4");
}

#[test]
fn large_sectors_other_ciphers_and_other_modes() {
    let lab = Lab::new();
    lab.damaged_ext4_with("bad.img", "-b 4096");
    for options in [
        "--sector-size 4096",
        "--cipher aes-cbc-essiv:sha256 --key-size 256",
        "--cipher aes-xts-plain64 --key-size 256 --luks2-metadata-size 256k",
    ] {
        lab.encrypt("bad.img", "disk.img", options);
        is_repaired(&lab, "disk.img");
    }
    for options in [
        "",
        ",cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256",
    ] {
        lab.encrypt_with_luks1("bad.img", "disk.img", options);
        is_repaired(&lab, "disk.img");
    }
}

#[test]
fn a_partition_of_a_qcow2() {
    let lab = lab();
    lab.encrypt("bad.img", "luks.img", "");
    lab.sh("truncate -s 64M disk.img; sfdisk -q disk.img <<'END'\n\
         label: gpt\nstart=2048, size=32768\nstart=34816, size=65536\nEND");
    lab.put("good.img", "disk.img", 2048);
    lab.put("luks.img", "disk.img", 34816);
    lab.sh("qemu-img convert -O qcow2 disk.img disk.qcow2");
    let key = format!("--key sda/p2:file:{KEY}");
    let verdicts = [("sda/p1", "clean"), ("sda/p2/luks", "errors-left")];
    lab.look(&format!("-n --engine user {key} -a disk.qcow2"))
        .is(4, &verdicts);
    lab.repair(&format!("-y --engine user {key} -a disk.qcow2"))
        .is(1, &[("sda/p2/luks", "corrected")]);
    lab.sh("qemu-img convert -O raw disk.qcow2 disk.img");
    lab.cut("disk.img", 34816 * 512, 32 << 20, "luks.img");
    lab.decrypted("luks.img", "back.img");
    lab.cut("back.img", 0, 16 << 20, "part.img");
    assert_eq!(lab.checksum("part.img"), lab.checksum("bad.img.repaired"));
}

/// The standard installation of Debian, Ubuntu and Fedora: a volume group in a container in a
/// partition, of which one volume is a container again.
#[test]
fn a_volume_group_in_a_container_with_a_container_on_a_volume() {
    if !is_root() {
        return;
    }
    let lab = lab();
    lab.encrypt("bad.img", "inner.img", "");
    lab.sh("truncate -s 56M pv.img");
    {
        let device = Loop::attach(&lab, "", "pv.img");
        lab.lvm(
            &[&device],
            &[
                "pvcreate -q --dataalignment 1m @0",
                "vgcreate -q -s 1m guest @0",
                "lvcreate -q -an -Zn -Wn -n root -l 16 guest",
                "lvcreate -q -an -Zn -Wn -n secret -l 32 guest",
            ],
        );
    }
    lab.put("good.img", "pv.img", 2048);
    lab.put("inner.img", "pv.img", 17 * 2048);
    lab.encrypt("pv.img", "luks.img", "--sector-size 4096");
    lab.sh("truncate -s 90M disk.img; sfdisk -q disk.img <<'END'\n\
         label: gpt\nstart=2048, size=147456\nEND");
    lab.put("luks.img", "disk.img", 2048);
    let root = ("sda/p1/luks/guest/root", "clean");
    let inner = "sda/p1/luks/guest/secret/luks";
    let key = format!("--key all:file:{KEY}");
    lab.look(&format!("-n --engine user {key} -a disk.img"))
        .is(4, &[root, (inner, "errors-left")]);
    lab.repair(&format!("-y --engine user {key} -a disk.img"))
        .is(1, &[root, (inner, "corrected")]);
    lab.cut("disk.img", 1 << 20, 72 << 20, "luks.img");
    lab.decrypted("luks.img", "back.img");
    lab.cut("back.img", 17 << 20, 32 << 20, "inner.img");
    lab.decrypted("inner.img", "part.img");
    lab.cut("part.img", 0, 16 << 20, "back.img");
    assert_eq!(lab.checksum("back.img"), lab.checksum("bad.img.repaired"));

    // The key of the outer container alone: the inner one is named, and the rest is checked.
    let found = lab.look(&format!(
        "-n --engine user --key sda/p1:key:{} -a disk.img",
        "wrong"
    ));
    found.is(128, &[("sda/p1", "not-checked")]);
    found.says(
        "sda/p1",
        &[
            "no key opens sda/p1",
            "LUKS2, UUID",
            "--key sda/p1:file:FILE",
        ],
    );
}

#[test]
fn a_container_in_a_container() {
    let lab = Lab::new();
    lab.damaged_ext4_with("bad.img", "-b 4096");
    lab.encrypt("bad.img", "inner.img", "--sector-size 4096");
    lab.encrypt_with_luks1("inner.img", "disk.img", "");
    let key = format!("--key all:file:{KEY}");
    let image = "-a disk.img --image-format raw";
    lab.look(&format!("-n --engine user {key} {image}"))
        .is(4, &[("sda/luks/luks", "errors-left")]);
    lab.repair(&format!("-y --engine user {key} {image}"))
        .is(1, &[("sda/luks/luks", "corrected")]);
    lab.decrypted("disk.img", "inner.img");
    lab.decrypted("inner.img", "back.img");
    lab.cut("back.img", 0, 16 << 20, "part.img");
    assert_eq!(lab.checksum("part.img"), lab.checksum("bad.img.repaired"));
}
