//! LUKS headers: where the encrypted bytes lie, and how they are encrypted.
//!
//! LUKS1 is cryptsetup's docs/on-disk-format.pdf, LUKS2 its docs/on-disk-format-luks2.pdf.

pub mod container;
pub mod header;
pub mod integrity;
mod luks1;
mod metadata;
pub mod metadata_area;
mod part;

pub use container::{Container, Integrity, LuksError, Version, read, read_detached};
pub use header::{Header, HeaderError};
