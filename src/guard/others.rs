//! Other domains: nobody else may have the same file or device open while we work on it.

use crate::domain::libvirt::{KnownDomain, Libvirt, LibvirtError};
use crate::domain::model::{Backing, Disk, Image, Source};
use crate::reach::chain::{self, Chain};
use crate::reach::identity::{self, Identity};

/// A disk of an active domain.
#[derive(Clone, Debug)]
pub struct DiskInUse {
    domain: String,
    target: String,
    /// What the guest may write.
    written: Vec<Identity>,
    /// What it reads, its backing chain included.
    read: Vec<Identity>,
}

/// Not all that is in use is known.
#[derive(Debug, thiserror::Error)]
pub enum OthersError {
    /// libvirt does not tell the active domains.
    #[error(transparent)]
    Libvirt(#[from] LibvirtError),
    /// A disk of one of them may be any file.
    #[error("which file the disk {target} of the active domain {domain} is cannot be told")]
    Volume {
        /// The domain.
        domain: String,
        /// Its disk.
        target: String,
        /// The cause.
        #[source]
        source: LibvirtError,
    },
}

/// The disks of all active domains of a connection.
///
/// # Errors
/// When libvirt does not tell all of them: then nobody knows, and nothing may be touched.
pub async fn disks_in_use(libvirt: &Libvirt) -> Result<Vec<DiskInUse>, OthersError> {
    let mut disks = Vec::new();
    for domain in libvirt.active()? {
        let Some(description) = described(libvirt, &domain)? else {
            continue;
        };
        for mut disk in description.disks {
            if let Some(Source::Volume { pool, volume }) = &disk.image.source {
                let source = libvirt.volume(pool, volume);
                disk.image.source = Some(source.map_err(|source| OthersError::Volume {
                    domain: domain.name.clone(),
                    target: disk.target.clone(),
                    source,
                })?);
            }
            disks.push(in_use(&domain.name, &disk).await);
        }
    }
    Ok(disks)
}

/// The XML of an active domain; `None` if it has ended since it was listed.
fn described(
    libvirt: &Libvirt,
    domain: &KnownDomain,
) -> Result<Option<crate::domain::model::Domain>, LibvirtError> {
    match libvirt.describe(domain) {
        Ok(description) => Ok(Some(description)),
        Err(error) => match libvirt.find(&domain.uuid.to_string()) {
            Err(LibvirtError::NoDomain { .. }) => Ok(None),
            _ => Err(error),
        },
    }
}

async fn in_use(domain: &str, disk: &Disk) -> DiskInUse {
    // What the XML names counts even where the chain cannot be read: encrypted images, say.
    let mut written: Vec<Identity> = identity_of(&disk.image).into_iter().collect();
    let mut read = written.clone();
    let mut backing = &disk.backing;
    while let Backing::Given(under) = backing {
        read.extend(identity_of(&under.image));
        backing = &under.backing;
    }
    if let Ok(chain) = chain::follow(disk).await {
        written.extend(chain.written());
        read.extend(chain.all());
    }
    if disk.read_only {
        written.clear();
    }
    DiskInUse {
        domain: domain.to_owned(),
        target: disk.target.clone(),
        written,
        read,
    }
}

fn identity_of(image: &Image) -> Option<Identity> {
    let path = image.source.as_ref().and_then(Source::path)?;
    identity::identify(path).ok().map(|(identity, _)| identity)
}

/// Why a disk must not be touched: an active domain reads what we might write, or writes what we
/// would read. Two domains that only read the same image do not harm each other.
pub fn refusal(disk: &Disk, chain: &Chain, in_use: &[DiskInUse]) -> Option<String> {
    let written: Vec<Identity> = match disk.read_only {
        true => Vec::new(),
        false => chain.written().collect(),
    };
    let read: Vec<Identity> = chain.all().collect();
    let meet = |ours: &[Identity], theirs: &[Identity]| ours.iter().any(|one| theirs.contains(one));
    in_use
        .iter()
        .find(|other| meet(&written, &other.read) || meet(&read, &other.written))
        .map(|other| {
            format!(
                "{} is in use by the active domain {} (its disk {}); shut that down first: \
                 virsh shutdown {}",
                chain.top.path.display(),
                other.domain,
                other.target,
                other.domain
            )
        })
}
