//! The lock that virtlockd would take for a running domain's disk, taken by us for as long as we
//! work on it: then no domain of any host that has the same locks starts with it meanwhile, and one
//! that runs has it already.
//!
//! virtlockd locks the first byte of a file (`virLockSpaceResourceNew` in src/util/virlockspace.c of
//! libvirt). Ours are locks of the open file, which conflict with its own and go with us.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::cmd::{Invocation, Tool};
use crate::domain::model::{Disk, Source};
use crate::guard::image_lock::{fcntl, is_conflict};
use crate::guard::lock_manager::{LockPlace, Lockspaces, volume_uuid};
use crate::guard::shared_storage;
use crate::guard::sysfs::{DeviceKind, Sysfs};
use crate::reach::chain::Chain;
use crate::reach::identity::{Identity, Kind};

/// The byte that virtlockd locks; the next is for libvirt's own work on the file's owner and label.
const BYTE: u8 = 0;

/// How often a file that was taken away in the moment in which it was locked is made anew.
const ATTEMPTS: usize = 100;

/// As libvirt calls it (`virStorageFileGetSCSIKey`); no `PATH` has it.
const SCSI_ID: Tool = Tool {
    name: "/lib/udev/scsi_id",
    package: "udev",
};

/// A disk could not be locked as virtlockd does.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// It is locked.
    #[error(
        "{image} is in use: it is locked by virtlockd ({place}), for a domain of this host or of \
         another that has the same locks; shut that down first",
        image = image.display(), place = place.display()
    )]
    Held {
        /// The image.
        image: PathBuf,
        /// What is locked.
        place: PathBuf,
    },
    /// What is to be locked cannot be opened, or its filesystem has no locks.
    #[error("virtlockd's lock {} cannot be taken", place.display())]
    System {
        /// What is to be locked.
        place: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// A lock of virtlockd's that is ours.
#[derive(Debug)]
#[must_use = "the lock goes when it is dropped"]
pub struct Lease {
    file: File,
    place: PathBuf,
    /// Whether the file is there for the lock only.
    is_made_for_it: bool,
    access: Sharing,
}

/// Who else may have the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    /// Nobody.
    Alone,
    /// Others who share it, as the domains with a shareable disk do.
    Shared,
}

impl Lease {
    /// Whether other hosts see it.
    pub fn reaches_other_hosts(&self) -> bool {
        shared_storage::locks_reach_other_hosts(&self.place)
    }
}

impl Drop for Lease {
    /// As virtlockd does it: the file goes first, under the lock. A child that is being started may
    /// have the lock too until it becomes its program, so to close ours is not enough.
    fn drop(&mut self) {
        let is_last = match self.access {
            Sharing::Alone => true,
            Sharing::Shared => lock(&self.file, libc::F_WRLCK).is_ok_and(|alone| alone),
        };
        if self.is_made_for_it && is_last {
            // One that stays is locked by nobody, and used by the next.
            let _stays = std::fs::remove_file(&self.place);
        }
        let _unlocked = fcntl(&self.file, libc::F_OFD_SETLK, libc::F_UNLCK, BYTE);
    }
}

/// Takes the locks that virtlockd would for a domain that starts with this disk; none for a disk that
/// the guest only reads.
///
/// # Errors
/// [`LeaseError::Held`] when somebody has one.
pub async fn take(
    spaces: &Lockspaces,
    disk: &Disk,
    chain: &Chain,
) -> Result<Vec<Lease>, LeaseError> {
    if disk.read_only || !spaces.is_automatic {
        return Ok(Vec::new());
    }
    let sharing = match disk.shareable {
        true => Sharing::Shared,
        false => Sharing::Alone,
    };
    let image = &chain.top.path;
    let places = places(spaces, disk, chain).await;
    let leases = places.into_iter().map(|place| match place {
        LockPlace::File(place) => of_file(image, &place, sharing),
        LockPlace::Image(_) => of_image(image, chain.top.kind, sharing),
    });
    leases.collect()
}

/// What virtlockd locks for a disk. Where a name counts, libvirt knows it by the one in its XML; an
/// image that was not named by it may be known by the one without links.
async fn places(spaces: &Lockspaces, disk: &Disk, chain: &Chain) -> Vec<LockPlace> {
    let top = &chain.top;
    let named = disk.image.source.as_ref().and_then(Source::path);
    let name = named.unwrap_or(&top.path);
    let is_device = name.to_str().is_some_and(|name| name.starts_with("/dev"));
    if let (true, Some(folder)) = (is_device, &spaces.volumes)
        && let Some(uuid) = uuid_of_volume(top.identity)
    {
        return vec![LockPlace::File(folder.join(uuid))];
    }
    if let (true, Some(folder)) = (is_device, &spaces.scsi)
        && let Some(id) = scsi_id(name).await
    {
        return vec![LockPlace::File(folder.join(id))];
    }
    let mut places = vec![spaces.by_name(name)];
    let without_links = name.canonicalize().ok();
    let other = without_links.filter(|other| other != name && top.kind == Kind::File);
    if let (LockPlace::File(_), Some(other)) = (spaces.by_name(name), other) {
        places.push(spaces.by_name(&other));
    }
    places
}

fn uuid_of_volume(identity: Identity) -> Option<String> {
    let Identity::BlockDevice { number } = identity else {
        return None;
    };
    match Sysfs::of_this_host().device(number)?.kind {
        DeviceKind::Mapped { uuid, .. } => volume_uuid(&uuid),
        _ => None,
    }
}

/// What a SCSI disk calls itself; nothing for all others, as for libvirt.
async fn scsi_id(device: &Path) -> Option<String> {
    let mut arguments: Vec<OsString> = ["--replace-whitespace", "--whitelisted", "--device"]
        .map(Into::into)
        .into();
    arguments.push(device.into());
    let answer = Invocation::new(SCSI_ID, arguments).capture().await.ok()?;
    let text = String::from_utf8(answer.stdout).ok()?;
    let id = text.lines().next()?.trim();
    // It becomes the name of a file.
    (!id.is_empty() && !id.contains('/')).then(|| id.to_owned())
}

/// Locks a file that is there for the lock only. Whoever has the lock takes the file away at the end,
/// so the one that was opened may be gone by the time it is locked.
fn of_file(image: &Path, place: &Path, sharing: Sharing) -> Result<Lease, LeaseError> {
    let system = |source| LeaseError::System {
        place: place.to_owned(),
        source,
    };
    for _ in 0..ATTEMPTS {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(place)
            .map_err(system)?;
        let kind = match sharing {
            Sharing::Alone => libc::F_WRLCK,
            Sharing::Shared => libc::F_RDLCK,
        };
        if !lock(&file, kind).map_err(system)? {
            return Err(held(image, place));
        }
        if is_at(&file, place) {
            return Ok(Lease {
                file,
                place: place.to_owned(),
                is_made_for_it: true,
                access: sharing,
            });
        }
    }
    Err(system(io::ErrorKind::ResourceBusy.into()))
}

/// Locks the image itself. A device is not opened for writing: when it is closed, udev would look
/// what has become of it. So it is locked as by many, and that is refused where anybody has it
/// locked; whoever wants it alone is kept off too.
fn of_image(image: &Path, kind: Kind, sharing: Sharing) -> Result<Lease, LeaseError> {
    let system = |source| LeaseError::System {
        place: image.to_owned(),
        source,
    };
    let for_writing = match (kind, sharing) {
        (Kind::File, Sharing::Alone) => File::options().read(true).write(true).open(image).ok(),
        _ => None,
    };
    let (file, kind) = match for_writing {
        Some(file) => (file, libc::F_WRLCK),
        None => (File::open(image).map_err(system)?, libc::F_RDLCK),
    };
    let is_held = || match sharing {
        Sharing::Shared => Ok(false),
        Sharing::Alone => fcntl(&file, libc::F_OFD_GETLK, libc::F_WRLCK, BYTE)
            .map(|answer| i32::from(answer.l_type) != libc::F_UNLCK),
    };
    let is_ours = lock(&file, kind).map_err(system)?;
    if !is_ours || is_held().map_err(system)? {
        return Err(held(image, image));
    }
    Ok(Lease {
        file,
        place: image.to_owned(),
        is_made_for_it: false,
        access: sharing,
    })
}

fn held(image: &Path, place: &Path) -> LeaseError {
    LeaseError::Held {
        image: image.to_owned(),
        place: place.to_owned(),
    }
}

/// Whether the lock was had.
fn lock(file: &File, kind: i32) -> io::Result<bool> {
    match fcntl(file, libc::F_OFD_SETLK, kind, BYTE) {
        Ok(_) => Ok(true),
        Err(error) if is_conflict(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &tempfile::TempDir) -> PathBuf {
        let path = folder.path().join("image");
        std::fs::write(&path, [0; 512]).unwrap();
        path
    }

    #[test]
    fn one_alone_or_many_and_the_file_goes_with_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("lock");
        let take = |sharing| of_file(Path::new("/i"), &place, sharing);
        let alone = take(Sharing::Alone).unwrap();
        for sharing in [Sharing::Alone, Sharing::Shared] {
            let refused = take(sharing).unwrap_err().to_string();
            let begins = format!(
                "/i is in use: it is locked by virtlockd ({}",
                place.display()
            );
            assert!(refused.starts_with(&begins), "{refused}");
        }
        drop(alone);
        assert!(!place.exists());
        let first = take(Sharing::Shared).unwrap();
        let second = take(Sharing::Shared).unwrap();
        assert!(take(Sharing::Alone).is_err());
        drop(first);
        assert!(place.exists());
        drop(second);
        assert!(!place.exists());
    }

    #[test]
    fn a_folder_that_is_not_there_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("missing/lock");
        let error = of_file(Path::new("/i"), &place, Sharing::Alone).unwrap_err();
        assert!(matches!(error, LeaseError::System { .. }), "{error}");
        assert!(!folder.path().join("missing").exists());
    }

    #[test]
    fn an_image_is_locked_itself() {
        let folder = tempfile::tempdir().unwrap();
        let image = file(&folder);
        let take = |kind, sharing| of_image(&image, kind, sharing);
        for kind in [Kind::File, Kind::BlockDevice] {
            let alone = take(kind, Sharing::Alone).unwrap();
            for kind in [Kind::File, Kind::BlockDevice] {
                assert!(take(kind, Sharing::Alone).is_err(), "{kind:?}");
            }
            // Who wants it for himself, as virtlockd does, is kept off.
            let other = File::options().read(true).write(true).open(&image).unwrap();
            assert!(!lock(&other, libc::F_WRLCK).unwrap());
            drop(alone);
            let shared = take(kind, Sharing::Shared).unwrap();
            let _second = take(kind, Sharing::Shared).unwrap();
            assert!(take(kind, Sharing::Alone).is_err());
            drop(shared);
        }
        assert!(image.exists());
    }

    /// The lock is byte 0 only: QEMU's and libvirt's own are others.
    #[test]
    fn other_bytes_are_left_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let image = file(&folder);
        let _lease = of_image(&image, Kind::File, Sharing::Alone).unwrap();
        let other = File::options().read(true).write(true).open(&image).unwrap();
        for byte in [1, 100, 201] {
            fcntl(&other, libc::F_OFD_SETLK, libc::F_WRLCK, byte).unwrap();
        }
    }
}
