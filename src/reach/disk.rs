//! A disk of the XML: the chain of images it stands for, or the answer why it has none.

use std::path::{Path, PathBuf};

use rustix::fs::Access;

use crate::cause;
use crate::check::outcome::Verdict;
use crate::domain::libvirt::Libvirt;
use crate::domain::model::{DeviceKind, Disk, Source};
use crate::engine::user::nodes;
use crate::reach::chain::{self, Chain, ChainError};
use crate::reach::host::{HostError, HostErrorKind};
use crate::reach::identity::IdentityError;
use crate::reach::image_key;
use crate::run::Run;

/// How often a chain is followed anew because something under it was opened: the device, the
/// mount above it, and so on for each image under another.
const MOST_OPENINGS: usize = 32;

/// Finds a disk's images on this host, and opens the host's own layers under them where they are
/// closed; they are in the ledger. With a `plan`, the commands that would open them go there
/// instead.
///
/// # Errors
/// The verdict for a disk that cannot or need not be opened. None is dropped silently.
pub async fn reach(
    disk: &Disk,
    domain: &str,
    libvirt: Option<&Libvirt>,
    writes: bool,
    run: &mut Run<'_>,
    plan: Option<&mut Vec<String>>,
) -> Result<Chain, Verdict> {
    if disk.mirror.is_some() {
        return Err(Verdict::Refused(format!(
            "a block job copies the disk {} elsewhere; let it end, or stop it with virsh blockjob",
            disk.target
        )));
    }
    let Some(source) = &disk.image.source else {
        return Err(Verdict::NothingToCheck("no medium".to_owned()));
    };
    if disk.device == DeviceKind::Cdrom {
        return Err(Verdict::NothingToCheck(
            "a CD drive: its media are read-only".to_owned(),
        ));
    }
    let mut disk = disk.clone();
    if let (Source::Volume { pool, volume }, Some(libvirt)) = (source, libvirt) {
        let source = libvirt.volume(pool, volume);
        let source = source.map_err(|error| Verdict::Failed(cause::sentence(&error)))?;
        disk.image.source = Some(source);
    }
    let writes = writes && !disk.read_only;
    let mut chain = open_and_follow(&mut disk, run, plan).await?;
    may_open(&chain.top.path, writes)?;
    for link in &chain.under {
        may_open(&link.path, false)?;
    }
    image_key::find(&mut chain, &disk.target, domain, libvirt, run).await?;
    Ok(chain)
}

/// Follows the chain; each time something is missing that the host can open, opens it and begins
/// anew.
async fn open_and_follow(
    disk: &mut Disk,
    run: &mut Run<'_>,
    mut plan: Option<&mut Vec<String>>,
) -> Result<Chain, Verdict> {
    for _ in 0..MOST_OPENINGS {
        let missing = match chain::follow(disk).await {
            Ok(chain) => return Ok(chain),
            Err(ChainError::File(IdentityError::Missing(path))) => PathBuf::from(path),
            Err(error) => return Err(verdict(disk, &error)),
        };
        let nowhere = {
            let shown = missing.display().to_string();
            verdict(disk, &ChainError::File(IdentityError::Missing(shown)))
        };
        // One mount serves all disks, so what one of them needs holds for all.
        let access = nodes::Access::of(run.options.action.writes());
        if let Some(plan) = plan.take() {
            let steps = run.host.plan(&missing, access).await;
            plan.extend(steps.map_err(|error| closed(&error, nowhere))?);
            return Err(Verdict::NotChecked(
                "it is closed; what lies inside can be planned only when it is open".to_owned(),
            ));
        }
        let ensured = run.host.ensure(run.ledger, &missing, access, run.interrupt);
        let path = match ensured.await {
            Ok(path) => path,
            Err(error) => return Err(closed(&error, nowhere)),
        };
        let exists = match path == missing {
            true => path.exists(),
            false => chain::rename(disk, &missing, &path),
        };
        if !exists {
            return Err(nowhere);
        }
    }
    Err(Verdict::Failed(format!(
        "more than {MOST_OPENINGS} things had to be opened for the disk {}",
        disk.target
    )))
}

/// What the host cannot open: `nowhere` if nothing is known of it.
fn closed(error: &HostError, nowhere: Verdict) -> Verdict {
    match error.kind() {
        HostErrorKind::Unknown => nowhere,
        HostErrorKind::Busy => Verdict::Refused(cause::sentence(error)),
        HostErrorKind::Interrupted => Verdict::Interrupted,
        HostErrorKind::Failed => Verdict::Failed(cause::sentence(error)),
    }
}

fn verdict(disk: &Disk, error: &ChainError) -> Verdict {
    match error {
        ChainError::File(IdentityError::Missing(path)) if disk.may_be_missing => {
            Verdict::NothingToCheck(format!("{path} does not exist, which the XML allows"))
        }
        ChainError::CannotOpen(reason) => Verdict::NotChecked(reason.clone()),
        other => Verdict::Failed(cause::sentence(other)),
    }
}

/// Asks beforehand, so that the answer is a sentence and not the storage daemon's error.
fn may_open(path: &Path, for_writing: bool) -> Result<(), Verdict> {
    let (access, what) = match for_writing {
        true => (Access::READ_OK | Access::WRITE_OK, "read and write"),
        false => (Access::READ_OK, "read"),
    };
    rustix::fs::access(path, access).map_err(|error| {
        Verdict::Failed(format!(
            "{} cannot be opened to {what} it: {}; run virt-fsck as root or as its owner",
            path.display(),
            cause::sentence(&std::io::Error::from(error))
        ))
    })
}
