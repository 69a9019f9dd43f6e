//! The composer: virt-fsck itself serves a layer that lies in several pieces as one file over FUSE,
//! and reads and writes the pieces through the storage daemon's NBD server.
//!
//! A request of the kernel becomes transfers (`transfers`: which bytes of which image), which the
//! layer (`volume`) hands to whatever holds the images (`images`: a connection to each, `nbd`). The
//! file (`file`) answers the kernel from several threads; `served` mounts it and takes it back.

mod file;
mod images;
mod nbd;
pub mod served;
mod transfers;
mod volume;

pub use images::Connections;
pub use nbd::ConnectionError;
pub use served::{ServeError, Served, THREADS};
pub use volume::Volume;
