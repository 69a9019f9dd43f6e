//! The script that libvirt runs.

use std::process::Command;

use crate::place::{Said, hook};
use crate::support;
use crate::support::lab::Lab;

fn asked(lab: &Lab, words: &[&str]) -> Said {
    let mut command = Command::new(support::binary::virt_fsck());
    command.arg("hook").args(words).arg("--hooks-folder");
    command.arg(lab.file("hooks/qemu.d"));
    Said::of(command)
}

#[test]
fn it_is_installed_and_removed() {
    let lab = Lab::new();
    let script = lab.file("hooks/qemu.d/virt-fsck");
    let path = script.to_str().unwrap();
    let says = |said: &Said, words: &[&str]| {
        assert_eq!(
            (said.status, said.stderr.as_str()),
            (Some(0), ""),
            "{said:?}"
        );
        for word in words {
            assert!(said.stdout.contains(word), "{word:?}: {said:?}");
        }
    };
    says(
        &asked(&lab, &["--install"]),
        &[path, "restart it", "systemctl restart libvirtd"],
    );
    says(&asked(&lab, &["--install"]), &[path, "there already"]);
    assert_eq!(lab.sh("stat -c %a hooks/qemu.d/virt-fsck"), "755\n");
    says(&asked(&lab, &["--uninstall"]), &[path, "removed"]);
    says(&asked(&lab, &["--uninstall"]), &[path, "not there"]);
    assert!(!script.exists());
}

#[test]
fn somebody_else_s_script_is_left() {
    let lab = Lab::new();
    lab.script("hooks/qemu.d/virt-fsck", "exit 0\n");
    let before = lab.checksum("hooks/qemu.d/virt-fsck");
    for words in ["--install", "--uninstall"] {
        let said = asked(&lab, &[words]);
        assert_eq!(
            (said.status, said.stdout.as_str()),
            (Some(8), ""),
            "{said:?}"
        );
        let (name, sentence) = said.stderr.trim_end().split_once(": ").unwrap();
        assert_eq!(name, "virt-fsck");
        assert!(
            sentence.contains("was not written by virt-fsck"),
            "{said:?}"
        );
        assert_eq!(before, lab.checksum("hooks/qemu.d/virt-fsck"));
    }
}

/// Whatever becomes of the program, the script keeps no guest from starting, and ends none.
#[test]
fn the_script_hands_on_what_refuses_a_start_and_nothing_else() {
    let lab = Lab::new();
    asked(&lab, &["--install"]);
    let script = lab.file("hooks/qemu.d/virt-fsck");
    let text = std::fs::read_to_string(&script).unwrap();
    let binary = std::fs::canonicalize(support::binary::virt_fsck()).unwrap();
    assert!(text.contains(binary.to_str().unwrap()), "{text}");
    let run = || {
        Said::of(hook(
            script.to_str().unwrap(),
            &["--help", "reconnect", "begin", "-"],
        ))
    };
    run().passes();
    let stand_in = lab.script("it's virt-fsck", "");
    let quoted = stand_in.to_str().unwrap().replace('\'', r"'\''");
    std::fs::write(&script, text.replace(binary.to_str().unwrap(), &quoted)).unwrap();
    let words = "[[ $* == 'hook --help reconnect begin -' ]] || exit 1\n";
    for (end, status) in [
        ("exit 0", 0),
        ("echo no >&2; exit 1", 1),
        ("exit 2", 0),
        ("exit 127", 0),
        ("kill -SEGV $$", 0),
        ("kill -KILL $$", 0),
    ] {
        lab.script("it's virt-fsck", &format!("{words}{end}\n"));
        let said = run();
        assert_eq!(
            (said.status, said.stdout.as_str()),
            (Some(status), ""),
            "{end}: {said:?}"
        );
    }
    std::fs::remove_file(stand_in).unwrap();
    run().passes();
}

#[test]
fn the_manual_has_every_option() {
    let help = Said::of(hook(&support::binary::virt_fsck(), &["hook", "--help"])).stdout;
    let manual = concat!(env!("CARGO_MANIFEST_DIR"), "/man/virt-fsck.8");
    let manual = std::fs::read_to_string(manual).unwrap().replace(r"\-", "-");
    let (_, section) = manual.split_once(".SH THE HOOK OF LIBVIRT\n").unwrap();
    let section = section.split("\n.SH ").next().unwrap();
    let words = help.split(|letter: char| !(letter.is_alphanumeric() || letter == '-'));
    let options: Vec<&str> = words.filter(|word| word.starts_with("--")).collect();
    assert!(options.contains(&"--hooks-folder"), "{help}");
    for option in options.iter().filter(|option| **option != "--help") {
        assert!(section.contains(option), "{option}");
    }
}
