//! btrfs: sound, damaged, with a log, over several devices.

use crate::support::lab::{Lab, Loop, Mount, is_root};

/// Damages the leaf of the files' tree, or the root of all trees: `copy` makes one of two copies
/// unreadable, `nbytes` leaves a sound block with a wrong number in it, `root` spoils both copies.
const DAMAGE: &str = r#"
import re, struct, subprocess, sys
image, what = sys.argv[1:]

def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82f63b78 if crc & 1 else crc >> 1
    return crc ^ 0xffffffff

def tree(name):
    call = ['btrfs', 'inspect-internal', 'dump-tree', '-t', name, image]
    return subprocess.run(call, capture_output=True, text=True, check=True).stdout

leaf = int(re.search(r'leaf (\d+) items', tree('root' if what == 'root' else '5'))[1])
chunks = re.split(r'\n\titem ', tree('chunk'))
chunk = next(text for text in chunks if 'METADATA|DUP' in text)
start = int(re.search(r'CHUNK_ITEM (\d+)\)', chunk)[1])
copies = [int(at) + leaf - start for at in re.findall(r'stripe \d devid 1 offset (\d+)', chunk)]
assert len(copies) == 2
with open(image, 'r+b') as file:
    file.seek(copies[0])
    block = bytearray(file.read(16384))
    if what == 'nbytes':
        for number in range(struct.unpack_from('<I', block, 96)[0]):
            item = struct.unpack_from('<QBQII', block, 101 + 25 * number)
            inode = 101 + item[3]
            if item[1] == 1 and item[0] > 256 and struct.unpack_from('<Q', block, inode + 24)[0]:
                struct.pack_into('<Q', block, inode + 24, 4711)
                break
        struct.pack_into('<I', block, 0, crc32c(bytes(block[32:])))
    else:
        block[200] ^= 0xff
    for at in copies[:1] if what == 'copy' else copies:
        file.seek(at)
        file.write(block)
"#;

fn made(lab: &Lab) {
    lab.sh(
        "mkdir -p tree/d; for i in {1..40}; do echo \"hello $i\" >tree/d/f$i; done\n\
            head -c 100000 /dev/urandom >tree/big\n\
            truncate -s 128M btrfs.img; mkfs.btrfs -q -m dup -L root -r tree btrfs.img; rm -r tree",
    );
}

fn damaged(lab: &Lab, what: &str) {
    made(lab);
    lab.write("damage.py", DAMAGE);
    lab.sh(&format!("python3 damage.py btrfs.img {what}; rm damage.py"));
}

#[test]
fn a_sound_btrfs_is_clean_and_stays_as_it_is() {
    let lab = Lab::new();
    made(&lab);
    lab.sh("btrfs check --readonly btrfs.img");
    for mode in ["-n", "-p", "-y", "-y --allow btrfs-repair"] {
        let outcome = lab.look(&format!("{mode} -a btrfs.img --image-format raw"));
        outcome.is(0, &[("sda", "clean")]);
        assert_eq!(outcome.layer("sda")["label"], "root");
        assert_eq!(outcome.layer("sda")["record"]["dirty"], false);
    }
}

#[test]
fn a_damaged_btrfs_is_repaired_only_when_that_is_asked_for_by_name() {
    let lab = Lab::new();
    damaged(&lab, "nbytes");
    lab.sh("btrfs check --readonly btrfs.img && exit 1 || test $? = 1");
    for mode in ["-n", "-p", "-y"] {
        let outcome = lab.look(&format!("{mode} -a btrfs.img --image-format raw"));
        outcome.is(4, &[("sda", "errors-left")]);
        let result = &outcome.layer("sda")["result"];
        assert_eq!(result["exit_code"], 1);
        assert!(
            result["output"].as_str().unwrap().contains("nbytes wrong"),
            "{outcome}"
        );
        assert!(
            outcome.notes("sda").contains("--allow btrfs-repair"),
            "{outcome}"
        );
    }
    lab.repair("-y --allow btrfs-repair -a btrfs.img --image-format raw")
        .is(1, &[("sda", "corrected")]);
    lab.sh("btrfs check --readonly btrfs.img");
}

#[test]
fn a_damaged_copy_is_an_error_though_btrfs_check_ends_with_0() {
    let lab = Lab::new();
    damaged(&lab, "copy");
    lab.sh("btrfs check --readonly btrfs.img 2>&1 | grep 'checksum verify failed'");
    let outcome = lab.look("-n -a btrfs.img --image-format raw");
    outcome.is(4, &[("sda", "errors-left")]);
    assert_eq!(outcome.layer("sda")["result"]["exit_code"], 0);
    assert!(outcome.notes("sda").contains("btrfs scrub"), "{outcome}");
}

#[test]
fn a_btrfs_that_cannot_be_opened_has_errors() {
    let lab = Lab::new();
    damaged(&lab, "root");
    lab.sh("btrfs check --readonly btrfs.img && exit 1 || test $? = 1");
    let outcome = lab.look("-n -a btrfs.img --image-format raw");
    outcome.is(4, &[("sda", "errors-left")]);
    assert!(outcome.notes("sda").contains("btrfs-rescue"), "{outcome}");
}

#[test]
fn a_log_that_is_not_replayed_is_kept_and_told_of() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    made(&lab);
    {
        let Some(_mount) = Mount::new(&lab, "-t btrfs -o loop,commit=300 btrfs.img", "mnt") else {
            return;
        };
        lab.sh(
            "dd if=/dev/urandom of=mnt/synced bs=4k count=10 conv=fsync status=none\n\
                cp --sparse=always btrfs.img log.img",
        );
    }
    lab.sh("btrfs inspect-internal dump-super log.img | grep '^log_root[^_]*[1-9]'");
    for mode in ["-n", "-p", "-y", "-y --allow btrfs-repair"] {
        let outcome = lab.look(&format!("{mode} -a log.img --image-format raw"));
        outcome.is(0, &[("sda", "clean")]);
        assert_eq!(outcome.layer("sda")["record"]["dirty"], true);
        assert!(outcome.notes("sda").contains("log"), "{outcome}");
    }
}

/// A btrfs over two devices, which needs both.
fn over_two(lab: &Lab) {
    lab.sh("truncate -s 128M a.img b.img; mkfs.btrfs -q -m raid0 -d raid0 a.img b.img");
}

const BOTH: &str = "-a a.img -a b.img --image-format raw";
const MODES: [&str; 4] = ["-n", "-p", "-y", "-y --allow btrfs-repair"];

#[test]
fn all_devices_are_checked_as_one() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    over_two(&lab);
    for mode in MODES {
        let outcome = lab.look(&format!("{mode} {BOTH}"));
        outcome
            .is(0, &[("sda", "clean"), ("sdb", "nothing-to-check")])
            .says("sdb", &["checked as sda"]);
        let only_checked = outcome.notes("sda").contains("only checked");
        assert_eq!(only_checked, mode != "-n", "{outcome}");
    }
    // Whichever was asked for.
    lab.look(&format!("-n --disk sdb {BOTH}"))
        .is(0, &[("sdb", "clean")]);
    let plan = lab.look(&format!("--dry-run -n {BOTH}"));
    let steps = plan.json["domains"][0]["plan"].to_string();
    assert!(steps.contains("its other devices are sdb"), "{plan}");
}

#[test]
fn a_device_of_the_host_is_never_taken_for_one_of_the_guests() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    over_two(&lab);
    // A sound clone on the host, which btrfs check takes if it is left to find it.
    lab.sh("cp b.img clone.img");
    let clone = Loop::attach(&lab, "", "clone.img");
    let found = "btrfs check --readonly a.img 2>&1";
    assert!(!lab.sh(found).contains("is missing"));
    for mode in MODES {
        lab.look(&format!("{mode} -a a.img --image-format raw"))
            .is(128, &[("sda", "not-checked")])
            .says(
                "sda",
                &["of its 2 devices, 1 are on none", "device 1 is sda"],
            );
    }
    lab.sh("dd if=/dev/urandom of=b.img bs=1M seek=1 count=62 conv=notrunc status=none");
    for mode in MODES {
        let outcome = lab.look(&format!("{mode} {BOTH}"));
        outcome.is(4, &[("sda", "errors-left"), ("sdb", "nothing-to-check")]);
        assert!(outcome.notes("sda").contains("btrfs scrub"), "{outcome}");
        assert!(!outcome.notes("sda").contains("--allow"), "{outcome}");
    }
    drop(clone);
    lab.sh("cmp clone.img b.img && exit 1 || test $? = 1");
}

#[test]
fn devices_that_do_not_make_up_one_filesystem_are_not_checked() {
    let lab = Lab::new();
    over_two(&lab);
    lab.sh("cp b.img c.img");
    let verdicts = ["sda", "sdb", "sdc"].map(|disk| (disk, "not-checked"));
    lab.look(&format!("-n {BOTH} -a c.img"))
        .is(128, &verdicts)
        .says("sda", &["twice", "device 2 is sdb, device 2 is sdc"]);
}

#[test]
fn two_devices_may_be_partitions_of_one_disk() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    over_two(&lab);
    lab.sh("truncate -s 260M disk.img; sfdisk -q disk.img <<'END'\n\
         label: gpt\nstart=2048, size=262144\nstart=264192, size=262144\nEND");
    lab.put("a.img", "disk.img", 2048);
    lab.put("b.img", "disk.img", 264_192);
    let verdicts = [("sda/p1", "clean"), ("sda/p2", "nothing-to-check")];
    lab.look("-n --engine user -a disk.img --image-format raw")
        .is(0, &verdicts);
    lab.look("-p --engine user -a disk.img --image-format raw")
        .is(0, &verdicts);
}

#[test]
fn a_repair_of_btrfs_needs_y() {
    let lab = Lab::new();
    for mode in ["", "-n", "-p", "--list"] {
        let outcome = lab.look(&format!("{mode} --allow btrfs-repair -a btrfs.img"));
        assert_eq!(outcome.status, Some(16), "{outcome}");
        assert!(outcome.stderr.contains("needs -y"), "{outcome}");
    }
}
