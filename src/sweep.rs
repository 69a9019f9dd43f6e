//! The domains that were asked for, one after the other.

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::cause;
use crate::check::outcome::Verdict;
use crate::cli::Target;
use crate::domain::libvirt::{KnownDomain, Libvirt, LibvirtError};
use crate::domain::model::{Backing, DeviceKind, Disk, Domain, Format, Image, Source};
use crate::domain::xml;
use crate::reach::identity::{self, Kind};
use crate::reach::probe;
use crate::report::model::DomainReport;
use crate::run::{Origin, Run, not_looked_at, run};
use crate::units::SectorSize;

/// No domain could be looked for.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// libvirt does not answer.
    #[error(transparent)]
    Libvirt(#[from] LibvirtError),
    /// The XML file cannot be read.
    #[error("{file}: {cause}")]
    XmlFile {
        /// Its path.
        file: String,
        /// The cause.
        cause: String,
    },
    /// An image cannot be used.
    #[error("{0}")]
    Image(String),
}

/// The largest XML file that is read, in bytes.
const LARGEST_XML: u64 = 16 * 1024 * 1024;

/// What was asked for, found.
#[derive(Debug)]
pub enum Guests {
    /// One guest that libvirt was not asked about.
    One(Domain, Origin<'static>),
    /// Domains of libvirt, each once; of one that it does not know, the name.
    OfLibvirt(Libvirt, Vec<Result<KnownDomain, String>>),
}

impl Guests {
    /// Looks for the domains. Nothing of theirs is opened yet.
    ///
    /// # Errors
    /// When there is nothing to begin with.
    pub async fn find(target: &Target) -> Result<Self, SweepError> {
        if let Some(file) = &target.xml {
            let origin = Origin::XmlFile(file.display().to_string());
            return Ok(Self::One(from_xml(file)?, origin));
        }
        if !target.add.is_empty() {
            let domain = from_images(&target.add, target.image_format.as_ref()).await?;
            return Ok(Self::One(domain, Origin::Images));
        }
        let libvirt = Libvirt::connect(&target.uri())?;
        let domains = asked_for(target, &libvirt)?;
        Ok(Self::OfLibvirt(libvirt, domains))
    }

    /// The URI of the libvirt that was asked.
    pub fn uri(&self) -> Option<&str> {
        match self {
            Self::OfLibvirt(libvirt, _) => Some(libvirt.uri()),
            Self::One(..) => None,
        }
    }

    /// Takes each guest from start to end; `finished` is told each report as it comes. What goes
    /// wrong with one is in its report, and the others are done all the same.
    pub async fn check_each(
        &self,
        held: &mut Run<'_>,
        mut finished: impl FnMut(&DomainReport),
    ) -> Vec<DomainReport> {
        let mut reports = Vec::new();
        match self {
            Self::One(domain, origin) => {
                reports.push(run(held, domain, origin).await);
                reports.iter().for_each(finished);
            }
            Self::OfLibvirt(libvirt, domains) => {
                for domain in domains {
                    let report = match domain {
                        Ok(known) => one(held, libvirt, known).await,
                        Err(name) => unknown(libvirt, name),
                    };
                    finished(&report);
                    reports.push(report);
                }
            }
        }
        reports
    }
}

fn unknown(libvirt: &Libvirt, name: &str) -> DomainReport {
    let error = LibvirtError::NoDomain {
        name: name.to_owned(),
        uri: libvirt.uri().to_owned(),
    };
    not_looked_at(name, libvirt.uri(), Verdict::Failed(error.to_string()))
}

/// The domains, each once; a name that libvirt does not know as `Err`.
fn asked_for(
    target: &Target,
    libvirt: &Libvirt,
) -> Result<Vec<Result<KnownDomain, String>>, LibvirtError> {
    if target.all_inactive {
        return Ok(libvirt.inactive()?.into_iter().map(Ok).collect());
    }
    let mut seen = HashSet::new();
    let mut domains = Vec::new();
    for name in &target.domain {
        match libvirt.find(name) {
            Ok(known) if seen.insert(known.uuid) => domains.push(Ok(known)),
            Ok(_) => {}
            Err(LibvirtError::NoDomain { name, .. }) => domains.push(Err(name)),
            Err(error) => return Err(error),
        }
    }
    Ok(domains)
}

async fn one(held: &mut Run<'_>, libvirt: &Libvirt, known: &KnownDomain) -> DomainReport {
    if held.interrupt.is_raised() {
        return not_looked_at(&known.name, libvirt.uri(), Verdict::Interrupted);
    }
    let origin = Origin::Libvirt { libvirt, known };
    match libvirt.describe(known) {
        Ok(domain) => run(held, &domain, &origin).await,
        Err(error) => {
            let mut report = not_looked_at(
                &known.name,
                libvirt.uri(),
                Verdict::Failed(cause::sentence(&error)),
            );
            report.uuid = Some(known.uuid);
            report
        }
    }
}

fn from_xml(file: &Path) -> Result<Domain, SweepError> {
    let failed = |cause: String| SweepError::XmlFile {
        file: file.display().to_string(),
        cause,
    };
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin()
            .take(LARGEST_XML + 1)
            .read_to_string(&mut text)
    } else {
        std::fs::File::open(file)
            .and_then(|file| file.take(LARGEST_XML + 1).read_to_string(&mut text))
    };
    read.map_err(|error| failed(cause::sentence(&error)))?;
    if text.len() as u64 > LARGEST_XML {
        let what = "it is larger than any domain's XML".to_owned();
        return Err(failed(what));
    }
    xml::parse(&text).map_err(|error| failed(cause::sentence(&error)))
}

/// Images without a domain: disks sda, sdb and so on, as guestfish(1) names them.
async fn from_images(paths: &[PathBuf], format: Option<&Format>) -> Result<Domain, SweepError> {
    let mut disks = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        let path = std::path::absolute(path).map_err(|error| {
            SweepError::Image(format!("{}: {}", path.display(), cause::sentence(&error)))
        })?;
        let format = match format {
            Some(format) => format.clone(),
            // A device that is closed is raw too; a run opens it.
            None if is_closed_device(&path) => Format::Raw,
            None => probe::format(&path).await.map_err(SweepError::Image)?,
        };
        disks.push(bare_disk(target_name(index), path, format));
    }
    let names: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    Ok(Domain {
        name: names.join(" "),
        uuid: None,
        disks,
    })
}

/// A path below /dev that does not exist: the host's tables may tell how it comes to.
fn is_closed_device(path: &Path) -> bool {
    path.starts_with("/dev") && !path.exists()
}

fn bare_disk(target: String, path: PathBuf, format: Format) -> Disk {
    let source = match identity::identify(&path) {
        Ok((_, Kind::BlockDevice)) => Source::Block(path),
        _ if is_closed_device(&path) => Source::Block(path),
        _ => Source::File(path),
    };
    Disk {
        target,
        device: DeviceKind::Disk,
        image: Image {
            source: Some(source),
            format,
            slice: None,
            encryption: None,
        },
        backing: Backing::AsRecorded,
        sector_size: SectorSize::S512,
        read_only: false,
        shareable: false,
        transient: false,
        shares_backing: false,
        mirror: None,
        may_be_missing: false,
    }
}

/// sda to sdz, sdaa and so on.
fn target_name(index: usize) -> String {
    let mut letters = Vec::new();
    let mut rest = index;
    loop {
        let letter = u8::try_from(rest % 26).unwrap_or_default();
        letters.push(char::from(b'a'.saturating_add(letter)));
        match (rest / 26).checked_sub(1) {
            Some(more) => rest = more,
            None => break,
        }
    }
    format!("sd{}", letters.iter().rev().collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_named_as_linux_names_them() {
        for (index, name) in [
            (0, "sda"),
            (25, "sdz"),
            (26, "sdaa"),
            (701, "sdzz"),
            (702, "sdaaa"),
        ] {
            assert_eq!(target_name(index), name);
        }
    }
}
