//! Linux software RAID (MD): its members' superblocks, and the arrays they make up.
//!
//! The formats are those of the kernel's `include/uapi/linux/raid/md_p.h`, checked as
//! `drivers/md/md.c` does when it loads them; where bytes lie is as in `drivers/md/raid0.c`,
//! `md-linear.c` and `raid1.c`. [`read`] looks at one layer; [`assemble()`] puts together what was
//! found in all layers of a domain. The host's MD has no part in it, but for what [`by_md`] leaves to it.

pub mod assemble;
pub mod by_md;
pub mod error;
pub mod find;
mod placement;
mod standing;
pub mod superblock;
mod version_0;
mod version_1;
#[cfg(test)]
pub(in crate::layers) mod writer;

pub use assemble::{AssembledArray, FoundMember, assemble};
pub use by_md::{ForMd, Unsound};
pub use error::MdError;
pub use find::read;
pub use superblock::{ArrayId, Level, Obstacle, Role, Superblock, Version};
