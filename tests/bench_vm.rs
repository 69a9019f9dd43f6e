//! The scenarios that need a kernel of their own: device-mapper, LVM, udev and mounts, in a machine that
//! `tests/bench-vm/run` boots; many of them share one.
#![expect(clippy::print_stderr, reason = "what the scenarios say")]
#![expect(clippy::unwrap_used, reason = "a test may end so")]

#[path = "support/binary.rs"]
mod binary;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// How long a machine may take, in seconds: more than twice what it does on two cores. Most of it goes
/// into emulating the processor.
const LIMIT: u32 = 3000;

/// How the scenarios are called that have virt-fsck killed at many moments, and some more: they take
/// as long as all others, and have a machine of their own, which runs at the same time.
const SECOND_MACHINE: [&str; 5] = ["guest-luks", "kill-", "raid", "random-", "volume-"];

fn is_for_the_second_machine(scenario: &str) -> bool {
    let mut beginnings = SECOND_MACHINE.iter();
    beginnings.any(|beginning| scenario.starts_with(beginning))
}

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

fn scenarios() -> Vec<String> {
    let entries = std::fs::read_dir(bench().join("scenarios")).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string();
    let mut names: Vec<_> = entries.map(|entry| name(entry).unwrap()).collect();
    names.sort();
    names
}

fn run(scenarios: &[String]) {
    if !is_possible() {
        return;
    }
    assert!(!scenarios.is_empty());
    let output = machine()
        .args(["--verbose", "--timeout", &LIMIT.to_string()])
        .args(["--disk", "2G"])
        .arg(bench().join("suite"))
        .arg(binary::virt_fsck())
        .args(scenarios)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let text = format!("{told}{}", String::from_utf8_lossy(&output.stderr));
    eprintln!("{text}");
    // How long each took is told also when all is well, past what keeps a test's words back.
    let times = told.lines().filter(|line| line.starts_with("ok "));
    let times: String = times.map(|line| format!("bench-vm: {line}\n")).collect();
    std::io::stderr().write_all(times.as_bytes()).unwrap();
    assert!(output.status.success(), "{text}");
    for name in scenarios {
        let passed = format!("ok {name} ");
        assert!(
            told.lines().any(|line| line.starts_with(&passed)),
            "{name}: {text}"
        );
    }
}

#[test]
fn every_scenario_passes_and_leaves_the_host_as_it_was() {
    let mut others = scenarios();
    others.retain(|name| !is_for_the_second_machine(name));
    run(&others);
}

#[test]
fn whenever_it_is_killed_the_host_becomes_what_it_was() {
    let mut killed = scenarios();
    killed.retain(|name| is_for_the_second_machine(name));
    run(&killed);
}
