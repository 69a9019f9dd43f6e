//! virt-fsck: from a domain's name to a verdict on every filesystem inside it,
//! with the host left exactly as it was.
//!
//! The modules stand in the order the data takes:

pub mod domain;
pub mod layers;
pub mod units;
