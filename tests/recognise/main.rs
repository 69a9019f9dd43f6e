//! Partition tables and signatures that the real tools wrote, against what the real tools read.
//!
//! Needs e2fsprogs, xfsprogs, dosfstools, fdisk, gdisk, cryptsetup, xorriso and util-linux.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod image;
mod nested;
mod signatures;
mod tables;
