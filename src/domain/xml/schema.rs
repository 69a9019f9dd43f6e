//! The elements of a `<disk>` that matter, as types (libvirt's src/conf/schemas/domaincommon.rng, "disk",
//! and storagecommon.rng). Values stay text here: what they mean is decided in one place, `convert`.
//! The types do not nest without end: the scan has laid the backing chain flat.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// `<disk>`, without its backing chain.
#[derive(Debug, Deserialize)]
pub(super) struct Disk {
    #[serde(rename = "@type")]
    pub(super) kind: Option<String>,
    #[serde(rename = "@device")]
    pub(super) device: Option<String>,
    pub(super) driver: Option<Typed>,
    pub(super) source: Option<Source>,
    pub(super) target: Option<Target>,
    pub(super) encryption: Option<Encryption>,
    pub(super) blockio: Option<BlockIo>,
    pub(super) readonly: Option<IgnoredAny>,
    pub(super) shareable: Option<IgnoredAny>,
    pub(super) transient: Option<Transient>,
    pub(super) mirror: Option<Mirror>,
}

/// `<transient shareBacking=>`.
#[derive(Debug, Deserialize)]
pub(super) struct Transient {
    #[serde(rename = "@shareBacking")]
    pub(super) share_backing: Option<String>,
}

/// `<mirror>`, without the chain under its destination.
#[derive(Debug, Deserialize)]
pub(super) struct Mirror {
    #[serde(rename = "@type")]
    pub(super) kind: Option<String>,
    /// As libvirt wrote it before 1.2.6, and still does beside `<source>`.
    #[serde(rename = "@file")]
    pub(super) file: Option<String>,
    pub(super) source: Option<Source>,
}

/// `<driver type=>` and `<format type=>`.
#[derive(Debug, Deserialize)]
pub(super) struct Typed {
    #[serde(rename = "@type")]
    pub(super) kind: Option<String>,
}

/// `<source>`; which attributes it has depends on the type of the disk.
#[derive(Debug, Deserialize)]
pub(super) struct Source {
    #[serde(rename = "@file")]
    pub(super) file: Option<String>,
    #[serde(rename = "@dev")]
    pub(super) dev: Option<String>,
    #[serde(rename = "@dir")]
    pub(super) dir: Option<String>,
    #[serde(rename = "@pool")]
    pub(super) pool: Option<String>,
    #[serde(rename = "@volume")]
    pub(super) volume: Option<String>,
    #[serde(rename = "@protocol")]
    pub(super) protocol: Option<String>,
    #[serde(rename = "@name")]
    pub(super) name: Option<String>,
    #[serde(rename = "@namespace")]
    pub(super) namespace: Option<String>,
    #[serde(rename = "@path")]
    pub(super) path: Option<String>,
    #[serde(rename = "@startupPolicy")]
    pub(super) startup_policy: Option<String>,
    pub(super) address: Option<PciAddress>,
    pub(super) slices: Option<Slices>,
    pub(super) encryption: Option<Encryption>,
}

/// `<address domain= bus= slot= function=>`.
#[derive(Debug, Deserialize)]
pub(super) struct PciAddress {
    #[serde(rename = "@domain")]
    pub(super) domain: Option<String>,
    #[serde(rename = "@bus")]
    pub(super) bus: Option<String>,
    #[serde(rename = "@slot")]
    pub(super) slot: Option<String>,
    #[serde(rename = "@function")]
    pub(super) function: Option<String>,
}

/// `<slices>`.
#[derive(Debug, Deserialize)]
pub(super) struct Slices {
    #[serde(default)]
    pub(super) slice: Vec<Slice>,
}

/// `<slice type= offset= size=>`.
#[derive(Debug, Deserialize)]
pub(super) struct Slice {
    #[serde(rename = "@type")]
    pub(super) kind: Option<String>,
    #[serde(rename = "@offset")]
    pub(super) offset: Option<String>,
    #[serde(rename = "@size")]
    pub(super) size: Option<String>,
}

/// `<encryption format= engine=>`.
#[derive(Debug, Deserialize)]
pub(super) struct Encryption {
    #[serde(rename = "@format")]
    pub(super) format: Option<String>,
    #[serde(rename = "@engine")]
    pub(super) engine: Option<String>,
    #[serde(default)]
    pub(super) secret: Vec<Secret>,
}

/// `<secret type= uuid= usage=>`.
#[derive(Debug, Deserialize)]
pub(super) struct Secret {
    #[serde(rename = "@type")]
    pub(super) kind: Option<String>,
    #[serde(rename = "@uuid")]
    pub(super) uuid: Option<String>,
    #[serde(rename = "@usage")]
    pub(super) usage: Option<String>,
}

/// `<backingStore>`, without the one inside it.
#[derive(Debug, Deserialize)]
pub(super) struct BackingStore {
    #[serde(rename = "@type")]
    pub(super) kind: Option<String>,
    pub(super) format: Option<Typed>,
    pub(super) source: Option<Source>,
}

/// `<target dev=>`.
#[derive(Debug, Deserialize)]
pub(super) struct Target {
    #[serde(rename = "@dev")]
    pub(super) dev: Option<String>,
}

/// `<blockio logical_block_size=>`.
#[derive(Debug, Deserialize)]
pub(super) struct BlockIo {
    #[serde(rename = "@logical_block_size")]
    pub(super) logical_block_size: Option<String>,
}
