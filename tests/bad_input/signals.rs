//! Runs that are stopped.

use rustix::process::Signal;

use crate::support::lab::{Lab, is_root};

/// An e2fsck that has written and is not done: the same bytes again, then nothing for long.
const SLOW: &str = "for image; do :; done\n\
    dd if=$image of=$image bs=1k skip=1 seek=1 count=1 conv=notrunc status=none\n\
    touch started\n\
    sleep 600 &\n\
    trap 'kill $!; exit 32' TERM INT\n\
    wait\n";

fn lab() -> Lab {
    let lab = Lab::new();
    lab.script("tools/e2fsck", SLOW);
    lab.damaged_ext4("bad.img");
    lab.sh("qemu-img create -q -f qcow2 disk.qcow2 64M\n\
         truncate -s 64M disk.img; sfdisk -q disk.img <<'END'\n\
         label: gpt\nstart=2048, size=32768\nstart=65536, size=32768\nEND");
    lab.put("bad.img", "disk.img", 2048);
    lab.put("bad.img", "disk.img", 65536);
    lab.sh("qemu-img convert -f raw -O qcow2 disk.img disk.qcow2");
    lab
}

#[test]
fn a_signal_ends_the_check_and_everything_is_closed() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        for mode in ["-n", "-y"] {
            let lab = lab();
            let mut running = lab
                .virt_fsck(&format!("{mode} -a disk.qcow2"))
                .tools_in("tools")
                .start();
            running.wait_for("started");
            running.signal(signal);
            let outcome = running.finish();
            outcome.is(32, &[("sda/p1", "interrupted"), ("sda/p2", "interrupted")]);
            lab.sh("qemu-img check -q disk.qcow2; qemu-img convert -f qcow2 -O raw disk.qcow2 back.img");
            assert_eq!(lab.checksum("back.img"), lab.checksum("disk.img"));
        }
    }
}

#[test]
fn two_signals_are_one() {
    let lab = lab();
    let mut running = lab.virt_fsck("-y -a disk.qcow2").tools_in("tools").start();
    running.wait_for("started");
    running.signal(Signal::INT);
    running.signal(Signal::TERM);
    running.signal(Signal::INT);
    running.finish().is(32, &[("sda/p1", "interrupted")]);
}

#[test]
fn after_kill_9_the_storage_daemon_ends_by_itself() {
    if !is_root() {
        return;
    }
    for mode in ["-n", "-y"] {
        let lab = lab();
        let mut running = lab
            .virt_fsck(&format!("{mode} -a disk.qcow2"))
            .tools_in("tools")
            .start();
        running.wait_for("started");
        let left = running.kill();
        // Folders, empty files, the ledger and claims that nobody has, that is all.
        for name in &left {
            let metadata = std::fs::metadata(lab.file(name)).unwrap();
            let harmless = metadata.is_dir()
                || metadata.len() == 0
                || name.ends_with("/ledger")
                || name.starts_with("run/virt-fsck.claims/");
            assert!(harmless, "{left:?}");
        }
        assert!(
            left.iter().any(|name| name.ends_with("/ledger")),
            "{left:?}"
        );
        lab.sh(
            "qemu-img check -q disk.qcow2; qemu-img info disk.qcow2 | { ! grep 'corrupt: true'; }",
        );
        lab.sh("qemu-img convert -f qcow2 -O raw disk.qcow2 back.img");
        assert_eq!(lab.checksum("back.img"), lab.checksum("disk.img"));
        // The next run cleans up first: it would fail here if anything were left.
        let next = lab.look("-n -a disk.qcow2");
        assert!(next.stderr.contains("which was killed"), "{next}");
        next.is(4, &[("sda/p1", "errors-left"), ("sda/p2", "errors-left")]);
    }
}

#[test]
fn after_kill_9_a_plain_user_has_no_mount_left() {
    if !is_root() {
        return;
    }
    let lab = lab();
    lab.sh("chmod 755 .; chmod 1777 run state; chmod 777 .; chown 65534 disk.qcow2");
    let mut running = lab
        .virt_fsck("-y -a disk.qcow2")
        .tools_in("tools")
        .with_fuse_for_all()
        .as_user(65534)
        .in_a_namespace_that_stays()
        .start();
    running.wait_for("started");
    lab.sh(&format!(
        "pkill -KILL -P {} -x virt-fsck",
        running.child.id()
    ));
    let output = running.child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(137), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("fuse"), "{stderr}");
    lab.sh("qemu-img check -q disk.qcow2");
}

#[test]
fn a_checker_that_dies_is_not_clean() {
    let lab = lab();
    for (how, words) in [
        ("kill -SEGV $$", "signal 11"),
        ("kill -KILL $$", "signal 9"),
        ("exit 8", "8"),
        ("exit 16", "16"),
        ("exit 128", "128"),
    ] {
        lab.script("tools/e2fsck", how);
        for mode in ["-n", "-y"] {
            let outcome = lab
                .virt_fsck(&format!("{mode} -a disk.qcow2"))
                .tools_in("tools")
                .changing_nothing();
            outcome
                .is(8, &[("sda/p1", "failed"), ("sda/p2", "failed")])
                .says("sda/p1", &["e2fsck", words]);
        }
    }
}

#[test]
fn a_storage_daemon_that_dies_is_told() {
    let lab = lab();
    lab.script(
        "tools/e2fsck",
        "kill -KILL $(pgrep -P $PPID -x qemu-storage-da)\nsleep 0.2\nexit 0\n",
    );
    let outcome = lab
        .virt_fsck("-n -a disk.qcow2")
        .tools_in("tools")
        .start()
        .child
        .wait_with_output()
        .unwrap();
    assert_eq!(outcome.status.code(), Some(8), "{outcome:?}");
    let stderr = String::from_utf8_lossy(&outcome.stderr);
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn a_storage_daemon_that_crashes_after_all_is_closed_loses_nothing() {
    let lab = lab();
    lab.script("tools/e2fsck", "exit 0\n");
    lab.script(
        "tools/qemu-storage-daemon",
        "/usr/bin/qemu-storage-daemon \"$@\"\nkill -SEGV $$\n",
    );
    let run = lab.virt_fsck("-n -a disk.qcow2").tools_in("tools");
    let outcome = run.changing_nothing();
    outcome.is(0, &[("sda/p1", "clean"), ("sda/p2", "clean")]);
    let told = "(SIGSEGV) and said nothing; all images were closed before";
    assert!(outcome.stderr.contains(told), "{outcome}");
}
