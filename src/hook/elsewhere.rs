//! Other processes that have a guest's disk open. An ordinary run asks libvirt which disks other
//! guests use; the hook must not, and QEMU's locks are not seen on block devices: a QEMU of libvirt
//! opens them by nodes of its own.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, makedev, statx};

use crate::domain::model::{Domain, Source};
use crate::reach::chain;
use crate::reach::identity::{self, Identity};

/// What the guest writes to, as far as it is there.
pub async fn written_by(domain: &Domain) -> Vec<Identity> {
    let mut written = Vec::new();
    for disk in &domain.disks {
        match chain::follow(disk).await {
            Ok(chain) => written.extend(chain.written()),
            Err(_) => {
                let path = disk.image.source.as_ref().and_then(Source::path);
                let found = path.and_then(|path| identity::identify(path).ok());
                written.extend(found.map(|(identity, _)| identity));
            }
        }
    }
    written
}

/// Whether another process has one of these open. What processes of other users have open, only
/// root is told.
pub fn is_open(images: &[Identity]) -> bool {
    is_open_below(Path::new("/proc"), images)
}

fn is_open_below(proc: &Path, images: &[Identity]) -> bool {
    let ours = std::process::id().to_string();
    let is_other =
        |name: &OsStr| name.as_bytes().iter().all(u8::is_ascii_digit) && name != OsStr::new(&ours);
    entries(proc)
        .filter(|path| path.file_name().is_some_and(is_other))
        .flat_map(|process| entries(&process.join("fd")))
        .filter_map(|descriptor| opened(&descriptor))
        .any(|open| images.contains(&open))
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

/// What lies behind an open descriptor. A server that does not answer is not waited for.
fn opened(descriptor: &Path) -> Option<Identity> {
    let wanted = StatxFlags::TYPE | StatxFlags::INO;
    let found = statx(CWD, descriptor, AtFlags::STATX_DONT_SYNC, wanted).ok()?;
    match FileType::from_raw_mode(found.stx_mode.into()) {
        FileType::RegularFile => Some(Identity::File {
            device: makedev(found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
        }),
        FileType::BlockDevice => Some(Identity::BlockDevice {
            number: makedev(found.stx_rdev_major, found.stx_rdev_minor),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_file_that_another_process_has_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, "x").unwrap();
        let (image, _) = identity::identify(&path).unwrap();
        let ours = std::fs::File::open(&path).unwrap();
        assert!(!is_open(&[image]), "our own descriptors do not count");
        drop(ours);
        let mut other = Command::new("sleep")
            .arg("60")
            .stdin(Stdio::from(std::fs::File::open(&path).unwrap()))
            .spawn()
            .unwrap();
        let open = is_open(&[image]);
        let nothing = is_open(&[]);
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(open);
        assert!(!nothing);
        assert!(!is_open(&[image]));
    }
}
