//! HOW: an extent map becomes a path that a checker can open.

pub mod choice;
pub mod decrypted;
pub mod kernel;
pub mod overlay_key;
pub mod session;
pub mod shown_disk;
pub mod user;
