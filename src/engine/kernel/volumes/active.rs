//! Which device-mapper devices of a volume group there are, and what they lie on, as sysfs tells it
//! (Documentation/ABI/testing/sysfs-block and sysfs-block-dm of Linux).
//!
//! LVM gives each device a UUID: `LVM-`, the group's, the volume's, and a suffix if it is a part of a
//! volume (`build_dm_uuid`, lib/activate/activate.c and lib/uuid of LVM2).

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::Path;

use crate::engine::kernel::table::DeviceNumber;
use crate::layers::lvm::identity::{LogicalVolumeId, VolumeGroupId};

/// Where sysfs is mounted.
pub const SYSFS: &str = "/sys";

/// A device-mapper device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The kernel's name: `dm-5`.
    pub kernel_name: String,
    /// Its own name: what stands in `/dev/mapper`.
    pub name: String,
    /// Its UUID; may be empty.
    pub uuid: String,
    /// The kernel's names of the devices it lies on.
    pub lower: Vec<String>,
    /// The kernel's names of the devices that lie on it.
    pub holders: Vec<String>,
}

impl Mapped {
    /// Whether it is what users of the volume open.
    pub fn is(&self, group: VolumeGroupId, volume: LogicalVolumeId) -> bool {
        self.uuid == format!("{}{}", prefix(group), compact(&volume))
    }
}

/// The devices of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Those that lie on our devices.
    pub ours: Vec<Mapped>,
    /// All others.
    pub foreign: Vec<Mapped>,
}

impl Standing {
    /// Whether it is one of ours.
    pub fn has(&self, device: &Mapped) -> bool {
        self.ours.iter().any(|ours| ours.uuid == device.uuid)
    }
}

/// All device-mapper devices. One that goes away meanwhile is left out.
///
/// # Errors
/// When sysfs cannot be read.
pub fn devices(sysfs: &Path) -> io::Result<Vec<Mapped>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(sysfs.join("block"))? {
        let folder = entry?.path();
        let line = |file: &str| fs::read_to_string(folder.join(file));
        let Some(kernel_name) = folder.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if let (Ok(name), Ok(uuid)) = (line("dm/name"), line("dm/uuid")) {
            found.push(Mapped {
                kernel_name: kernel_name.to_owned(),
                name: name.trim_end().to_owned(),
                uuid: uuid.trim_end().to_owned(),
                lower: names_in(&folder.join("slaves")),
                holders: names_in(&folder.join("holders")),
            });
        }
    }
    Ok(found)
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// What the kernel calls a device.
pub fn kernel_name(sysfs: &Path, number: DeviceNumber) -> Option<String> {
    let link = sysfs.join(format!("dev/block/{}:{}", number.major, number.minor));
    let folder = fs::canonicalize(link).ok()?;
    Some(folder.file_name()?.to_str()?.to_owned())
}

/// Tells which of the `devices` belong to `group`, and which of these lie on `ours`.
///
/// One that lies on nothing at all, because LVM was stopped before it gave it a table, is counted
/// with ours unless the group has others that are not.
pub fn standing(devices: Vec<Mapped>, group: VolumeGroupId, ours: &[String]) -> Standing {
    let lower: BTreeMap<String, Vec<String>> = devices
        .iter()
        .map(|device| (device.kernel_name.clone(), device.lower.clone()))
        .collect();
    let prefix = prefix(group);
    let (mut standing, mut unfinished) = (Standing::default(), Vec::new());
    for device in devices {
        if !device.uuid.starts_with(&prefix) {
            continue;
        }
        if lies_on(&device.kernel_name, ours, &lower) {
            standing.ours.push(device);
        } else if device.lower.is_empty() {
            unfinished.push(device);
        } else {
            standing.foreign.push(device);
        }
    }
    if standing.foreign.is_empty() {
        standing.ours.append(&mut unfinished);
    } else {
        standing.foreign.append(&mut unfinished);
    }
    standing
}

fn lies_on(device: &str, ours: &[String], lower: &BTreeMap<String, Vec<String>>) -> bool {
    let mut waiting = vec![device];
    let mut seen = HashSet::new();
    while let Some(next) = waiting.pop() {
        if ours.iter().any(|name| name == next) {
            return true;
        }
        if seen.insert(next) {
            waiting.extend(lower.get(next).into_iter().flatten().map(String::as_str));
        }
    }
    false
}

/// Those on which nothing lies.
pub fn on_top(devices: &[Mapped]) -> Vec<&Mapped> {
    devices
        .iter()
        .filter(|device| device.holders.is_empty())
        .collect()
}

fn prefix(group: VolumeGroupId) -> String {
    format!("LVM-{}", compact(&group))
}

/// A UUID without dashes.
fn compact(uuid: &impl ToString) -> String {
    uuid.to_string().replace('-', "")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const GROUP: &str = "FC33RB-Q60H-uyYb-RtyW-J88P-adqe-PX2lPd";
    const OTHER: &str = "2QZDzb-23o3-ljW7-vUgv-EH9g-G5Z7-sfFBu4";
    const VOLUME: &str = "31N3Gi-FfwP-chdW-3qVs-AweM-8rjb-ql6cG6";

    fn group(text: &str) -> VolumeGroupId {
        VolumeGroupId::parse(text).unwrap()
    }

    fn uuid(group: &str, rest: &str) -> String {
        format!("LVM-{}{rest}", group.replace('-', ""))
    }

    fn mapped(kernel_name: &str, uuid: &str, lower: &[&str]) -> Mapped {
        Mapped {
            kernel_name: kernel_name.to_owned(),
            name: format!("name-{kernel_name}"),
            uuid: uuid.to_owned(),
            lower: lower.iter().map(|&name| name.to_owned()).collect(),
            holders: Vec::new(),
        }
    }

    fn names(devices: &[Mapped]) -> Vec<&str> {
        devices
            .iter()
            .map(|device| device.kernel_name.as_str())
            .collect()
    }

    #[test]
    fn only_what_lies_on_our_devices_is_ours() {
        let ours = ["dm-0".to_owned(), "loop3".to_owned()];
        let devices = vec![
            mapped("dm-0", "VIRT-FSCK-x-pv0", &["vda"]),
            mapped("dm-1", &uuid(GROUP, "a-tmeta"), &["dm-0"]),
            mapped("dm-2", &uuid(GROUP, "b-tpool"), &["dm-1", "dm-9"]),
            mapped("dm-3", &uuid(GROUP, "c"), &["loop3"]),
            mapped("dm-4", &uuid(OTHER, "d"), &["dm-0"]),
            mapped("dm-5", &uuid(GROUP, "e"), &[]),
            // Never made by a kernel, and no reason to walk for ever.
            mapped("dm-6", "", &["dm-7"]),
            mapped("dm-7", "", &["dm-6"]),
        ];
        let found = standing(devices.clone(), group(GROUP), &ours);
        assert_eq!(names(&found.ours), ["dm-1", "dm-2", "dm-3", "dm-5"]);
        assert_eq!(names(&found.foreign), [""; 0]);

        let mut with_hosts = devices;
        with_hosts.push(mapped("dm-8", &uuid(GROUP, "f"), &["vdb"]));
        with_hosts.push(mapped("dm-9", &uuid(GROUP, "g"), &["dm-6"]));
        let found = standing(with_hosts, group(GROUP), &ours);
        assert_eq!(names(&found.ours), ["dm-1", "dm-2", "dm-3"]);
        assert_eq!(names(&found.foreign), ["dm-8", "dm-9", "dm-5"]);
    }

    #[test]
    fn a_volume_is_known_by_both_uuids() {
        let volume = LogicalVolumeId::parse(VOLUME).unwrap();
        let whole = uuid(GROUP, &VOLUME.replace('-', ""));
        assert!(mapped("dm-1", &whole, &[]).is(group(GROUP), volume));
        assert!(!mapped("dm-1", &whole, &[]).is(group(OTHER), volume));
        assert!(!mapped("dm-1", &format!("{whole}-real"), &[]).is(group(GROUP), volume));
    }

    #[test]
    fn sysfs_is_read() {
        let root = tempfile::tempdir().unwrap();
        let block = root.path().join("block");
        for folder in [
            "dm-0/dm",
            "dm-0/slaves/vda1",
            "dm-0/holders/dm-1",
            "vda/vda1",
            "loop0",
        ] {
            fs::create_dir_all(block.join(folder)).unwrap();
        }
        fs::write(block.join("dm-0/dm/name"), "vg-a\n").unwrap();
        fs::write(block.join("dm-0/dm/uuid"), "LVM-x\n").unwrap();
        fs::create_dir_all(root.path().join("dev/block")).unwrap();
        symlink("../../block/vda/vda1", root.path().join("dev/block/254:1")).unwrap();
        let found = devices(root.path()).unwrap();
        assert_eq!(
            found,
            [Mapped {
                kernel_name: "dm-0".to_owned(),
                name: "vg-a".to_owned(),
                uuid: "LVM-x".to_owned(),
                lower: vec!["vda1".to_owned()],
                holders: vec!["dm-1".to_owned()],
            }]
        );
        assert_eq!(names(&found), ["dm-0"]);
        assert!(on_top(&found).is_empty());
        let number = |minor| DeviceNumber { major: 254, minor };
        assert_eq!(kernel_name(root.path(), number(1)).as_deref(), Some("vda1"));
        assert_eq!(kernel_name(root.path(), number(2)), None);
    }
}
