//! Keys for what is encrypted: where they come from, in which order they are tried.
//!
//! A passphrase is never shown, logged, written down or given to a tool as an argument.

mod container;
pub mod cryptsetup;
mod detached;
mod passphrase;
mod selector;
mod terminal;
mod volume_key;

pub use container::{Container, Key, KeyError, KeyFile, Keys};
pub use detached::DetachedHeader;
pub use passphrase::Passphrase;
pub use selector::{KeySelector, SelectorError};
