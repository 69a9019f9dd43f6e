//! The note that a guest's memory is on its way: libvirt says so in one call of the hook, and the
//! next call looks like that of a guest that boots.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// More is not read of a note, in bytes.
const LONGEST: u64 = 64;

/// From where a guest's memory comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// From another host, where the guest may still run.
    Migration,
    /// From a file.
    Restore,
    /// There is a note that cannot be read.
    Unreadable,
}

impl Incoming {
    const fn word(self) -> &'static str {
        match self {
            Self::Migration => "migration",
            Self::Restore => "restore",
            Self::Unreadable => "unreadable",
        }
    }

    /// Writes the note.
    ///
    /// # Errors
    /// When it is not there afterwards.
    pub fn note(self, path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
            let owner = std::fs::symlink_metadata(folder)?.uid();
            if owner != rustix::process::geteuid().as_raw() {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(no_follow())
            .open(path)?;
        writeln!(file, "{}", self.word())
    }

    /// What was noted; `None` if nothing was.
    pub fn noted(path: &Path) -> Option<Self> {
        let mut text = String::new();
        let read = OpenOptions::new()
            .read(true)
            .custom_flags(no_follow())
            .open(path)
            .and_then(|file| file.take(LONGEST).read_to_string(&mut text));
        if let Err(error) = &read
            && error.kind() == io::ErrorKind::NotFound
        {
            return None;
        }
        let known = [Self::Migration, Self::Restore];
        let is_it = |note: &Self| text.trim_end() == note.word();
        Some(known.into_iter().find(is_it).unwrap_or(Self::Unreadable))
    }

    /// Takes the note back.
    pub fn forget(path: &Path) {
        // One that stays keeps a check from being made; it does no harm.
        let _stays = std::fs::remove_file(path);
    }
}

fn no_follow() -> i32 {
    i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_until_it_is_taken_back() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("notes/vm1");
        assert_eq!(Incoming::noted(&path), None);
        for note in [Incoming::Migration, Incoming::Restore] {
            note.note(&path).unwrap();
            note.note(&path).unwrap();
            assert_eq!(Incoming::noted(&path), Some(note));
        }
        Incoming::forget(&path);
        assert_eq!(Incoming::noted(&path), None);
        Incoming::forget(&path);
    }

    #[test]
    fn what_cannot_be_understood_is_a_note_all_the_same() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("vm1");
        for text in [&b""[..], b"migr", b"\xff\xfe", &[b'x'; 4096]] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Incoming::noted(&path), Some(Incoming::Unreadable));
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(Incoming::noted(&path), Some(Incoming::Unreadable));
        assert!(Incoming::Restore.note(&path).is_err());
    }
}
