//! Partition tables and signatures that the real tools wrote, against what the real tools read.
//!
//! Needs e2fsprogs, xfsprogs, dosfstools, fdisk, gdisk, cryptsetup and util-linux.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod image;
mod signatures;
mod tables;
