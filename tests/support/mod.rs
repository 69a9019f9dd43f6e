//! What the end-to-end tests share: a laboratory that runs virt-fsck and sees to it that nothing
//! is left behind, and damaged disks to put into it.
#![expect(dead_code, reason = "each test program uses a part of it")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "helpers of tests"
)]

pub mod binary;
pub mod disks;
pub mod lab;
pub mod outcome;
pub mod run;
