//! The folders of a run: one for mount points, one for overlays.

use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::names;

/// A folder that only its owner can look into, gone when the run ends.
#[derive(Debug)]
pub struct Folder {
    folder: TempDir,
}

/// A folder could not be made or removed.
#[derive(Debug, thiserror::Error)]
#[error("the folder {path} cannot be made or removed")]
pub struct FolderError {
    path: String,
    #[source]
    source: io::Error,
}

impl FolderError {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self { path, source }
    }

    /// The same, from an error that names the path already.
    fn of(path: &Path, source: &io::Error) -> Self {
        Self {
            path: path.display().to_string(),
            source: source.kind().into(),
        }
    }
}

impl Folder {
    /// Makes a new folder below `base`, which is made too if it is missing.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn create(base: &Path) -> Result<Self, FolderError> {
        std::fs::create_dir_all(base).map_err(FolderError::at(base))?;
        let folder = tempfile::Builder::new()
            .prefix(names::FOLDER_PREFIX)
            .tempdir_in(base)
            .map_err(|source| FolderError::of(base, &source))?;
        Ok(Self { folder })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Removes it. Everything in it must be gone: a mount that is still there is not for us to
    /// remove the contents of.
    ///
    /// # Errors
    /// When it is not empty, or the system refuses.
    pub fn remove(self) -> Result<(), FolderError> {
        let path = self.folder.keep();
        std::fs::remove_dir(&path).map_err(FolderError::at(&path))
    }
}

/// Where mount points go: `/run/virt-fsck` for root, else `$XDG_RUNTIME_DIR`, else the folder for
/// temporary files. Nothing with a name that others know is made in a folder that others can
/// write to.
pub fn run_base() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/run/virt-fsck");
    }
    absolute_from_environment("XDG_RUNTIME_DIR").unwrap_or_else(std::env::temp_dir)
}

/// Where overlays go unless `--state-dir` says otherwise: `/var/lib/virt-fsck` for root, else
/// below `$XDG_STATE_HOME` (XDG Base Directory Specification 0.8).
pub fn default_state_base() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/virt-fsck");
    }
    absolute_from_environment("XDG_STATE_HOME")
        .or_else(|| absolute_from_environment("HOME").map(|home| home.join(".local/state")))
        .map_or_else(std::env::temp_dir, |state| state.join("virt-fsck"))
}

fn absolute_from_environment(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_something_in_it_is_not_emptied() {
        let base = tempfile::tempdir().unwrap();
        let folder = Folder::create(&base.path().join("new")).unwrap();
        let file = folder.path().join("precious");
        std::fs::write(&file, b"x").unwrap();
        let error = folder.remove().unwrap_err();
        assert!(file.exists());
        assert!(error.to_string().contains("/new/virt-fsck-"), "{error}");
    }
}
