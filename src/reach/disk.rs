//! A disk of the XML: the chain of images it stands for, or the answer why it has none.

use std::path::Path;

use rustix::fs::Access;

use crate::cause;
use crate::check::outcome::Verdict;
use crate::domain::libvirt::Libvirt;
use crate::domain::model::{DeviceKind, Disk, Source};
use crate::reach::chain::{self, Chain, ChainError};
use crate::reach::identity::IdentityError;

/// Finds a disk's images on this host.
///
/// # Errors
/// The verdict for a disk that cannot or need not be opened. None is dropped silently.
pub async fn reach(disk: &Disk, libvirt: Option<&Libvirt>, writes: bool) -> Result<Chain, Verdict> {
    if disk.mirror {
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
    let resolved;
    let disk = match (source, libvirt) {
        (Source::Volume { pool, volume }, Some(libvirt)) => {
            let source = libvirt
                .volume(pool, volume)
                .map_err(|error| Verdict::Failed(cause::sentence(&error)))?;
            resolved = with_source(disk, source);
            &resolved
        }
        _ => disk,
    };
    let chain = chain::follow(disk)
        .await
        .map_err(|error| verdict(disk, &error))?;
    may_open(&chain.top.path, writes && !disk.read_only)?;
    for link in &chain.under {
        may_open(&link.path, false)?;
    }
    Ok(chain)
}

fn with_source(disk: &Disk, source: Source) -> Disk {
    let mut disk = disk.clone();
    disk.image.source = Some(source);
    disk
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
