//! Disks of a test and an LVM that sees nothing else.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use virt_fsck::layers::extent::{ExtentMap, ImageIndex};
use virt_fsck::layers::lvm::{
    AssembledGroup, FoundPhysicalVolume, PhysicalVolume, VolumeGroup, assemble, read, text,
};
use virt_fsck::layers::read::ReadAt;
use virt_fsck::units::Bytes;

/// A row of one of LVM's reports.
pub type Row = serde_json::Map<String, serde_json::Value>;

/// Loop devices are few.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// An image file as a layer.
pub struct Image(pub File);

impl ReadAt for Image {
    fn size(&self) -> Bytes {
        Bytes::new(self.0.metadata().unwrap().len())
    }

    fn read_exact_at(&self, offset: Bytes, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset.get())
    }
}

/// A loop device; detached when dropped, also by a failing test.
pub struct Loop {
    pub image: PathBuf,
    device: String,
}

impl Loop {
    fn attach(image: PathBuf) -> Self {
        let output = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(&image)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        Self {
            image,
            device: String::from_utf8(output.stdout).unwrap().trim().to_owned(),
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let detached = Command::new("losetup")
            .arg("--detach")
            .arg(&self.device)
            .status();
        if !detached.is_ok_and(|status| status.success()) {
            eprintln!("{} is left attached", self.device);
        }
    }
}

/// Loop devices and an LVM that sees nothing else.
pub struct Lab {
    pub loops: Vec<Loop>,
    directory: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Lab {
    /// `None`, and a line that says so, without the rights for loop devices.
    pub fn new(sizes_mib: &[u64]) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: a test against real LVM needs root for loop devices");
            return None;
        }
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lab = Self {
            loops: Vec::new(),
            directory: tempfile::tempdir().unwrap(),
            _turn: turn,
        };
        for (index, size) in sizes_mib.iter().enumerate() {
            let image = lab.directory.path().join(format!("disk{index}"));
            File::create(&image).unwrap().set_len(size << 20).unwrap();
            lab.loops.push(Loop::attach(image));
        }
        let all: Vec<usize> = (0..sizes_mib.len()).collect();
        lab.show(&all);
        Some(lab)
    }

    /// From now on LVM sees only these disks.
    pub fn show(&self, disks: &[usize]) {
        let mut filter = String::new();
        for disk in disks {
            write!(filter, "\"a|^{}$|\",", self.loops[*disk].device).unwrap();
        }
        let locks = self.directory.path().join("locks");
        let config = format!(
            "devices {{ use_devicesfile=0 hints=\"none\" obtain_device_list_from_udev=0 \
             external_device_info_source=\"none\" global_filter=[{filter}\"r|.*|\"] }}\n\
             global {{ activation=0 use_lvmpolld=0 event_activation=0 locking_dir=\"{}\" }}\n\
             activation {{ udev_sync=0 udev_rules=0 monitoring=0 }}\n\
             backup {{ backup=0 archive=0 }}\n",
            locks.display()
        );
        std::fs::write(self.directory.path().join("lvm.conf"), config).unwrap();
    }

    pub fn device(&self, disk: usize) -> &str {
        &self.loops[disk].device
    }

    pub fn file(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Runs `lvm LINE`, where `@0` stands for the first disk.
    pub fn lvm(&self, line: &str) -> String {
        let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        for word in &mut words {
            if let Some(disk) = word.strip_prefix('@') {
                *word = self.device(disk.parse().unwrap()).to_owned();
            }
        }
        let output = Command::new("lvm")
            .args(&words)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .env("LVM_SYSTEM_DIR", self.directory.path())
            .env("LVM_SUPPRESS_FD_WARNINGS", "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "lvm {line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The rows of a report.
    pub fn report(&self, line: &str) -> Vec<Row> {
        let text = self.lvm(&format!("{line} --reportformat json --units b --nosuffix"));
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let tables = json["report"][0].as_object().unwrap();
        let rows = tables.values().next().unwrap().as_array().unwrap();
        rows.iter()
            .map(|row| row.as_object().unwrap().clone())
            .collect()
    }

    pub fn image(&self, disk: usize) -> Image {
        let flushed = Command::new("blockdev")
            .args(["--flushbufs", self.device(disk)])
            .status()
            .unwrap();
        assert!(flushed.success());
        Image(File::open(&self.loops[disk].image).unwrap())
    }

    pub fn volume(&self, disk: usize) -> PhysicalVolume {
        read(&self.image(disk)).unwrap().unwrap()
    }

    pub fn found(&self, disks: &[usize]) -> Vec<FoundPhysicalVolume> {
        disks
            .iter()
            .map(|disk| FoundPhysicalVolume {
                extents: ExtentMap::whole(ImageIndex(*disk), self.image(*disk).size()),
                volume: self.volume(*disk),
            })
            .collect()
    }

    pub fn group(&self, disks: &[usize]) -> AssembledGroup {
        let mut groups = assemble(&self.found(disks));
        assert_eq!(groups.len(), 1);
        groups.remove(0)
    }

    pub fn disk_of(&self, device: &str) -> usize {
        let at = self.loops.iter().position(|disk| disk.device == device);
        at.unwrap()
    }
}

pub fn number(row: &Row, key: &str) -> u64 {
    row[key].as_str().unwrap().parse().unwrap()
}

pub fn group_in(path: &str) -> VolumeGroup {
    let bytes = std::fs::read(path).unwrap();
    VolumeGroup::from_text(&text::parse(&bytes).unwrap()).unwrap()
}
