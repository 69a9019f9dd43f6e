//! A host of the test's own, as far as the hook looks: its configuration, its runs, and what libvirt keeps.

use std::fs::File;
use std::process::{Command, Stdio};

use crate::support;
use crate::support::lab::{Lab, is_root};

/// The guest that `Lab::domain` describes.
pub const UUID: &str = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0";

pub const PREPARE: [&str; 4] = ["vm1", "prepare", "begin", "-"];
pub const STARTED: [&str; 4] = ["vm1", "started", "begin", "-"];

/// Hides the host's own folders, then becomes the program.
const APART: &str = "set -e; cd \"$1\"; shift\n\
     mount --bind etc /etc; mount -t tmpfs tmpfs /var/lib; mkdir -p /var/lib/libvirt/qemu\n\
     mount --bind libvirt /var/lib/libvirt/qemu; mkdir /var/lib/virt-fsck\n\
     mount -t tmpfs tmpfs /run; mkdir /run/virt-fsck; mount --bind run /run/virt-fsck\n\
     if [ -e systemd ]; then mkdir -p /run/systemd/system; fi\n\
     exec \"$@\"";

pub struct Place {
    pub lab: Lab,
}

/// What came of a call.
#[derive(Debug)]
pub struct Said {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    pub fn of(mut command: Command) -> Self {
        let output = command.output().unwrap();
        Self {
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// It lets libvirt go on, without a word.
    #[track_caller]
    pub fn passes(&self) {
        assert_eq!(self.status, Some(0), "{self:?}");
        assert_eq!((self.stdout.as_str(), self.stderr.as_str()), ("", ""));
    }

    /// It keeps the guest from starting, with one sentence that has these words.
    #[track_caller]
    pub fn refuses(&self, words: &[&str]) {
        assert_eq!(self.status, Some(1), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?}: {self:?}");
        }
    }
}

/// A call of the program as libvirt makes it, with nearly no environment.
pub fn hook(program: &str, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(words).env_clear().stdin(Stdio::null());
    command.env("PATH", "/usr/bin:/bin").env("LC_ALL", "C");
    command
}

impl Place {
    /// With this in the configuration; `None`, and a line that says so, without root's rights.
    pub fn new(settings: &str) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let lab = Lab::new();
        lab.sh("cp -a /etc etc; mkdir -p libvirt/save libvirt/snapshot");
        lab.write("etc/virt-fsck.toml", format!("[hook]\n{settings}"));
        Some(Self { lab })
    }

    /// A disk with an ext4 that is damaged so that the repairs at boot mend it, and its guest.
    pub fn damaged(&self) {
        self.lab.ext4("filesystem");
        self.lab
            .sh("debugfs -w -R 'sif /d/f9 links_count 4' filesystem");
        self.disk("filesystem");
    }

    /// This filesystem on a disk of the guest.
    pub fn disk(&self, filesystem: &str) {
        self.lab.sh(&format!(
            "qemu-img convert -f raw -O qcow2 {filesystem} disk.qcow2"
        ));
        self.lab
            .domain(&["type='file'|<driver type='qcow2'/><source file='@/disk.qcow2'/>"]);
    }

    /// Whether the filesystem on the disk is sound, by e2fsck's word.
    pub fn is_sound(&self) -> bool {
        let script = "qemu-img convert -f qcow2 -O raw disk.qcow2 after; e2fsck -fn after";
        let (status, said) = self.lab.sh_status(script);
        assert!(matches!(status, Some(0 | 4)), "{said}");
        status == Some(0)
    }

    /// One call, with the guest's XML.
    pub fn call(&self, words: &[&str]) -> Said {
        Said::of(self.command(words))
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let binary = support::binary::virt_fsck();
        let folder = self.lab.path().display().to_string();
        let program = [
            "--mount", "bash", "-c", APART, "bash", &folder, &binary, "hook",
        ];
        let mut command = hook("unshare", &[&program[..], words].concat());
        command
            .env("PATH", format!("{folder}/tools:/usr/bin:/bin"))
            .env("E2FSCK_TIME", support::disks::NOW);
        if let Ok(xml) = File::open(self.lab.file("vm1.xml")) {
            command.stdin(Stdio::from(xml));
        }
        command
    }

    /// A call that changes no byte of the disk.
    #[track_caller]
    pub fn leaves(&self, words: &[&str]) {
        let before = self.lab.checksum("disk.qcow2");
        self.call(words).passes();
        assert_eq!(before, self.lab.checksum("disk.qcow2"), "{words:?}");
    }
}
