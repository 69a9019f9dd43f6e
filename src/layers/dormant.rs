//! Volumes that only LVM itself can lay out, and what became of them.

use std::collections::HashMap;

use crate::layers::extent::{ExtentMap, ImageIndex};
use crate::layers::lvm::{LogicalVolumeId, VolumeGroupId};
use crate::layers::tree::Layer;
use crate::units::Bytes;

/// What a look at the disks gives.
#[derive(Clone, Debug, Default)]
pub struct Peeled {
    /// One tree a disk.
    pub layers: Vec<Layer>,
    /// The groups with volumes that LVM has not been asked to activate yet.
    pub dormant: Vec<DormantGroup>,
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

/// What LVM made of dormant volumes.
pub type Activated = HashMap<LogicalVolumeId, Activation>;

/// What LVM made of one.
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
