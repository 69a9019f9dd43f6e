//! What is mounted: /proc/self/mountinfo, see proc_pid_mountinfo(5).

use std::path::{Path, PathBuf};

use crate::reach::lines::unescaped;

/// A mounted filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint {
    /// Where.
    pub target: PathBuf,
    /// What, by the name it was mounted with.
    pub source: String,
    /// The type.
    pub filesystem: String,
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
    let target = mount.split(' ').nth(4)?;
    let mut filesystem = filesystem.split(' ');
    Some(MountPoint {
        target: PathBuf::from(unescaped(target)),
        filesystem: filesystem.next()?.to_owned(),
        source: unescaped(filesystem.next()?),
    })
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
        let top = topmost(&mounts, Path::new("/kvm/my disks")).unwrap();
        assert_eq!(top.filesystem, "tmpfs");
        assert_eq!(topmost(&mounts, Path::new("/kvm")), None);
    }

    #[test]
    fn this_process_has_a_root() {
        assert!(topmost(&read().unwrap(), Path::new("/")).is_some());
    }
}
