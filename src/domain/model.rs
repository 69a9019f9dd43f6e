//! A domain as virt-fsck sees it: its name and its disks.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::units::{Bytes, SectorSize};

/// A domain: a name and disks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Its UUID; XML that was never defined may have none.
    pub uuid: Option<Uuid>,
    /// Its disks, in the order of the XML.
    pub disks: Vec<Disk>,
}

/// One `<disk>` (docs/formatdomain.rst of libvirt, "Hard drives, floppy disks, CDROMs").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// `<target dev=>`: the name the report uses. Made unique in a domain: without one it is `disk`
    /// and the place in the XML from 0, a second `vda` is `vda#2`.
    pub target: String,
    /// `device=`.
    pub device: DeviceKind,
    /// The top of its chain: what the guest reads and writes.
    pub image: Image,
    /// What lies under the top image.
    pub backing: Backing,
    /// `<blockio logical_block_size=>`, else 512.
    pub sector_size: SectorSize,
    /// `<readonly/>`; a cdrom is always read-only.
    pub read_only: bool,
    /// `<shareable/>`: meant to be used by several domains at once.
    pub shareable: bool,
    /// `<transient/>`: the guest's changes are dropped when it stops.
    pub transient: bool,
    /// `<transient shareBacking='yes'/>`: other running domains may use the image as the base of
    /// their own changes.
    pub shares_backing: bool,
    /// `<mirror>`: a block job was running when this XML was made.
    pub mirror: Option<Mirror>,
    /// A missing source does not keep the domain from booting (`startupPolicy='optional'`; with
    /// requisite it does).
    pub may_be_missing: bool,
}

/// A block job that copies a disk (`<mirror>`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// What it writes to; `None` where the XML does not tell.
    pub destination: Option<Source>,
}

/// `device=` of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A hard disk; also when the attribute is missing.
    Disk,
    /// A SCSI device passed through.
    Lun,
    /// A CD or DVD drive.
    Cdrom,
    /// A floppy drive.
    Floppy,
}

/// One image of a chain: a source, and how its bytes are to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Where it is; `None` for a drive without a medium.
    pub source: Option<Source>,
    /// `<driver type=>` or `<format type=>`.
    pub format: Format,
    /// `<slices><slice type='storage'>`: the image lies at an offset inside the source.
    pub slice: Option<Slice>,
    /// `<encryption>`, under `<source>` or under `<disk>`.
    pub encryption: Option<Encryption>,
}

/// What lies under an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// The XML says nothing: what the image itself records.
    AsRecorded,
    /// `<backingStore/>`: nothing, whatever the image records.
    None,
    /// `<backingStore type=...>`: this, whatever the image records.
    Given(Box<BackingImage>),
}

/// An image under another, as the XML gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackingImage {
    /// The image.
    pub image: Image,
    /// What lies under it in turn.
    pub backing: Backing,
}

/// Where an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `type='file'`. With `fdgroup=` QEMU is handed open files, and the path may not exist here.
    File(PathBuf),
    /// `type='block'`.
    Block(PathBuf),
    /// `type='volume'`: to be resolved through its pool.
    Volume {
        /// `pool=`.
        pool: String,
        /// `volume=`.
        volume: String,
    },
    /// `type='network'`.
    Network {
        /// `protocol=`.
        protocol: String,
        /// `name=`, where the protocol has one.
        name: Option<String>,
    },
    /// `type='dir'`: a directory that QEMU shows as a FAT disk.
    Directory(PathBuf),
    /// `type='nvme'`: an NVMe namespace taken from the host kernel.
    Nvme {
        /// The PCI address, `0000:01:00.0`.
        address: String,
        /// `namespace=`.
        namespace: u32,
    },
    /// `type='vhostuser'`: another process serves the disk.
    VhostUser(PathBuf),
    /// `type='vhostvdpa'`: a vDPA device serves the disk.
    VhostVdpa(PathBuf),
    /// A type that is not known here.
    Other {
        /// `type=`.
        kind: String,
    },
}

impl Source {
    /// The path on this host, where the source has one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path)
            | Self::Block(path)
            | Self::Directory(path)
            | Self::VhostUser(path)
            | Self::VhostVdpa(path) => Some(path),
            Self::Volume { .. } | Self::Network { .. } | Self::Nvme { .. } | Self::Other { .. } => {
                None
            }
        }
    }
}

/// As people write it: a path, `pool/volume`, `rbd:pool/image`.
impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path)
            | Self::Block(path)
            | Self::Directory(path)
            | Self::VhostUser(path)
            | Self::VhostVdpa(path) => write!(f, "{}", path.display()),
            Self::Volume { pool, volume } => write!(f, "volume {volume} of pool {pool}"),
            Self::Network {
                protocol,
                name: Some(name),
            } => write!(f, "{protocol}:{name}"),
            Self::Network { protocol, .. } => write!(f, "{protocol}:"),
            Self::Nvme { address, namespace } => write!(f, "nvme {address} namespace {namespace}"),
            Self::Other { kind } => write!(f, "source of unknown type {kind}"),
        }
    }
}

/// The format of an image, as libvirt names it; never guessed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// `raw`, and where the XML names none (libvirt does not probe).
    Raw,
    /// `qcow2`.
    Qcow2,
    /// `qcow`, the first version.
    Qcow,
    /// `qed`.
    Qed,
    /// `vmdk`.
    Vmdk,
    /// `vdi`.
    Vdi,
    /// `vhdx`.
    Vhdx,
    /// `vpc`, also known as VHD.
    Vpc,
    /// Any other name.
    Other(String),
}

impl Format {
    /// The formats that can be opened, by the names libvirt and QEMU give them.
    const NAMED: [(&'static str, Self); 8] = [
        ("raw", Self::Raw),
        ("qcow2", Self::Qcow2),
        ("qcow", Self::Qcow),
        ("qed", Self::Qed),
        ("vmdk", Self::Vmdk),
        ("vdi", Self::Vdi),
        ("vhdx", Self::Vhdx),
        ("vpc", Self::Vpc),
    ];

    /// The format of this name.
    pub fn named(name: &str) -> Self {
        let known = Self::NAMED.iter().find(|(known, _)| *known == name);
        known.map_or_else(
            || Self::Other(name.to_owned()),
            |(_, format)| format.clone(),
        )
    }

    /// Its name.
    pub fn name(&self) -> &str {
        if let Self::Other(name) = self {
            return name;
        }
        let known = Self::NAMED.iter().find(|(_, format)| format == self);
        known.map_or("unknown", |(name, _)| name)
    }
}

/// A part of a source, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Where the image begins.
    pub offset: Bytes,
    /// How long it is.
    pub size: Bytes,
}

/// `<encryption format= engine=>` (docs/formatstorageencryption.rst).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encryption {
    /// `format=`: luks, luks2, qcow, default.
    pub format: String,
    /// `engine=`: qemu if missing.
    pub engine: Option<String>,
    /// `<secret type='passphrase'>`: how libvirt calls the secret with the passphrase.
    pub secret: Option<SecretName>,
}

/// How a secret of libvirt is called (docs/formatsecret.rst).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretName {
    /// By its UUID.
    Uuid(Uuid),
    /// By what it is for: the volume in its `<usage type='volume'>`, the only type that libvirt takes
    /// for `<encryption>`.
    Usage(String),
}

impl std::fmt::Display for SecretName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uuid(uuid) => write!(f, "{uuid}"),
            Self::Usage(usage) => write!(f, "for the volume {usage}"),
        }
    }
}
