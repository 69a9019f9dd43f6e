//! virt-fsck's own mount namespace: what it mounts is seen by nobody else, and is gone with it.

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Leaves the host's mount namespace, if we are root; a plain user's FUSE mounts are made by
/// fusermount3 and taken back with each filesystem.
///
/// Mounts of the host still come in (the namespace is a slave), ours do not go out. Must be called
/// while there is only one thread: a namespace belongs to a thread (unshare(2)).
///
/// # Errors
/// When the system refuses.
#[expect(
    unsafe_code,
    reason = "unshare(2) can close descriptors under other threads"
)]
pub fn leave_host_mounts() -> std::io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    // SAFETY: only CLONE_NEWNS is asked for, which touches no descriptor, and no other thread runs.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    let ours_stay_here = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    match mount_change("/", ours_stay_here) {
        // In a chroot whose root is no mount point there is nothing to change: what is mounted
        // below it may be seen outside for the time of the run (mount(2), EINVAL).
        Err(rustix::io::Errno::INVAL) => Ok(()),
        other => Ok(other?),
    }
}
