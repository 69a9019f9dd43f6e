//! Runs that are stopped while somebody is asked for a passphrase.

use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::lab::{Lab, is_root};
use crate::terminal::Terminal;
use crate::until;

const NAME: &str = "/dev/mapper/cr_of_virt_fsck_tests";

/// A LUKS device in a file, and a configuration that calls it `NAME`.
fn lab(config: &str) -> Lab {
    let lab = Lab::new();
    let device = lab.write("device", vec![0; 4 << 20]);
    lab.write("key", "nobody types that");
    lab.sh(
        "cryptsetup luksFormat -q --type luks1 --pbkdf-force-iterations 1000 device key; rm key",
    );
    lab.write(
        "config.toml",
        format!(
            "{config}\n[[crypt]]\nname = \"cr_of_virt_fsck_tests\"\ndevice = \"{}\"\n",
            device.display()
        ),
    );
    lab
}

fn words() -> String {
    format!("--config config.toml -n -a {NAME}")
}

fn is_interrupted(lab: &Lab, running: Child) {
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(32), "{output:?}");
    assert_eq!(lab.sh("find run state -mindepth 1"), "", "{output:?}");
}

#[test]
fn whoever_gives_up_at_the_prompt_gets_the_echo_back() {
    if !is_root() {
        return;
    }
    for by_key in [true, false] {
        let lab = lab("");
        let mut terminal = Terminal::new();
        assert!(terminal.echoes());
        let running = terminal.starts(&lab, &words());
        let shown = terminal.shows(": ");
        assert!(
            shown.starts_with(&format!("Passphrase for {NAME} (on ")),
            "{shown}"
        );
        assert!(!terminal.echoes());
        match by_key {
            true => terminal.types("half a passphrase\u{3}"),
            false => {
                let pid = Pid::from_raw(running.id().cast_signed()).unwrap();
                kill_process(pid, Signal::TERM).unwrap();
            }
        }
        is_interrupted(&lab, running);
        assert!(terminal.echoes());
    }
}

#[test]
fn a_program_that_asks_ends_with_the_run() {
    if !is_root() {
        return;
    }
    for by_key in [true, false] {
        let lab = lab("askpass = [\"./ask\"]");
        let script = "trap 'echo >> ended; exit 1' TERM INT\n\
                      echo \"$1\" > started\nwhile :; do sleep 0.05; done\n";
        let program = lab.script("ask", script);
        lab.sh(&format!(
            "sed -i 's|./ask|{}|' config.toml",
            program.display()
        ));
        let mut terminal = Terminal::new();
        let running = terminal.starts(&lab, &words());
        until("the program", || {
            std::fs::read(lab.file("started")).is_ok_and(|question| !question.is_empty())
        });
        let question = std::fs::read_to_string(lab.file("started")).unwrap();
        assert!(
            question.starts_with(&format!("Passphrase for {NAME} (on "))
                && question.ends_with("):\n"),
            "{question}"
        );
        match by_key {
            true => terminal.types("\u{3}"),
            false => {
                let pid = Pid::from_raw(running.id().cast_signed()).unwrap();
                kill_process(pid, Signal::TERM).unwrap();
            }
        }
        is_interrupted(&lab, running);
        until("its end", || lab.file("ended").exists());
    }
}
