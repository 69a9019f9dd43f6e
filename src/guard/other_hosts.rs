//! Whether other hosts were asked, and what follows if they could not be: storage that they share,
//! and the locks by which they would tell.

use std::path::Path;

use crate::allow::Allowance;
use crate::cause;
use crate::domain::model::Disk;
use crate::guard::devices::Devices;
use crate::guard::lease::{self, Lease, LeaseError};
use crate::guard::lock_manager::LockManager;
use crate::guard::shared_storage::{self, Shared};
use crate::reach::chain::Chain;

/// A disk that may be worked on, as far as other hosts go.
#[derive(Debug, Default)]
pub struct OtherHosts {
    /// The locks that keep them off, to be held to the end.
    pub leases: Vec<Lease>,
    /// What must be said of them.
    pub notes: Vec<String>,
}

/// Asks other hosts as far as they can be asked.
///
/// # Errors
/// Why the disk must not be touched, with the way out.
pub async fn ask(
    manager: &Result<LockManager, String>,
    disk: &Disk,
    chain: &Chain,
    devices: &Devices,
    writes: bool,
    allowed: &[Allowance],
) -> Result<OtherHosts, String> {
    let (leases, answer) = lock(manager, disk, chain).await?;
    let shared = shared_storage::of(chain, devices).await;
    let writes = writes && !disk.read_only;
    let notes = judge(&chain.top.path, &shared, &answer, writes, allowed)?;
    Ok(OtherHosts { leases, notes })
}

/// What the lock manager has told of other hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// Nothing: there is none, or its locks are seen on this host only.
    Nothing,
    /// No host that has the same locks uses the disk.
    Free,
    /// It could not be asked: the reason.
    CannotBeAsked(String),
}

async fn lock(
    manager: &Result<LockManager, String>,
    disk: &Disk,
    chain: &Chain,
) -> Result<(Vec<Lease>, Answer), String> {
    let cannot = |why: String| Ok((Vec::new(), Answer::CannotBeAsked(why)));
    let spaces = match manager {
        Ok(LockManager::Nothing) => return Ok((Vec::new(), Answer::Nothing)),
        Ok(LockManager::Lockd(spaces)) => spaces,
        Ok(_) if disk.read_only => return Ok((Vec::new(), Answer::Nothing)),
        Ok(LockManager::Sanlock) => {
            return cannot("libvirt's locks are sanlock's, which only its daemon can take".into());
        }
        Ok(LockManager::Other(name)) => {
            return cannot(format!(
                "libvirt's locks are those of {name}, which this version does not know"
            ));
        }
        Err(why) => return cannot(why.clone()),
    };
    match lease::take(spaces, disk, chain).await {
        Ok(leases) => {
            let all_reach = leases.iter().all(Lease::reaches_other_hosts);
            let answer = match all_reach && !leases.is_empty() {
                true => Answer::Free,
                false => Answer::Nothing,
            };
            Ok((leases, answer))
        }
        Err(held @ LeaseError::Held { .. }) => Err(held.to_string()),
        Err(error) => cannot(cause::sentence(&error)),
    }
}

/// What must be said, or why nothing may be written. To look at a disk does no harm to other hosts;
/// what is seen may be wrong.
fn judge(
    image: &Path,
    shared: &[Shared],
    answer: &Answer,
    writes: bool,
    allowed: &[Allowance],
) -> Result<Vec<String>, String> {
    let mut reasons: Vec<(String, Option<Allowance>)> = Vec::new();
    if let Answer::CannotBeAsked(why) = answer {
        reasons.push((why.clone(), Some(Allowance::SharedNfs)));
    }
    for one in shared {
        // What lies under an image is written by nobody who has any on it.
        let needed = one.is_written.then(|| one.storage.allowance());
        if *answer != Answer::Free || !one.is_written {
            reasons.push((one.to_string(), needed));
        }
    }
    let mut notes = Vec::new();
    for (reason, needed) in reasons {
        match needed {
            Some(allowance) if writes && !allowed.contains(&allowance) => {
                return Err(format!(
                    "{} may be in use on another host, which cannot be asked: {reason}; if no host \
                     uses it: --allow {}",
                    image.display(),
                    allowance.name()
                ));
            }
            Some(allowance) if writes => notes.push(format!(
                "WRITTEN WITHOUT ASKING OTHER HOSTS, as --allow {} wants it: {reason}",
                allowance.name()
            )),
            _ => notes.push(format!(
                "other hosts were not asked and could not be: {reason}"
            )),
        }
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::shared_storage::Storage;

    fn on_nfs(is_written: bool) -> Shared {
        Shared {
            image: "/images/vm1".into(),
            storage: Storage::Filesystem {
                kind: "nfs4".into(),
                mounted_at: "/images".into(),
            },
            is_written,
        }
    }

    fn in_group() -> Shared {
        Shared {
            image: "/dev/san/vm1".into(),
            storage: Storage::VolumeGroup {
                name: "san".into(),
                by: "lvmlockd",
            },
            is_written: true,
        }
    }

    fn told(
        shared: &[Shared],
        answer: &Answer,
        writes: bool,
        allowed: &[Allowance],
    ) -> Result<Vec<String>, String> {
        judge(Path::new("/images/vm1"), shared, answer, writes, allowed)
    }

    const NFS: &[Allowance] = &[Allowance::SharedNfs];
    const LVM: &[Allowance] = &[Allowance::SharedLvm];

    #[test]
    fn what_is_this_hosts_alone_needs_no_word() {
        for answer in [Answer::Nothing, Answer::Free] {
            assert_eq!(told(&[], &answer, true, &[]), Ok(Vec::new()));
        }
    }

    #[test]
    fn shared_storage_is_read_with_a_note_and_written_by_leave() {
        let nfs = [on_nfs(true)];
        assert_eq!(
            told(&nfs, &Answer::Nothing, false, &[]),
            Ok(vec![
                "other hosts were not asked and could not be: /images/vm1 lies on nfs4 (/images)"
                    .to_owned()
            ])
        );
        assert_eq!(
            told(&nfs, &Answer::Nothing, true, LVM),
            Err(
                "/images/vm1 may be in use on another host, which cannot be asked: /images/vm1 \
                 lies on nfs4 (/images); if no host uses it: --allow shared-nfs"
                    .to_owned()
            )
        );
        assert_eq!(
            told(&nfs, &Answer::Nothing, true, NFS),
            Ok(vec![
                "WRITTEN WITHOUT ASKING OTHER HOSTS, as --allow shared-nfs wants it: /images/vm1 \
                 lies on nfs4 (/images)"
                    .to_owned()
            ])
        );
        let words = told(&[in_group()], &Answer::Nothing, true, NFS).unwrap_err();
        assert!(words.ends_with("--allow shared-lvm"), "{words}");
        assert!(words.contains("group san, which is shared"), "{words}");
        assert!(told(&[in_group()], &Answer::Nothing, true, LVM).is_ok());
    }

    #[test]
    fn a_lock_that_others_see_is_their_answer() {
        assert_eq!(
            told(&[on_nfs(true)], &Answer::Free, true, &[]),
            Ok(Vec::new())
        );
        // Not of what lies under the image: nobody locks that.
        let notes = told(&[on_nfs(false)], &Answer::Free, true, &[]).unwrap();
        assert_eq!(notes.len(), 1);
    }

    #[test]
    fn a_lock_manager_that_cannot_be_asked() {
        let answer = Answer::CannotBeAsked("locks of sanlock".into());
        let words = told(&[], &answer, true, &[]).unwrap_err();
        assert!(words.ends_with("--allow shared-nfs"), "{words}");
        assert_eq!(told(&[], &answer, true, NFS).unwrap().len(), 1);
        assert_eq!(told(&[], &answer, false, &[]).unwrap().len(), 1);
    }
}
