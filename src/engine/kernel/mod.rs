//! The kernel engine: loop, nbd and device-mapper devices under private names, for what no single
//! plain file can show. It needs root, and takes everything back.

pub mod activation;
pub mod arrays;
pub mod containers;
pub mod control;
pub mod loops;
pub mod mapping;
pub mod module;
pub mod nbd;
mod partitions;
pub mod session;
pub mod snapshot;
pub mod table;
pub mod volumes;
mod wait;
