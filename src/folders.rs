//! Where the folders of runs lie.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where the folder of a run goes, with its ledger and its mount points: `/run/virt-fsck` for root,
/// else the user's runtime folder, else the folder for temporary files. Nothing with a name that others know is made in a folder that others can
/// write to.
pub fn run_base() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return run_base_of_root().to_owned();
    }
    runtime_folder().unwrap_or_else(std::env::temp_dir)
}

/// Where those of root go.
pub fn run_base_of_root() -> &'static Path {
    Path::new("/run/virt-fsck")
}

/// A plain user's runtime folder: `$XDG_RUNTIME_DIR`, else where systemd makes it (pam_systemd(8)),
/// because libvirt starts its hooks without that variable.
pub fn runtime_folder() -> Option<PathBuf> {
    let user = rustix::process::geteuid();
    let at_its_place = || {
        let folder = PathBuf::from(format!("/run/user/{user}"));
        let found = std::fs::symlink_metadata(&folder).ok()?;
        (found.is_dir() && found.uid() == user.as_raw()).then_some(folder)
    };
    absolute_from_environment("XDG_RUNTIME_DIR").or_else(at_its_place)
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
