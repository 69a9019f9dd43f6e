//! Nothing of virt-fsck's memory gets out of it: keys and passphrases pass through it.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, capabilities};

/// The user namespace that the system begins with, in which capabilities count for the whole of it
/// (user_namespaces(7)).
const WHOLE_SYSTEM: [&str; 3] = ["0", "0", "4294967295"];

/// From now on this process leaves no core dump, no other one of its user can look into its memory, and
/// what root keeps in it is not swapped out. Tools that are started are not concerned: all of it ends
/// with exec.
///
/// What the system refuses is left: it would be no reason to check nothing.
pub fn keep_memory_private() {
    let _best_effort = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if may_lock_all() {
        // Only what is used is locked, and when it is used.
        let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
        let _best_effort = mlockall(flags);
    }
}

/// Whoever is bound to `RLIMIT_MEMLOCK` would run out of memory at that limit; a root of containers is,
/// whatever capabilities it sees.
fn may_lock_all() -> bool {
    let may_lock =
        capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    may_lock && map.split_whitespace().eq(WHOLE_SYSTEM)
}
