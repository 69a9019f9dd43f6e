//! A terminal with somebody at it, and a run that it belongs to.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::pty::{self, OpenptFlags};
use rustix::termios::{self, LocalModes};

use crate::support::binary;
use crate::support::lab::Lab;

/// How long something may take to be shown.
const LIMIT: Duration = Duration::from_secs(60);

pub struct Terminal {
    master: File,
    slave: File,
}

impl Terminal {
    pub fn new() -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = pty::openpt(flags).unwrap();
        pty::grantpt(&master).unwrap();
        pty::unlockpt(&master).unwrap();
        rustix::fs::fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK).unwrap();
        let name = pty::ptsname(&master, Vec::new()).unwrap();
        let slave = File::options()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NOCTTY.bits().cast_signed())
            .open(name.to_str().unwrap())
            .unwrap();
        Self {
            master: master.into(),
            slave,
        }
    }

    /// Starts virt-fsck in a session of its own, in the foreground of this terminal.
    pub fn starts(&self, lab: &Lab, words: &str) -> Child {
        let script = format!(
            "set -e; mkdir -p /run/virt-fsck; mount --bind run /run/virt-fsck\n\
             exec '{}' --state-dir state {words}",
            binary::virt_fsck()
        );
        let mut command: Command = lab.command("setsid");
        command
            .args(["--ctty", "unshare", "--mount", "bash", "-c", &script])
            .stdin(self.slave.try_clone().unwrap())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// What is shown until it ends so.
    pub fn shows(&mut self, end: &str) -> String {
        let mut shown = String::new();
        let begun = Instant::now();
        while !shown.ends_with(end) {
            let mut byte = [0];
            match self.master.read_exact(&mut byte) {
                Ok(()) => shown.extend(byte.map(char::from)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    assert!(begun.elapsed() < LIMIT, "only this is shown: {shown}");
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error) => panic!("{error}: {shown}"),
            }
        }
        shown
    }

    pub fn types(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Whether what is typed is shown.
    pub fn echoes(&self) -> bool {
        let modes = termios::tcgetattr(&self.slave).unwrap().local_modes;
        modes.contains(LocalModes::ECHO)
    }
}
