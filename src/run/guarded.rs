//! May we? Every question that is asked of the disks of a domain, before they are opened and again
//! while they are.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::cause;
use crate::check::outcome::Verdict;
use crate::domain::model::{Disk, Domain};
use crate::engine::user::nodes::Access;
use crate::guard;
use crate::guard::claim::{Claim, ClaimError, Claimed};
use crate::guard::devices::Devices;
use crate::guard::host::{HostClaim, Moment};
use crate::guard::lock_manager::LockManager;
use crate::guard::other_hosts::OtherHosts;
use crate::guard::others::OtherDisk;
use crate::guard::watch::Watched;
use crate::interrupt::Alarm;
use crate::reach::chain::Chain;
use crate::run::options::{Options, Origin, Refused, Run, failed};
use crate::run::reached::Reached;

/// Leaves out the disks that somebody uses: another run of virt-fsck, another domain, this host, or,
/// as far as that can be told, another one. The others are held from here on.
///
/// # Errors
/// The verdict if nobody knows what is in use.
pub async fn leave_out_what_is_used(
    run: &Run<'_>,
    reached: &mut [Reached<'_>],
    origin: &Origin<'_>,
    notes: &mut Vec<String>,
) -> Result<(), Verdict> {
    leave_out_what_other_runs_use(run, reached);
    leave_out_what_others_use(run, reached, origin, notes).await?;
    leave_out_what_the_host_uses(run.options, reached).await;
    Ok(())
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
    let devices = Devices::now();
    for disk in reached {
        if let Some(reason) = disk.refusal(&others, &devices) {
            disk.chain = Err(Verdict::Refused(reason));
        }
    }
    Ok(())
}

/// How long the start of a guest, which the hook or a lock may refuse, is waited for.
const SETTLED: Duration = Duration::from_secs(30);

/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// Asks once more, because a guest may have been started since, the domain itself or another one
/// that uses its disks, and because the host may have begun to use them.
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
    let devices = Devices::now();
    for disk in reached {
        let Some((path, wants)) = disk.wants(&devices) else {
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
    let chains = reached.iter().filter_map(|disk| disk.chain.as_ref().ok());
    let refusals = guard::host::refusals(chains, &devices, Moment::Meanwhile);
    match refusals.into_iter().flatten().next() {
        Some(reason) => Err(Refused::for_good(Verdict::Refused(reason))),
        None => Ok(()),
    }
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
    let devices = Devices::now();
    let disks = reached.iter().filter_map(|disk| disk.wants(&devices));
    Watched {
        domain: origin.uuid().map(|uuid| (domain.name.clone(), uuid)),
        disks: disks
            .map(|(path, wants)| (path.to_owned(), wants))
            .collect(),
        alarm,
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
    let devices = Devices::now();
    let chains = reached.iter().filter_map(|disk| disk.chain.as_ref().ok());
    let mut refusals = guard::host::refusals(chains, &devices, Moment::BeforeOpening).into_iter();
    for disk in reached {
        let Ok(chain) = &disk.chain else { continue };
        let held = match refusals.next().flatten() {
            Some(reason) => Err(reason),
            None => held(options, &manager, disk.disk, chain, &devices).await,
        };
        match held {
            Ok((claim, other_hosts)) => {
                disk.claim = claim;
                disk.other_hosts = other_hosts;
            }
            Err(reason) => disk.chain = Err(Verdict::Refused(reason)),
        }
    }
}

/// What holds a disk that nobody on this host uses; else who on another one does.
async fn held(
    options: &Options,
    manager: &Result<LockManager, String>,
    disk: &Disk,
    chain: &Chain,
    devices: &Devices,
) -> Result<(HostClaim, OtherHosts), String> {
    let claim = guard::host::claim(chain)?;
    let writes = options.action.writes();
    let allowed = &options.allowed;
    let asked = guard::other_hosts::ask(manager, disk, chain, devices, writes, allowed);
    Ok((claim, asked.await?))
}
