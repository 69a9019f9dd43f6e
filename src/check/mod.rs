//! SOUND? One file a checker: how it is called, and what its exit status and words mean.

mod btrfs;
pub mod checker;
pub mod companion;
mod exfat;
mod ext;
mod f2fs;
mod fat;
pub mod image;
pub mod layer;
mod ntfs;
pub mod outcome;
mod patterns;
pub mod run;
mod xfs;
