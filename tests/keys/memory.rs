//! What another process gets to see of virt-fsck's memory.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::binary;
use crate::support::lab::{Lab, is_root};
use crate::until;

/// Runs it with no bound to a core dump, and it waits for its input.
fn waiting(lab: &Lab, program: &str) -> Child {
    let script = format!("ulimit -c unlimited; exec {program}");
    lab.command("bash")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn of_proc(child: &Child, name: &str) -> String {
    std::fs::read_to_string(format!("/proc/{}/{name}", child.id())).unwrap()
}

/// It is virt-fsck, and it has come to its input.
fn has_begun(child: &Child) -> bool {
    of_proc(child, "comm").starts_with("virt-fsck")
        && ["pipe_read", "anon_pipe_read"].contains(&of_proc(child, "wchan").as_str())
}

fn locked(child: &Child) -> u64 {
    let status = of_proc(child, "status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
    let number = line.unwrap().trim().strip_suffix(" kB").unwrap();
    number.parse().unwrap()
}

fn aborted(mut child: Child) -> ExitStatus {
    let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
    kill_process(pid, Signal::ABORT).unwrap();
    child.wait().unwrap()
}

#[test]
fn there_is_no_core_dump() {
    let lab = Lab::new();
    let other = waiting(&lab, "cat");
    until("cat", || of_proc(&other, "comm") == "cat\n");
    if !aborted(other).core_dumped() {
        eprintln!("SKIPPED: this system dumps no core of any process");
        return;
    }
    let program = format!("'{}' --xml -", binary::virt_fsck());
    let running = waiting(&lab, &program);
    until("virt-fsck", || has_begun(&running));
    let status = aborted(running);
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status}");
    assert!(!status.core_dumped(), "{status}");
}

#[test]
fn its_memory_is_nobody_elses() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    let binary = binary::virt_fsck();
    // Its own folder may be one that a plain user cannot enter.
    lab.sh(&format!(
        "chmod 755 .; cp '{binary}' virt-fsck; chmod 777 run state"
    ));
    let as_user = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let program = "./virt-fsck --xml -";

    let running = waiting(
        &lab,
        &format!("env XDG_RUNTIME_DIR=$PWD/run {as_user} {program}"),
    );
    until("virt-fsck", || has_begun(&running));
    let owner = |name: &str| {
        let path = format!("/proc/{}/{name}", running.id());
        std::fs::metadata(path).unwrap().uid()
    };
    // The kernel gives the files of a process that is not dumpable to root (proc(5)).
    assert_eq!((owner("environ"), owner("mem")), (0, 0));
    let (status, words) = lab.sh_status(&format!("{as_user} cat /proc/{}/environ", running.id()));
    assert_eq!(status, Some(1), "{words}");
    assert!(words.contains("Permission denied"), "{words}");
    // A plain user may lock only so much, and would fail beyond it.
    assert_eq!(locked(&running), 0);
    aborted(running);

    let running = waiting(&lab, program);
    until("virt-fsck", || has_begun(&running));
    assert!(locked(&running) > 0);
    aborted(running);

    // A root of its own little world is a plain user to mlockall.
    let running = waiting(&lab, &format!("unshare --user --map-root-user {program}"));
    until("virt-fsck", || has_begun(&running));
    assert_eq!(locked(&running), 0);
    aborted(running);
}
