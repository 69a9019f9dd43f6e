//! MAY WE? Every reason not to touch a disk.

pub mod claim;
pub mod devices;
pub mod domain;
pub mod drivers;
pub mod family;
pub mod host;
pub mod image_lock;
mod kernel_users;
pub mod lease;
pub mod lock_manager;
pub mod loops;
pub mod other_hosts;
pub mod others;
pub mod processes;
mod served;
pub mod shared_storage;
pub mod sysfs;
pub mod watch;
