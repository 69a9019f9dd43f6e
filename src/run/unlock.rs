//! A guest's encrypted containers: looking for their keys, and opening them.

use std::collections::HashMap;
use std::time::Duration;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::cause;
use crate::check::outcome::Verdict;
use crate::cmd::LentFile;
use crate::crypt::VolumeKey;
use crate::engine::session::Session;
use crate::engine::shown_disk::ShownDisks;
use crate::keys::cryptsetup::KeySlots;
use crate::keys::{self, KeyError};
use crate::layers::dormant::{ClosedContainer, Unlocking};
use crate::layers::read::{LayerReader, MAX_READ, ReadAt};
use crate::layers::tree::Closed;
use crate::run::options::Run;
use crate::units::Bytes;

/// How long cryptsetup may take to try one key on all slots. A guest can write into its header that a
/// key is strengthened for years.
const LONGEST_TRIAL: Duration = Duration::from_secs(300);

/// What was learned of a domain's containers, by the SHA-256 of their headers: each is asked for once,
/// also where both engines open it.
#[derive(Debug, Default)]
pub struct Learned(HashMap<[u8; 32], Result<VolumeKey, String>>);

/// Looks for the key of a container, and opens it.
///
/// # Errors
/// The verdict if a signal came.
pub async fn unlock(
    run: &mut Run<'_>,
    session: &mut Session,
    shown: &mut ShownDisks,
    closed: &ClosedContainer,
    domain: &str,
    learned: &mut Learned,
) -> Result<Unlocking, Verdict> {
    let container = &closed.container;
    if let Some(reason) = session.cannot_decrypt(container) {
        return Ok(Unlocking::Closed(Closed::ForTheKernel(reason)));
    }
    let reader = LayerReader::new(shown, &closed.extents);
    let given = run.options.headers.get(closed.path.as_str());
    let header = match given.filter(|_| closed.is_detached) {
        Some(header) => header_area(header, container.header_area),
        None => header_area(&reader, container.header_area),
    };
    let header = match header {
        Ok(header) => header,
        Err(error) => {
            let reason = format!("its header cannot be read: {}", cause::sentence(&error));
            return Ok(Unlocking::Closed(Closed::Failed(reason)));
        }
    };
    let digest: [u8; 32] = Sha256::digest(&*header).into();
    let found = match learned.0.remove(&digest) {
        Some(found) => found,
        None => match find_key(run, closed, domain, &header).await {
            Ok(key) => Ok(key),
            Err(KeyError::NoKey(reason)) => Err(reason),
            Err(KeyError::Interrupted) => return Err(Verdict::Interrupted),
            Err(KeyError::Device(_)) if run.interrupt.is_raised() => {
                return Err(Verdict::Interrupted);
            }
            Err(KeyError::Device(NotTried(reason))) => {
                return Ok(Unlocking::Closed(Closed::Failed(reason)));
            }
        },
    };
    let unlocking = match &found {
        Err(reason) => Unlocking::Closed(Closed::NoKey(format!("it is encrypted: {reason}"))),
        Ok(key) => match session.unlock(run.ledger, closed, key).await {
            Ok((image, opened)) => {
                let size = opened.size();
                shown.put(image, opened);
                Unlocking::Open { image, size }
            }
            Err(error) => {
                let reason = format!("it cannot be decrypted: {}", cause::sentence(&error));
                Unlocking::Closed(Closed::Failed(reason))
            }
        },
    };
    learned.0.insert(digest, found);
    Ok(unlocking)
}

/// The tool that looks for a key did not tell: why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotTried(String);

async fn find_key(
    run: &mut Run<'_>,
    closed: &ClosedContainer,
    domain: &str,
    header: &[u8],
) -> Result<VolumeKey, KeyError<NotTried>> {
    let not_tried = |why: &str| NotTried(format!("no key can be tried on it: {why}"));
    let copy = LentFile::new(header);
    let copy = copy.map_err(|error| KeyError::Device(not_tried(&cause::sentence(&error))))?;
    let slots = KeySlots::Copy(&copy);
    let wanted = wanted(closed, domain);
    let sizes = &closed.container.header.key_sizes;
    let interrupt = run.interrupt.clone();
    let try_key = async |key: &keys::Key| {
        let mut interrupt = interrupt.clone();
        let found = tokio::select! {
            found = slots.volume_key(sizes, key) => found,
            () = interrupt.raised() => Err("interrupted".to_owned()),
            () = tokio::time::sleep(LONGEST_TRIAL) => Err(format!(
                "cryptsetup takes more than {} minutes for one, so its key slots are none that \
                 anybody made",
                LONGEST_TRIAL.as_secs() / 60
            )),
        };
        found.map_err(|why| not_tried(&why))
    };
    run.host.keys().open(&wanted, run.interrupt, try_key).await
}

/// Who it is, for the keys.
fn wanted(closed: &ClosedContainer, domain: &str) -> keys::Container {
    let path = closed.path.as_str();
    let container = &closed.container;
    let shown = match &container.uuid {
        Some(uuid) => format!("{path} of {domain} ({}, UUID {uuid})", container.version),
        None => format!("{path} of {domain} ({})", container.version),
    };
    let mut ids = vec![path.to_owned()];
    ids.extend(container.uuid.clone());
    ids.extend(in_the_guest(path));
    keys::Container {
        shown,
        ids,
        tokens: container.tokens.clone(),
        is_of_a_guest: true,
        ..keys::Container::default()
    }
}

/// What the guest calls a layer below `/dev`, where its path tells: `/dev/vda3`, `/dev/guest/root`.
fn in_the_guest(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        [disk] => Some(format!("/dev/{disk}")),
        [disk, partition] => {
            let number = partition.strip_prefix('p')?.parse::<u32>().ok()?;
            let separator = match disk.ends_with(|last: char| last.is_ascii_digit()) {
                true => "p",
                false => "",
            };
            Some(format!("/dev/{disk}{separator}{number}"))
        }
        [.., group, volume] if *volume != "luks" => Some(format!("/dev/{group}/{volume}")),
        _ => None,
    }
}

/// The first bytes of a layer.
fn header_area(layer: &dyn ReadAt, length: Bytes) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    let mut at = Bytes::ZERO;
    while at < length {
        let step = length.saturating_sub(at).min(MAX_READ);
        bytes.extend_from_slice(&layer.look_at(at, step)?);
        at = Bytes::new(at.get().saturating_add(step.get()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_guest() {
        for (path, name) in [
            ("vda", Some("/dev/vda")),
            ("vda/p3", Some("/dev/vda3")),
            ("nvme0n1/p12", Some("/dev/nvme0n1p12")),
            ("vda/p2/guest/root", Some("/dev/guest/root")),
            ("vda/luks", None),
            ("vda/p2/md0/luks", None),
        ] {
            assert_eq!(in_the_guest(path).as_deref(), name, "{path}");
        }
    }
}
