//! LVM2 physical volumes, volume groups and logical volumes, read from their on-disk metadata.
//!
//! The formats are those of LVM2's `lib/label/label.h`, `lib/format_text/layout.h`,
//! `lib/format_text/import_vsn1.c` and `libdm/libdm-config.c`. [`read`] looks at one layer;
//! [`assemble()`] puts together what was found in all layers of a domain. The host's LVM has no part in it.

pub mod assemble;
pub mod copies;
pub mod error;
pub mod identity;
pub mod label;
pub mod metadata_area;
pub mod physical_volume;
mod placement;
mod raw;
pub mod text;
pub mod volume_group;
#[cfg(test)]
pub(in crate::layers) mod writer;

pub use assemble::{AssembledGroup, AssembledVolume, FoundPhysicalVolume, NoLayout, assemble};
pub use copies::{Copies, Readable};
pub use error::LvmError;
pub use identity::{LogicalVolumeId, PhysicalVolumeId, VolumeGroupId};
pub use physical_volume::{PhysicalVolume, read};
pub use volume_group::VolumeGroup;
