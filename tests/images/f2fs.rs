//! F2FS: sound, damaged, over several devices.

use crate::support::lab::Lab;

/// The first block of each area, as mkfs.f2fs lays out 64 MiB.
const CHECKPOINT: u64 = 512;
const SEGMENTS: u64 = 1536;
const NODES: u64 = 2560;
const ROOT: u64 = 4096;
const BLOCK: u64 = 4096;

/// The paths of the devices in a superblock.
const SUPERBLOCK: u64 = 1024;
const SECOND_SUPERBLOCK: u64 = 4096 + 1024;
const DEVICES: u64 = 2201;

fn made(lab: &Lab) {
    lab.sh(
        "mkdir -p tree/d; for i in {1..40}; do echo \"hello $i\" >tree/d/f$i; done\n\
            rm -f f2fs.img; truncate -s 64M f2fs.img; mkfs.f2fs -q -l data f2fs.img\n\
            sload.f2fs -f tree f2fs.img >log || test $? = 1; rm -r tree log\n\
            fsck.f2fs --dry-run f2fs.img",
    );
}

/// The checker alone, told not to save lost files on the host.
fn bare(lab: &Lab, options: &str) -> Option<i32> {
    lab.sh_status(&format!(
        "echo n | fsck.f2fs --no-kernel-check {options} truth.img"
    ))
    .0
}

#[test]
fn a_sound_f2fs_is_clean_and_stays_as_it_is() {
    let lab = Lab::new();
    made(&lab);
    for mode in ["-n", "-p", "-y"] {
        let outcome = lab.look(&format!("{mode} -a f2fs.img --image-format raw"));
        outcome.is(0, &[("sda", "clean")]);
        assert_eq!(outcome.layer("sda")["label"], "data");
    }
}

#[test]
fn a_damaged_f2fs_is_repaired_with_y() {
    let lab = Lab::new();
    let damages: [(u64, &[u8], i32); 3] = [
        // A node's address points nowhere: what it holds is lost, which makes fsck.f2fs ask.
        (
            NODES * BLOCK + 10 * 9,
            &[1, 10, 0, 0, 0, 0xff, 0xff, 0, 0],
            4,
        ),
        (SEGMENTS * BLOCK, &[0; 4096], 1),
        (CHECKPOINT * BLOCK, &[0xa5; 4096], 4),
    ];
    for (at, bytes, status) in damages {
        made(&lab);
        lab.patch("f2fs.img", at, bytes);
        lab.sh("cp f2fs.img truth.img");
        assert_eq!(bare(&lab, "--dry-run"), Some(status));
        for mode in ["-n", "-p"] {
            let outcome = lab.look(&format!("{mode} -a f2fs.img --image-format raw"));
            outcome.is(4, &[("sda", "errors-left")]);
            assert_eq!(outcome.layer("sda")["result"]["exit_code"], status);
            assert!(outcome.notes("sda").contains("-y"), "{outcome}");
        }
        assert_eq!(bare(&lab, "-f"), Some(1));
        lab.repair("-y -a f2fs.img --image-format raw")
            .is(1, &[("sda", "corrected")]);
        assert_eq!(lab.checksum("f2fs.img"), lab.checksum("truth.img"));
        lab.look("-n -a f2fs.img --image-format raw")
            .is(0, &[("sda", "clean")]);
    }
}

#[test]
fn what_cannot_be_repaired_is_left() {
    let lab = Lab::new();
    made(&lab);
    // The root directory is gone: fsck.f2fs says "corrected", and finds errors the next time.
    lab.patch("f2fs.img", ROOT * BLOCK, &[0; 4096]);
    lab.repair("-y -a f2fs.img --image-format raw")
        .is(4, &[("sda", "errors-left")]);
    // Both checkpoints are gone: it cannot be opened.
    made(&lab);
    for pack in [CHECKPOINT, 2 * CHECKPOINT] {
        lab.patch("f2fs.img", pack * BLOCK, &[0xa5; 4096]);
    }
    for mode in ["-n", "-y"] {
        let outcome = lab.look(&format!("{mode} -a f2fs.img --image-format raw"));
        outcome.is(4, &[("sda", "errors-left")]);
        assert_eq!(outcome.layer("sda")["result"]["exit_code"], 255);
        assert!(
            outcome.notes("sda").contains("could not even open it"),
            "{outcome}"
        );
    }
}

#[test]
fn half_of_the_superblocks_is_not_clean() {
    let lab = Lab::new();
    made(&lab);
    lab.patch("f2fs.img", SUPERBLOCK + 36, &[0; 8]);
    lab.sh("cp f2fs.img truth.img");
    assert_eq!(bare(&lab, "--dry-run"), Some(0));
    for mode in ["-n", "-p", "-y"] {
        lab.look(&format!("{mode} -a f2fs.img --image-format raw"))
            .is(4, &[("sda", "errors-left")]);
    }
}

#[test]
fn no_path_in_a_superblock_is_opened_on_the_host() {
    let lab = Lab::new();
    lab.sh("truncate -s 64M a.img b.img; mkfs.f2fs -q -c b.img a.img");
    for mode in ["-n", "-p", "-y"] {
        lab.look(&format!("{mode} -a a.img -a b.img --image-format raw"))
            .is(128, &[("sda", "not-checked")])
            .says("sda", &["2 devices", "paths", "b.img"]);
    }
    // The second superblock is what counts when the first is damaged.
    made(&lab);
    lab.patch("f2fs.img", SUPERBLOCK + 36, &[0; 8]);
    lab.patch("f2fs.img", SECOND_SUPERBLOCK + DEVICES, b"/dev/sda\0");
    lab.look("-y -a f2fs.img --image-format raw")
        .is(128, &[("sda", "not-checked")]);
}
