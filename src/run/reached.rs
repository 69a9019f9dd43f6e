//! The disks of a domain on their way: where they are, and whether they may be touched.

use std::path::Path;

use crate::check::image::{ImageCheck, Usable};
use crate::check::outcome::Verdict;
use crate::domain::model::{Disk, Domain};
use crate::guard::claim::Claim;
use crate::guard::devices::Devices;
use crate::guard::family::Family;
use crate::guard::host::HostClaim;
use crate::guard::other_hosts::OtherHosts;
use crate::guard::others::{OtherDisk, Wants};
use crate::reach::chain::Chain;
use crate::reach::disk::reach;
use crate::reach::identity::Identity;
use crate::report::model::{DiskContent, DiskReport};
use crate::run::guarded::leave_out_what_is_used;
use crate::run::options::{Action, Origin, Run};

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

    /// What is done with its images, which were found, and with all that shares bytes with them.
    pub fn wants(&self, devices: &Devices) -> Option<(&Path, Wants)> {
        let chain = self.chain.as_ref().ok()?;
        let with_families = |image: Identity| {
            let family = Family::of(image, devices);
            let members: Vec<_> = family.members().map(|member| member.identity).collect();
            members
        };
        let written = match self.disk.read_only {
            true => Vec::new(),
            false => chain.written().flat_map(with_families).collect(),
        };
        let read = chain.all().flat_map(with_families).collect();
        Some((&chain.top.path, Wants { written, read }))
    }

    /// Why the disk must not be touched, if one of these is made of the same.
    pub fn refusal(&self, others: &[OtherDisk], devices: &Devices) -> Option<String> {
        let (path, wants) = self.wants(devices)?;
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
            other_hosts: OtherHosts::default(),
            image: None,
            plan,
        });
    }
    leave_out_what_is_used(run, &mut reached, origin, notes).await?;
    Ok(reached)
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
