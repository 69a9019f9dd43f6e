//! MAY WE? Every reason not to touch a disk.

pub mod claim;
pub mod domain;
pub mod drivers;
pub mod host;
pub mod image_lock;
pub mod others;
pub mod watch;
