//! libvirt's hook without a libvirt: its calls are replayed, in the order in which it makes them.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/mod.rs"]
mod support;

mod after_stop;
mod before_start;
mod incoming;
mod installed;
mod place;
mod protocol;
