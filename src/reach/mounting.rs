//! Mounting the host's filesystems at their places, in virt-fsck's own mount namespace.

use std::ffi::OsString;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::UnmountFlags;

use crate::cause;
use crate::cmd::{CmdError, Invocation, Tool};
use crate::engine::user::nodes::Access;
use crate::reach::fstab::MountEntry;
use crate::reach::host::HostError;
use crate::reach::mounts::{self, MountPoint};

const MOUNT: Tool = Tool {
    name: "mount",
    package: "mount",
};

/// For how long a mount that is in use is tried again: whoever has looked at a file there is done
/// within moments.
const LONGEST: Duration = Duration::from_secs(10);
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// The line that mount(8) ends with.
const SEE_ELSEWHERE: &str = "dmesg(1) may have more information";

/// Mounts a device as its entry says.
pub(super) async fn mount(
    entry: &MountEntry,
    device: &Path,
    target: &Path,
    access: Access,
) -> Result<(), HostError> {
    let Err(error) = mounting(entry, device, target, access).capture().await else {
        return Ok(());
    };
    let target = target.display();
    let words = match error {
        CmdError::Failed {
            tool,
            status,
            stderr,
        } => {
            let told: Vec<_> = stderr
                .lines()
                .filter(|line| !line.contains(SEE_ELSEWHERE))
                .collect();
            let stderr = told.join("\n");
            if access == Access::ReadOnly && stderr.contains("read-only") {
                return Err(HostError::Failed(format!(
                    "{target} ({}) cannot be mounted without writing to it: it was not cleanly \
                     unmounted; mount it once, so that its journal is replayed",
                    entry.origin
                )));
            }
            cause::sentence(&CmdError::Failed {
                tool,
                status,
                stderr,
            })
        }
        other => cause::sentence(&other),
    };
    let sentence = format!("{target} ({}) cannot be mounted: {words}", entry.origin);
    Err(match words.contains("busy") {
        true => HostError::Busy(sentence),
        false => HostError::Failed(sentence),
    })
}

/// The call that mounts it.
pub(super) fn mounting(
    entry: &MountEntry,
    device: &Path,
    target: &Path,
    access: Access,
) -> Invocation {
    let mut arguments: Vec<OsString> = vec!["-n".into()];
    let mut options = entry.mount_options();
    if access == Access::ReadOnly {
        let comma = if options.is_empty() { "" } else { "," };
        options.push_str(comma);
        // The last one counts.
        options.push_str("ro");
    }
    if let Some(filesystem) = &entry.filesystem {
        arguments.extend(["-t".into(), filesystem.into()]);
    }
    if !options.is_empty() {
        arguments.extend(["-o".into(), options.into()]);
    }
    arguments.extend(["--".into(), device.into(), target.into()]);
    Invocation::new(MOUNT, arguments)
}

/// Unmounts what was mounted at `target`, if it is `device`. What is in use is tried again; it is
/// never hidden from view while it lives on.
///
/// # Errors
/// When it stays in use.
pub(super) async fn unmount(device: &Path, target: &Path) -> Result<(), HostError> {
    let cannot = |words: String| format!("{} cannot be unmounted: {words}", target.display());
    let until = tokio::time::Instant::now() + LONGEST;
    loop {
        let mounts =
            mounts::read().map_err(|error| HostError::Failed(cannot(cause::sentence(&error))))?;
        if !mounts::topmost(&mounts, target).is_some_and(|mount| is_of(mount, device)) {
            return Ok(());
        }
        match rustix::mount::unmount(target, UnmountFlags::NOFOLLOW) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::BUSY) if tokio::time::Instant::now() < until => {
                tokio::time::sleep(BETWEEN_TRIES).await;
            }
            Err(rustix::io::Errno::BUSY) => {
                return Err(HostError::Busy(cannot("it is in use".to_owned())));
            }
            Err(error) => {
                return Err(HostError::Failed(cannot(cause::sentence(
                    &std::io::Error::from(error),
                ))));
            }
        }
    }
}

/// Where a device is mounted already.
pub(super) fn place_of<'a>(mounts: &'a [MountPoint], device: &Path) -> Option<&'a Path> {
    let mount = mounts.iter().find(|mount| is_of(mount, device))?;
    Some(&mount.target)
}

fn is_of(mount: &MountPoint, device: &Path) -> bool {
    let source = Path::new(&mount.source);
    if source == device {
        return true;
    }
    let number = |path: &Path| block_device(path).map(|(number, _)| number);
    source.is_absolute() && number(source).is_some() && number(source) == number(device)
}

/// The number of a block device, and the path it is found at without links.
pub(super) fn block_device(path: &Path) -> Option<(u64, PathBuf)> {
    let found = std::fs::metadata(path).ok()?;
    found.file_type().is_block_device().then(|| {
        (
            found.rdev(),
            path.canonicalize().unwrap_or_else(|_| path.to_owned()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reach::fstab;

    #[test]
    fn calls() {
        for (line, access, words) in [
            (
                "/dev/a /t auto defaults",
                Access::Write,
                "mount -n -- /dev/x /t",
            ),
            (
                "/dev/a /t auto defaults",
                Access::ReadOnly,
                "mount -n -o ro -- /dev/x /t",
            ),
            (
                "/dev/a /t ext4 rw,noauto,noatime,x-y",
                Access::ReadOnly,
                "mount -n -t ext4 -o rw,noatime,ro -- /dev/x /t",
            ),
        ] {
            let entry = fstab::parse(line, Path::new("/etc/fstab")).remove(0);
            let call = mounting(&entry, Path::new("/dev/x"), Path::new("/t"), access);
            assert_eq!(call.to_string(), words);
        }
    }

    #[tokio::test]
    async fn only_what_we_mounted_is_unmounted() {
        unmount(Path::new("/dev/none"), Path::new("/proc"))
            .await
            .unwrap();
        assert!(mounts::topmost(&mounts::read().unwrap(), Path::new("/proc")).is_some());
    }
}
