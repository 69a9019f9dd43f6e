//! INSIDE: from the bytes of a domain's disks to the tree of layers and its filesystems.
//!
//! Parsers here take bytes and give facts; none of them opens, runs or writes anything.
//! Whatever they read comes from a guest and is taken as hostile: every depth, count and
//! size is bounded by a named constant.

pub mod dormant;
mod ends;
pub mod extent;
pub mod filesystem;
pub mod luks;
pub mod lvm;
pub mod md;
pub mod partition;
pub mod peel;
pub mod read;
pub mod signature;
pub mod tree;
