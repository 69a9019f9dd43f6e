//! The check of a guest that boots.

use std::time::{Duration, Instant};

use crate::place::{PREPARE, Place};
use crate::support::lab::Loop;
use crate::support::run::Helper;

const ALWAYS: &str = "check-before-start = \"always\"\n";
const DUE: &str = "check-before-start = \"due\"\n";

/// Nothing of a run is left, but for the empty folder of claims.
fn nothing_is_left(place: &Place) {
    assert_eq!(
        place
            .lab
            .sh("find run -mindepth 1 -not -name virt-fsck.claims"),
        ""
    );
}

#[test]
fn what_can_be_mended_is_mended_and_the_guest_starts() {
    let Some(place) = Place::new(ALWAYS) else {
        return;
    };
    place.damaged();
    assert!(!place.is_sound());
    place.call(&PREPARE).passes();
    assert!(place.is_sound());
    place
        .lab
        .sh("cp filesystem alone; e2fsck -fp alone || test $? = 1; cmp alone after");
    nothing_is_left(&place);
}

#[test]
fn errors_that_are_left_keep_the_guest_off() {
    let Some(place) = Place::new(ALWAYS) else {
        return;
    };
    place.lab.damaged_ext4("filesystem");
    place.disk("filesystem");
    place.call(&PREPARE).refuses(&[
        "virt-fsck: start refused: vda (ext4) of vm1 has errors",
        "virt-fsck -d vm1 -y",
    ]);
    nothing_is_left(&place);
    place.lab.sh("rm disk.qcow2");
    place.disk("filesystem.repaired");
    place.call(&PREPARE).passes();
}

#[test]
fn nothing_is_checked_unless_it_is_asked_for() {
    for settings in [
        "",
        "check-before-start = \"never\"\n",
        "check-before-start = \"often\"\n",
    ] {
        let Some(place) = Place::new(settings) else {
            return;
        };
        place.damaged();
        place.leaves(&PREPARE);
        nothing_is_left(&place);
    }
}

#[test]
fn what_cannot_be_checked_starts_all_the_same() {
    let Some(place) = Place::new(ALWAYS) else {
        return;
    };
    place.damaged();
    place.lab.script("tools/e2fsck", "echo loud; exit 8\n");
    place.leaves(&PREPARE);
    place.lab.sh("rm disk.qcow2");
    place.call(&PREPARE).passes();
    nothing_is_left(&place);
}

#[test]
fn only_what_is_due_is_checked() {
    let Some(place) = Place::new(DUE) else { return };
    place.lab.script(
        "tools/e2fsck",
        "echo \"$@\" >>checked.log; exec /sbin/e2fsck \"$@\"\n",
    );
    let is_checked = |debugfs: &str| {
        place.lab.ext4("filesystem");
        // All that mke2fs made is from this moment, or has no moment.
        place.lab.sh(&format!(
            "rm -f checked.log disk.qcow2; tune2fs -c 10 -C 3 -i 30d -T now filesystem\n{debugfs}"
        ));
        place.disk("filesystem");
        place.call(&PREPARE).passes();
        nothing_is_left(&place);
        place.lab.file("checked.log").exists()
    };
    assert!(!is_checked(""));
    assert!(is_checked("tune2fs -C 10 filesystem"));
    assert!(is_checked("tune2fs -T 20200101 filesystem"));
    assert!(!is_checked("tune2fs -i 0 -T 20200101 filesystem"));
    assert!(is_checked("debugfs -w -R 'ssv state 2' filesystem"));
    assert!(is_checked(
        "debugfs -w -R 'feature needs_recovery' filesystem"
    ));
    place.lab.write(
        "etc/virt-fsck.toml",
        format!("[hook]\n{DUE}max-age = \"5d\"\n"),
    );
    assert!(!is_checked(""));
    assert!(is_checked(
        "tune2fs -i 0 -T $(date -d '6 days ago' +%Y%m%d) filesystem"
    ));
}

#[test]
fn a_guest_that_may_go_on_with_memory_is_not_touched() {
    let Some(place) = Place::new(ALWAYS) else {
        return;
    };
    place.damaged();
    place.lab.write("libvirt/save/vm1.save", "");
    place.leaves(&PREPARE);
    place
        .lab
        .sh("rm libvirt/save/vm1.save; mkdir libvirt/snapshot/vm1");
    let snapshot = |memory: &str| {
        format!("<domainsnapshot><name>1</name><memory snapshot='{memory}'/></domainsnapshot>\n")
    };
    for memory in ["internal", "external"] {
        place
            .lab
            .write("libvirt/snapshot/vm1/1.xml", snapshot(memory));
        place.leaves(&PREPARE);
    }
    place
        .lab
        .write("libvirt/snapshot/vm1/1.xml", snapshot("no"));
    place.call(&PREPARE).passes();
    assert!(place.is_sound());
}

/// Another host may have it mounted, which nothing here tells.
#[test]
fn a_shareable_disk_is_not_touched() {
    let Some(place) = Place::new(ALWAYS) else {
        return;
    };
    place.damaged();
    let disk = |more: &str| {
        place.lab.domain(&[&format!(
            "type='file'|<driver type='qcow2'/><source file='@/disk.qcow2'/>{more}"
        )]);
    };
    disk("<shareable/>");
    place.leaves(&PREPARE);
    disk("");
    place.call(&PREPARE).passes();
    assert!(place.is_sound());
}

#[test]
fn a_disk_that_another_process_has_open_is_not_touched() {
    let Some(place) = Place::new(ALWAYS) else {
        return;
    };
    place.damaged();
    place.lab.sh("cp filesystem raw");
    let device = Loop::attach(&place.lab, "", "raw");
    place.lab.domain(&[&format!(
        "type='block'|<driver type='raw'/><source dev='{}'/>",
        device.device
    )]);
    // As QEMU in libvirt's namespace has it: by another node, without a lock that is seen here.
    place.lab.sh(&format!(
        "mknod node b $(stat -c '0x%t 0x%T' {})",
        device.device
    ));
    let sum = || place.lab.checksum("raw");
    let before = sum();
    let mut sleep = place.lab.command("bash");
    sleep.args(["-c", "exec 9<>node; touch open.log; exec sleep 60"]);
    let other = Helper::start(&mut sleep);
    other.wait_for(&place.lab, "open.log");
    place.call(&PREPARE).passes();
    assert_eq!(sum(), before);
    drop(other);
    place.call(&PREPARE).passes();
    assert_ne!(sum(), before);
}

#[test]
fn the_start_waits_no_longer_than_it_may() {
    let Some(place) = Place::new(&format!("{ALWAYS}time-budget = \"1s\"\n")) else {
        return;
    };
    place.damaged();
    place.lab.script(
        "tools/e2fsck",
        "sleep 600 &\ntrap 'kill $!; echo stopped >stopped.log; exit 32' TERM\nwait\n",
    );
    let begun = Instant::now();
    place.leaves(&PREPARE);
    let time = begun.elapsed();
    assert!(place.lab.file("stopped.log").exists());
    assert!(time > Duration::from_secs(1), "{time:?}");
    assert!(time < Duration::from_secs(20), "{time:?}");
    nothing_is_left(&place);
}
