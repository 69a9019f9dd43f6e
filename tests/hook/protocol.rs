//! Calls that need no check: their answers, how fast they come, and the claim.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use virt_fsck::engine::user::nodes::Access;
use virt_fsck::folders;
use virt_fsck::guard::claim::{Claim, Claimed};
use virt_fsck::reach::identity;

use crate::place::{Said, hook};
use crate::support;
use crate::support::lab::Lab;

/// How long an answer may take on the busiest of machines; a fast one is given in 50 ms.
const LIMIT: Duration = Duration::from_secs(2);

const CALLS: [[&str; 3]; 19] = [
    ["prepare", "begin", "-"],
    ["start", "begin", "-"],
    ["started", "begin", "-"],
    ["stopped", "end", "-"],
    ["stopped", "end", "shutdown"],
    ["release", "end", "-"],
    ["release", "end", "unknown"],
    ["release", "end", "shutdown"],
    ["release", "end", "destroyed"],
    ["release", "end", "crashed"],
    ["release", "end", "migrated"],
    ["release", "end", "saved"],
    ["release", "end", "failed"],
    ["release", "end", "from snapshot"],
    ["release", "end", "daemon"],
    ["reconnect", "begin", "-"],
    ["attach", "begin", "-"],
    ["tomorrow", "begin", "-"],
    ["", "", ""],
];

fn call(words: &[&str], xml: &str) -> (Said, Duration) {
    let lab = Lab::new();
    let xml = std::fs::File::open(lab.write("xml", xml)).unwrap();
    let binary = support::binary::virt_fsck();
    let mut command = hook(&binary, &[&["hook"], words].concat());
    command
        .env("XDG_RUNTIME_DIR", lab.file("run"))
        .env("HOME", lab.path())
        .stdin(Stdio::from(xml));
    let begun = Instant::now();
    let said = Said::of(command);
    (said, begun.elapsed())
}

fn xml(uuid: &str) -> String {
    let disk = "<disk type='file'><driver type='raw'/><source file='/nowhere'/>\
                <target dev='vda'/></disk>";
    format!(
        "<domain type='kvm'><name>hook-of-virt-fsck</name><uuid>{uuid}</uuid><memory>1</memory>\
         <os><type>hvm</type></os><devices>{}</devices></domain>",
        disk.repeat(8)
    )
}

fn random_uuid() -> String {
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
    uuid.trim().to_owned()
}

#[test]
fn every_call_passes_without_a_word_and_at_once() {
    let described = xml(&random_uuid());
    let mut slowest = Duration::ZERO;
    for xml in [described.as_str(), "", "<domain", "not XML", "<network/>"] {
        for [operation, suboperation, extra] in CALLS {
            let words = ["hook-of-virt-fsck", operation, suboperation, extra];
            let (said, time) = call(&words, xml);
            said.passes();
            assert!(time < LIMIT, "{words:?}: {time:?}");
            slowest = slowest.max(time);
        }
    }
    eprintln!("the slowest answer of the hook took {slowest:?}");
}

#[test]
fn odd_words_pass() {
    for words in [
        &["a", "b", "c", "d", "e", "f"][..],
        &["a"],
        &["vm1", "prepare"],
        &["vm1", "--help"],
        &["--help", "prepare", "begin", "-"],
        &["--version", "prepare", "begin", "-"],
        &["-n", "reconnect", "begin", "-"],
        &["--install", "release", "end", "-"],
        &["--", "prepare", "begin", "-"],
        &["", "", "", ""],
        &["--no-such-option", "x", "y", "z", "z"],
    ] {
        let (said, _) = call(words, "");
        said.passes();
    }
    use std::os::unix::ffi::OsStrExt;
    let mut command = Command::new(support::binary::virt_fsck());
    command
        .args(["hook".as_ref(), std::ffi::OsStr::from_bytes(b"\xff\xfe")])
        .args(["prepare", "begin", "-"])
        .stdin(Stdio::null());
    Said::of(command).passes();
}

#[test]
fn a_person_is_told_what_is_wrong() {
    let (said, _) = call(&[], "");
    assert_eq!(
        (said.status, said.stdout.as_str()),
        (Some(16), ""),
        "{said:?}"
    );
    let (said, _) = call(&["--install", "--uninstall"], "");
    assert_eq!(said.status, Some(16), "{said:?}");
    let (said, _) = call(&["--help"], "");
    assert!(said.stdout.contains("--uninstall"), "{said:?}");
}

/// The claim lies where the host's runs have theirs, under a UUID that no guest has.
#[test]
fn a_guest_that_is_worked_on_does_not_start() {
    let uuid = random_uuid();
    let described = xml(&uuid);
    let lab = Lab::new();
    let base = match rustix::process::geteuid().is_root() {
        true => folders::run_base(),
        false => lab.file("run"),
    };
    let call = |operation: &str, suboperation: &str, extra: &str, xml: &str| {
        let xml = std::fs::File::open(lab.write("xml", xml)).unwrap();
        let words = ["hook", "a\u{202e}b", operation, suboperation, extra];
        let mut command = hook(&support::binary::virt_fsck(), &words);
        command
            .env("XDG_RUNTIME_DIR", lab.file("run"))
            .stdin(Stdio::from(xml));
        Said::of(command)
    };
    call("prepare", "begin", "-", &described).passes();
    let claimed = Claimed::Domain(uuid.parse().unwrap());
    let claim = Claim::take(&base, claimed, Access::Write, "vm1").unwrap();
    let us = format!("another virt-fsck (process {})", std::process::id());
    call("prepare", "begin", "-", &described).refuses(&[
        "virt-fsck: start refused: ",
        &us,
        r"works on the disks of a\u{202e}b;",
        "when that has ended",
    ]);
    for [operation, suboperation, extra] in CALLS {
        if operation != "prepare" {
            call(operation, suboperation, extra, &described).passes();
        }
    }
    call("prepare", "begin", "-", &xml(&random_uuid())).passes();
    call("prepare", "begin", "-", "unreadable").passes();
    drop(claim);
    call("prepare", "begin", "-", &described).passes();

    // Another domain's run works on the image of a disk.
    let image = lab.write("image", "x");
    let path = image.display();
    let disk = |inside: &str| {
        let disk = format!(
            "<devices><disk type='file'><source file='{path}'/><target dev='vda'/>{inside}</disk>\
             </devices></domain>"
        );
        xml(&random_uuid()).replace("</domain>", &disk)
    };
    let claimed = Claimed::Image(identity::identify(&image).unwrap().0);
    let read = Claim::take(&base, claimed, Access::ReadOnly, "image").unwrap();
    call("prepare", "begin", "-", &disk("")).refuses(&["start refused: ", &us]);
    call("prepare", "begin", "-", &disk("<readonly/>")).passes();
    drop(read);
    let written = Claim::take(&base, claimed, Access::Write, "image").unwrap();
    call("prepare", "begin", "-", &disk("<readonly/>")).refuses(&["start refused: ", &us]);
    drop(written);
    call("prepare", "begin", "-", &disk("")).passes();
}
