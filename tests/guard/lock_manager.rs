//! The locks of virtlockd: a domain of any host that has the same locks keeps us off, and we it.

use std::process::Stdio;

use crate::support::lab::{Lab, Loop, is_root};
use crate::support::outcome::Outcome;
use crate::support::run::{Helper, Run};

/// Locks the first byte of a file as virtlockd does: fcntl(2), for the process.
const LOCK: &str = "import fcntl, os, sys, time\n\
    mode, kind, ready = sys.argv[2:5]\n\
    file = os.open(sys.argv[1], getattr(os, mode) | os.O_CREAT, 0o600)\n\
    fcntl.lockf(file, getattr(fcntl, kind) | fcntl.LOCK_NB, 1, 0)\n\
    open(ready, 'w').close()\n\
    time.sleep(1000)\n";

/// libvirt's own folder, with a lock manager.
fn configure(lab: &Lab, qemu: &str, lockd: &str) {
    lab.sh("mkdir -p libvirt space.log");
    lab.write("libvirt/qemu.conf", format!("# libvirt\n{qemu}\n"));
    let lockd = lockd.replace('@', &lab.path().display().to_string());
    lab.write("libvirt/qemu-lockd.conf", format!("{lockd}\n"));
}

fn run<'l>(lab: &'l Lab, words: &str) -> Run<'l> {
    lab.virt_fsck(words)
        .after("mount --bind libvirt /etc/libvirt")
}

/// A test that needs root and Python, and a folder of libvirt's.
fn lab() -> Option<Lab> {
    if !is_root() {
        return None;
    }
    if !std::path::Path::new("/etc/libvirt").is_dir() {
        eprintln!("SKIPPED: libvirt is not installed");
        return None;
    }
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    lab.write("lock.py.log", LOCK);
    Some(lab)
}

fn hold(lab: &Lab, file: &str, mode: &str, kind: &str) -> Helper {
    lab.sh("rm -f held.log");
    let mut command = lab.command("/usr/bin/python3");
    command.args(["lock.py.log", file, mode, kind, "held.log"]);
    let holder = Helper::start(&mut command);
    holder.wait_for(lab, "held.log");
    holder
}

/// Whether virtlockd would get it now.
fn is_free(lab: &Lab, file: &str, mode: &str) -> bool {
    lab.sh("rm -f tried.log");
    let mut trial = lab
        .command("/usr/bin/python3")
        .args(["lock.py.log", file, mode, "LOCK_EX", "tried.log"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It ends if it does not get the lock, and stays if it does.
    let tried = lab.file("tried.log");
    while trial.try_wait().unwrap().is_none() && !tried.exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    trial.kill().unwrap();
    trial.wait().unwrap();
    tried.exists()
}

fn is_locked(outcome: &Outcome, place: &str) {
    let place = format!("is in use: it is locked by virtlockd ({place})");
    outcome
        .is(64, &[("sda", "refused")])
        .says("sda", &[&place, "for a domain of this host or of another"]);
}

/// The file in the lockspace, by a truth of its own.
fn hashed(lab: &Lab, name: &str) -> String {
    let hash = lab.sh(&format!("printf %s {name} | sha256sum"));
    format!("space.log/{}", hash.split(' ').next().unwrap())
}

const LOCKD: &str = "lock_manager = \"lockd\"";
const SPACE: &str = "file_lockspace_dir = \"@/space.log\"";

#[test]
fn a_lockspace() {
    let Some(lab) = lab() else { return };
    configure(&lab, LOCKD, SPACE);
    lab.sh("ln -s bad.img link");
    let image = lab.file("bad.img").display().to_string();
    let place = hashed(&lab, &image);
    let holder = hold(&lab, &place, "O_RDWR", "LOCK_EX");
    for mode in ["-n", "-p", "-y", "--list", "--dry-run"] {
        for name in ["bad.img", "link"] {
            let words = format!("{mode} -a {name} --image-format raw");
            let outcome = run(&lab, &words).changing_nothing();
            is_locked(&outcome, &lab.file(&place).display().to_string());
        }
    }
    drop(holder);
    let holder = hold(&lab, &place, "O_RDWR", "LOCK_SH");
    let words = "-y -a bad.img --image-format raw";
    is_locked(
        &run(&lab, words).changing_nothing(),
        &lab.file(&place).display().to_string(),
    );
    // Without the lock manager nobody asks for its locks.
    lab.look("-n -a bad.img --image-format raw")
        .is(4, &[("sda", "errors-left")]);
    drop(holder);
    run(&lab, "-n -a bad.img --image-format raw")
        .changing_nothing()
        .is(4, &[("sda", "errors-left")]);
    assert_eq!(lab.sh("ls space.log"), "", "the locks are gone with us");
}

#[test]
fn it_is_held_to_the_end() {
    let Some(lab) = lab() else { return };
    lab.script(
        "tools/e2fsck",
        "touch started.log\nwhile [ ! -e go.log ]; do sleep 0.02; done\n\
         exec /usr/sbin/e2fsck \"$@\"\n",
    );
    let image = lab.file("bad.img").display().to_string();
    for (lockd, place) in [(SPACE, hashed(&lab, &image)), ("", "bad.img".to_owned())] {
        configure(&lab, LOCKD, lockd);
        for mode in ["-n", "-y"] {
            lab.sh("rm -f started.log go.log; cp bad.img saved.log");
            let words = format!("{mode} -a bad.img --image-format raw");
            let mut running = run(&lab, &words).tools_in("tools").start();
            running.wait_for("started.log");
            assert!(!is_free(&lab, &place, "O_RDWR"), "{place} {mode}");
            lab.write("go.log", "");
            let outcome = running.finish();
            outcome.is(if mode == "-n" { 4 } else { 1 }, &[]);
            assert!(is_free(&lab, &place, "O_RDWR"), "{place} {mode}");
            lab.sh("cat saved.log >bad.img; rm -f space.log/*");
        }
    }
}

#[test]
fn the_image_itself() {
    let Some(lab) = lab() else { return };
    configure(&lab, LOCKD, "");
    // As a domain of another host, which has no process here that has it open for writing.
    let holder = hold(&lab, "bad.img", "O_RDONLY", "LOCK_SH");
    let image = lab.file("bad.img").display().to_string();
    for mode in ["-n", "-y"] {
        let words = format!("{mode} -a bad.img --image-format raw");
        is_locked(&run(&lab, &words).changing_nothing(), &image);
    }
    // Several may share a disk that is meant to be shared.
    lab.domain(&["type='file'|<driver type='raw'/><source file='@/bad.img'/><shareable/>"]);
    run(&lab, "-n --xml vm1.xml")
        .changing_nothing()
        .is(4, &[("vda", "errors-left")]);
    drop(holder);
    let looped = Loop::attach(&lab, "", "bad.img");
    let holder = hold(&lab, &looped.device, "O_RDONLY", "LOCK_SH");
    let outcome = run(&lab, &format!("-n -a {}", looped.device)).changing_nothing();
    is_locked(&outcome, &looped.device);
    drop(holder);
    run(&lab, &format!("-y -a {}", looped.device))
        .changing_images()
        .is(1, &[("sda", "corrected")]);
}

#[test]
fn locks_that_cannot_be_taken() {
    let Some(lab) = lab() else { return };
    for (qemu, lockd, reason) in [
        (
            "lock_manager = 'sanlock'",
            "",
            "which only its daemon can take",
        ),
        ("lock_manager = \"dlm\"", "", "this version does not know"),
        (
            LOCKD,
            "file_lockspace_dir = \"@/missing\"",
            "cannot be taken",
        ),
    ] {
        configure(&lab, qemu, lockd);
        let looked = run(&lab, "-n -a bad.img --image-format raw").changing_nothing();
        looked.is(4, &[("sda", "errors-left")]);
        let note = "other hosts were not asked and could not be: ";
        let notes = looked.disks().next().unwrap()["notes"].to_string();
        assert!(notes.contains(note) && notes.contains(reason), "{looked}");
        run(&lab, "-y -a bad.img --image-format raw")
            .changing_nothing()
            .is(64, &[("sda", "refused")])
            .says("sda", &[reason, "--allow shared-nfs"]);
    }
    run(&lab, "-y --allow shared-nfs -a bad.img --image-format raw")
        .changing_images()
        .is(1, &[("sda", "corrected")]);
    assert!(!lab.file("missing").exists());
    // What libvirt itself does not lock.
    configure(
        &lab,
        LOCKD,
        "auto_disk_leases = 0\nfile_lockspace_dir = \"@/missing\"",
    );
    run(&lab, "-y -a bad.img --image-format raw")
        .changing_images()
        .is(0, &[("sda", "clean")]);
}
