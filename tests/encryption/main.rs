//! Encrypted guests: containers that cryptsetup and QEMU made, wherever LUKS can sit. The user
//! engine decrypts them without the kernel; cryptsetup itself decrypts what it has written.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/mod.rs"]
mod support;

mod by_qemu;
mod containers;
mod headers;
mod keys;
mod leaks;
mod places;
mod tokens;
