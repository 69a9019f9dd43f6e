//! Volumes that lie in several pieces on several disks: the user engine puts them together itself.

use std::os::unix::fs::FileExt;

use crate::support::lab::{Lab, Loop, is_root};

const MIB: u64 = 1 << 20;

/// Where a volume's bytes lie, as the test laid them out: disk, first byte, length.
type Layout = Vec<(usize, u64, u64)>;

const DISKS: [&str; 2] = ["pv0.img", "pv1.img"];

/// LVM's extents of 1 MiB begin after its metadata, at 1 MiB.
fn extents(disk: usize, first: u64, count: u64) -> (usize, u64, u64) {
    (disk, (first + 1) * MIB, count * MIB)
}

fn segments() -> Layout {
    vec![
        extents(0, 0, 5),
        extents(1, 2, 3),
        extents(0, 6, 4),
        extents(1, 6, 4),
    ]
}

/// Two columns from the tenth extent of each disk.
fn stripes() -> Layout {
    let stripe = 64 << 10;
    (0..8 * MIB / stripe)
        .flat_map(|row| [0, 1].map(|disk| (disk, 11 * MIB + row * stripe, stripe)))
        .collect()
}

fn scatter(lab: &Lab, file: &str, layout: &Layout) {
    let bytes = std::fs::read(lab.file(file)).unwrap();
    let mut at = 0;
    for (disk, offset, length) in layout {
        let end = at + usize::try_from(*length).unwrap();
        lab.patch(DISKS[*disk], *offset, &bytes[at..end]);
        at = end;
    }
    assert_eq!(at, bytes.len());
}

fn gather(lab: &Lab, layout: &Layout, file: &str) {
    let disks = DISKS.map(|name| std::fs::File::open(lab.file(name)).unwrap());
    let mut bytes = Vec::new();
    for (disk, offset, length) in layout {
        let mut part = vec![0; usize::try_from(*length).unwrap()];
        disks[*disk].read_exact_at(&mut part, *offset).unwrap();
        bytes.extend(part);
    }
    lab.write(file, bytes);
}

/// A guest with a raw disk and a qcow2 disk; its volume group has a volume of four segments and one
/// of two columns, both damaged. `None` where loop devices are not to be had.
fn guest() -> Option<Lab> {
    if !is_root() {
        return None;
    }
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    lab.sh("truncate -s 24M pv0.img pv1.img");
    {
        let loops = DISKS.map(|name| Loop::attach(&lab, "", name));
        lab.lvm(
            &loops.iter().collect::<Vec<_>>(),
            &[
                "pvcreate -q @0 @1",
                "vgcreate -q -s 1m lvg1 @0 @1",
                "lvcreate -q -an -Zn -Wn -n home -l 5 lvg1 @0:0-4",
                "lvextend -q -l +3 lvg1/home @1:2-4",
                "lvextend -q -l +4 lvg1/home @0:6-9",
                "lvextend -q -l +4 lvg1/home @1:6-9",
                "lvcreate -q -an -Zn -Wn -n data -l 16 -i 2 -I 64k lvg1 @0:10-17 @1:10-17",
            ],
        );
    }
    scatter(&lab, "bad.img", &segments());
    scatter(&lab, "bad.img", &stripes());
    lab.sh("qemu-img convert -f raw -O qcow2 pv1.img pv1.qcow2; rm pv1.img");
    Some(lab)
}

const IMAGES: &str = "-a pv0.img -a pv1.qcow2";

/// What the checker alone makes of each volume, put together without virt-fsck.
fn both_are_repaired(lab: &Lab) {
    lab.sh("qemu-img check -q pv1.qcow2; qemu-img convert -f qcow2 -O raw pv1.qcow2 pv1.img");
    for layout in [segments(), stripes()] {
        gather(lab, &layout, "back.img");
        assert_eq!(lab.checksum("back.img"), lab.checksum("bad.img.repaired"));
        lab.sh("e2fsck -fn back.img");
    }
}

#[test]
fn volumes_in_pieces_are_checked_and_repaired() {
    let Some(lab) = guest() else { return };
    for engine in ["user", "auto"] {
        let found = lab.look(&format!("-n --engine {engine} {IMAGES}"));
        found.is(
            4,
            &[
                ("sda/lvg1/home", "errors-left"),
                ("sda/lvg1/data", "errors-left"),
            ],
        );
        let home = found.layer("sda/lvg1/home");
        assert_eq!(home["extents"].as_array().unwrap().len(), 4, "{found}");
        assert_eq!(home["result"]["checker"], "e2fsck");
    }
    lab.repair(&format!("-y --engine user {IMAGES}")).is(
        1,
        &[
            ("sda/lvg1/home", "corrected"),
            ("sda/lvg1/data", "corrected"),
        ],
    );
    both_are_repaired(&lab);
    lab.look(&format!("-n --engine user {IMAGES}"))
        .is(0, &[("sda/lvg1/home", "clean"), ("sda/lvg1/data", "clean")]);
}

#[test]
fn a_plain_user_has_his_volumes_in_pieces_repaired() {
    let Some(lab) = guest() else { return };
    lab.sh("chmod 755 .; chmod 1777 run state; chmod 777 .; chown 65534 pv0.img pv1.qcow2");
    let as_user = |words: &str| {
        lab.virt_fsck(&format!("{words} {IMAGES}"))
            .with_fuse_for_all()
            .as_user(65534)
            .in_a_namespace_that_stays()
    };
    let found = as_user("-n").changing_nothing();
    found.is(4, &[("sda/lvg1/home", "errors-left")]);
    assert!(!found.stderr.contains("fuse"), "{found}");
    let repaired = as_user("-y").changing_images();
    repaired.is(
        1,
        &[
            ("sda/lvg1/home", "corrected"),
            ("sda/lvg1/data", "corrected"),
        ],
    );
    assert!(!repaired.stderr.contains("fuse"), "{repaired}");
    both_are_repaired(&lab);
}

/// What a program sees that opens the file, through the eyes of a checker that tries things out.
#[test]
fn the_file_is_as_a_disk() {
    let Some(lab) = guest() else { return };
    lab.script(
        "tools/e2fsck",
        r#"shift; for file; do :; done
        set -e
        exec >"$0.said" 2>&1
        [[ $file == */run/virt-fsck/* || $file == /run/virt-fsck/* ]]
        stat -c '%F %a %s %u' "$file"
        ls "${file%/*}"
        ! truncate -s 1M "$file"
        ! truncate -s 32M "$file"
        ! chmod 644 "$file"
        # Past the end, and over it.
        ! dd if=/dev/zero of="$file" bs=1M seek=16 count=1 conv=notrunc
        ! dd if=/dev/zero of="$file" bs=3M seek=5 count=1 conv=notrunc,fsync iflag=fullblock oflag=direct
        # Several pieces at once, with and without the page cache.
        head -c 16M /dev/urandom >"$0.random"
        dd if="$0.random" of="$file" bs=3M conv=notrunc,fsync
        cmp "$0.random" "$file"
        dd if="$file" of="$0.direct" bs=5M iflag=direct
        cmp "$0.random" "$0.direct"
        dd if="$0.direct" of="$file" bs=1M conv=notrunc oflag=direct,dsync
        cmp "$0.random" "$file"
        # Holes read as zeros.
        fallocate --punch-hole --offset 4M --length 5M "$file"
        cmp --ignore-initial=4M --bytes=5M "$file" /dev/zero
        cmp --bytes=4M "$0.random" "$file"
        cmp --ignore-initial=9M "$0.random" "$file"
        fallocate --zero-range --offset 9M --length 1M "$file"
        cmp --ignore-initial=4M --bytes=6M "$file" /dev/zero
        ! fallocate --length 1M "$file"
        # As many at a time as like to.
        for part in {0..15}; do
            dd if="$file" of=/dev/null bs=64k skip=$((part * 16)) count=16 iflag=direct &
        done
        wait
        dd if="$0.random" of="$file" bs=1M conv=notrunc,fsync
        echo done"#,
    );
    let words = format!("-y --engine user --filesystem sda/lvg1/home {IMAGES}");
    let run = || lab.virt_fsck(&words).tools_in("tools").changing_images();
    let outcome = run();
    let said = std::fs::read_to_string(lab.file("tools/e2fsck.said")).unwrap();
    assert!(said.ends_with("done\n"), "{said} {outcome}");
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("regular file 600 16777216 0"), "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    assert!(said.contains("Operation not permitted"), "{said}");
    outcome.is(0, &[("sda/lvg1/home", "clean")]);
    // All of it is in the images now.
    lab.sh("qemu-img convert -f qcow2 -O raw pv1.qcow2 pv1.img");
    gather(&lab, &segments(), "back.img");
    lab.sh("cmp back.img tools/e2fsck.random");
}

/// Somebody else who has the file open keeps neither the mount nor the run.
#[test]
fn a_file_that_is_still_open_is_taken_back() {
    let Some(lab) = guest() else { return };
    lab.script(
        "tools/e2fsck",
        "for file; do :; done\n\
         env -u E2E_RUN setsid sh -c 'exec 3<\"$1\"; touch open; sleep 3; \
             { cat <&3 >/dev/null; } 2>still' sh \"$file\" >/dev/null 2>&1 &\n\
         while ! test -e open; do sleep 0.1; done\n\
         exit 0\n",
    );
    let words = format!("-y --engine user --filesystem sda/lvg1/home {IMAGES}");
    let outcome = lab.virt_fsck(&words).tools_in("tools").changing_images();
    outcome.is(0, &[("sda/lvg1/home", "clean")]);
    for _ in 0..100 {
        if lab.file("still").exists() && !lab.sh("cat still").is_empty() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("it could still read");
}

#[test]
fn an_overlay_without_room_is_told() {
    let Some(lab) = guest() else { return };
    // Both disks get an overlay; the room is for their metadata and little more.
    lab.script(
        "tools/e2fsck",
        "shift; for file; do :; done\n\
         dd if=/dev/urandom of=\"$file\" bs=1M count=8 conv=notrunc >said.log 2>&1 && exit 0\n\
         exit 8\n",
    );
    let outcome = lab
        .virt_fsck(&format!(
            "-n --engine user --filesystem sda/lvg1/home {IMAGES}"
        ))
        .tools_in("tools")
        .after("mount -t tmpfs -o size=3M none state")
        .changing_nothing();
    let said = lab.sh("cat said.log");
    assert!(said.contains("No space left on device"), "{said}");
    outcome
        .is(8, &[("sda/lvg1/home", "failed")])
        .says("sda/lvg1/home", &["ran out of space", "--state-dir"]);
}

/// What it had written may be lost, and the run goes on to its end.
#[test]
fn a_storage_daemon_that_dies_is_told() {
    let Some(lab) = guest() else { return };
    lab.script(
        "tools/e2fsck",
        "kill -KILL $(pgrep -P $PPID -x qemu-storage-da)\nsleep 0.2\nexit 0\n",
    );
    let words = format!("-y --engine user --filesystem sda/lvg1/home {IMAGES}");
    let run = lab.virt_fsck(&words).tools_in("tools").start();
    let output = run.child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(8), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("panicked"), "{stderr}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        stdout.contains("the last writes to the disks failed"),
        "{stdout}"
    );
}

/// After SIGKILL: root's mount goes with its namespace; a plain user's stays until a later run, and
/// nothing else does.
#[test]
fn after_kill_9_recover_leaves_nothing() {
    let Some(lab) = guest() else { return };
    lab.script("tools/e2fsck", "touch started\nexec sleep 60\n");
    let words = format!("-y --engine user {IMAGES}");
    let mut running = lab.virt_fsck(&words).tools_in("tools").start();
    running.wait_for("started");
    let left = running.kill();
    assert!(
        left.iter().any(|name| name.ends_with("/ledger")),
        "{left:?}"
    );
    let next = lab.look(&format!("-n --engine user {IMAGES}"));
    assert!(next.stderr.contains("which was killed"), "{next}");
    next.is(4, &[("sda/lvg1/home", "errors-left")]);

    lab.sh("rm started; chmod 777 .; chmod 1777 run state; chown 65534 pv0.img pv1.qcow2");
    lab.write("words", &words);
    lab.sh(&format!(
        "cp {binary} virt-fsck.copy; chmod 755 virt-fsck.copy\n\
         unshare --mount bash -eu <<'END'\n\
         mount -t tmpfs -o mode=755 none /mnt; mknod -m 666 /mnt/fuse c 10 229\n\
         mount --bind /mnt/fuse /dev/fuse; umount /mnt\n\
         user='setpriv --reuid=65534 --regid=65534 --clear-groups env XDG_RUNTIME_DIR='$PWD/run\n\
         PATH=$PWD/tools:$PATH $user ./virt-fsck.copy --state-dir $PWD/state $(cat words) \\\n\
             >said.log 2>&1 </dev/null &\n\
         while ! test -e started; do sleep 0.1; done\n\
         kill -KILL $!; wait $! || test $? = 137\n\
         grep -F ' fuse' /proc/self/mountinfo | grep -F \"$PWD\" >mounts.log\n\
         $user ./virt-fsck.copy recover >recovered.log\n\
         ! grep -F \"$PWD/run\" /proc/self/mountinfo\n\
         END",
        binary = crate::support::binary::virt_fsck(),
    ));
    assert!(lab.sh("cat recovered.log").contains("which was killed"));
    assert_eq!(lab.sh("find run state -mindepth 1 -type f"), "");
    assert_eq!(lab.sh("find run -mindepth 2"), "");
}

#[test]
fn a_plan_says_what_no_command_does() {
    let Some(lab) = guest() else { return };
    let plan = |words: &str| {
        let run = lab.virt_fsck(&format!("--dry-run {words} --engine user {IMAGES}"));
        let outcome = run.plain().changing_nothing();
        assert_eq!(outcome.status, Some(0), "{outcome}");
        outcome.stdout
    };
    let text = plan("-n");
    for line in [
        "# virt-fsck itself serves its 4 pieces as one FILE of 16777216 bytes over FUSE, over \
         overlays that are thrown away;",
        "#   5242880 bytes of FILE from byte 0: from byte 1048576 of the disk in",
        "#   3145728 bytes of FILE from byte 5242880: from byte 3145728 of the disk in",
        "#   16777216 bytes of FILE from byte 0: in turns of 65536 bytes",
        "#     from byte 11534336 of the disk in",
        "# e2fsck -f -n FILE",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(plan("-y").contains("# e2fsck -f -y FILE"));
}
