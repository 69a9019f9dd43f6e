//! A folder of one test, and the tools that work in it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::outcome::Outcome;
use super::run::Run;

/// A folder of one test. Tests run side by side, so everything a test makes lies in its own.
pub struct Lab {
    folder: tempfile::TempDir,
}

/// Whether the test may make loop devices and mounts; a line that says so if not.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: this test needs root for loop devices and mounts");
    }
    root
}

impl Lab {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("e2e-").tempdir().unwrap();
        let lab = Self { folder };
        for part in ["run", "state"] {
            std::fs::create_dir(lab.file(part)).unwrap();
        }
        lab
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let file = self.file(name);
        std::fs::write(&file, content).unwrap();
        file
    }

    /// Puts bytes into a file that is there.
    pub fn patch(&self, name: &str, offset: u64, bytes: &[u8]) {
        use std::os::unix::fs::FileExt;
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(self.file(name))
            .unwrap();
        file.write_all_at(bytes, offset).unwrap();
    }

    /// A part of a file as a file of its own, in bytes.
    pub fn cut(&self, from: &str, offset: u64, length: u64, to: &str) {
        self.sh(&format!(
            "dd if={from} of={to} iflag=skip_bytes,count_bytes skip={offset} count={length} \
             bs=64k conv=sparse status=none; truncate -s {length} {to}"
        ));
    }

    /// A file that a shell can run.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let file = self.file(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, format!("#!/bin/bash\n{text}")).unwrap();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&file, mode).unwrap();
        file
    }

    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.path())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .env("E2FSCK_TIME", super::disks::NOW)
            .env("LVM_SUPPRESS_FD_WARNINGS", "1");
        command
    }

    /// Runs a shell script in the folder; it must succeed.
    pub fn sh(&self, script: &str) -> String {
        let (status, text) = self.sh_status(script);
        assert_eq!(status, Some(0), "{script}: {text}");
        text
    }

    /// Runs a shell script in the folder: its exit status, and all it said.
    pub fn sh_status(&self, script: &str) -> (Option<i32>, String) {
        let mut child = self
            .command("bash")
            .args(["-euo", "pipefail", "-s"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin
            .write_all(format!("exec 2>&1\n{{\n{script}\nexit\n}}\n").as_bytes())
            .unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text)
    }

    pub fn virt_fsck(&self, words: &str) -> Run<'_> {
        Run::new(self, words)
    }

    /// A run that must not change one byte of any file in the folder.
    pub fn look(&self, words: &str) -> Outcome {
        self.virt_fsck(words).changing_nothing()
    }

    /// A run that may change the images.
    pub fn repair(&self, words: &str) -> Outcome {
        self.virt_fsck(words).changing_images()
    }

    /// A domain's XML in a file: each disk is the inside of a `<disk>` element, with its attributes.
    pub fn domain(&self, disks: &[&str]) -> PathBuf {
        let disks: String = disks
            .iter()
            .enumerate()
            .map(|(index, disk)| {
                let letter = char::from(b'a' + u8::try_from(index).unwrap());
                let (attributes, inside) = disk.split_once('|').unwrap();
                let inside = inside.replace('@', &self.path().display().to_string());
                format!(
                    "<disk device='disk' {attributes}>{inside}<target dev='vd{letter}'/></disk>\n"
                )
            })
            .collect();
        let text = format!(
            "<domain type='kvm'><name>vm1</name>\
             <uuid>4dea22b3-1d52-d8f3-2516-782e98ab3fa0</uuid><memory>1</memory>\
             <os><type>hvm</type></os><devices>\n{disks}</devices></domain>"
        );
        self.write("vm1.xml", text)
    }

    /// What every file holds: images, and whatever else the test made; not what virt-fsck makes.
    pub fn checksums(&self) -> BTreeMap<String, String> {
        let text = self.sh(
            "find . -xdev \\( -path ./run -o -path ./state -o -path ./mnt -o -path ./virt-fsck -o -name \
             '*.log' \\) -prune -o -type f -print0 | xargs -0r sha256sum -z | tr '\\0\\n' '\\n?'",
        );
        text.lines()
            .map(|line| line.split_once(' ').unwrap())
            .map(|(sum, name)| (name.to_owned(), sum.to_owned()))
            .collect()
    }

    pub fn checksum(&self, name: &str) -> String {
        let text = self.sh(&format!("sha256sum <'{name}'"));
        text.split(' ').next().unwrap().to_owned()
    }
}

/// A loop device of a file in the folder; detached when dropped, also by a failing test.
pub struct Loop {
    pub device: String,
}

impl Loop {
    pub fn attach(lab: &Lab, options: &str, name: &str) -> Self {
        let device = lab.sh(&format!("losetup --find --show {options} {name}"));
        Self {
            device: device.trim().to_owned(),
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let detached = Command::new("/usr/sbin/losetup")
            .args(["--detach", &self.device])
            .status();
        if !detached.is_ok_and(|status| status.success()) {
            eprintln!("{} is left attached", self.device);
        }
    }
}

/// A mount below the folder; taken back when dropped, also by a failing test.
pub struct Mount {
    pub folder: PathBuf,
}

impl Mount {
    /// Mounts; `None`, and a line that says so, where the kernel cannot.
    pub fn new(lab: &Lab, arguments: &str, folder: &str) -> Option<Self> {
        lab.sh(&format!("mkdir -p {folder}"));
        let (status, text) = lab.sh_status(&format!("mount {arguments} {folder}"));
        if status != Some(0) {
            eprintln!("SKIPPED: mount {arguments}: {text}");
            return None;
        }
        Some(Self {
            folder: lab.file(folder),
        })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let taken_back = Command::new("/bin/umount").arg(&self.folder).status();
        if !taken_back.is_ok_and(|status| status.success()) {
            eprintln!("{} is left mounted", self.folder.display());
        }
    }
}
