use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread::JoinHandle;

use rustix::pty::{self, OpenptFlags};
use rustix::termios::LocalModes;

use super::*;

/// A terminal with somebody at it.
pub(in crate::keys) struct Pty {
    pub(in crate::keys) path: PathBuf,
    master: File,
    /// As long as one has it open, what was typed and shown is kept.
    slave: File,
}

impl Pty {
    pub(in crate::keys) fn new() -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master: OwnedFd = pty::openpt(flags).unwrap();
        pty::grantpt(&master).unwrap();
        pty::unlockpt(&master).unwrap();
        let name = pty::ptsname(&master, Vec::new()).unwrap();
        let path = PathBuf::from(name.to_str().unwrap());
        let slave = File::options()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NOCTTY.bits() as i32)
            .open(&path)
            .unwrap();
        let master = File::from(master);
        Self {
            path,
            master,
            slave,
        }
    }

    /// Types lines, each when it is asked for; gives back what was shown until the last.
    pub(in crate::keys) fn types(&self, lines: &[&str]) -> JoinHandle<String> {
        let mut master = self.master.try_clone().unwrap();
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        std::thread::spawn(move || {
            let mut shown = String::new();
            for line in lines {
                let mut question = String::new();
                while !question.ends_with(": ") && !question.ends_with("? ") {
                    let mut byte = [0];
                    master.read_exact(&mut byte).unwrap();
                    question.push(char::from(byte[0]));
                }
                shown.push_str(&question);
                master.write_all(line.as_bytes()).unwrap();
            }
            shown
        })
    }

    pub(in crate::keys) fn modes(&self) -> LocalModes {
        termios::tcgetattr(&self.slave).unwrap().local_modes
    }
}

#[tokio::test]
async fn what_is_no_terminal() {
    let mut interrupt = Interrupt::listen().unwrap();
    for path in ["/dev/null", "/proc/none"] {
        let answer = Terminal::at(Path::new(path)).ask("?", &mut interrupt).await;
        assert!(matches!(answer, Err(NoAnswer::NoTerminal)), "{path}");
    }
}

#[tokio::test]
async fn the_end_of_the_input_is_no_passphrase() {
    let pty = Pty::new();
    let mut interrupt = Interrupt::listen().unwrap();
    let typed = pty.types(&["\u{4}", "a b\u{e9}\n"]);
    let answer = Terminal::at(&pty.path).ask("? ", &mut interrupt).await;
    assert!(matches!(answer, Err(NoAnswer::Failed(_))), "{answer:?}");
    assert!(pty.modes().contains(LocalModes::ECHO));
    let answer = Terminal::at(&pty.path).ask("? ", &mut interrupt).await;
    assert_eq!(answer.unwrap().bytes(), "a b\u{e9}".as_bytes());
    assert_eq!(typed.join().unwrap().matches("? ").count(), 2);
}

#[tokio::test]
async fn whoever_gives_up_gets_the_echo_back() {
    let pty = Pty::new();
    let mut interrupt = Interrupt::listen().unwrap();
    let terminal = Terminal::at(&pty.path);
    let asked = tokio::time::timeout(
        std::time::Duration::from_millis(50),
        terminal.ask("? ", &mut interrupt),
    );
    assert!(asked.await.is_err());
    assert!(pty.modes().contains(LocalModes::ECHO));
}
