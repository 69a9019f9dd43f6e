//! The tree of layers of a domain: disks, partitions, volume groups, filesystems.

use crate::layers::dormant::Opener;
use crate::layers::extent::ExtentMap;
use crate::layers::filesystem::{Filesystem, JournalKind};
use crate::layers::luks;
use crate::layers::md::Unsound;
use crate::units::{Bytes, SectorSize};

/// A layer's place, as people read it: `vda/p2/lvg1/lvroot`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct LayerPath(String);

impl LayerPath {
    /// The path of a whole disk: its target name.
    pub fn disk(target: &str) -> Self {
        Self(target.to_owned())
    }

    /// The path of a layer inside this one.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        Self(format!("{}/{name}", self.0))
    }

    /// The whole path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part below `parent`; the whole path if it is not below it.
    pub fn below(&self, parent: &Self) -> &str {
        self.0
            .strip_prefix(parent.as_str())
            .and_then(|rest| rest.strip_prefix('/'))
            .unwrap_or(&self.0)
    }
}

impl std::fmt::Display for LayerPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// One layer: where its bytes lie, what they are, what is inside.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Layer {
    /// Its place in the tree.
    pub path: LayerPath,
    /// Where its bytes lie.
    pub extents: ExtentMap,
    /// What the layer around it says of it: a partition's type and name. Empty if nothing.
    pub role: Option<PartitionRole>,
    /// Why it may only be checked; empty if nothing is against repairs.
    pub read_only: Option<ReadOnly>,
    /// What it is.
    pub content: Content,
    /// What a reader should know but what stops nothing: "the backup GPT is missing".
    pub notes: Vec<String>,
    /// The layers inside, in the order of their numbers.
    pub children: Vec<Layer>,
}

impl Layer {
    /// The layer's length in bytes.
    pub fn size(&self) -> Bytes {
        match self.content {
            Content::Dormant { size, .. } | Content::Pool { size, .. } => size,
            _ => self.extents.size(),
        }
    }

    /// This layer and all inside it, parents first.
    pub fn walk(&self) -> Vec<&Layer> {
        let mut layers = vec![self];
        for child in &self.children {
            layers.extend(child.walk());
        }
        layers
    }
}

/// Why a layer is checked, but never repaired.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadOnly {
    /// The guest's administrator made it read-only (`lvchange --permission r`).
    ForTheGuest,
    /// It lies on a mirror of MD. MD notes in the superblocks that it writes before it does, so
    /// that it can make the members equal again after a crash; who writes past it does not.
    Mirror {
        /// What the array is called below `/dev`.
        array: String,
        /// MD itself can start it, and then it may be written to.
        may_be_started: bool,
    },
    /// It lies on an array of MD that lacks something.
    Array {
        /// The array's level: "RAID 5".
        level: String,
        /// What it is called below `/dev`.
        array: String,
        /// What it lacks.
        unsound: Unsound,
    },
    /// It lies on a mirrored volume of LVM that was read without LVM, which alone can write to it.
    Copies {
        /// The volume's name, with its group's: `guest/root`.
        volume: String,
    },
}

impl ReadOnly {
    /// The kernel engine can have it repaired: LVM or MD then knows what is written.
    pub const fn is_lifted_by_the_kernel_engine(&self) -> bool {
        match self {
            Self::Copies { .. } => true,
            Self::Mirror { may_be_started, .. } => *may_be_started,
            Self::ForTheGuest | Self::Array { .. } => false,
        }
    }
}

/// As a remark on a filesystem that was only checked.
impl std::fmt::Display for ReadOnly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ForTheGuest => {
                f.write_str("it is read-only for the guest, so it was only checked")
            }
            Self::Mirror {
                array,
                may_be_started,
            } => write!(
                f,
                "it lies on the RAID 1 {array}, so it was only checked: a repair that is cut short \
                 would leave the members different, and the guest would not know; {}",
                match may_be_started {
                    true => "--engine kernel, as root, lets MD do it",
                    false => "repair it in the guest",
                }
            ),
            Self::Array {
                level,
                array,
                unsound,
            } => write!(
                f,
                "it lies on the {level} {array}, which {unsound}, so it was only checked; repair it \
                 in the guest when the array is whole again"
            ),
            Self::Copies { volume } => write!(
                f,
                "it lies on the mirrored volume {volume}, so it was only checked: a repair must \
                 reach all copies, which only LVM sees to; --engine kernel lets it, as root"
            ),
        }
    }
}

/// What a partition table says of a partition.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PartitionRole {
    /// The type: a GUID (GPT), or `0x83` (MBR).
    pub type_code: String,
    /// The type in words where it is well known: "EFI System", "BIOS boot".
    pub type_name: Option<&'static str>,
    /// GPT's partition name; `None` if empty or MBR.
    pub name: Option<String>,
    /// The partition holds bare boot code by its type (BIOS boot, PReP): no filesystem is expected.
    pub holds_boot_code: bool,
}

/// What a layer's bytes are.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "content", rename_all = "kebab-case")]
pub enum Content {
    /// A partition table; the partitions are the children.
    PartitionTable {
        /// GPT or MBR.
        scheme: PartitionScheme,
        /// The sector size it was read with.
        sector_size: SectorSize,
        /// There may be partitions that were not found; the notes tell why.
        incomplete: bool,
    },
    /// An LVM2 physical volume; the logical volumes that begin on it are the children.
    PhysicalVolume {
        /// Its UUID as LVM writes it, with six dashes.
        uuid: String,
        /// The volume group's name; `None` if it belongs to none.
        volume_group: Option<String>,
        /// Why several guests, or hosts, may use the group at once: its kind of locks; `None` if it is
        /// meant for one.
        shared: Option<String>,
    },
    /// A member of a Linux software RAID (MD); the array is a child of the first one.
    RaidMember {
        /// The array's UUID, as blkid(8) writes it.
        uuid: String,
        /// What the array is called below `/dev`: `md0`, `md/data`.
        array: String,
        /// The array's level: "RAID 1", "linear RAID".
        level: String,
    },
    /// A filesystem.
    Filesystem(Filesystem),
    /// Swap space.
    Swap {
        /// Its UUID.
        uuid: Option<String>,
        /// Its label.
        label: Option<String>,
        /// A suspended system's memory image lies in it, with this signature. Nothing of the
        /// domain may be touched then.
        hibernated: Option<String>,
    },
    /// The journal of a filesystem that lies elsewhere.
    Journal {
        /// Of which kind.
        kind: JournalKind,
        /// The UUID that ties the two together.
        uuid: Option<String>,
    },
    /// An encrypted container (LUKS); what is in it is the child, if it was opened.
    Luks {
        /// Which version.
        version: luks::Version,
        /// Its UUID.
        uuid: Option<String>,
        /// Cipher, mode and initialisation vector: `aes-xts-plain64`.
        cipher: String,
        /// Why it is closed; `None` if it was opened.
        closed: Option<Closed>,
    },
    /// Recognised, but what is inside cannot be reached.
    Opaque {
        /// What it is: "LUKS2", "BitLocker".
        what: String,
        /// Its UUID, where it has one.
        uuid: Option<String>,
        /// Why it cannot be looked into.
        reason: String,
    },
    /// A logical volume or array that only LVM or MD itself can lay out: the kernel engine lets them.
    Dormant {
        /// Which of the two.
        by: Opener,
        /// Its UUID.
        uuid: String,
        /// What it is: "thin volume", or why we cannot.
        reason: String,
        /// Why it was not opened; `None` if nobody was asked to.
        cause: Option<String>,
        /// Its length.
        size: Bytes,
    },
    /// It only holds other volumes, which have answers of their own.
    Pool {
        /// What it is: "thin pool".
        what: String,
        /// Its UUID.
        uuid: String,
        /// Its length.
        size: Bytes,
    },
    /// Nothing recognised, and the beginning is all zeros.
    Blank,
    /// Nothing recognised, though there is data.
    Unknown,
    /// It could not be read: the cause in words.
    Unreadable {
        /// The cause.
        cause: String,
    },
}

impl Content {
    /// It is a container that was not opened.
    pub const fn is_closed(&self) -> bool {
        matches!(
            self,
            Self::Luks {
                closed: Some(_),
                ..
            }
        )
    }
}

/// Why a container is closed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "closed", content = "why", rename_all = "kebab-case")]
pub enum Closed {
    /// Nobody has tried yet.
    NotTried,
    /// There is no key for it: the sentence.
    NoKey(String),
    /// Only the kernel can decrypt it: why.
    ForTheKernel(String),
    /// It could not be tried: the sentence.
    Failed(String),
}

impl Closed {
    /// Why, in words.
    pub fn reason(&self) -> &str {
        match self {
            Self::NotTried => "encrypted",
            Self::NoKey(reason) | Self::ForTheKernel(reason) | Self::Failed(reason) => reason,
        }
    }
}

/// The kind of a partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PartitionScheme {
    /// GUID partition table (UEFI 2.10, chapter 5).
    Gpt,
    /// Master boot record.
    Mbr,
    /// A disklabel of BSD.
    Bsd,
}

impl PartitionScheme {
    /// The name people and blkid(8) use: `gpt`, `dos`, `bsd`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gpt => "gpt",
            Self::Mbr => "dos",
            Self::Bsd => "bsd",
        }
    }
}
