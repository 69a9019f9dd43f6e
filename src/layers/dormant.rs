//! Volumes and arrays that only the kernel can lay out, once LVM or MD has put them together, and
//! what became of them.

use std::collections::HashMap;

use crate::layers::extent::{ExtentMap, ImageIndex};
use crate::layers::lvm::{LogicalVolumeId, VolumeGroupId};
use crate::layers::md::{ArrayId, Version};
use crate::layers::tree::Layer;
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
}

/// Who puts together what nobody else can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Opener {
    /// LVM activates logical volumes.
    Lvm,
    /// MD starts arrays.
    Md,
}

impl Opener {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lvm => "LVM",
            Self::Md => "MD",
        }
    }

    /// What it does with them: `activates`.
    pub const fn opens(self) -> &'static str {
        match self {
            Self::Lvm => "activates",
            Self::Md => "starts",
        }
    }

    /// What it puts together.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Lvm => "logical volume",
            Self::Md => "RAID array",
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
