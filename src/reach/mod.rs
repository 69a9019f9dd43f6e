//! WHERE: the files and devices on this host that a disk's source stands for.

pub mod chain;
pub mod disk;
pub mod identity;
mod information;
pub mod probe;
