//! The filesystems that the host mounts: fstab(5).

use std::path::{Path, PathBuf};

use crate::reach::lines::{self, Origin};

/// Options that say when, by whom and in which order to mount, not how (mount(8), systemd.mount(5)).
/// mount(8) would write some of them into files of its own.
const NOT_FOR_THE_MOUNT: [&str; 12] = [
    "auto",
    "noauto",
    "nofail",
    "user",
    "nouser",
    "users",
    "group",
    "owner",
    "_netdev",
    "comment",
    "bootwait",
    "nobootwait",
];

/// A filesystem that can be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// What is mounted, as the table names it.
    pub device: String,
    /// Where.
    pub target: PathBuf,
    /// The type; `None` if mount(8) is to find out.
    pub filesystem: Option<String>,
    /// All options, as written.
    pub options: String,
    /// Where this is said.
    pub origin: Origin,
}

impl MountEntry {
    /// The options for a mount by virt-fsck.
    pub fn mount_options(&self) -> String {
        let concerns_the_mount = |option: &&str| {
            let name = option.split('=').next().unwrap_or_default();
            !name.is_empty()
                && !NOT_FOR_THE_MOUNT.contains(&name)
                && !name.starts_with("x-")
                && !name.starts_with("X-")
                && name != "defaults"
        };
        let kept: Vec<_> = self.options.split(',').filter(concerns_the_mount).collect();
        kept.join(",")
    }

    /// Whether the entry itself says that nothing may be written.
    pub fn read_only(&self) -> bool {
        let last = self
            .options
            .split(',')
            .rev()
            .find(|option| matches!(*option, "ro" | "rw"));
        last == Some("ro")
    }

    /// Whether it mounts a folder, or a file through a loop device.
    pub fn is_of_a_file(&self) -> bool {
        self.options.split(',').any(|option| {
            matches!(option, "bind" | "rbind" | "loop") || option.starts_with("loop=")
        })
    }
}

/// The entries of an fstab that have a place in the tree of folders. Lines that are cut off are left
/// out.
pub fn parse(text: &str, file: &Path) -> Vec<MountEntry> {
    lines::fields(text)
        .filter_map(|(line, fields)| {
            let mut fields = fields.into_iter();
            let device = fields.next()?;
            let target = fields.next().filter(|target| target.starts_with('/'))?;
            let filesystem = fields.next()?;
            let options = fields.next().unwrap_or_default();
            Some(MountEntry {
                device,
                target: PathBuf::from(target),
                filesystem: Some(filesystem).filter(|kind| kind != "auto"),
                options,
                origin: Origin {
                    file: file.to_owned(),
                    line,
                },
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table() {
        let text = "# <file system> <mount point> <type> <options> <dump> <pass>\n\
                    UUID=11 / ext4 errors=remount-ro 0 1\n\
                    UUID=22 none swap sw 0 0\n\
                    /dev/mapper/cr_kvmos /kvm/os auto noauto,nofail,x-systemd.automount,noatime 0 2\n\
                    broken /x\n\
                    LABEL=two\\040words /kvm/my\\040disks xfs\n";
        let entries = parse(text, Path::new("/etc/fstab"));
        let found: Vec<_> = entries
            .iter()
            .map(|entry| {
                (
                    entry.device.as_str(),
                    entry.target.to_str().unwrap(),
                    entry.filesystem.as_deref(),
                    entry.mount_options(),
                    entry.origin.line,
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                (
                    "UUID=11",
                    "/",
                    Some("ext4"),
                    "errors=remount-ro".to_owned(),
                    2
                ),
                (
                    "/dev/mapper/cr_kvmos",
                    "/kvm/os",
                    None,
                    "noatime".to_owned(),
                    4
                ),
                (
                    "LABEL=two words",
                    "/kvm/my disks",
                    Some("xfs"),
                    String::new(),
                    6
                ),
            ]
        );
    }

    #[test]
    fn options() {
        for (options, for_mount, read_only) in [
            ("defaults", "", false),
            ("ro,noatime", "ro,noatime", true),
            ("ro,rw", "ro,rw", false),
            (
                "rw,user,comment=x,X-mount.mkdir,subvol=@vm",
                "rw,subvol=@vm",
                false,
            ),
            ("rw,ro", "rw,ro", true),
        ] {
            let line = format!("/dev/a /b ext4 {options}");
            let entry = parse(&line, Path::new("/etc/fstab")).remove(0);
            assert_eq!(entry.read_only(), read_only, "{options}");
            assert_eq!(entry.mount_options(), for_mount, "{options}");
        }
    }
}
