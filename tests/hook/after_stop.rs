//! The check that is queued when a guest has stopped.

use std::time::{Duration, Instant};

use crate::place::{Place, UUID};
use crate::support;

const AFTER: &str = "check-after-stop = true\n";

const LIMIT: Duration = Duration::from_secs(30);

fn place() -> Option<Place> {
    let place = Place::new(AFTER)?;
    place.damaged();
    Some(place)
}

fn release(reason: &str) -> [&str; 4] {
    ["vm1", "release", "end", reason]
}

/// A systemd-run that writes down how it was called.
fn with_systemd(place: &Place, script: &str) {
    let folder = place.lab.path().display();
    place.lab.write("systemd", "");
    place.lab.script(
        "tools/systemd-run",
        &format!("printf '%s\\n' \"$@\" >>{folder}/queued.log; echo loud; {script}\n"),
    );
}

fn queued(place: &Place) -> Option<String> {
    let log = place.lab.file("queued.log");
    let text = std::fs::read_to_string(&log).ok();
    let _gone = std::fs::remove_file(log);
    text
}

#[test]
fn systemd_takes_it_over() {
    let Some(place) = place() else { return };
    with_systemd(&place, "");
    for reason in [
        "-",
        "shutdown",
        "destroyed",
        "crashed",
        "from snapshot",
        "daemon",
    ] {
        place.leaves(&release(reason));
        let words = queued(&place).unwrap();
        let words: Vec<&str> = words.lines().collect();
        let (options, command) = words.split_at(7);
        let unit = format!("--unit=virt-fsck-after-stop-{UUID}");
        for option in ["--no-block", "--collect", "--on-active=3", &unit] {
            assert!(options.contains(&option), "{words:?}");
        }
        assert_eq!(options.last(), Some(&"--"));
        assert!(command[0].ends_with("/virt-fsck"), "{words:?}");
        assert_eq!(command[1..], ["-c", "qemu:///system", "-d", UUID, "-q"]);
    }
    for reason in ["migrated", "saved", "failed", "unknown", "tomorrow"] {
        place.leaves(&release(reason));
        assert_eq!(queued(&place), None, "{reason}");
    }
    for call in ["started", "stopped", "prepare"] {
        place.leaves(&["vm1", call, "begin", "-"]);
    }
    assert_eq!(queued(&place), None);
}

#[test]
fn a_guest_that_did_not_end_here_is_not_checked() {
    let Some(place) = place() else { return };
    with_systemd(&place, "");
    for (incoming, ended) in [
        // A migration that fails after its QEMU has started, where libvirt does not tell why.
        (&["migrate", "prepare", "start", "started"][..], "-"),
        (&["migrate", "prepare", "start", "started"], "destroyed"),
        (&["migrate", "prepare"], "-"),
        (&["restore", "prepare", "start"], "-"),
    ] {
        for operation in incoming {
            place.leaves(&["vm1", operation, "begin", "-"]);
        }
        place.leaves(&release(ended));
        assert_eq!(queued(&place), None, "{incoming:?}");
    }
    for (incoming, ended) in [
        (&["migrate", "prepare", "start", "started"][..], "shutdown"),
        (&["restore", "prepare", "start", "started"], "-"),
        (&["prepare", "start", "started"], "-"),
    ] {
        for operation in incoming {
            place.leaves(&["vm1", operation, "begin", "-"]);
        }
        place.leaves(&release(ended));
        assert!(queued(&place).is_some(), "{incoming:?}");
    }
}

#[test]
fn it_is_not_asked_for() {
    let Some(place) = Place::new("") else { return };
    place.damaged();
    with_systemd(&place, "");
    place.leaves(&release("shutdown"));
    assert_eq!(queued(&place), None);
}

/// Without systemd, or with one that does not take it: a process that outlives the call. There is no libvirt
/// here, so what it has to say is that.
#[test]
fn else_it_runs_by_itself() {
    for has_systemd in [false, true] {
        let Some(place) = place() else { return };
        if has_systemd {
            with_systemd(&place, "exit 1");
        }
        let begun = Instant::now();
        place.leaves(&release("-"));
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "it was waited for"
        );
        assert_eq!(queued(&place).is_some(), has_systemd);
        let output = place.lab.file(&format!("run/virt-fsck.after-stop/{UUID}"));
        let text = loop {
            let text = std::fs::read_to_string(&output).unwrap();
            if text.ends_with('\n') {
                break text;
            }
            assert!(begun.elapsed() < LIMIT, "{text}");
            std::thread::sleep(Duration::from_millis(50));
        };
        assert!(begun.elapsed() > Duration::from_secs(3), "it went first");
        assert!(text.contains("qemu:///system"), "{text}");
        assert!(support::binary::virt_fsck().ends_with("virt-fsck"));
    }
}
