//! The claim on a domain: who works on it says so where other runs, and libvirt's hook, look before
//! they begin.
//!
//! It is a lock of the whole file (flock(2)), so it goes with its process, however that ends. It is
//! taken before libvirt is asked for the domain's state: libvirt marks a domain as starting before
//! it calls the hook, so either the hook sees the claim, or the question is answered with "active".

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use uuid::Uuid;

use crate::names;

/// More is not read of a claim, in bytes.
const LONGEST: u64 = 64;

/// How often a claim whose file has just been taken away is tried again.
const ATTEMPTS: usize = 100;

/// No claim.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another run has it.
    #[error("domain {domain} is being checked by {holder}; wait until that has ended")]
    Held {
        /// The domain's name.
        domain: String,
        /// Who has it.
        holder: Holder,
    },
    /// The file cannot be made or locked.
    #[error("the claim {path} on the domain cannot be made")]
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

/// A claim that is held.
#[derive(Debug)]
#[must_use = "the claim ends when it is dropped"]
pub struct Claim {
    path: PathBuf,
    file: File,
}

impl Claim {
    /// Claims a domain. `run_base` is the folder in which runs have theirs.
    ///
    /// # Errors
    /// [`ClaimError::Held`] when another run has it.
    pub fn take(run_base: &Path, domain: &str, uuid: Uuid) -> Result<Self, ClaimError> {
        let path = names::claim(run_base, uuid);
        let system = |source: io::Error| ClaimError::System {
            path: path.clone(),
            source,
        };
        for _ in 0..ATTEMPTS {
            let file = open_or_make(&path).map_err(system)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    return Err(ClaimError::Held {
                        domain: domain.to_owned(),
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

    /// Who has a domain claimed; `None` if nobody has.
    ///
    /// # Errors
    /// When that cannot be told.
    pub fn holder(run_base: &Path, uuid: Uuid) -> io::Result<Option<Holder>> {
        let file = match File::open(names::claim(run_base, uuid)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(None),
            Err(Errno::WOULDBLOCK) => Ok(Some(named_in(&file))),
            Err(error) => Err(error.into()),
        }
    }

    fn say_who(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        writeln!(self.file, "{}", std::process::id())
    }
}

impl Drop for Claim {
    /// The file goes first, under the lock; then the lock, which a child that is being started may
    /// have too until it becomes its program, so to close ours is not enough.
    fn drop(&mut self) {
        // A file that stays is locked by nobody, and taken by the next run.
        let _stays = std::fs::remove_file(&self.path);
        let _unlocked = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

fn open_or_make(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(folder)?;
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(path)
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

    const VM1: Uuid = Uuid::from_u128(1);
    const VM2: Uuid = Uuid::from_u128(2);

    #[test]
    fn a_domain_is_claimed_by_one_at_a_time() {
        let base = tempfile::tempdir().unwrap();
        assert_eq!(Claim::holder(base.path(), VM1).unwrap(), None);
        let claim = Claim::take(base.path(), "vm1", VM1).unwrap();
        let us = Some(std::process::id());
        let holder = Claim::holder(base.path(), VM1).unwrap();
        assert_eq!(holder, Some(Holder { process: us }));
        let refused = Claim::take(base.path(), "vm1", VM1).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "domain vm1 is being checked by another virt-fsck (process {}); wait until that \
                 has ended",
                std::process::id()
            )
        );
        let _other = Claim::take(base.path(), "vm2", VM2).unwrap();
        drop(claim);
        assert_eq!(Claim::holder(base.path(), VM1).unwrap(), None);
        let _again = Claim::take(base.path(), "vm1", VM1).unwrap();
    }

    #[test]
    fn what_a_killed_run_left_is_taken() {
        let base = tempfile::tempdir().unwrap();
        let claim = Claim::take(base.path(), "vm1", VM1).unwrap();
        std::fs::copy(&claim.path, base.path().join("kept")).unwrap();
        let path = claim.path.clone();
        drop(claim);
        std::fs::rename(base.path().join("kept"), &path).unwrap();
        assert_eq!(Claim::holder(base.path(), VM1).unwrap(), None);
        let _claim = Claim::take(base.path(), "vm1", VM1).unwrap();
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
                        let Ok(_claim) = Claim::take(base.path(), "vm1", VM1) else {
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
