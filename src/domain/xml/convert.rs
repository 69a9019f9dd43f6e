//! What the text of a disk means, as libvirt takes it (src/conf/domain_conf.c,
//! `virDomainDiskDefParseXML` and what it calls).

use std::collections::HashSet;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::error::{DiskProblem, XmlError};
use super::fragment::Fragment;
use super::scan::Scan;
use super::schema;
use crate::domain::model::{
    Backing, BackingImage, DeviceKind, Disk, Domain, Encryption, Format, Image, Mirror, SecretName,
    Slice, Source,
};
use crate::units::{Bytes, SectorSize};

/// The most images under another (libvirt's src/qemu/qemu_domain.c,
/// `QEMU_DOMAIN_STORAGE_SOURCE_CHAIN_MAX_DEPTH`).
const MAX_CHAIN: usize = 200;

/// The domain found by a scan.
pub(super) fn domain(scan: Scan) -> Result<Domain, XmlError> {
    let name = non_empty(scan.name).ok_or(XmlError::NoName)?;
    let uuid = scan.uuid.map(uuid).transpose()?;
    let mut taken = HashSet::new();
    let mut disks = Vec::with_capacity(scan.disks.len());
    for (index, fragment) in scan.disks.iter().enumerate() {
        let mut disk = read_disk(fragment, index)?;
        disk.target = unique(&disk.target, &mut taken);
        disks.push(disk);
    }
    Ok(Domain { name, uuid, disks })
}

/// 32 hexadecimal digits, dashes and blanks between them anywhere (libvirt's `virUUIDParse`).
fn uuid(text: String) -> Result<Uuid, XmlError> {
    let digits: String = text
        .chars()
        .filter(|c| *c != '-' && !c.is_ascii_whitespace())
        .collect();
    if digits.len() == 32
        && let Ok(number) = u128::from_str_radix(&digits, 16)
        && !digits.starts_with('+')
    {
        return Ok(Uuid::from_u128(number));
    }
    Err(XmlError::Uuid { value: text })
}

/// The name itself, or with `#2`, `#3`, ... where it is taken.
fn unique(name: &str, taken: &mut HashSet<String>) -> String {
    let mut candidate = name.to_owned();
    let mut count = 1_usize;
    while !taken.insert(candidate.clone()) {
        count = count.saturating_add(1);
        candidate = format!("{name}#{count}");
    }
    candidate
}

fn read_disk(fragment: &Fragment, index: usize) -> Result<Disk, XmlError> {
    let at = |disk: Option<&str>, problem| XmlError::Disk {
        disk: disk.map_or_else(
            || format!("number {}", index.saturating_add(1)),
            str::to_owned,
        ),
        line: fragment.line,
        problem,
    };
    let mut text: schema::Disk = typed(&fragment.disk).map_err(|problem| at(None, problem))?;
    let target = text.target.take().and_then(|target| non_empty(target.dev));
    let name = target.clone().unwrap_or_else(|| format!("disk{index}"));
    convert_disk(text, fragment, name).map_err(|problem| at(target.as_deref(), problem))
}

fn convert_disk(
    text: schema::Disk,
    fragment: &Fragment,
    target: String,
) -> Result<Disk, DiskProblem> {
    if fragment.is_forked {
        return Err(DiskProblem::Forked);
    }
    let device = match text.device.as_deref() {
        None | Some("disk") => DeviceKind::Disk,
        Some("lun") => DeviceKind::Lun,
        Some("cdrom") => DeviceKind::Cdrom,
        Some("floppy") => DeviceKind::Floppy,
        Some(other) => return Err(DiskProblem::Device(other.to_owned())),
    };
    let may_be_missing = text
        .source
        .as_ref()
        .is_some_and(|source| source.startup_policy.as_deref() == Some("optional"));
    Ok(Disk {
        target,
        device,
        sector_size: sector_size(text.blockio)?,
        read_only: device == DeviceKind::Cdrom || text.readonly.is_some(),
        shareable: text.shareable.is_some(),
        transient: text.transient.is_some(),
        shares_backing: text
            .transient
            .is_some_and(|transient| transient.share_backing.as_deref() == Some("yes")),
        mirror: text.mirror.map(mirror),
        may_be_missing,
        image: image(
            text.kind.as_deref().unwrap_or("file"),
            text.driver.and_then(|driver| driver.kind).as_deref(),
            text.source,
            text.encryption,
        )?,
        backing: backing(&fragment.backing)?,
    })
}

/// What cannot be told of a job's destination does not keep the disk from being read.
fn mirror(text: schema::Mirror) -> Mirror {
    let by_source = text.source.and_then(|source| {
        let kind = text.kind.as_deref().unwrap_or("file");
        convert_source(kind, source).ok().flatten()
    });
    let by_name = || non_empty(text.file).map(|file| Source::File(file.into()));
    Mirror {
        destination: by_source.or_else(by_name),
    }
}

/// Without a number, or with 0, it is up to QEMU, which takes 512.
fn sector_size(blockio: Option<schema::BlockIo>) -> Result<SectorSize, DiskProblem> {
    let Some(value) = blockio.and_then(|blockio| blockio.logical_block_size) else {
        return Ok(SectorSize::default());
    };
    match value.trim().parse() {
        Ok(0) => Some(SectorSize::default()),
        Ok(bytes) => SectorSize::new(bytes),
        Err(_) => None,
    }
    .ok_or(DiskProblem::Number {
        what: "logical_block_size",
        value,
        expected: "a power of two from 512 to 32768",
    })
}

fn image(
    kind: &str,
    format: Option<&str>,
    source: Option<schema::Source>,
    encryption: Option<schema::Encryption>,
) -> Result<Image, DiskProblem> {
    let format = self::format(format);
    let Some(mut text) = source else {
        return Ok(Image {
            source: unknown(kind),
            format,
            slice: None,
            encryption: encryption.map(convert_encryption).transpose()?,
        });
    };
    let encryption = match (encryption, text.encryption.take()) {
        (Some(_), Some(_)) => return Err(DiskProblem::EncryptedTwice),
        (outer, inner) => outer.or(inner).map(convert_encryption).transpose()?,
    };
    Ok(Image {
        slice: slice(text.slices.take())?,
        source: convert_source(kind, text)?,
        format,
        encryption,
    })
}

/// libvirt never looks into an image to learn its format: where none is named it is raw.
fn format(name: Option<&str>) -> Format {
    match name {
        // Xen's name for raw images opened asynchronously.
        None | Some("aio") => Format::Raw,
        Some(name) => Format::named(name),
    }
}

fn convert_encryption(text: schema::Encryption) -> Result<Encryption, DiskProblem> {
    let secrets = text.secret.into_iter();
    // Each further one is for an image that librbd finds below this one.
    let first = secrets
        .filter(|secret| secret.kind.as_deref() == Some("passphrase"))
        .map(convert_secret)
        .next();
    Ok(Encryption {
        format: non_empty(text.format).unwrap_or_else(|| "default".to_owned()),
        engine: non_empty(text.engine),
        secret: first.transpose()?,
    })
}

/// One of the two names, as libvirt wants it (src/util/virsecret.c, `virSecretLookupParseSecret`).
fn convert_secret(text: schema::Secret) -> Result<SecretName, DiskProblem> {
    match (text.uuid, text.usage) {
        (Some(text), None) => match uuid(text) {
            Ok(uuid) => Ok(SecretName::Uuid(uuid)),
            Err(_) => Err(DiskProblem::Secret("a UUID that is none")),
        },
        (None, Some(usage)) => Ok(SecretName::Usage(usage)),
        (Some(_), Some(_)) => Err(DiskProblem::Secret("both a UUID and a usage")),
        (None, None) => Err(DiskProblem::Secret("neither a UUID nor a usage")),
    }
}

/// The one slice that matters, `type='storage'`.
fn slice(slices: Option<schema::Slices>) -> Result<Option<Slice>, DiskProblem> {
    slices
        .map(|slices| slices.slice)
        .unwrap_or_default()
        .into_iter()
        .find(|slice| slice.kind.as_deref() == Some("storage"))
        .map(|slice| {
            Ok(Slice {
                offset: bytes("slice offset", slice.offset)?,
                size: bytes("slice size", slice.size)?,
            })
        })
        .transpose()
}

fn bytes(what: &'static str, value: Option<String>) -> Result<Bytes, DiskProblem> {
    let value = value.unwrap_or_default();
    match value.trim().parse() {
        Ok(count) => Ok(Bytes::new(count)),
        Err(_) => Err(DiskProblem::Number {
            what,
            value,
            expected: "a number of bytes",
        }),
    }
}

/// A type unknown here stays visible even without a source.
fn unknown(kind: &str) -> Option<Source> {
    match kind {
        "file" | "block" | "dir" | "volume" | "network" | "nvme" | "vhostuser" | "vhostvdpa" => {
            None
        }
        other => Some(Source::Other {
            kind: other.to_owned(),
        }),
    }
}

/// `None` for a drive without a medium: an empty path counts as no path, as for libvirt.
fn convert_source(kind: &str, text: schema::Source) -> Result<Option<Source>, DiskProblem> {
    let path = |text| non_empty(text).map(PathBuf::from);
    let incomplete = |missing| DiskProblem::Incomplete {
        kind: kind.to_owned(),
        missing,
    };
    Ok(match kind {
        "file" => path(text.file).map(Source::File),
        "block" => path(text.dev).map(Source::Block),
        "dir" => path(text.dir).map(Source::Directory),
        "vhostvdpa" => path(text.dev).map(Source::VhostVdpa),
        "vhostuser" => Some(Source::VhostUser(
            path(text.path).ok_or_else(|| incomplete("path"))?,
        )),
        "volume" => match (non_empty(text.pool), non_empty(text.volume)) {
            (None, None) => None,
            (Some(pool), Some(volume)) => Some(Source::Volume { pool, volume }),
            (None, Some(_)) => return Err(incomplete("pool")),
            (Some(_), None) => return Err(incomplete("volume")),
        },
        "network" => Some(Source::Network {
            protocol: non_empty(text.protocol).ok_or_else(|| incomplete("protocol"))?,
            name: non_empty(text.name),
        }),
        "nvme" => Some(Source::Nvme {
            address: pci_address(&text.address.ok_or_else(|| incomplete("address"))?)?,
            namespace: nvme_namespace(text.namespace.ok_or_else(|| incomplete("namespace"))?)?,
        }),
        other => unknown(other),
    })
}

fn nvme_namespace(value: String) -> Result<u32, DiskProblem> {
    value.trim().parse().map_err(|_| DiskProblem::Number {
        what: "NVMe namespace",
        value,
        expected: "a 32-bit number",
    })
}

/// `DDDD:BB:SS.F`, as the kernel names the device in sysfs.
fn pci_address(text: &schema::PciAddress) -> Result<String, DiskProblem> {
    let part = |what, value: &Option<String>, limit| {
        let value = value.as_deref().unwrap_or("0");
        match c_number(value) {
            Some(number) if number <= limit => Ok(number),
            _ => Err(DiskProblem::Number {
                what,
                value: value.to_owned(),
                expected: "one a PCI address can have",
            }),
        }
    };
    let domain = part("PCI domain", &text.domain, u32::MAX)?;
    let bus = part("PCI bus", &text.bus, 0xff)?;
    let slot = part("PCI slot", &text.slot, 0x1f)?;
    let function = part("PCI function", &text.function, 7)?;
    Ok(format!("{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"))
}

/// A number as C's `strtoul` reads it with base 0: `0x1f`, `037` or `31`.
fn c_number(text: &str) -> Option<u32> {
    let text = text.trim();
    let (digits, radix) = if let Some(digits) = text.strip_prefix("0x").or(text.strip_prefix("0X"))
    {
        (digits, 16)
    } else if text.len() > 1 && text.starts_with('0') {
        (text, 8)
    } else {
        (text, 10)
    };
    u32::from_str_radix(digits, radix).ok()
}

/// The chain under a disk, built from its lowest image upwards.
fn backing(chain: &[String]) -> Result<Backing, DiskProblem> {
    let mut images = Vec::new();
    let mut lowest = Backing::AsRecorded;
    for text in chain {
        let text: schema::BackingStore = typed(text)?;
        let Some(kind) = text.kind else {
            lowest = Backing::None;
            break;
        };
        if images.len() >= MAX_CHAIN {
            return Err(DiskProblem::ChainTooLong { limit: MAX_CHAIN });
        }
        let source = text.source.ok_or(DiskProblem::BackingWithoutSource)?;
        let format = non_empty(text.format.and_then(|format| format.kind))
            .ok_or(DiskProblem::BackingWithoutFormat)?;
        images.push(image(&kind, Some(&format), Some(source), None)?);
    }
    Ok(images.into_iter().rev().fold(lowest, |backing, image| {
        Backing::Given(Box::new(BackingImage { image, backing }))
    }))
}

/// The typed form of one cut-out element.
fn typed<T: DeserializeOwned>(xml: &str) -> Result<T, DiskProblem> {
    quick_xml::de::from_str(xml).map_err(|error| DiskProblem::Structure(error.to_string()))
}

/// An attribute without characters says as little as a missing one.
fn non_empty(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}
