//! LUKS headers: where the encrypted bytes lie, and how they are encrypted.
//!
//! LUKS1 is cryptsetup's docs/on-disk-format.pdf, LUKS2 its docs/on-disk-format-luks2.pdf.

pub mod header;
pub mod metadata_area;

pub use header::{Header, HeaderError};
