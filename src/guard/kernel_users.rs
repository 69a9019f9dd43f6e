//! What the kernel of this host does with an image: mounts, swap, devices made of it, and what it
//! serves to others.
//!
//! `O_EXCL` tells that a device is in use; this tells by whom, and knows of files too.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::guard::family::{Family, Member, Place};
use crate::guard::processes::Processes;
use crate::guard::served;
use crate::guard::sysfs::{DeviceKind, Sysfs, entries};
use crate::reach::identity::{self, Identity};
use crate::reach::lines::unescaped;
use crate::reach::mounts::{self, MountPoint};

/// A use of an image, or of what shares bytes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// What is used, and by whom, with the way out: the end of a sentence that begins with the image.
    pub words: String,
    /// Whether the user may write to it.
    pub writes: bool,
}

impl Use {
    fn new(words: String) -> Self {
        Self {
            words,
            writes: true,
        }
    }
}

/// What the kernel does with this host's files and devices, at one moment.
#[derive(Debug, Default)]
pub struct KernelUsers {
    mounts: Vec<Mounted>,
    swaps: Vec<(Identity, PathBuf)>,
    /// The devices of btrfs that are mounted, and which of them it is.
    btrfs: Vec<(Identity, String)>,
    served: Vec<(Identity, String)>,
}

/// A mount, in whatever mount namespace.
#[derive(Debug)]
struct Mounted {
    mount: MountPoint,
    /// In which, unless it is the host's own.
    whose: String,
}

impl KernelUsers {
    /// What it does now, as /proc and sysfs tell.
    pub fn now(processes: &Processes, sysfs: &Sysfs) -> Self {
        Self {
            mounts: mounts_of_all(processes),
            swaps: swaps(processes),
            btrfs: btrfs(sysfs.root()),
            served: served::by_the_kernel(sysfs.root()),
        }
    }

    /// Every use of what is in a family, the ones that say most first.
    pub fn uses(&self, family: &Family) -> Vec<Use> {
        let mounted = self.mounts.iter().filter_map(|one| {
            let number = one.mount.device;
            let member = family.member(&Identity::BlockDevice { number })?;
            Some(Use {
                words: format!(
                    "{} is mounted at {}{}; unmount it first",
                    member.words(),
                    one.mount.target.display(),
                    one.whose
                ),
                writes: one.mount.is_writable(),
            })
        });
        let swapped = self.swaps.iter().filter_map(|(identity, path)| {
            Some(Use::new(format!(
                "{} is swap of this host; swapoff {} gives it back",
                family.member(identity)?.words(),
                path.display()
            )))
        });
        let btrfs = self.btrfs.iter().filter_map(|(identity, filesystem)| {
            Some(Use::new(format!(
                "{} is part of the mounted btrfs {filesystem}; unmount it first",
                family.member(identity)?.words(),
            )))
        });
        let served = self.served.iter().filter_map(|(identity, server)| {
            Some(Use::new(format!(
                "{} is served by {server}; stop that first",
                family.member(identity)?.words(),
            )))
        });
        let uses = mounted.chain(swapped).chain(btrfs).chain(served);
        uses.chain(held(family)).collect()
    }
}

/// Mounts in all mount namespaces but our own: what is mounted there, we have mounted, or it is
/// mounted outside too.
fn mounts_of_all(processes: &Processes) -> Vec<Mounted> {
    let mut seen: HashSet<PathBuf> = processes.own_mount_namespace().into_iter().collect();
    // Where people look for mounts first.
    let outer = processes.outer_mount_namespace();
    let plain = [outer, processes.mount_namespace(1)];
    let mut all = Vec::new();
    for process in processes.numbers() {
        // What may not be known of a process, its mounts may not either.
        let Some(namespace) = processes.mount_namespace(process) else {
            continue;
        };
        if !seen.insert(namespace.clone()) {
            continue;
        }
        let whose = match plain.contains(&Some(namespace)) {
            true => String::new(),
            false => format!(
                " in the mount namespace of process {process} ({})",
                processes.program(process)
            ),
        };
        let text = fs::read(processes.of(process, "mountinfo")).unwrap_or_default();
        let mounts = mounts::parse(&String::from_utf8_lossy(&text)).into_iter();
        all.extend(mounts.map(|mount| Mounted {
            mount,
            whose: whose.clone(),
        }));
    }
    all
}

fn swaps(processes: &Processes) -> Vec<(Identity, PathBuf)> {
    let text = fs::read_to_string(processes.everywhere("swaps")).unwrap_or_default();
    let found = swap_paths(&text).into_iter().filter_map(|path| {
        let (identity, _) = identity::identify(&path).ok()?;
        Some((identity, path))
    });
    found.collect()
}

/// The files and devices in /proc/swaps, which begins with a line of titles.
fn swap_paths(text: &str) -> Vec<PathBuf> {
    let lines = text.lines().skip(1);
    let names = lines.filter_map(|line| line.split_ascii_whitespace().next());
    names.map(|name| PathBuf::from(unescaped(name))).collect()
}

/// A btrfs of several devices is mounted under a number of its own.
fn btrfs(sysfs: &Path) -> Vec<(Identity, String)> {
    let mut members = Vec::new();
    for filesystem in entries(&sysfs.join("fs/btrfs")) {
        let name = filesystem.file_name().unwrap_or_default();
        for device in entries(&filesystem.join("devices")) {
            let number = fs::read_to_string(device.join("dev")).ok();
            if let Some(number) = number.and_then(|text| mounts::device_number(&text)) {
                let name = name.display().to_string();
                members.push((Identity::BlockDevice { number }, name));
            }
        }
    }
    members
}

/// Devices that the kernel has made of it. Partitions are none: they are always there.
fn held(family: &Family) -> impl Iterator<Item = Use> {
    family.members().filter_map(device_upon)
}

fn device_upon(member: &Member) -> Option<Use> {
    let device = member.device.as_ref()?;
    let where_it_lies = match member.place {
        Place::Above => "lies over it",
        Place::Beside => "lies over the same storage",
        Place::Itself | Place::Below => return None,
    };
    let node = &device.node;
    let way_out = match &device.kind {
        DeviceKind::Partition => return None,
        DeviceKind::Loop => format!("losetup -d {node} detaches it when nothing uses it"),
        DeviceKind::Array => format!("mdadm --stop {node} stops it when nothing uses it"),
        DeviceKind::Mapped { name, uuid } => match uuid.split('-').next() {
            Some("LVM") => {
                format!("lvchange -an /dev/mapper/{name} deactivates it when nothing uses it")
            }
            Some("CRYPT") => format!("cryptsetup close {name} closes it when nothing uses it"),
            _ => format!("dmsetup remove {name} removes it when nothing uses it"),
        },
        DeviceKind::Other => format!("lsblk {node} shows what uses it"),
    };
    Some(Use {
        words: format!("{} {where_it_lies}; {way_out}", member.named()),
        writes: !device.is_read_only,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::sysfs::fake::FakeSysfs;
    use std::os::unix::fs::symlink;

    fn words(uses: &[Use]) -> Vec<(&str, bool)> {
        let words = uses.iter().map(|one| (one.words.as_str(), one.writes));
        words.collect()
    }

    fn family(fake: &FakeSysfs, number: u64) -> Family {
        let image = Identity::BlockDevice { number };
        Family::of(image, &fake.devices(Vec::new()))
    }

    #[test]
    fn swap_files_and_devices() {
        let text = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n\
                    /dev/dm-1                               partition\t4194300\t0\t-2\n\
                    /swap\\040file\\040(deleted)            file\t1020\t0\t-3\n";
        let paths = swap_paths(text);
        let wanted = ["/dev/dm-1", "/swap file (deleted)"].map(PathBuf::from);
        assert_eq!(paths, wanted);
        assert_eq!(swap_paths(""), Vec::<PathBuf>::new());
    }

    /// A /proc of three processes in two mount namespaces.
    #[test]
    fn mounts_of_every_namespace_once() {
        let fake = FakeSysfs::new();
        let disk = fake.add("sda", (8, 0), &[]);
        fake.add("sda/sda1", (8, 1), &[]);
        let proc = tempfile::tempdir().unwrap();
        let host = "1 0 8:1 / /srv\\040a rw - ext4 /dev/sda1 rw\n";
        let inner = "2 0 8:0 / /x rw - ext4 /dev/sda ro\n";
        for (process, namespace, text) in [
            ("1", "mnt:[1]", host),
            ("20", "mnt:[2]", inner),
            ("30", "mnt:[1]", host),
        ] {
            let folder = proc.path().join(process);
            fs::create_dir_all(folder.join("ns")).unwrap();
            symlink(namespace, folder.join("ns/mnt")).unwrap();
            fs::write(folder.join("mountinfo"), text).unwrap();
            fs::write(folder.join("comm"), "a program\n").unwrap();
        }
        let users = KernelUsers {
            mounts: mounts_of_all(&Processes::at(proc.path())),
            ..KernelUsers::default()
        };
        let uses = users.uses(&family(&fake, disk));
        assert_eq!(
            words(&uses),
            [
                (
                    "the partition /dev/sda1 over it is mounted at /srv a; unmount it first",
                    true
                ),
                (
                    "it is mounted at /x in the mount namespace of process 20 (a program); \
                     unmount it first",
                    false
                )
            ]
        );
    }

    #[test]
    fn devices_made_of_it_each_with_its_way_out() {
        let fake = FakeSysfs::new();
        let disk = fake.add("sda", (8, 0), &[]);
        fake.add("sda/sda1", (8, 1), &[]);
        for (name, number, files) in [
            (
                "dm-0",
                0,
                ["dm/name=cr", "dm/uuid=CRYPT-LUKS2-x-cr", "ro=1"],
            ),
            ("dm-1", 1, ["dm/name=vg-lv", "dm/uuid=LVM-x", "ro=0"]),
            (
                "dm-2",
                2,
                ["dm/name=sdap1", "dm/uuid=part1-mpath-x", "ro=0"],
            ),
        ] {
            fake.add(name, (253, number), &files);
            fake.lay(name, "sda");
        }
        fake.add("md0", (9, 0), &["md/level=raid1"]);
        fake.lay("md0", "sda/sda1");
        fake.add("drbd0", (147, 0), &[]);
        fake.lay("drbd0", "sda");
        let family = family(&fake, disk);
        assert_eq!(
            words(&KernelUsers::default().uses(&family)),
            [
                (
                    "the array /dev/md0 lies over it; mdadm --stop /dev/md0 stops it when nothing \
                     uses it",
                    true
                ),
                (
                    "the device-mapper device /dev/mapper/cr lies over it; cryptsetup close cr \
                     closes it when nothing uses it",
                    false
                ),
                (
                    "the logical volume /dev/mapper/vg-lv lies over it; lvchange -an \
                     /dev/mapper/vg-lv deactivates it when nothing uses it",
                    true
                ),
                (
                    "the device-mapper device /dev/mapper/sdap1 lies over it; dmsetup remove sdap1 \
                     removes it when nothing uses it",
                    true
                ),
                (
                    "the device /dev/drbd0 lies over it; lsblk /dev/drbd0 shows what uses it",
                    true
                ),
            ]
        );
    }

    #[test]
    fn a_btrfs_of_several_devices() {
        let fake = FakeSysfs::new();
        let second = fake.add("sdb", (8, 16), &[]);
        let devices = fake.root.path().join("fs/btrfs/6a7e1b5e/devices");
        fs::create_dir_all(&devices).unwrap();
        symlink(fake.root.path().join("devices/sdb"), devices.join("sdb")).unwrap();
        let users = KernelUsers {
            btrfs: btrfs(fake.root.path()),
            ..KernelUsers::default()
        };
        assert_eq!(
            words(&users.uses(&family(&fake, second))),
            [(
                "it is part of the mounted btrfs 6a7e1b5e; unmount it first",
                true
            )]
        );
    }
}
