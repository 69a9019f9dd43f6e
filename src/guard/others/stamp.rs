//! Whether a file is still as it was when it was looked at.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    path: PathBuf,
    /// Which file, its length, and when it was written last: seconds and nanoseconds.
    seen: Option<(u64, u64, u64, i64, i64)>,
}

impl Stamp {
    /// The file at `path`, now.
    pub(super) fn of(path: &Path) -> Self {
        let seen = std::fs::metadata(path).ok().map(|file| {
            let written = (file.mtime(), file.mtime_nsec());
            (file.dev(), file.ino(), file.len(), written.0, written.1)
        });
        Self {
            path: path.to_owned(),
            seen,
        }
    }

    /// Whether it is there, and the same. A device tells of no writes, so it never is.
    pub(super) fn is_unchanged(&self) -> bool {
        let is_file = std::fs::metadata(&self.path).is_ok_and(|file| file.is_file());
        is_file && Self::of(&self.path) == *self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_to_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("image");
        assert!(!Stamp::of(&file).is_unchanged());
        std::fs::write(&file, "one").unwrap();
        let stamp = Stamp::of(&file);
        assert!(stamp.is_unchanged());
        std::fs::write(&file, "other").unwrap();
        assert!(!stamp.is_unchanged());
        assert!(!Stamp::of(Path::new("/dev/null")).is_unchanged());
    }
}
