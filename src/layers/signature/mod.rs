//! What a layer is, told by the signatures in its bytes.
//!
//! The questions to a layer, in this order: a partition table
//! ([`partition::read`](crate::layers::partition::read), which knows of arrays over whole disks), a
//! superblock of MD ([`md::read`](crate::layers::md::read)), [`array_member`], LVM2's label,
//! [`recognise`]. Each may hold what the next would believe.

mod btrfs;
mod ext;
mod f2fs;
mod fat;
pub(in crate::layers) mod field;
mod luks;
mod model;
mod other;
mod probe;
mod raid;
mod recognise;
mod swap;
mod windows;
mod xfs;

pub use model::Signature;
pub use recognise::{array_member, is_blank, is_blank_from, recognise};

pub(in crate::layers) use fat::is_boot_sector as is_fat_boot_sector;
pub(in crate::layers) use raid::at_end as member_at_end;
pub(in crate::layers) use windows::is_boot_sector as is_windows_boot_sector;

#[cfg(test)]
mod tests;
