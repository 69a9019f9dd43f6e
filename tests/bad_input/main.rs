//! Bad input, and a machine that does not play along: one clear sentence, the right exit status,
//! nothing left, nothing changed.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/mod.rs"]
mod support;

mod domains;
mod files;
mod host;
mod inside;
mod signals;
