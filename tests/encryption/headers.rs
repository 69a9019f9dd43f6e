//! Headers that lie elsewhere, and headers that are damaged.

use crate::containers::{KEY, SECRET};
use crate::support::lab::Lab;

#[test]
fn a_detached_header() {
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    lab.write(KEY, SECRET);
    lab.sh(&format!(
        "cp bad.img disk.img; truncate -s 16M header.img\n\
         cryptsetup reencrypt -q --encrypt --type luks2 --pbkdf pbkdf2 \
         --pbkdf-force-iterations 1000 --header header.img --key-file {KEY} disk.img"
    ));
    let words = format!("--engine user --key all:file:{KEY} -a disk.img --image-format raw");
    // Nothing tells what it is.
    lab.look(&format!("-n {words}"))
        .is(128, &[("sda", "not-checked")]);
    lab.look(&format!("-n --header sda:header.img {words}"))
        .is(4, &[("sda/luks", "errors-left")]);
    lab.repair(&format!("-y --header sda:header.img {words}"))
        .is(1, &[("sda/luks", "corrected")]);
    lab.sh(&format!(
        "cp disk.img back.img\n\
         cryptsetup reencrypt -q --decrypt --force-offline-reencrypt --header header.img \
         --key-file {KEY} back.img"
    ));
    assert_eq!(lab.checksum("back.img"), lab.checksum("bad.img.repaired"));

    // What is no header, a layer that is not there, a file that is not there.
    let wrong = lab.look(&format!("-n --header sda:bad.img {words}"));
    wrong.is(128, &[("sda", "not-checked")]);
    wrong.says("sda", &["what was given as its header is none"]);
    let wrong = lab.look(&format!("-n --header sda/p7:header.img {words}"));
    wrong.is(8, &[("domain", "failed")]);
    wrong.says("domain", &["it has no sda/p7"]);
    let wrong = lab
        .virt_fsck(&format!("-n --header sda:gone {words}"))
        .plain()
        .changing_nothing();
    wrong.complains(&["gone cannot be read", "No such file"]);
}

/// The header alone, as a disk of its own.
#[test]
fn a_header_without_its_data() {
    let lab = Lab::new();
    lab.write(KEY, SECRET);
    lab.sh(&format!(
        "truncate -s 16M header.img disk.img\n\
         cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
         --header header.img disk.img {KEY}"
    ));
    let found = lab.look(&format!(
        "-n --key all:file:{KEY} -a header.img --image-format raw"
    ));
    found.is(128, &[("sda", "not-checked")]);
    found.says("sda", &["only the header of a container", "--header"]);
}

/// Each damage has its sentence; nothing is asked for, and nothing written, whatever was wished.
#[test]
fn damaged_headers() {
    let lab = Lab::new();
    lab.ext4("good.img");
    lab.encrypt("good.img", "luks2.img", "");
    lab.encrypt_with_luks1("good.img", "luks1.img", "");
    let both = |at: u64| [at, 16 * 1024 + at];
    // Of LUKS2 both copies are damaged, each byte turned.
    let damages: &[(&str, &[u64], &str)] = &[
        ("luks2.img", &both(7), "has the version"),
        ("luks2.img", &both(8), "damaged"),
        ("luks2.img", &both(72), "damaged"),
        ("luks2.img", &both(450), "damaged"),
        ("luks2.img", &both(4100), "damaged"),
        ("luks1.img", &[7], "has the version"),
        ("luks1.img", &[104], "damaged"),
        ("luks1.img", &[108], "damaged"),
    ];
    for (image, places, words) in damages {
        lab.sh(&format!("cp {image} disk.img"));
        for place in *places {
            lab.sh(&format!(
                "byte=$(od -An -tu1 -j {place} -N 1 disk.img)\n\
                 printf \"\\\\x$(printf %02x $((byte ^ 16)))\" | \
                 dd of=disk.img bs=1 seek={place} conv=notrunc status=none"
            ));
        }
        let found = lab.look(&format!(
            "-y --key all:file:{KEY} -a disk.img --image-format raw"
        ));
        found.is(128, &[("sda", "not-checked")]);
        found.says("sda", &[words]);
    }
    // One copy of LUKS2's metadata is enough, and the damaged one is not mended.
    lab.sh(
        "cp luks2.img disk.img; printf XX | dd of=disk.img bs=1 seek=4100 conv=notrunc status=none",
    );
    let found = lab.look(&format!(
        "-n --engine user --key all:file:{KEY} -a disk.img --image-format raw"
    ));
    found.is(0, &[("sda/luks", "clean")]);
    assert!(found.notes("sda").contains("damaged"), "{found}");
}
