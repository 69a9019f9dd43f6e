//! The claim on a domain and its disks: who works on them says so where other runs, and libvirt's
//! hook, look before they begin.
//!
//! It is a lock of a whole file (flock(2)), so it goes with its process, however that ends. That on
//! the domain is taken before libvirt is asked for its state: libvirt marks a domain as starting
//! before it calls the hook, so either the hook sees the claim, or the question is answered with
//! "active".

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;
use uuid::Uuid;

use crate::engine::user::nodes::Access;
use crate::names;
use crate::reach::identity::Identity;

/// More is not read of a claim, in bytes.
const LONGEST: u64 = 64;

/// How often a claim whose file has just been taken away is tried again.
const ATTEMPTS: usize = 100;

/// For so long a lock is waited for: whoever only looks who has a claim, or takes away that of a
/// killed run, has it for a moment.
const MOMENT: Duration = Duration::from_millis(20);

/// No claim.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another run has it.
    #[error("{what} is being checked by {holder}; wait until that has ended")]
    Held {
        /// What it has, in words.
        what: String,
        /// Who has it.
        holder: Holder,
    },
    /// The file cannot be made or locked.
    #[error("the claim {path} cannot be made")]
    System {
        /// The claim's file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Another virt-fsck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process, if it has said so.
    pub process: Option<u32>,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.process {
            Some(process) => write!(f, "another virt-fsck (process {process})"),
            None => f.write_str("another virt-fsck"),
        }
    }
}

/// What is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// A domain, by its UUID.
    Domain(Uuid),
    /// An image, whatever it is called.
    Image(Identity),
}

/// A claim that is held.
#[derive(Debug)]
#[must_use = "the claim ends when it is dropped"]
pub struct Claim {
    path: PathBuf,
    file: File,
}

impl Claim {
    /// Claims something; `what` says it in words, and `run_base` is the folder in which runs have
    /// theirs. Several may read the same.
    ///
    /// # Errors
    /// [`ClaimError::Held`] when another run has it.
    pub fn take(
        run_base: &Path,
        claimed: Claimed,
        access: Access,
        what: &str,
    ) -> Result<Self, ClaimError> {
        let path = names::claim(run_base, claimed);
        let system = |source: io::Error| ClaimError::System {
            path: path.clone(),
            source,
        };
        for _ in 0..ATTEMPTS {
            let file = match open_or_make(&path) {
                // Whoever was the last has taken the folder away.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(system)?,
            };
            match lock(&file, access) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    return Err(ClaimError::Held {
                        what: what.to_owned(),
                        holder: named_in(&file),
                    });
                }
                Err(error) => return Err(system(error.into())),
            }
            // Whoever had it has taken the file away after we opened it: the lock is on nothing.
            if !is_at(&file, &path) {
                continue;
            }
            let mut claim = Self { path, file };
            let written = claim.say_who();
            return match written {
                Ok(()) => Ok(claim),
                Err(source) => Err(ClaimError::System {
                    path: claim.path.clone(),
                    source,
                }),
            };
        }
        Err(system(io::ErrorKind::ResourceBusy.into()))
    }

    /// Who has it claimed so that others have no such access; `None` if nobody has.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn holder(run_base: &Path, claimed: Claimed, access: Access) -> io::Result<Option<Holder>> {
        let opened = is_ours_alone(&names::claims(run_base))
            .and_then(|()| File::open(names::claim(run_base, claimed)));
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        match lock(&file, access) {
            Ok(()) => Ok(None),
            Err(Errno::WOULDBLOCK) => Ok(Some(named_in(&file))),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes away the claims of runs that were killed: nobody has them any more.
    pub fn clear_dead(run_base: &Path) {
        let folder = names::claims(run_base);
        if is_ours_alone(&folder).is_err() {
            return;
        }
        let files = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        for path in files.map(|file| file.path()) {
            let Ok(file) = File::open(&path) else {
                continue;
            };
            let alone = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
            if alone.is_ok() && is_at(&file, &path) {
                let _stays = std::fs::remove_file(&path);
            }
        }
        // Where others lie, it stays.
        let _stays = std::fs::remove_dir(&folder);
    }

    fn say_who(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        writeln!(self.file, "{}", std::process::id())
    }
}

impl Drop for Claim {
    /// The file goes first, under a lock that nobody shares; then the lock, which a child that is
    /// being started may have too until it becomes its program, so to close ours is not enough.
    fn drop(&mut self) {
        let alone = rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive);
        if alone.is_ok() {
            // A file that stays is locked by nobody, and taken by the next run.
            let _stays = std::fs::remove_file(&self.path);
            // Other claims may lie there.
            let _stays = self.path.parent().map(std::fs::remove_dir);
        }
        let _unlocked = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

fn lock(file: &File, access: Access) -> Result<(), Errno> {
    let operation = match access {
        Access::ReadOnly => FlockOperation::NonBlockingLockShared,
        Access::Write => FlockOperation::NonBlockingLockExclusive,
    };
    let began = Instant::now();
    loop {
        match rustix::fs::flock(file, operation) {
            Err(Errno::WOULDBLOCK) if began.elapsed() < MOMENT => {
                std::thread::sleep(Duration::from_millis(2));
            }
            other => return other,
        }
    }
}

fn open_or_make(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(folder)?;
        is_ours_alone(folder)?;
    }
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .custom_flags(flags)
        .open(path)
}

/// Without a folder of his own, a plain user's claims lie where others can make files too: what they
/// have made there must not be written to. What root has made is no other's.
fn is_ours_alone(folder: &Path) -> io::Result<()> {
    let found = std::fs::symlink_metadata(folder)?;
    let owner = rustix::fs::Uid::from_raw(found.uid());
    let is_ours = owner.is_root() || owner == rustix::process::geteuid();
    match found.is_dir() && is_ours && found.mode() & 0o022 == 0 {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "its folder is not ours alone",
        )),
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn named_in(file: &File) -> Holder {
    let mut text = String::new();
    // One that cannot be read has not been written yet.
    let _unread = file.take(LONGEST).read_to_string(&mut text);
    Holder {
        process: text.trim().parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VM1: Claimed = Claimed::Domain(Uuid::from_u128(1));
    const VM2: Claimed = Claimed::Domain(Uuid::from_u128(2));
    const IMAGE: Claimed = Claimed::Image(Identity::File {
        device: 1,
        inode: 2,
    });

    fn take(base: &Path, claimed: Claimed, access: Access) -> Result<Claim, ClaimError> {
        Claim::take(base, claimed, access, "domain vm1")
    }

    #[test]
    fn a_domain_is_claimed_by_one_at_a_time() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        let holder = || Claim::holder(base, VM1, Access::Write).unwrap();
        assert_eq!(holder(), None);
        let claim = take(base, VM1, Access::Write).unwrap();
        let process = Some(std::process::id());
        assert_eq!(holder(), Some(Holder { process }));
        let refused = take(base, VM1, Access::Write).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "domain vm1 is being checked by another virt-fsck (process {}); wait until that \
                 has ended",
                std::process::id()
            )
        );
        let other = take(base, VM2, Access::Write).unwrap();
        drop(claim);
        assert_eq!(holder(), None);
        drop(take(base, VM1, Access::Write).unwrap());
        drop(other);
        assert_eq!(std::fs::read_dir(base).unwrap().count(), 0);
    }

    #[test]
    fn an_image_is_read_by_many_or_written_by_one() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        let one = take(base, IMAGE, Access::ReadOnly).unwrap();
        let other = take(base, IMAGE, Access::ReadOnly).unwrap();
        take(base, IMAGE, Access::Write).unwrap_err();
        drop(one);
        take(base, IMAGE, Access::Write).unwrap_err();
        let readers = Claim::holder(base, IMAGE, Access::ReadOnly).unwrap();
        assert_eq!(readers, None);
        drop(other);
        let _writer = take(base, IMAGE, Access::Write).unwrap();
        take(base, IMAGE, Access::ReadOnly).unwrap_err();
    }

    #[test]
    fn what_a_killed_run_left_is_taken() {
        let base = tempfile::tempdir().unwrap();
        let claim = take(base.path(), VM1, Access::Write).unwrap();
        let path = claim.path.clone();
        drop(claim);
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "1\n").unwrap();
        let holder = Claim::holder(base.path(), VM1, Access::Write).unwrap();
        assert_eq!(holder, None);
        let _claim = take(base.path(), VM1, Access::Write).unwrap();
    }

    #[test]
    fn what_a_killed_run_left_is_taken_away_and_nothing_else() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        let lives = take(base, VM1, Access::Write).unwrap();
        let read = take(base, IMAGE, Access::ReadOnly).unwrap();
        std::fs::write(names::claim(base, VM2), "1\n").unwrap();
        Claim::clear_dead(base);
        assert!(!names::claim(base, VM2).exists());
        take(base, VM1, Access::Write).unwrap_err();
        take(base, IMAGE, Access::Write).unwrap_err();
        drop((lives, read));
        std::fs::create_dir(names::claims(base)).unwrap();
        std::fs::write(names::claim(base, VM2), "1\n").unwrap();
        Claim::clear_dead(base);
        assert_eq!(std::fs::read_dir(base).unwrap().count(), 0);
        Claim::clear_dead(base);
    }

    #[test]
    fn whoever_only_looks_keeps_nobody_off() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        std::fs::create_dir(names::claims(base)).unwrap();
        std::fs::write(names::claim(base, VM1), "1\n").unwrap();
        let looks = File::open(names::claim(base, VM1)).unwrap();
        rustix::fs::flock(&looks, FlockOperation::NonBlockingLockExclusive).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(5));
                drop(looks);
            });
            let _claim = take(base, VM1, Access::Write).unwrap();
        });
    }

    #[test]
    fn nothing_is_written_where_others_may_have_made_something() {
        use std::os::unix::fs::PermissionsExt;
        let base = tempfile::tempdir().unwrap();
        let base = base.path();
        let folder = names::claims(base);
        std::fs::create_dir(&folder).unwrap();
        let precious = base.join("precious");
        std::fs::write(&precious, "kept").unwrap();
        std::os::unix::fs::symlink(&precious, names::claim(base, VM1)).unwrap();
        take(base, VM1, Access::Write).unwrap_err();
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o777)).unwrap();
        take(base, VM2, Access::Write).unwrap_err();
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "kept");
    }

    #[test]
    fn many_at_once_and_never_two() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let base = tempfile::tempdir().unwrap();
        let inside = AtomicUsize::new(0);
        let taken = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let Ok(_claim) = take(base.path(), VM1, Access::Write) else {
                            continue;
                        };
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        taken.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(taken.load(Ordering::SeqCst) > 0);
    }
}
