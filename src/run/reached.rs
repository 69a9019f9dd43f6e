//! The disks of a domain on their way: where they are, and whether they may be touched.

use crate::cause;
use crate::check::image::{ImageCheck, Usable};
use crate::check::outcome::Verdict;
use crate::domain::model::{Disk, Domain};
use crate::guard;
use crate::guard::host::{HostClaim, Moment};
use crate::guard::lock_manager::LockManager;
use crate::guard::other_hosts::OtherHosts;
use crate::guard::others::DiskInUse;
use crate::reach::chain::Chain;
use crate::reach::disk::reach;
use crate::report::model::{DiskContent, DiskReport};
use crate::run::options::{Action, Options, Origin, Run, failed};

/// A disk on its way: what was reached, or why not.
#[derive(Debug)]
pub struct Reached<'a> {
    /// As the XML has it.
    pub disk: &'a Disk,
    /// Its images on this host.
    pub chain: Result<Chain, Verdict>,
    /// Held until an engine holds the disk.
    pub claim: HostClaim,
    /// What keeps other hosts off, held to the end, and what is to be said of them.
    pub other_hosts: OtherHosts,
    /// What came of the check of its images.
    pub image: Option<ImageCheck>,
    /// The commands that would make it exist, when only the plan is asked for.
    pub plan: Vec<String>,
}

impl Reached<'_> {
    /// Why nothing may be written to it, whatever the mode; `None` if it may be.
    pub fn only_looked_at(&self) -> Option<&'static str> {
        if self.disk.read_only {
            return Some("it is read-only for the guest, so it was only checked");
        }
        match self.image.as_ref()?.usable {
            Usable::ForReading(reason) => Some(reason),
            Usable::Fully | Usable::No(_) => None,
        }
    }

    /// Why the disk must not be touched, if one of these is the same.
    fn refusal(&self, in_use: &[DiskInUse]) -> Option<String> {
        let chain = self.chain.as_ref().ok()?;
        guard::others::refusal(self.disk, chain, in_use)
    }
}

/// Finds all disks, and leaves out those that somebody uses.
///
/// # Errors
/// The verdict if nothing of the domain may be touched.
pub async fn reach_all<'d>(
    run: &mut Run<'_>,
    domain: &'d Domain,
    origin: &Origin<'_>,
) -> Result<Vec<Reached<'d>>, Verdict> {
    let mut reached = Vec::new();
    for disk in &domain.disks {
        let mut plan = Vec::new();
        let chain = match run.options.action {
            Action::DryRun(_) => {
                reach(
                    disk,
                    &domain.name,
                    origin.libvirt(),
                    false,
                    run,
                    Some(&mut plan),
                )
                .await
            }
            action => {
                reach(
                    disk,
                    &domain.name,
                    origin.libvirt(),
                    action.writes(),
                    run,
                    None,
                )
                .await
            }
        };
        reached.push(Reached {
            disk,
            chain,
            claim: HostClaim::default(),
            other_hosts: OtherHosts::default(),
            image: None,
            plan,
        });
    }
    leave_out_what_others_use(&mut reached, origin).await?;
    leave_out_what_the_host_uses(run.options, &mut reached).await;
    Ok(reached)
}

async fn leave_out_what_others_use(
    reached: &mut [Reached<'_>],
    origin: &Origin<'_>,
) -> Result<(), Verdict> {
    let in_use = disks_in_use(origin).await?;
    for disk in reached {
        if let Some(reason) = disk.refusal(&in_use) {
            disk.chain = Err(Verdict::Refused(reason));
        }
    }
    Ok(())
}

/// Asks once more, because a guest may have been started since, the domain itself or another one
/// that uses its disks, and because the host may have begun to use them.
///
/// # Errors
/// The verdict if so.
pub async fn ask_again(reached: &[Reached<'_>], origin: &Origin<'_>) -> Result<(), Verdict> {
    origin.ask()?;
    let in_use = disks_in_use(origin).await?;
    let by_domain = reached.iter().find_map(|disk| disk.refusal(&in_use));
    let refused = by_domain.or_else(|| {
        let chains = reached.iter().filter_map(|disk| disk.chain.as_ref().ok());
        guard::host::refusal(chains, Moment::Meanwhile)
    });
    match refused {
        Some(reason) => Err(Verdict::Refused(reason)),
        None => Ok(()),
    }
}

async fn disks_in_use(origin: &Origin<'_>) -> Result<Vec<DiskInUse>, Verdict> {
    match origin.libvirt() {
        Some(libvirt) => guard::others::disks_in_use(libvirt)
            .await
            .map_err(|error| failed(&error)),
        None => Ok(Vec::new()),
    }
}

async fn leave_out_what_the_host_uses(options: &Options, reached: &mut [Reached<'_>]) {
    let manager = LockManager::configured().map_err(|(path, error)| {
        format!(
            "{} cannot be read: {}",
            path.display(),
            cause::sentence(&error)
        )
    });
    for disk in reached {
        let Ok(chain) = &disk.chain else { continue };
        match held(options, &manager, disk.disk, chain).await {
            Ok((claim, other_hosts)) => {
                disk.claim = claim;
                disk.other_hosts = other_hosts;
            }
            Err(reason) => disk.chain = Err(Verdict::Refused(reason)),
        }
    }
}

/// What holds a disk that nobody uses, on this host or on others; else who uses it.
async fn held(
    options: &Options,
    manager: &Result<LockManager, String>,
    disk: &Disk,
    chain: &Chain,
) -> Result<(HostClaim, OtherHosts), String> {
    if let Some(reason) = guard::host::refusal([chain], Moment::BeforeOpening) {
        return Err(reason);
    }
    let claim = guard::host::claim(chain)?;
    let writes = options.action.writes();
    let asked = guard::other_hosts::ask(manager, disk, chain, writes, &options.allowed);
    Ok((claim, asked.await?))
}

/// What the report says of a disk before it is opened.
pub fn disk_report(reached: &Reached<'_>) -> DiskReport {
    let disk = reached.disk;
    let mut notes = Vec::new();
    if disk.shareable {
        notes.push("shareable: other domains may be meant to use it too".to_owned());
    }
    if disk.transient {
        notes.push("transient: what the guest writes is dropped when it stops".to_owned());
    }
    notes.extend(reached.other_hosts.notes.iter().cloned());
    if let Some(image) = &reached.image {
        notes.extend(image.notes.iter().cloned());
    }
    DiskReport {
        target: disk.target.clone(),
        source: disk.image.source.as_ref().map(ToString::to_string),
        format: disk.image.format.name().to_owned(),
        size: None,
        notes,
        image: reached
            .image
            .as_ref()
            .and_then(|image| image.result.clone()),
        content: DiskContent::NotOpened(match &reached.chain {
            Ok(_) => Verdict::Interrupted,
            Err(verdict) => verdict.clone(),
        }),
    }
}
