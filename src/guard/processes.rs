//! Processes of this host that have an image open for writing, whatever they are: a QEMU that
//! libvirt does not know, qemu-nbd, a server of iSCSI or NBD, dd.
//!
//! It is asked of the kernel, by file and device, not by path, so mount namespaces hide nothing.
//! What a plain user may not look at is not seen; QEMU's locks and `O_EXCL` are asked besides.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::reach::identity::Identity;

/// A process that may write to what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// The process.
    pub process: u32,
    /// The name of its program, as the kernel has it: at most 15 bytes.
    pub program: String,
    /// How.
    pub how: How,
    /// To which file or device.
    pub what: Identity,
}

/// How a process can write to a file or device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It is open for writing.
    Open,
    /// It is mapped into memory that is shared and writable.
    Mapped,
}

impl How {
    /// As the predicate of a sentence.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Open => "is open for writing",
            Self::Mapped => "is mapped for writing",
        }
    }
}

/// /proc, or a folder that looks like it.
#[derive(Clone, Debug)]
pub struct Processes {
    root: PathBuf,
}

impl Processes {
    /// The processes of this host.
    pub fn of_this_host() -> Self {
        Self::at("/proc")
    }

    /// Those that a folder tells of.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The processes that may write to one of these, in the order of their numbers; none of ours.
    pub fn writers(&self, wanted: &HashSet<Identity>) -> Vec<Writer> {
        let inodes = Inodes::of(wanted);
        let ours = Ours::new(self);
        let mut writers = Vec::new();
        for process in self.numbers() {
            let opened = self.opened(process, wanted, &inodes).into_iter();
            let mapped = self.mapped(process, wanted, &inodes).into_iter();
            let found: Vec<_> = opened
                .map(|what| (How::Open, what))
                .chain(mapped.map(|what| (How::Mapped, what)))
                .collect();
            if found.is_empty() || ours.is_one(process) {
                continue;
            }
            let program = self.program(process);
            writers.extend(found.into_iter().map(|(how, what)| Writer {
                process,
                program: program.clone(),
                how,
                what,
            }));
        }
        writers
    }

    /// All processes, in the order of their numbers.
    pub fn numbers(&self) -> Vec<u32> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let mut numbers: Vec<u32> = entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        numbers.sort_unstable();
        numbers
    }

    /// The name of a process's program.
    pub fn program(&self, process: u32) -> String {
        let name = fs::read(self.of(process, "comm")).unwrap_or_default();
        String::from_utf8_lossy(&name).trim_end().to_owned()
    }

    /// A file about a process.
    pub fn of(&self, process: u32, file: &str) -> PathBuf {
        self.root.join(process.to_string()).join(file)
    }

    /// A file about the whole system.
    pub fn everywhere(&self, file: &str) -> PathBuf {
        self.root.join(file)
    }

    /// The mount namespace of a process, if we may know.
    pub fn mount_namespace(&self, process: u32) -> Option<PathBuf> {
        fs::read_link(self.of(process, "ns/mnt")).ok()
    }

    /// Our own number, as /proc counts.
    pub fn ourselves(&self) -> Option<u32> {
        fs::read_link(self.root.join("self"))
            .ok()?
            .to_str()?
            .parse()
            .ok()
    }

    /// The mount namespace of the process that started us.
    pub fn outer_mount_namespace(&self) -> Option<PathBuf> {
        self.mount_namespace(self.parent(self.ourselves()?)?)
    }

    /// Our mount namespace, if it is one that the process that started us is not in.
    pub fn own_mount_namespace(&self) -> Option<PathBuf> {
        let own = self.mount_namespace(self.ourselves()?)?;
        (own != self.outer_mount_namespace()?).then_some(own)
    }

    fn parent(&self, process: u32) -> Option<u32> {
        parent_in(&fs::read_to_string(self.of(process, "stat")).ok()?)
    }

    fn opened(&self, process: u32, wanted: &HashSet<Identity>, inodes: &Inodes) -> Vec<Identity> {
        let entries = fs::read_dir(self.of(process, "fd")).into_iter().flatten();
        let found = entries.flatten().filter_map(|entry| {
            let opened = entry.path();
            // Sockets, pipes and the like have no path: most of what is open.
            let path = fs::read_link(&opened).ok()?;
            if !path.is_absolute() {
                return None;
            }
            let number = entry.file_name();
            let about = self.of(process, "fdinfo").join(&number);
            let about = OpenFile::told(&fs::read_to_string(about).ok()?)?;
            if !about.writes || !inodes.may_be(about.inode) {
                return None;
            }
            let found = identity_at(&opened).ok()?;
            wanted.contains(&found).then_some(found)
        });
        found.collect()
    }

    fn mapped(&self, process: u32, wanted: &HashSet<Identity>, inodes: &Inodes) -> Vec<Identity> {
        let text = fs::read(self.of(process, "maps")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mappings = text.lines().filter_map(Mapping::told);
        let found = mappings.filter_map(|mapping| {
            if !inodes.may_be(Some(mapping.inode)) {
                return None;
            }
            let file = self.of(process, "map_files").join(mapping.addresses);
            let found = match identity_at(&file) {
                Ok(found) => found,
                // A plain user may not look, and must be content with what the text says.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => mapping.file(),
                Err(_) => return None,
            };
            wanted.contains(&found).then_some(found)
        });
        found.collect()
    }
}

/// What a link of /proc leads to.
fn identity_at(link: &Path) -> io::Result<Identity> {
    let found = fs::metadata(link)?;
    Ok(match found.file_type().is_block_device() {
        true => Identity::BlockDevice {
            number: found.rdev(),
        },
        false => Identity::File {
            device: found.dev(),
            inode: found.ino(),
        },
    })
}

/// The inodes of what is wanted, to leave out at once what can be none of it: to look at a file on
/// a network filesystem may take for ever.
struct Inodes {
    files: HashSet<u64>,
    /// Each node of a device has an inode of its own.
    has_devices: bool,
}

impl Inodes {
    fn of(wanted: &HashSet<Identity>) -> Self {
        let files = wanted.iter().filter_map(|identity| match identity {
            Identity::File { inode, .. } => Some(*inode),
            Identity::BlockDevice { .. } => None,
        });
        let files: HashSet<u64> = files.collect();
        Self {
            has_devices: files.len() < wanted.len(),
            files,
        }
    }

    /// Kernels before 5.14 do not tell the inode.
    fn may_be(&self, inode: Option<u64>) -> bool {
        self.has_devices || inode.is_none_or(|inode| self.files.contains(&inode))
    }
}

/// What /proc/PID/fdinfo/N says of an open file.
#[derive(Debug, PartialEq, Eq)]
struct OpenFile {
    writes: bool,
    inode: Option<u64>,
}

impl OpenFile {
    fn told(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
        };
        let flags = i32::from_str_radix(field("flags")?, 8).ok()?;
        Some(Self {
            writes: matches!(flags & libc::O_ACCMODE, libc::O_WRONLY | libc::O_RDWR)
                && flags & libc::O_PATH == 0,
            inode: field("ino").and_then(|inode| inode.parse().ok()),
        })
    }
}

/// A line of /proc/PID/maps that is shared and writable, and has a file.
#[derive(Debug, PartialEq, Eq)]
struct Mapping<'t> {
    addresses: &'t str,
    /// The filesystem's; some filesystems (btrfs) have others for stat(2).
    device: u64,
    inode: u64,
}

impl<'t> Mapping<'t> {
    /// `7f00-7f10 rw-s 00000000 fe:01 1234   /path`.
    fn told(line: &'t str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let addresses = fields.next()?;
        let [_, b'w', _, b's'] = fields.next()?.as_bytes() else {
            return None;
        };
        let (major, minor) = fields.nth(1)?.split_once(':')?;
        let hexadecimal = |digits| u32::from_str_radix(digits, 16).ok();
        let device = rustix::fs::makedev(hexadecimal(major)?, hexadecimal(minor)?);
        let inode = fields.next()?.parse().ok()?;
        (inode != 0).then_some(Self {
            addresses,
            device,
            inode,
        })
    }

    const fn file(&self) -> Identity {
        Identity::File {
            device: self.device,
            inode: self.inode,
        }
    }
}

/// The process that started another: the fourth field of /proc/PID/stat, and the second, in
/// parentheses, may hold anything.
fn parent_in(stat: &str) -> Option<u32> {
    let (_, after) = stat.rsplit_once(')')?;
    after.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Which processes are ours: this one, what it has started, and what runs in its mount namespace if
/// that is its own.
struct Ours<'p> {
    processes: &'p Processes,
    ourselves: Option<u32>,
    namespace: Option<PathBuf>,
}

impl<'p> Ours<'p> {
    fn new(processes: &'p Processes) -> Self {
        Self {
            processes,
            ourselves: processes.ourselves(),
            namespace: processes.own_mount_namespace(),
        }
    }

    fn is_one(&self, process: u32) -> bool {
        let is_inside = || {
            let theirs = self.processes.mount_namespace(process);
            self.namespace.is_some() && theirs == self.namespace
        };
        self.descends_from_us(process) || is_inside()
    }

    fn descends_from_us(&self, process: u32) -> bool {
        /// More generations than a process has; a number may be reused while they are followed.
        const MOST_GENERATIONS: usize = 100;
        let Some(ourselves) = self.ourselves else {
            return false;
        };
        let generations = std::iter::successors(Some(process), |one| self.processes.parent(*one));
        generations
            .take(MOST_GENERATIONS)
            .any(|one| one == ourselves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};
    use std::time::Instant;

    #[test]
    fn what_is_open_for_writing() {
        let told = |flags: &str| {
            let text = format!("pos:\t0\nflags:\t{flags}\nmnt_id:\t24\nino:\t77\nlock:\t1: x\n");
            OpenFile::told(&text).unwrap()
        };
        assert_eq!(
            told("0100002"),
            OpenFile {
                writes: true,
                inode: Some(77)
            }
        );
        assert!(told("02100001").writes);
        assert!(!told("0100000").writes);
        // Only for ioctl(2), and only a name.
        assert!(!told("0100003").writes);
        assert!(!told("010000002").writes);
        let old = OpenFile::told("pos:\t0\nflags:\t02\nmnt_id:\t24\n").unwrap();
        assert_eq!(old.inode, None);
        assert_eq!(OpenFile::told("pos:\t0\n"), None);
    }

    #[test]
    fn what_is_mapped_for_writing() {
        let line = "7f1c8000-7f1c9000 rw-s 00001000 fe:00 10010631     /images/a b.img (deleted)";
        assert_eq!(
            Mapping::told(line),
            Some(Mapping {
                addresses: "7f1c8000-7f1c9000",
                device: rustix::fs::makedev(0xfe, 0),
                inode: 10_010_631
            })
        );
        for other in [
            "7f1c8000-7f1c9000 r--s 00001000 fe:00 10010631 /images/a",
            "7f1c8000-7f1c9000 rw-p 00001000 fe:00 10010631 /images/a",
            "7f1c8000-7f1c9000 rw-s 00000000 00:00 0 ",
            "",
            "nonsense",
        ] {
            assert_eq!(Mapping::told(other), None, "{other}");
        }
    }

    #[test]
    fn parents() {
        assert_eq!(parent_in("12 (a) b (c) S 7 12 12 0 -1"), Some(7));
        assert_eq!(parent_in("12 (a"), None);
    }

    /// One that is not ours: it has no parent that is.
    struct Stranger {
        number: u32,
        _folder: tempfile::TempDir,
    }

    impl Stranger {
        /// A shell that opens what `redirection` says, and waits.
        fn with(redirection: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let ready = folder.path().join("ready");
            let script = format!(
                "(exec {redirection}; echo $BASHPID >{ready}.new; mv {ready}.new {ready}; \
                 exec sleep 1000) &",
                ready = ready.display()
            );
            let started = Command::new("setsid")
                .args(["bash", "-c", &script])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            assert!(started.unwrap().success());
            let begun = Instant::now();
            while !ready.exists() {
                assert!(begun.elapsed().as_secs() < 30);
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            let number = fs::read_to_string(&ready).unwrap().trim().parse().unwrap();
            Self {
                number,
                _folder: folder,
            }
        }
    }

    impl Drop for Stranger {
        fn drop(&mut self) {
            let number = i32::try_from(self.number).unwrap();
            let process = rustix::process::Pid::from_raw(number).unwrap();
            let _gone = rustix::process::kill_process(process, rustix::process::Signal::KILL);
        }
    }

    fn wanted(file: &Path) -> HashSet<Identity> {
        HashSet::from([crate::reach::identity::identify(file).unwrap().0])
    }

    #[test]
    fn strangers_that_write_are_found_and_readers_and_children_are_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display().to_string();
        let other = tempfile::NamedTempFile::new().unwrap();
        let processes = Processes::of_this_host();
        let asked = || processes.writers(&wanted(file.path())).into_iter().next();
        // We have it open for writing ourselves.
        assert_eq!(asked(), None);
        let mut child: Child = Command::new("sleep")
            .arg("1000")
            .stdout(file.reopen().unwrap())
            .spawn()
            .unwrap();
        assert_eq!(asked(), None);
        child.kill().unwrap();
        child.wait().unwrap();
        let _reader = Stranger::with(&format!("7<{path}"));
        let _other = Stranger::with(&format!("7<>{}", other.path().display()));
        assert_eq!(asked(), None);
        let writer = Stranger::with(&format!("7<>{path}"));
        let found = asked().unwrap();
        assert_eq!(found.process, writer.number);
        assert_eq!((found.program.as_str(), found.how), ("sleep", How::Open));
        // Also where its name is gone.
        let kept = wanted(file.path());
        fs::remove_file(file.path()).unwrap();
        assert_eq!(
            processes.writers(&kept).first().unwrap().process,
            writer.number
        );
        drop(writer);
        let begun = Instant::now();
        while !processes.writers(&kept).is_empty() {
            assert!(begun.elapsed().as_secs() < 30);
        }
    }

    /// How long it takes among many; no limit, as the machine may be busy.
    #[test]
    fn it_costs_little() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut crowd = Vec::new();
        for _ in 0..300 {
            let child = Command::new("sleep")
                .arg("1000")
                .stdin(Stdio::null())
                .spawn();
            crowd.push(child.unwrap());
        }
        let processes = Processes::of_this_host();
        let kept = wanted(file.path());
        let with_devices = HashSet::from([Identity::BlockDevice { number: 1 }]);
        for (what, wanted) in [("a file", &kept), ("a device", &with_devices)] {
            let begun = Instant::now();
            assert_eq!(processes.writers(wanted), []);
            let count = processes.numbers().len();
            eprintln!("{what}, {count} processes: {:?}", begun.elapsed());
        }
        for mut child in crowd {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
