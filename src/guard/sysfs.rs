//! The block devices as the kernel shows them in sysfs (Documentation/ABI/stable/sysfs-block of
//! Linux): which lies on which.

use std::fs;
use std::path::{Path, PathBuf};

use crate::reach::mounts::device_number;

/// A block device, by its folder in sysfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its number, as in `st_rdev`.
    pub number: u64,
    /// Its node, by the kernel's own name: `/dev/sda1`.
    pub node: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Whether nothing can be written through it.
    pub is_read_only: bool,
    folder: PathBuf,
}

/// What a block device is, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A part of a disk, made by the kernel.
    Partition,
    /// A loop device.
    Loop,
    /// A device-mapper device.
    Mapped {
        /// Its name in /dev/mapper.
        name: String,
        /// Its UUID, which begins with who made it: `LVM-`, `CRYPT-`, `part1-`.
        uuid: String,
    },
    /// An array of MD.
    Array,
    /// All others.
    Other,
}

impl Device {
    /// Whether LVM made it: a logical volume, or a part of one.
    pub fn is_of_lvm(&self) -> bool {
        matches!(&self.kind, DeviceKind::Mapped { uuid, .. } if uuid.starts_with("LVM-"))
    }
}

/// sysfs, or a folder that looks like it.
#[derive(Clone, Debug)]
pub struct Sysfs {
    root: PathBuf,
}

impl Sysfs {
    /// That of this host.
    pub fn of_this_host() -> Self {
        Self::at("/sys")
    }

    /// The one below a folder.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The device with this number.
    pub fn device(&self, number: u64) -> Option<Device> {
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        of_folder(&self.root.join(format!("dev/block/{major}:{minor}")))
    }

    /// The loop devices that have something behind them.
    pub fn loops(&self) -> Vec<Device> {
        let folders = entries(&self.root.join("block")).into_iter();
        let used = folders.filter(|folder| folder.join("loop/backing_file").exists());
        used.filter_map(|folder| of_folder(&folder)).collect()
    }
}

impl Device {
    /// The partitions that the kernel made of it.
    pub fn partitions(&self) -> Vec<Self> {
        let mut inside = devices_in(&self.folder);
        inside.retain(|device| device.kind == DeviceKind::Partition);
        inside
    }

    /// The disk that it is a partition of.
    pub fn whole_disk(&self) -> Option<Self> {
        match self.kind {
            DeviceKind::Partition => of_folder(self.folder.parent()?),
            _ => None,
        }
    }

    /// The devices that were made of it.
    pub fn holders(&self) -> Vec<Self> {
        devices_in(&self.folder.join("holders"))
    }

    /// The devices that it was made of.
    pub fn slaves(&self) -> Vec<Self> {
        devices_in(&self.folder.join("slaves"))
    }

    /// The path of the file behind a loop device, as whoever attached it saw it.
    pub fn backing_path(&self) -> Option<PathBuf> {
        let text = fs::read_to_string(self.folder.join("loop/backing_file")).ok()?;
        Some(PathBuf::from(text.trim_end_matches('\n')))
    }
}

fn devices_in(folder: &Path) -> Vec<Device> {
    let folders = entries(folder).into_iter();
    folders.filter_map(|folder| of_folder(&folder)).collect()
}

/// What lies in a folder, in the order of the names; nothing where there is none.
pub(super) fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn of_folder(folder: &Path) -> Option<Device> {
    let read = |what: &str| {
        let text = fs::read_to_string(folder.join(what)).ok()?;
        Some(text.trim_end().to_owned())
    };
    // What else lies in such a folder has no number.
    let number = device_number(&read("dev")?)?;
    // Without links, so that its parent is the disk of a partition.
    let folder_itself = folder.canonicalize().ok()?;
    let name = folder_itself.file_name()?.to_str()?.replace('!', "/");
    let kind = if folder.join("partition").exists() {
        DeviceKind::Partition
    } else if folder.join("loop").is_dir() {
        DeviceKind::Loop
    } else if let Some(name) = read("dm/name") {
        let uuid = read("dm/uuid").unwrap_or_default();
        DeviceKind::Mapped { name, uuid }
    } else if folder.join("md").is_dir() {
        DeviceKind::Array
    } else {
        DeviceKind::Other
    };
    Some(Device {
        number,
        node: format!("/dev/{name}"),
        kind,
        is_read_only: read("ro").is_some_and(|text| text == "1"),
        folder: folder_itself,
    })
}

#[cfg(test)]
pub(in crate::guard) mod fake {
    //! A folder that looks like sysfs.

    use super::*;
    use crate::guard::devices::Devices;
    use crate::guard::loops::Looped;
    use std::os::unix::fs::symlink;

    /// Taken back when it is dropped.
    #[derive(Debug)]
    pub struct FakeSysfs {
        pub root: tempfile::TempDir,
    }

    impl FakeSysfs {
        pub fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            for folder in ["dev/block", "block", "devices"] {
                fs::create_dir_all(root.path().join(folder)).unwrap();
            }
            Self { root }
        }

        pub fn sysfs(&self) -> Sysfs {
            Sysfs::at(self.root.path())
        }

        /// All its devices, of which `loops` are in use.
        pub fn devices(&self, loops: Vec<Looped>) -> Devices {
            let sysfs = self.sysfs();
            Devices { sysfs, loops }
        }

        /// A device `disk` or `disk/partition`; `files` are `NAME=TEXT` in its folder.
        pub fn add(&self, name: &str, number: (u32, u32), files: &[&str]) -> u64 {
            let folder = self.root.path().join("devices").join(name);
            for part in ["holders", "slaves"] {
                fs::create_dir_all(folder.join(part)).unwrap();
            }
            let (major, minor) = number;
            let number = format!("{major}:{minor}");
            fs::write(folder.join("dev"), format!("{number}\n")).unwrap();
            symlink(&folder, self.root.path().join("dev/block").join(number)).unwrap();
            if name.contains('/') {
                fs::write(folder.join("partition"), "1\n").unwrap();
            } else {
                symlink(&folder, self.root.path().join("block").join(name)).unwrap();
            }
            for file in files {
                let (name, text) = file.split_once('=').unwrap();
                let file = folder.join(name);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, format!("{text}\n")).unwrap();
            }
            rustix::fs::makedev(major, minor)
        }

        /// `upper` was made of `lower`.
        pub fn lay(&self, upper: &str, lower: &str) {
            let folder = |name: &str| self.root.path().join("devices").join(name);
            let link = |what: &str, to: &str, name: &str| {
                let name = Path::new(name).file_name().unwrap();
                symlink(folder(to), folder(what).join(name)).unwrap();
            };
            link(&format!("{lower}/holders"), upper, upper);
            link(&format!("{upper}/slaves"), lower, lower);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::FakeSysfs;
    use super::*;

    #[test]
    fn devices_and_what_they_are() {
        let fake = FakeSysfs::new();
        let sda = fake.add("sda", (8, 0), &["ro=0"]);
        let first = fake.add("sda/sda1", (8, 1), &["ro=0"]);
        let mapped = fake.add("dm-0", (253, 0), &["dm/name=vg-lv", "dm/uuid=LVM-ab"]);
        fake.add("md0", (9, 0), &["ro=1", "md/level=raid1"]);
        fake.add("cciss!c0d0", (104, 0), &[]);
        fake.lay("dm-0", "sda/sda1");
        let sysfs = fake.sysfs();
        let disk = sysfs.device(sda).unwrap();
        assert_eq!((disk.node.as_str(), disk.number), ("/dev/sda", sda));
        let [partition] = &disk.partitions()[..] else {
            panic!("{disk:?}");
        };
        assert_eq!(partition.number, first);
        assert_eq!(partition.kind, DeviceKind::Partition);
        assert_eq!(partition.whole_disk().unwrap(), disk);
        let [holder] = &partition.holders()[..] else {
            panic!("{partition:?}");
        };
        assert_eq!(*holder, sysfs.device(mapped).unwrap());
        assert!(holder.is_of_lvm());
        assert_eq!(holder.slaves(), std::slice::from_ref(partition));
        let device = |major, minor| {
            let number = rustix::fs::makedev(major, minor);
            let device = sysfs.device(number).unwrap();
            (device.node, device.is_read_only)
        };
        assert_eq!(device(104, 0), ("/dev/cciss/c0d0".to_owned(), false));
        assert_eq!(device(253, 0), ("/dev/dm-0".to_owned(), false));
        assert_eq!(device(9, 0), ("/dev/md0".to_owned(), true));
        assert_eq!(device(8, 0), ("/dev/sda".to_owned(), false));
        assert_eq!(sysfs.device(rustix::fs::makedev(1, 1)), None);
    }

    #[test]
    fn loops_that_are_in_use() {
        let fake = FakeSysfs::new();
        fake.add("loop0", (7, 0), &["loop/autoclear=0"]);
        fake.add("loop1", (7, 1), &["loop/backing_file=/images/a b.img"]);
        fake.add("sda", (8, 0), &[]);
        let [used] = &fake.sysfs().loops()[..] else {
            panic!("{:?}", fake.sysfs().loops());
        };
        assert_eq!(
            (used.node.as_str(), &used.kind),
            ("/dev/loop1", &DeviceKind::Loop)
        );
        assert_eq!(used.backing_path(), Some("/images/a b.img".into()));
    }
}
