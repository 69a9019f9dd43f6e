//! The command line: help, manual page, wrong uses, and what is printed.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use support::lab::{Lab, is_root};

fn help() -> String {
    let output = Command::new(support::binary::virt_fsck())
        .arg("--help")
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// The options of a text, by the lines that introduce them: `-n, --check`.
fn options<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    lines
        .flat_map(|line| line.split(|letter: char| !(letter.is_alphanumeric() || letter == '-')))
        .filter(|word| word.starts_with('-') && word.len() > 1)
        .map(str::to_owned)
        .collect()
}

#[test]
fn help_fits_a_terminal() {
    for line in help().lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn the_manual_has_every_option_and_no_other() {
    let help = help();
    let (_, list) = help.split_once("Options:").unwrap();
    let list = list.split("Exit status").next().unwrap();
    let of_help = options(
        list.lines()
            .map(str::trim_start)
            .filter(|line| line.starts_with('-') && !line.starts_with("- ")),
    );
    assert!(
        of_help.contains("--state-dir") && of_help.contains("-n"),
        "{of_help:?}"
    );

    let manual = concat!(env!("CARGO_MANIFEST_DIR"), "/man/virt-fsck.8");
    let manual = std::fs::read_to_string(manual)
        .unwrap()
        .replace(r"\-", "-")
        .replace(r"\fI", " ")
        .replace(r"\fP", " ");
    let (_, section) = manual.split_once(".SH OPTIONS\n").unwrap();
    let section = section.split("\n.SH ").next().unwrap();
    let mut lines = section.lines();
    let mut introduced = Vec::new();
    while let Some(line) = lines.next() {
        if line.starts_with(".TP") {
            introduced.push(lines.next().unwrap());
        }
    }
    assert_eq!(options(introduced.into_iter()), of_help);
}

#[test]
fn the_version_is_the_packages() {
    let output = Command::new(support::binary::virt_fsck())
        .arg("--version")
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, concat!("virt-fsck ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn wrong_uses() {
    let lab = Lab::new();
    lab.ext4("good.img");
    for words in [
        "",
        "-n",
        "good.img",
        "-a",
        "-a good.img -d vm1",
        "-a good.img --all-inactive",
        "-a good.img --xml vm1.xml",
        "-n -y -a good.img",
        "-p -r -a good.img",
        "--list -n -a good.img",
        "--list --dry-run -a good.img",
        "-q -v -a good.img",
        "--format yaml -a good.img",
        "--image-format floppy -a good.img",
        "--image-format raw -d vm1",
        "--no-such-option -a good.img",
    ] {
        let outcome = lab.virt_fsck(words).plain().changing_nothing();
        assert_eq!(outcome.status, Some(16), "{words}: {outcome}");
        assert_eq!(outcome.stdout, "", "{words}");
        assert!(outcome.stderr.starts_with("error: "), "{words}: {outcome}");
    }
}

/// A disk with one filesystem of each verdict.
fn mixed(lab: &Lab) {
    lab.damaged_ext4("bad.img");
    lab.ext4("good.img");
    lab.sh("truncate -s 72M disk.img; sfdisk -q disk.img <<'END'\n\
         label: gpt\nstart=2048, size=32768\nstart=34816, size=32768\n\
         start=67584, size=2048\nstart=69632, size=65536\nEND\n\
         truncate -s 1M swap.img; mkswap -q swap.img\n\
         truncate -s 32M fat.img; mkfs.fat -F 16 fat.img");
    lab.put("good.img", "disk.img", 2048);
    lab.put("bad.img", "disk.img", 34816);
    lab.put("swap.img", "disk.img", 67584);
    lab.put("fat.img", "disk.img", 69632);
    lab.sh("qemu-img convert -f raw -O qcow2 disk.img disk.qcow2; rm disk.img swap.img fat.img");
    lab.domain(&["type='file'|<driver name='qemu' type='qcow2'/><source file='@/disk.qcow2'/>"]);
}

#[test]
fn what_a_person_reads() {
    let lab = Lab::new();
    mixed(&lab);
    let plain = |words: &str| lab.virt_fsck(words).plain().changing_nothing();
    let checked = plain("-n --xml vm1.xml");
    checked.is(4, &[]);
    for words in [
        "vm1",
        "vda",
        "p1",
        "clean",
        "p2",
        "ERRORS LEFT",
        "p3",
        "swap",
        "p4",
        "'f7'",
    ] {
        assert!(checked.stdout.contains(words), "{words}: {checked}");
    }
    assert!(
        !checked.stdout.contains('\u{1b}'),
        "colours only for a terminal"
    );

    let quiet = plain("-n -q --xml vm1.xml");
    assert_eq!(quiet.stderr, "");
    assert!(quiet.stdout.contains("ERRORS LEFT"), "{quiet}");
    let nothing_wrong = plain("-n -q -a good.img");
    nothing_wrong.is(0, &[]);
    assert_eq!(
        (nothing_wrong.stdout.as_str(), nothing_wrong.stderr.as_str()),
        ("", "")
    );

    let listed = plain("--list --xml vm1.xml");
    listed.is(0, &[]);
    assert!(
        listed.stdout.contains(support::disks::EXT4_UUID),
        "{listed}"
    );
    assert!(listed.stdout.contains("never"), "{listed}");
    assert_eq!(listed.stderr, "");
}

#[test]
fn verbose_shows_commands_that_can_be_pasted() {
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    let odd = "it's $bad\n(caf\u{e9}).qcow2";
    lab.sh("qemu-img convert -f raw -O qcow2 bad.img odd");
    std::fs::rename(lab.file("odd"), lab.path().join(odd)).unwrap();
    let outcome = lab
        .virt_fsck("-v -n --image-format qcow2 -a")
        .argument(lab.path().join(odd))
        .plain()
        .changing_nothing();
    outcome.is(4, &[]);
    let of = |tool: &str| {
        let line = outcome.stderr.lines().find(|line| line.starts_with(tool));
        line.unwrap_or_else(|| panic!("{tool}: {outcome}"))
            .to_owned()
    };
    for tool in [
        "qemu-storage-daemon ",
        "e2fsck -f -n ",
        "blockdev-add {",
        "block-export-add {",
    ] {
        of(tool);
    }
    // Those that only look can be run again as they stand.
    for tool in ["qemu-img info ", "qemu-img check "] {
        let (status, said) = lab.sh_status(&of(tool));
        assert_eq!(status, Some(0), "{tool}: {said}");
    }
}

#[test]
fn the_steps_of_a_dry_run_can_be_pasted() {
    if !is_root() {
        return;
    }
    for (mode, truth) in [("-n", 4), ("-p", 4), ("-y", 1)] {
        let lab = Lab::new();
        mixed(&lab);
        let planned = lab.look(&format!("{mode} --dry-run --xml vm1.xml"));
        planned.is(0, &[]);
        let steps = planned.json["domains"][0]["plan"].as_array().unwrap();
        let steps: Vec<&str> = steps.iter().map(|step| step.as_str().unwrap()).collect();
        let person = lab
            .virt_fsck(&format!("{mode} --dry-run --xml vm1.xml"))
            .plain()
            .changing_nothing();
        for step in &steps {
            assert!(
                person.stdout.contains(&format!("{step}\n")),
                "{step}: {person}"
            );
        }
        // Each step, and its exit status.
        let mut script = "mkdir -p /run/virt-fsck; mount --bind run /run/virt-fsck\n".to_owned();
        for step in &steps {
            script += &format!("{step}\necho \"exit status $?\"\n");
        }
        lab.write("steps.log", &script);
        let before = lab.checksum("disk.qcow2");
        let (_, said) = lab.sh_status("timeout 60 unshare --mount bash steps.log 2>&1");
        let statuses: Vec<&str> = said
            .lines()
            .filter_map(|line| line.strip_prefix("exit status "))
            .collect();
        assert_eq!(statuses.len(), steps.len(), "{said}");
        for (step, status) in steps.iter().zip(statuses) {
            let wanted = if step.starts_with("e2fsck") && step.contains("p2") {
                truth
            } else {
                0
            };
            assert_eq!(status, wanted.to_string(), "{step}: {said}");
        }
        assert_eq!(lab.sh("find run state -mindepth 1"), "", "{said}");
        if mode == "-n" {
            assert_eq!(before, lab.checksum("disk.qcow2"));
        }
        let wanted = if mode == "-y" { 0 } else { 4 };
        lab.look("-n --xml vm1.xml").is(wanted, &[]);
    }
}

/// Each object of the document has these keys, no more and no less.
fn has_keys(value: &Value, keys: &str) {
    let have: BTreeSet<&str> = value
        .as_object()
        .unwrap_or_else(|| panic!("an object with {keys} was expected: {value}"))
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(have, keys.split(' ').collect::<BTreeSet<_>>());
}

fn layer_has_keys(layer: &Value) -> usize {
    has_keys(
        layer,
        "path type kind uuid label offset_bytes size_bytes extents partition volume_group cipher array \
         sector_bytes filesystem_size_bytes record hibernated reason notes result children",
    );
    for extent in layer["extents"].as_array().unwrap() {
        has_keys(extent, "disk offset_bytes length_bytes");
    }
    if !layer["partition"].is_null() {
        has_keys(&layer["partition"], "type type_name name");
    }
    if !layer["record"].is_null() {
        has_keys(
            &layer["record"],
            "last_check mount_count max_mount_count next_check dirty has_errors primary_damaged \
             devices",
        );
    }
    if !layer["result"].is_null() {
        has_keys(
            &layer["result"],
            "verdict reason checker exit_code seconds output notes",
        );
    }
    let children = layer["children"].as_array().unwrap();
    1 + children.iter().map(layer_has_keys).sum::<usize>()
}

#[test]
fn the_json_document_is_the_documented_one() {
    let lab = Lab::new();
    mixed(&lab);
    for (words, mode) in [
        ("-n --xml vm1.xml", "check"),
        ("--list --xml vm1.xml", "list"),
        ("-y --dry-run --xml vm1.xml", "check"),
        ("-n -d test -c test:///default", "check"),
    ] {
        let outcome = lab.look(words);
        let document = &outcome.json;
        has_keys(document, "virt_fsck schema mode exit_status domains");
        assert_eq!(document["virt_fsck"], env!("CARGO_PKG_VERSION"));
        assert_eq!(document["schema"], 1);
        assert_eq!(document["mode"], mode, "{words}");
        for domain in document["domains"].as_array().unwrap() {
            has_keys(
                domain,
                "name uuid origin verdict reason seconds notes disks plan unplaced",
            );
            assert_eq!(domain["unplaced"], serde_json::json!([]));
            for disk in domain["disks"].as_array().unwrap() {
                has_keys(
                    disk,
                    "target source format size_bytes verdict reason notes image_check layer",
                );
                if !disk["layer"].is_null() {
                    assert_eq!(layer_has_keys(&disk["layer"]), 5);
                }
            }
        }
        assert_eq!(outcome.stderr, "", "{words}");
    }
    // The manual documents each of these keys.
    let manual = concat!(env!("CARGO_MANIFEST_DIR"), "/man/virt-fsck.8");
    let manual = std::fs::read_to_string(manual).unwrap();
    for key in [
        "exit_status",
        "unplaced",
        "size_bytes",
        "exit_code",
        "primary_damaged",
    ] {
        assert!(manual.contains(key), "{key}");
    }
}
