//! Filesystems whose journal or log is a device of its own.

use crate::support::disks::EXT4_UUID;
use crate::support::lab::{Lab, Loop, Mount, is_root};

/// An ext4 and its journal, with files in it.
fn ext4(lab: &Lab) {
    lab.sh("truncate -s 8M journal.img; mke2fs -q -F -b 1024 -O journal_dev journal.img");
    let journal = Loop::attach(lab, "", "journal.img");
    lab.sh(&format!(
        "mkdir -p tree/d; for i in {{1..40}}; do echo \"hello $i\" >tree/d/f$i; done\n\
         E2FSPROGS_FAKE_TIME=$E2FSCK_TIME mke2fs -q -F -t ext4 -b 1024 -d tree -U {EXT4_UUID} -J device={} ext4.img 16M; rm -r tree",
        journal.device
    ));
}

#[test]
fn an_ext4_is_checked_together_with_its_journal() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    ext4(&lab);
    lab.sh("e2fsck -fn -j journal.img ext4.img");
    let both = "-a ext4.img -a journal.img --image-format raw";
    let verdicts = [("sda", "clean"), ("sdb", "nothing-to-check")];
    let looked = lab.look(&format!("-n {both}"));
    looked.is(0, &verdicts);
    assert_eq!(looked.layer("sdb")["type"], "journal");
    for mode in ["-p", "-y"] {
        lab.sh(&format!(
            "cp ext4.img truth.img; cp journal.img other.img\n\
             e2fsck -f {mode} -j other.img truth.img"
        ));
        lab.repair(&format!("{mode} {both}")).is(0, &verdicts);
        for (ours, truth) in [("ext4.img", "truth.img"), ("journal.img", "other.img")] {
            assert_eq!(lab.checksum(ours), lab.checksum(truth), "{mode}");
        }
    }
    // Without it e2fsck would open what has the journal's number on the host.
    for mode in ["-n", "-p", "-y"] {
        lab.look(&format!("{mode} -a ext4.img --image-format raw"))
            .is(128, &[("sda", "not-checked")])
            .says("sda", &["its journal (UUID ", "another device"]);
    }
    // A device of the host with the same UUID: neither used, nor written into the superblock.
    lab.sh("cp journal.img clone.img");
    let clone = Loop::attach(&lab, "", "clone.img");
    let number = "dumpe2fs -h ext4.img | grep '^Journal device'";
    let before = lab.sh(number);
    lab.look(&format!("-n {both}")).is(0, &verdicts);
    for mode in ["-p", "-y"] {
        lab.repair(&format!("{mode} {both}")).is(0, &verdicts);
        assert_eq!(lab.sh(number), before);
    }
    drop(clone);
    // Both as partitions of one disk.
    lab.sh("truncate -s 26M disk.img; sfdisk -q disk.img <<'END'\n\
         label: gpt\nstart=2048, size=32768\nstart=34816, size=16384\nEND");
    lab.put("ext4.img", "disk.img", 2048);
    lab.put("journal.img", "disk.img", 34816);
    let verdicts = [("sda/p1", "clean"), ("sda/p2", "nothing-to-check")];
    lab.look("-n --engine user -a disk.img --image-format raw")
        .is(0, &verdicts);
    let plan = lab.look("--dry-run -n -a disk.img --image-format raw");
    let steps = plan.json["domains"][0]["plan"].to_string();
    assert!(steps.contains("-j sda/p2"), "{plan}");
}

#[test]
fn a_journal_elsewhere_is_replayed() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    ext4(&lab);
    let block = lab.block_of_inode("ext4.img", "/d/f1");
    lab.sh(&format!(
        "dd if=ext4.img bs=1k skip={block} count=1 of=blocks status=none\n\
         printf '%s\\n' 'jo -f journal.img' 'jw -b {block} blocks' jc | debugfs -w -f - ext4.img\n\
         rm blocks; dumpe2fs -h ext4.img | grep needs_recovery"
    ));
    lab.patch("ext4.img", u64::from(block) * 1024, &[0xff; 1024]);
    let looked = lab.look("-n -a ext4.img -a journal.img --image-format raw");
    looked.is(0, &[("sda", "clean")]);
    assert!(looked.notes("sda").contains("replayed"), "{looked}");
    lab.repair("-p -a ext4.img -a journal.img --image-format raw")
        .is(0, &[("sda", "clean")]);
    lab.sh("e2fsck -fn -j journal.img ext4.img; dumpe2fs -h ext4.img | { ! grep needs_recovery; }");
}

#[test]
fn a_damaged_ext4_with_its_journal_elsewhere_is_repaired() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    ext4(&lab);
    lab.sh(
        "debugfs -w -R 'clri /d/f7' ext4.img; cp ext4.img truth.img; cp journal.img other.img\n\
            e2fsck -fy -j other.img truth.img && exit 1 || test $? = 1; rm other.img",
    );
    lab.look("-n -a ext4.img -a journal.img --image-format raw")
        .is(4, &[("sda", "errors-left")]);
    lab.repair("-y -a ext4.img -a journal.img --image-format raw")
        .is(1, &[("sda", "corrected")]);
    assert_eq!(lab.checksum("ext4.img"), lab.checksum("truth.img"));
}

/// An XFS and its log, which is a device of its own; they are sparse.
fn xfs(lab: &Lab) {
    lab.sh("truncate -s 300M xfs.img; truncate -s 80M log.img\n\
            mkfs.xfs -q -l logdev=log.img,size=70M xfs.img");
}

fn to_qcow2(lab: &Lab) {
    lab.sh("for name in xfs log; do qemu-img convert -O qcow2 $name.img $name.qcow2; rm $name.img; done");
}

#[test]
fn an_xfs_is_checked_together_with_its_log() {
    let lab = Lab::new();
    xfs(&lab);
    to_qcow2(&lab);
    for mode in ["-n", "-p", "-y"] {
        let outcome = lab.look(&format!("{mode} -a log.qcow2 -a xfs.qcow2"));
        outcome.is(0, &[("sda", "nothing-to-check"), ("sdb", "clean")]);
        lab.look(&format!("{mode} -a xfs.qcow2"))
            .is(128, &[("sda", "not-checked")])
            .says("sda", &["its log (UUID "]);
    }
    lab.sh("rm *.qcow2");
    xfs(&lab);
    lab.sh(
        "xfs_db -x -c 'agi 0' -c 'write -d freecount 99' -l log.img xfs.img\n\
            xfs_repair -n -f -l log.img xfs.img && exit 1 || test $? = 1",
    );
    to_qcow2(&lab);
    lab.look("-p -a log.qcow2 -a xfs.qcow2")
        .is(4, &[("sdb", "errors-left")]);
    lab.repair("-y -a log.qcow2 -a xfs.qcow2")
        .is(1, &[("sdb", "corrected")]);
    lab.look("-n -a log.qcow2 -a xfs.qcow2")
        .is(0, &[("sdb", "clean")]);
}

#[test]
fn a_dirty_log_elsewhere_is_not_thrown_away() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    xfs(&lab);
    {
        let log = Loop::attach(&lab, "", "log.img");
        let options = format!("-t xfs -o loop,logdev={} xfs.img", log.device);
        let Some(_mount) = Mount::new(&lab, &options, "mnt") else {
            return;
        };
        lab.sh("for i in {1..20}; do echo $i >mnt/$i; done; xfs_io -x -c 'shutdown -f' mnt");
    }
    to_qcow2(&lab);
    for mode in ["-n", "-y"] {
        lab.look(&format!("{mode} -a xfs.qcow2 -a log.qcow2"))
            .is(128, &[("sda", "not-checked")])
            .says("sda", &["log is dirty", "mount"]);
    }
}

#[test]
fn an_xfs_with_a_realtime_section_is_not_checked_by_halves() {
    let lab = Lab::new();
    lab.sh("truncate -s 300M xfs.img; truncate -s 64M realtime.img\n\
            mkfs.xfs -q -r rtdev=realtime.img xfs.img; rm realtime.img\n\
            qemu-img convert -O qcow2 xfs.img xfs.qcow2; rm xfs.img");
    for mode in ["-n", "-y"] {
        lab.look(&format!("{mode} -a xfs.qcow2"))
            .is(128, &[("sda", "not-checked")])
            .says("sda", &["realtime"]);
    }
}
