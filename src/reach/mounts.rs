//! What is mounted: /proc/self/mountinfo, see proc_pid_mountinfo(5).

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::reach::lines::unescaped;

/// A mounted filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint {
    /// The mount's number, which /proc/PID/fdinfo names too.
    pub number: u64,
    /// The filesystem's device number; for a filesystem on one block device, that device's.
    pub device: u64,
    /// Where.
    pub target: PathBuf,
    /// What, by the name it was mounted with.
    pub source: String,
    /// The type.
    pub filesystem: String,
    /// The options of the filesystem itself, whatever mount one comes by.
    pub options: String,
}

impl MountPoint {
    /// Whether the filesystem itself may be written, by this mount or another.
    pub fn is_writable(&self) -> bool {
        !self.has_option("ro")
    }

    /// Whether the filesystem has an option.
    pub fn has_option(&self, wanted: &str) -> bool {
        self.options.split(',').any(|option| option == wanted)
    }
}

/// The mount by which a file is reached, whatever its path looks like: the kernel tells its number
/// (/proc/PID/fdinfo, see proc_pid_fdinfo(5)).
///
/// # Errors
/// When the file cannot be opened, not even to ask, or the mounts cannot be read.
pub fn of_file(path: &Path) -> std::io::Result<Option<MountPoint>> {
    let file = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let number = about.lines().find_map(|line| {
        let number = line.strip_prefix("mnt_id:")?;
        number.trim().parse::<u64>().ok()
    });
    let mut mounts = read()?.into_iter();
    Ok(mounts.find(|mount| Some(mount.number) == number))
}

/// All mounts of this process, those on top of others last.
///
/// # Errors
/// When they cannot be read.
pub fn read() -> std::io::Result<Vec<MountPoint>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    Ok(parse(&String::from_utf8_lossy(&text)))
}

/// The lines of a mountinfo.
pub fn parse(text: &str) -> Vec<MountPoint> {
    text.lines().filter_map(line).collect()
}

/// `36 35 98:0 /root /target options optional... - type source options`.
fn line(line: &str) -> Option<MountPoint> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut mount = mount.split(' ');
    let number = mount.next()?.parse().ok()?;
    let device = device_number(mount.nth(1)?)?;
    let target = mount.nth(1)?;
    let mut filesystem = filesystem.split(' ');
    Some(MountPoint {
        number,
        device,
        target: PathBuf::from(unescaped(target)),
        filesystem: filesystem.next()?.to_owned(),
        source: unescaped(filesystem.next()?),
        options: filesystem.next().unwrap_or_default().to_owned(),
    })
}

/// A device number as the kernel writes it in /proc and /sys: `MAJOR:MINOR`.
pub fn device_number(text: &str) -> Option<u64> {
    let (major, minor) = text.trim().split_once(':')?;
    Some(rustix::fs::makedev(
        major.parse().ok()?,
        minor.parse().ok()?,
    ))
}

/// What one sees at a folder: the mount that was made there last.
pub fn topmost<'a>(mounts: &'a [MountPoint], target: &Path) -> Option<&'a MountPoint> {
    mounts.iter().rev().find(|mount| mount.target == target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let text = "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
                    36 22 254:3 / /kvm/my\\040disks rw,noatime master:1 shared:7 - xfs /dev/mapper/a rw\n\
                    37 36 0:40 / /kvm/my\\040disks ro - tmpfs  rw\n\
                    nonsense\n\
                    38 36 0:41 / - tmpfs\n";
        let mounts = parse(text);
        let found: Vec<_> = mounts
            .iter()
            .map(|mount| (mount.target.to_str().unwrap(), mount.source.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("/", "/dev/root"),
                ("/kvm/my disks", "/dev/mapper/a"),
                ("/kvm/my disks", "")
            ]
        );
        let told: Vec<_> = mounts
            .iter()
            .map(|mount| (mount.number, mount.device, mount.is_writable()))
            .collect();
        let device = rustix::fs::makedev;
        assert_eq!(
            told,
            [
                (22, device(254, 1), true),
                (36, device(254, 3), true),
                (37, device(0, 40), true)
            ]
        );
        let frozen = parse("1 0 8:1 / /a rw - ext4 /dev/sda1 ro,errors=continue\n");
        assert!(!frozen.first().unwrap().is_writable());
        let top = topmost(&mounts, Path::new("/kvm/my disks")).unwrap();
        assert_eq!(top.filesystem, "tmpfs");
        assert_eq!(topmost(&mounts, Path::new("/kvm")), None);
    }

    #[test]
    fn the_mount_of_a_file() {
        let of = |path: &str| of_file(Path::new(path)).unwrap().unwrap().target;
        assert_eq!(of("/proc/version"), Path::new("/proc"));
        assert_eq!(of("/proc/self/../version"), Path::new("/proc"));
        let link = tempfile::tempdir().unwrap();
        let link = link.path().join("link");
        std::os::unix::fs::symlink("/proc/version", &link).unwrap();
        assert_eq!(of(link.to_str().unwrap()), Path::new("/proc"));
        assert!(of_file(Path::new("/proc/no-such-thing")).is_err());
    }

    #[test]
    fn this_process_has_a_root() {
        assert!(topmost(&read().unwrap(), Path::new("/")).is_some());
    }
}
