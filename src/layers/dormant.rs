//! Volumes and arrays that only the kernel can lay out, once LVM or MD has put them together,
//! containers that need a key; and what became of them.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;

use crate::layers::extent::{ExtentMap, ImageIndex};
use crate::layers::luks::Container;
use crate::layers::luks::integrity::Protected;
use crate::layers::lvm::{LogicalVolumeId, VolumeGroupId};
use crate::layers::md::{ArrayId, Version};
use crate::layers::read::ReadAt;
use crate::layers::tree::{Closed, Layer, LayerPath};
use crate::units::Bytes;

/// What a look at the disks gives.
#[derive(Clone, Debug, Default)]
pub struct Peeled {
    /// One tree a disk.
    pub layers: Vec<Layer>,
    /// The groups with volumes that LVM has not been asked to activate yet.
    pub groups: Vec<DormantGroup>,
    /// The arrays that MD has not been asked to start yet.
    pub arrays: Vec<DormantArray>,
    /// The containers for which no key was looked for yet.
    pub containers: Vec<ClosedContainer>,
}

/// An encrypted container that nobody has tried to open yet.
#[derive(Clone, Debug)]
pub struct ClosedContainer {
    /// Its place in the tree.
    pub path: LayerPath,
    /// Where it lies, with its header.
    pub extents: ExtentMap,
    /// What its header says.
    pub container: Container,
    /// Its checksums, as device-mapper is told of them; `None` if it has none.
    pub protected: Option<Protected>,
    /// The header lies elsewhere.
    pub is_detached: bool,
    /// Nothing may be written to it, whatever the disks allow.
    pub read_only: bool,
}

/// What became of containers, by their places in the tree.
pub type Unlocked = BTreeMap<LayerPath, Unlocking>;

/// What became of one.
#[derive(Clone, Debug)]
pub enum Unlocking {
    /// What is in it can be read as an image of its own.
    Open {
        /// Which.
        image: ImageIndex,
        /// How long it is.
        size: Bytes,
    },
    /// It stays closed.
    Closed(Closed),
}

/// What earlier looks found, and what was opened since.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Volumes and arrays that LVM or MD has opened, or has not; `None` where neither is to be had,
    /// and mirrored volumes are read without LVM.
    pub activated: Option<&'a Activated>,
    /// Containers.
    pub unlocked: &'a Unlocked,
    /// The headers of containers that have none in front of them.
    pub headers: &'a Headers,
}

/// Headers of LUKS by the paths of their layers in the tree.
pub type Headers = BTreeMap<String, GivenHeader>;

/// A header that lies in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenHeader {
    /// The file.
    pub file: PathBuf,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// An image that is none of the domain's disks: what was opened as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedImage {
    /// Who has opened it.
    pub by: Opener,
    /// The disks that it lies on, in their order.
    pub disks: Vec<ImageIndex>,
}

impl ReadAt for GivenHeader {
    fn size(&self) -> Bytes {
        self.bytes.as_slice().size()
    }

    fn read_exact_at(&self, offset: Bytes, buffer: &mut [u8]) -> io::Result<()> {
        self.bytes.as_slice().read_exact_at(offset, buffer)
    }
}

/// Who puts together what nobody else can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Opener {
    /// LVM activates logical volumes.
    Lvm,
    /// MD starts arrays.
    Md,
    /// A key opens containers.
    Luks,
}

impl Opener {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lvm => "LVM",
            Self::Md => "MD",
            Self::Luks => "dm-crypt",
        }
    }

    /// What it does with them: `activates`.
    pub const fn opens(self) -> &'static str {
        match self {
            Self::Lvm => "activates",
            Self::Md => "starts",
            Self::Luks => "decrypts",
        }
    }

    /// What it puts together.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Lvm => "logical volume",
            Self::Md => "RAID array",
            Self::Luks => "LUKS container",
        }
    }
}

/// A complete volume group, some of whose volumes only LVM can lay out.
#[derive(Clone, Debug)]
pub struct DormantGroup {
    /// Its UUID.
    pub uuid: VolumeGroupId,
    /// Its name.
    pub name: String,
    /// Where its physical volumes lie, all of them.
    pub members: Vec<ExtentMap>,
    /// Nothing may be written to them, whatever the disks allow.
    pub read_only: bool,
    /// The volumes.
    pub volumes: Vec<DormantVolume>,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct DormantVolume {
    /// Its UUID.
    pub uuid: LogicalVolumeId,
    /// Its name in the group.
    pub name: String,
}

/// An array that has enough members to be started, and that only MD can lay out, or only MD can
/// write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DormantArray {
    /// Its UUID.
    pub id: ArrayId,
    /// What it is called below `/dev` in the guest.
    pub name: String,
    /// Which metadata its members have.
    pub version: Version,
    /// Where the members lie that MD gets.
    pub members: Vec<ExtentMap>,
    /// Nothing may be written to them, whatever the disks allow.
    pub read_only: bool,
}

/// A volume or an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DormantId {
    /// A logical volume.
    Volume(LogicalVolumeId),
    /// An array of MD.
    Array(ArrayId),
}

impl DormantId {
    /// Who opens it.
    pub const fn opener(self) -> Opener {
        match self {
            Self::Volume(_) => Opener::Lvm,
            Self::Array(_) => Opener::Md,
        }
    }
}

/// What became of dormant volumes and arrays.
pub type Activated = HashMap<DormantId, Activation>;

/// What became of one.
#[derive(Clone, Debug)]
pub enum Activation {
    /// It can be read as an image of its own.
    Active {
        /// Which.
        image: ImageIndex,
        /// How long it is.
        size: Bytes,
    },
    /// It stays closed; why, in words.
    Failed(String),
}
