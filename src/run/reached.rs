//! The disks of a domain on their way: where they are, and whether they may be touched.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::check::image::{ImageCheck, Usable};
use crate::check::outcome::Verdict;
use crate::domain::model::{Disk, Domain};
use crate::engine::user::nodes::Access;
use crate::guard;
use crate::guard::claim::{Claim, ClaimError, Claimed};
use crate::guard::host::HostClaim;
use crate::guard::others::{OtherDisk, Wants};
use crate::guard::watch::Watched;
use crate::interrupt::Alarm;
use crate::reach::chain::Chain;
use crate::reach::disk::reach;
use crate::report::model::{DiskContent, DiskReport};
use crate::run::options::{Action, Origin, Refused, Run, failed};

/// A disk on its way: what was reached, or why not.
#[derive(Debug)]
pub struct Reached<'a> {
    /// As the XML has it.
    pub disk: &'a Disk,
    /// Its images on this host.
    pub chain: Result<Chain, Verdict>,
    /// Held until an engine holds the disk.
    pub claim: HostClaim,
    /// What other runs of virt-fsck see.
    pub claims: Vec<Claim>,
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

    /// What is done with its images, which were found.
    fn wants(&self) -> Option<(&Path, Wants)> {
        let chain = self.chain.as_ref().ok()?;
        let written = match self.disk.read_only {
            true => Vec::new(),
            false => chain.written().collect(),
        };
        let read = chain.all().collect();
        Some((&chain.top.path, Wants { written, read }))
    }

    /// Why the disk must not be touched, if one of these is made of the same.
    fn refusal(&self, others: &[OtherDisk]) -> Option<String> {
        let (path, wants) = self.wants()?;
        others.iter().find_map(|other| other.refusal(path, &wants))
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
    notes: &mut Vec<String>,
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
            claims: Vec::new(),
            image: None,
            plan,
        });
    }
    leave_out_what_other_runs_use(run, &mut reached);
    leave_out_what_others_use(run, &mut reached, origin, notes).await?;
    leave_out_what_the_host_uses(&mut reached);
    Ok(reached)
}

/// Claims the images of each disk, under whatever name another run may find them.
fn leave_out_what_other_runs_use(run: &Run<'_>, reached: &mut [Reached<'_>]) {
    // Two disks may have the same image.
    let mut written = HashSet::new();
    if run.options.action.writes() {
        let writable = reached.iter().filter(|disk| !disk.disk.read_only);
        let chains = writable.filter_map(|disk| disk.chain.as_ref().ok());
        written.extend(chains.flat_map(Chain::written));
    }
    let mut ours = HashSet::new();
    for disk in reached {
        let Ok(chain) = &disk.chain else { continue };
        let images = chain.links().flat_map(|link| {
            let images = link.identities();
            images.map(|image| (image, link.path.display().to_string()))
        });
        let images: Vec<_> = images.collect();
        for (image, path) in images {
            if !ours.insert(image) {
                continue;
            }
            let access = Access::of(written.contains(&image));
            let base = &run.options.run_base;
            match Claim::take(base, Claimed::Image(image), access, &path) {
                Ok(claim) => disk.claims.push(claim),
                Err(error) => {
                    ours.remove(&image);
                    disk.chain = Err(not_claimed(&error));
                    break;
                }
            }
        }
    }
}

/// Another run has it, or it cannot be claimed.
pub fn not_claimed(error: &ClaimError) -> Verdict {
    match error {
        ClaimError::Held { .. } => Verdict::Refused(error.to_string()),
        ClaimError::System { .. } => failed(error),
    }
}

async fn leave_out_what_others_use(
    run: &Run<'_>,
    reached: &mut [Reached<'_>],
    origin: &Origin<'_>,
    notes: &mut Vec<String>,
) -> Result<(), Verdict> {
    notes.extend(run.others.silent());
    let mut others = in_use(run, origin).await?;
    if run.options.action.writes() {
        let bases = run.others.bases(origin.libvirt()).await;
        let bases = bases.map_err(|error| failed(&error))?;
        others.extend(bases.disks);
        notes.extend(bases.unknown);
    }
    for disk in reached {
        if let Some(reason) = disk.refusal(&others) {
            disk.chain = Err(Verdict::Refused(reason));
        }
    }
    Ok(())
}

/// How long the start of a guest, which the hook or a lock may refuse, is waited for.
const SETTLED: Duration = Duration::from_secs(30);

/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// Asks once more, because a guest may have been started since: the domain itself, or another
/// one that uses its disks.
///
/// # Errors
/// The verdict if so.
pub async fn ask_again(
    run: &Run<'_>,
    reached: &[Reached<'_>],
    origin: &Origin<'_>,
) -> Result<(), Verdict> {
    let begun = Instant::now();
    loop {
        match ask_once(run, reached, origin).await {
            Ok(()) => return Ok(()),
            Err(refused) if refused.may_pass && begun.elapsed() < SETTLED => {
                tokio::time::sleep(LOOK).await;
            }
            Err(refused) => return Err(refused.verdict),
        }
    }
}

async fn ask_once(
    run: &Run<'_>,
    reached: &[Reached<'_>],
    origin: &Origin<'_>,
) -> Result<(), Refused> {
    origin.ask()?;
    let in_use = in_use(run, origin).await.map_err(Refused::for_good)?;
    for disk in reached {
        let Some((path, wants)) = disk.wants() else {
            continue;
        };
        for other in &in_use {
            if let Some(reason) = other.refusal(path, &wants) {
                return Err(Refused {
                    verdict: Verdict::Refused(reason),
                    may_pass: other.is_starting(),
                });
            }
        }
    }
    Ok(())
}

async fn in_use(run: &Run<'_>, origin: &Origin<'_>) -> Result<Vec<OtherDisk>, Verdict> {
    let in_use = run.others.in_use(origin.libvirt()).await;
    in_use.map_err(|error| failed(&error))
}

/// What the watch over the domains is to look for from here on.
pub fn watched(
    reached: &[Reached<'_>],
    domain: &Domain,
    origin: &Origin<'_>,
    alarm: Alarm,
) -> Watched {
    let disks = reached.iter().filter_map(Reached::wants);
    Watched {
        domain: origin.uuid().map(|uuid| (domain.name.clone(), uuid)),
        disks: disks
            .map(|(path, wants)| (path.to_owned(), wants))
            .collect(),
        alarm,
    }
}

fn leave_out_what_the_host_uses(reached: &mut [Reached<'_>]) {
    for disk in reached {
        let Ok(chain) = &disk.chain else { continue };
        match guard::host::claim(chain) {
            Ok(claim) => disk.claim = claim,
            Err(reason) => disk.chain = Err(Verdict::Refused(reason)),
        }
    }
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
