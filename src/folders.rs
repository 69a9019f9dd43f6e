//! Where the folders of runs lie.

use std::path::PathBuf;

/// Where the folder of a run goes, with its ledger and its mount points: `/run/virt-fsck` for root, else `$XDG_RUNTIME_DIR`, else the folder for
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
