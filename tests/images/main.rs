//! Real images, from the file to the verdict: every format, every layer, every checker. The
//! checkers alone, on the bare bytes, are the truth that is compared with.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

#[path = "../support/mod.rs"]
mod support;

mod asleep;
mod bitmaps;
mod btrfs;
mod composed;
mod exfat;
mod f2fs;
mod filesystems;
mod formats;
mod image_check;
mod journals;
mod layers;
mod ntfs;
mod partitions;
mod shared_groups;
