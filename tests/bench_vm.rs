//! The scenarios that need a kernel of their own: device-mapper, LVM, udev and mounts, in a machine that
//! `tests/bench-vm/run` boots once for all of them.
#![expect(clippy::print_stderr, reason = "what the scenarios say")]

#[path = "support/binary.rs"]
mod binary;

use std::path::Path;
use std::process::{Command, Stdio};

/// How long the machine may take, in seconds; most of it goes into emulating the processor.
const LIMIT: u32 = 600;

/// What the machine is made of is fetched from Debian and runs on this processor only.
fn is_possible() -> bool {
    let possible = cfg!(target_arch = "x86_64") && Path::new("/usr/bin/apt-get").exists();
    if !possible {
        eprintln!("SKIPPED: the machine for these scenarios is made of Debian's x86_64 packages");
    }
    possible
}

fn bench() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench-vm"))
}

/// `tests/bench-vm/run`, which ends with this test, however that ends.
fn machine() -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "TERM", "--"])
        .arg(bench().join("run"))
        .stdin(Stdio::null());
    command
}

#[test]
fn every_scenario_passes_and_leaves_the_host_as_it_was() {
    if !is_possible() {
        return;
    }
    let output = machine()
        .args(["--verbose", "--timeout", &LIMIT.to_string()])
        .args(["--disk", "2G"])
        .arg(bench().join("suite"))
        .arg(binary::virt_fsck())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let text = format!("{told}{}", String::from_utf8_lossy(&output.stderr));
    eprintln!("{text}");
    assert!(output.status.success(), "{text}");
    let mut scenarios = 0;
    for entry in std::fs::read_dir(bench().join("scenarios")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let passed = format!("ok {name} ");
        assert!(
            told.lines().any(|line| line.starts_with(&passed)),
            "{name}: {text}"
        );
        scenarios += 1;
    }
    assert_ne!(scenarios, 0);
}
