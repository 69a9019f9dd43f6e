//! WHERE: the files and devices on this host that a disk's source stands for.
//!
//! A source that does not exist yet is made to: [`plan`] says what must be opened, by what
//! [`crypttab`], [`fstab`], [`mounts`], LVM ([`volumes`]) and the configuration tell, and [`host`]
//! opens it.

pub mod chain;
pub mod crypttab;
pub mod disk;
pub mod encrypted;
pub mod fstab;
pub mod host;
pub mod identity;
pub mod image_encryption;
mod image_key;
mod information;
pub mod lines;
mod luks;
mod mounting;
pub mod mounts;
pub mod plan;
pub mod probe;
mod rehearsal;
pub mod volumes;
