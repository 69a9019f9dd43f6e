//! Keys for what is encrypted: where they come from, in which order they are tried.
//!
//! A passphrase is never shown, logged, written down or given to a tool as an argument.

mod askpass;
mod container;
pub mod cryptsetup;
mod detached;
mod memory;
mod passphrase;
mod ring;
mod selector;
mod source;
mod terminal;
mod token;
mod volume_key;

pub use container::{Container, Key, KeyError, KeyFile, Secret};
pub use detached::DetachedHeader;
pub use passphrase::Passphrase;
pub use ring::Keys;
pub use selector::{KeySelector, SelectorError};
pub use source::KeySource;
