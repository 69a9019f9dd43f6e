//! Other domains: none may have the same file or device open while we work on it, and none may have
//! its own disk made of what we write.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::cause;
use crate::domain::libvirt::{KnownDomain, Libvirt, LibvirtError};
use crate::domain::model::{Backing, Disk, Domain, Image, Source};
use crate::guard::drivers::Drivers;
use crate::reach::chain;
use crate::reach::identity::{self, Identity};
use stamp::Stamp;

mod stamp;

/// A disk of another domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherDisk {
    domain: String,
    target: String,
    holds: Holds,
}

/// What another domain's disk is made of, and so what must not happen to it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Holds {
    /// The domain is active.
    InUse {
        /// What the guest, or a block job, may write.
        written: Vec<Identity>,
        /// What it reads, its backing chain included.
        read: Vec<Identity>,
        /// It is about to start, and may yet fail to.
        is_starting: bool,
    },
    /// It is off: what lies under the image that its guest writes, and must stay as it is.
    Bases(Vec<Identity>),
}

/// What is to be done with a disk of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// What may be written.
    pub written: Vec<Identity>,
    /// What is read, that included.
    pub read: Vec<Identity>,
}

/// Not all that is in use is known.
#[derive(Debug, thiserror::Error)]
pub enum OthersError {
    /// libvirt does not tell the domains.
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
        source: Box<LibvirtError>,
    },
}

/// The domains of all drivers of this host.
#[derive(Debug, Default)]
pub struct Others {
    drivers: Drivers,
    /// What is known of images' chains, for as long as none of their files changes.
    chains: RefCell<HashMap<PathBuf, Known>>,
}

/// The images under one.
#[derive(Clone, Debug)]
struct Known {
    files: Vec<Stamp>,
    under: Vec<Identity>,
}

/// What lies under the images of domains that are off.
#[derive(Debug, Default)]
pub struct Bases {
    /// The disks that have something under them.
    pub disks: Vec<OtherDisk>,
    /// What could not be found out.
    pub unknown: Vec<String>,
}

impl Others {
    /// Looks for the drivers; `own` is the URI that was asked for.
    pub fn find(own: Option<&str>) -> Self {
        Self {
            drivers: Drivers::find(own),
            chains: RefCell::default(),
        }
    }

    /// What a reader should know of drivers that could not be asked.
    pub fn silent(&self) -> impl Iterator<Item = String> {
        let silent = self.drivers.silent.iter();
        silent.map(|cause| format!("not all domains of this host could be asked for: {cause}"))
    }

    /// The URIs of the other drivers.
    pub fn uris(&self) -> impl Iterator<Item = &str> {
        self.drivers.answering.iter().map(Libvirt::uri)
    }

    fn all<'a>(&'a self, own: Option<&'a Libvirt>) -> impl Iterator<Item = &'a Libvirt> {
        own.into_iter().chain(&self.drivers.answering)
    }

    /// The disks of all active domains.
    ///
    /// # Errors
    /// When libvirt does not tell all of them: then nobody knows, and nothing may be touched.
    pub async fn in_use(&self, own: Option<&Libvirt>) -> Result<Vec<OtherDisk>, OthersError> {
        let mut disks = Vec::new();
        for libvirt in self.all(own) {
            for domain in libvirt.active()? {
                let Some(description) = described(libvirt, &domain)? else {
                    continue;
                };
                // One that has ended meanwhile is told of the next time.
                let condition = libvirt.condition(&domain);
                let is_starting = condition.is_ok_and(|condition| condition.is_starting());
                for disk in resolved(libvirt, description)? {
                    let mut known = named_in_xml(&domain.name, &disk, is_starting);
                    // What the XML names counts even where the chain cannot be read: encrypted
                    // images, say.
                    if let Ok(chain) = chain::follow(&disk).await {
                        known.add(&disk, chain.written().collect(), chain.all().collect());
                    }
                    disks.push(known);
                }
            }
        }
        Ok(disks)
    }

    /// What domains that are off are made of, besides the images that they write.
    ///
    /// # Errors
    /// When libvirt does not list them.
    pub async fn bases(&self, own: Option<&Libvirt>) -> Result<Bases, OthersError> {
        let mut bases = Bases::default();
        for libvirt in self.all(own) {
            for domain in libvirt.inactive()? {
                let description = match libvirt.describe(&domain) {
                    Ok(description) => description,
                    Err(error) => {
                        bases.unknown.push(cause::sentence(&error));
                        continue;
                    }
                };
                for disk in description.disks {
                    self.add_bases(libvirt, &domain.name, disk, &mut bases)
                        .await;
                }
            }
        }
        Ok(bases)
    }

    async fn add_bases(&self, libvirt: &Libvirt, domain: &str, mut disk: Disk, to: &mut Bases) {
        let unknown = |cause: String| {
            format!(
                "whether the disk {} of the domain {domain} is made of a disk of this one is not \
                 known: {cause}",
                disk.target
            )
        };
        if let Some(Source::Volume { pool, volume }) = &disk.image.source {
            match libvirt.volume(pool, volume) {
                Ok(source) => disk.image.source = Some(source),
                Err(error) => {
                    to.unknown.push(unknown(cause::sentence(&error)));
                    return;
                }
            }
        }
        // A disk whose image is gone, or elsewhere, is made of nothing here.
        let Some(path) = disk.image.source.as_ref().and_then(Source::path) else {
            return;
        };
        let Ok((top, _)) = identity::identify(path) else {
            return;
        };
        let mut under = named_under(&disk);
        if disk.shares_backing {
            under.push(top);
        }
        match self.chain_under(path, &disk).await {
            Ok(found) => under.extend(found),
            Err(error) => to.unknown.push(unknown(cause::sentence(&error))),
        }
        if !under.is_empty() {
            to.disks.push(OtherDisk {
                domain: domain.to_owned(),
                target: disk.target,
                holds: Holds::Bases(under),
            });
        }
    }

    /// All that lies under the image of a disk.
    async fn chain_under(
        &self,
        path: &Path,
        disk: &Disk,
    ) -> Result<Vec<Identity>, chain::ChainError> {
        let is_plain =
            disk.backing == Backing::AsRecorded && !chain::records_backing(&disk.image.format);
        if is_plain {
            return Ok(Vec::new());
        }
        let known = self.chains.borrow().get(path).cloned();
        if let Some(known) = known
            && known.files.iter().all(Stamp::is_unchanged)
        {
            return Ok(known.under);
        }
        let chain = chain::follow(disk).await?;
        let under: Vec<Identity> = chain
            .under
            .iter()
            .flat_map(chain::Link::identities)
            .collect();
        let known = Known {
            files: chain.links().map(|link| Stamp::of(&link.path)).collect(),
            under: under.clone(),
        };
        // A chain that the XML gives may be another in the next domain.
        if disk.backing == Backing::AsRecorded {
            self.chains.borrow_mut().insert(path.to_owned(), known);
        }
        Ok(under)
    }
}

/// The XML of an active domain; `None` if it has ended since it was listed.
fn described(libvirt: &Libvirt, domain: &KnownDomain) -> Result<Option<Domain>, LibvirtError> {
    match libvirt.describe(domain) {
        Ok(description) => Ok(Some(description)),
        Err(error) => match libvirt.find(&domain.uuid.to_string()) {
            Err(LibvirtError::NoDomain { .. }) => Ok(None),
            _ => Err(error),
        },
    }
}

/// The disks of an active domain as its XML names them, without a look at their images.
///
/// # Errors
/// As [`Others::in_use`].
pub fn named_by(libvirt: &Libvirt, domain: &KnownDomain) -> Result<Vec<OtherDisk>, OthersError> {
    let Some(description) = described(libvirt, domain)? else {
        return Ok(Vec::new());
    };
    let disks = resolved(libvirt, description)?;
    Ok(disks
        .iter()
        .map(|disk| named_in_xml(&domain.name, disk, false))
        .collect())
}

/// The disks, and for volumes of pools the files they are.
fn resolved(libvirt: &Libvirt, domain: Domain) -> Result<Vec<Disk>, OthersError> {
    let mut disks = domain.disks;
    for disk in &mut disks {
        if let Some(Source::Volume { pool, volume }) = &disk.image.source {
            let source = libvirt.volume(pool, volume);
            disk.image.source = Some(source.map_err(|source| OthersError::Volume {
                domain: domain.name.clone(),
                target: disk.target.clone(),
                source: Box::new(source),
            })?);
        }
    }
    Ok(disks)
}

/// What the XML of an active domain tells of a disk.
fn named_in_xml(domain: &str, disk: &Disk, is_starting: bool) -> OtherDisk {
    let top: Vec<Identity> = identity_of(disk.image.source.as_ref())
        .into_iter()
        .collect();
    let mut known = OtherDisk {
        domain: domain.to_owned(),
        target: disk.target.clone(),
        holds: Holds::InUse {
            written: Vec::new(),
            read: Vec::new(),
            is_starting,
        },
    };
    let read = top.iter().copied().chain(named_under(disk)).collect();
    known.add(disk, top, read);
    known
}

impl OtherDisk {
    /// Adds what is known of the images of an active domain's disk.
    fn add(&mut self, disk: &Disk, top: Vec<Identity>, all: Vec<Identity>) {
        let Holds::InUse { written, read, .. } = &mut self.holds else {
            return;
        };
        match &disk.mirror {
            // A job may commit into any image of the chain.
            Some(mirror) => {
                written.extend(all.iter().copied().chain(top));
                written.extend(identity_of(mirror.destination.as_ref()));
            }
            None if disk.read_only => {}
            None => written.extend(top),
        }
        read.extend(all);
    }

    /// Whether its domain is about to start, and may yet fail to.
    pub const fn is_starting(&self) -> bool {
        matches!(
            self.holds,
            Holds::InUse {
                is_starting: true,
                ..
            }
        )
    }

    /// Why a disk at `path` must not be touched, as long as this one is as it is. Two domains that
    /// only read the same image do not harm each other.
    pub fn refusal(&self, path: &Path, wants: &Wants) -> Option<String> {
        let meet =
            |ours: &[Identity], theirs: &[Identity]| ours.iter().any(|one| theirs.contains(one));
        let Self { domain, target, .. } = self;
        let path = path.display();
        match &self.holds {
            Holds::InUse { written, read, .. } => {
                let is_used = meet(&wants.written, read)
                    || meet(&wants.written, written)
                    || meet(&wants.read, written);
                is_used.then(|| {
                    format!(
                        "{path} is in use by the active domain {domain} (its disk {target}); shut \
                         that down first: virsh shutdown {domain}"
                    )
                })
            }
            Holds::Bases(bases) => meet(&wants.written, bases).then(|| {
                format!(
                    "{path} is what the disk {target} of the domain {domain} is made of: writing \
                     to it would damage that; check {domain} instead, or look only: -n"
                )
            }),
        }
    }
}

/// What the XML says lies under a disk's image.
fn named_under(disk: &Disk) -> Vec<Identity> {
    let mut under = Vec::new();
    let mut backing = &disk.backing;
    while let Backing::Given(given) = backing {
        let Image { source, .. } = &given.image;
        under.extend(identity_of(source.as_ref()));
        backing = &given.backing;
    }
    under
}

fn identity_of(source: Option<&Source>) -> Option<Identity> {
    let path = source.and_then(Source::path)?;
    identity::identify(path).ok().map(|(identity, _)| identity)
}
