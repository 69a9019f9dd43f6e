//! Filesystems of each kind: sound, dirty, damaged, too new.

use crate::support::lab::{Lab, Mount, is_root};

#[test]
fn a_journal_is_replayed_where_nothing_is_kept() {
    let lab = Lab::new();
    lab.ext4("disk.img");
    let block = lab.block_of_inode("disk.img", "/d/f1");
    lab.ext4_with_a_full_journal("disk.img", &[block]);
    // The journal has the block as it should be; the disk has it as a crash left it.
    lab.patch("disk.img", u64::from(block) * 1024, &[0xff; 1024]);
    lab.sh("cp disk.img bare.img; e2fsck -fn bare.img && exit 1 || test $(($? & 4)) = 4");

    let looked = lab.look("-n -a disk.img --image-format raw");
    looked.is(0, &[("sda", "clean")]);
    assert_eq!(looked.layer("sda")["record"]["dirty"], true);
    assert!(looked.notes("sda").contains("journal"), "{looked}");

    lab.repair("-p -a disk.img --image-format raw");
    lab.sh("e2fsck -fn disk.img; dumpe2fs -h disk.img | { ! grep needs_recovery; }");
}

#[test]
fn safe_repairs_are_made_and_others_are_left() {
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    lab.ext4("slight.img");
    lab.sh("debugfs -w -R 'sif /d/f9 links_count 4' slight.img; cp slight.img truth.img");
    lab.sh("e2fsck -fp truth.img && exit 1 || test $? = 1");
    lab.repair("-p -a slight.img --image-format raw")
        .is(1, &[("sda", "corrected")]);
    assert_eq!(lab.checksum("slight.img"), lab.checksum("truth.img"));

    lab.sh("cp bad.img truth.img; e2fsck -fp truth.img && exit 1 || test $? = 4");
    let left = lab.repair("-a bad.img --image-format raw");
    left.is(4, &[("sda", "errors-left")]);
    assert!(left.notes("sda").contains("-y"), "{left}");
    assert_eq!(lab.checksum("bad.img"), lab.checksum("truth.img"));
}

#[test]
fn features_of_the_future_are_not_errors() {
    let lab = Lab::new();
    lab.sh("mke2fs -q -F -t ext4 -O ^metadata_csum disk.img 8M");
    // s_feature_incompat: a bit that nobody has given a meaning.
    let features = lab.sh("od -An -tu4 -j 1120 -N 4 disk.img");
    let features: u32 = features.trim().parse().unwrap();
    lab.patch("disk.img", 1120, &(features | 1 << 30).to_le_bytes());
    for mode in ["-n", "-p", "-y"] {
        lab.look(&format!("{mode} -a disk.img --image-format raw"))
            .is(128, &[("sda", "not-checked")])
            .says("sda", &["e2fsck is too old", "e2fsprogs"]);
    }
}

#[test]
fn a_superblock_that_only_a_backup_remembers() {
    let lab = Lab::new();
    lab.ext4("disk.img");
    lab.patch("disk.img", 1024, &[0; 1024]);
    let looked = lab.look("-n -a disk.img --image-format raw");
    assert_eq!(looked.layer("sda")["type"], "filesystem", "{looked}");
    assert_eq!(looked.layer("sda")["record"]["primary_damaged"], true);
    assert_ne!(looked.status, Some(0), "{looked}");
    lab.repair("-y -a disk.img --image-format raw")
        .is(1, &[("sda", "corrected")]);
    lab.look("-n -a disk.img --image-format raw")
        .is(0, &[("sda", "clean")]);
}

/// xfsprogs makes no XFS below 300 MiB, so it lies in a qcow2.
fn xfs(lab: &Lab) {
    lab.sh("truncate -s 300M xfs.img; mkfs.xfs -q xfs.img");
}

fn to_qcow2(lab: &Lab) {
    lab.sh("qemu-img convert -f raw -O qcow2 xfs.img xfs.qcow2; rm xfs.img");
}

#[test]
fn a_sound_and_a_damaged_xfs() {
    let lab = Lab::new();
    xfs(&lab);
    lab.sh("cp --sparse=always xfs.img sound.img");
    to_qcow2(&lab);
    for mode in ["-n", "-p", "-y"] {
        lab.look(&format!("{mode} -a xfs.qcow2"))
            .is(0, &[("sda", "clean")]);
    }
    lab.sh(
        "mv sound.img xfs.img; rm xfs.qcow2\n\
         xfs_db -x -c 'agi 0' -c 'write -d freecount 99' -c 'sb 0' -c 'write -d icount 4711' xfs.img\n\
         xfs_repair -n -f xfs.img && exit 1 || test $? = 1",
    );
    to_qcow2(&lab);
    for mode in ["-n", "-p"] {
        let outcome = lab.look(&format!("{mode} -a xfs.qcow2"));
        outcome.is(4, &[("sda", "errors-left")]);
        assert!(outcome.notes("sda").contains("-y"), "{outcome}");
    }
    lab.repair("-y -a xfs.qcow2").is(1, &[("sda", "corrected")]);
    lab.look("-n -a xfs.qcow2").is(0, &[("sda", "clean")]);
    lab.sh("qemu-img convert -O raw xfs.qcow2 xfs.img; xfs_repair -n -f xfs.img");
}

#[test]
fn the_log_of_an_xfs_is_never_thrown_away() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    xfs(&lab);
    {
        let Some(_mount) = Mount::new(&lab, "-t xfs -o loop xfs.img", "mnt") else {
            return;
        };
        lab.sh("for i in {1..20}; do echo $i >mnt/$i; done; xfs_io -x -c 'shutdown -f' mnt");
    }
    to_qcow2(&lab);
    for mode in ["-n", "-p", "-y"] {
        let outcome = lab.look(&format!("{mode} -a xfs.qcow2"));
        outcome
            .is(128, &[("sda", "not-checked")])
            .says("sda", &["log is dirty", "mount"]);
    }
}

#[test]
fn fat_of_each_width() {
    let lab = Lab::new();
    for (width, size, dirty_at) in [(12, "2M", 0x25), (16, "16M", 0x25), (32, "40M", 0x41)] {
        lab.sh(&format!(
            "truncate -s {size} fat.img; mkfs.fat -F {width} -i 12345678 fat.img >/dev/null"
        ));
        let listed = lab.look("--list -a fat.img --image-format raw");
        assert_eq!(listed.layer("sda")["uuid"], "1234-5678", "{listed}");
        for mode in ["-n", "-p", "-y"] {
            lab.look(&format!("{mode} -a fat.img --image-format raw"))
                .is(0, &[("sda", "clean")]);
        }
        lab.sh("cp fat.img dirty.img");
        lab.patch("dirty.img", dirty_at, &[1]);
        // A cluster that nobody owns, and copies of the table that differ.
        let table = lab.sh(
            "fsck.fat -nv fat.img | sed -n 's/.*First FAT starts at byte \\([0-9]*\\).*/\\1/p'",
        );
        let table: u64 = table.trim().parse().unwrap();
        lab.sh("cp fat.img damaged.img");
        let entry: (u64, &[u8]) = match width {
            12 => (15, b"\xff\x0f"),
            16 => (20, b"\xff\xff"),
            _ => (40, b"\xff\xff\xff\x0f"),
        };
        lab.patch("damaged.img", table + entry.0, entry.1);
        for name in ["dirty.img", "damaged.img"] {
            lab.sh(&format!("fsck.fat -n {name} && exit 1 || test $? = 1"));
            let image = format!("-a {name} --image-format raw");
            lab.look(&format!("-n {image}"))
                .is(4, &[("sda", "errors-left")]);
            lab.sh(&format!(
                "cp {name} truth.img; fsck.fat -a truth.img && exit 1 || test $? = 1"
            ));
            lab.repair(&format!("-y {image}"))
                .is(1, &[("sda", "corrected")]);
            assert_eq!(lab.checksum(name), lab.checksum("truth.img"), "FAT{width}");
            lab.look(&format!("-n {image}")).is(0, &[("sda", "clean")]);
        }
        lab.sh("rm *.img");
    }
}

#[test]
fn ext2_and_ext3_are_told_apart() {
    let lab = Lab::new();
    for kind in ["ext2", "ext3", "ext4"] {
        lab.sh(&format!("mke2fs -q -F -t {kind} {kind}.img 8M"));
        let outcome = lab.look(&format!("-n -a {kind}.img --image-format raw"));
        outcome.is(0, &[("sda", "clean")]);
        assert_eq!(outcome.layer("sda")["kind"], kind);
    }
}

#[test]
fn filesystems_without_a_checker_are_named() {
    let lab = Lab::new();
    // The magic of JFS's superblock, and its UUID.
    lab.sh("truncate -s 16M jfs.img");
    lab.patch("jfs.img", 0x8000, b"JFS1");
    lab.look("-y -a jfs.img --image-format raw")
        .is(128, &[("sda", "not-checked")])
        .says("sda", &["no checker for it"]);
}

#[test]
fn a_checker_that_is_not_installed_is_named_with_its_package() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    lab.sh("truncate -s 16M exfat.img; mkfs.exfat exfat.img >log; rm log");
    let outcome = lab
        .virt_fsck("-n -a exfat.img --image-format raw")
        .after("mount --bind /dev/null /usr/sbin/fsck.exfat")
        .changing_nothing();
    outcome
        .is(8, &[("sda", "failed")])
        .says("sda", &["fsck.exfat is not installed", "exfatprogs"]);
}
