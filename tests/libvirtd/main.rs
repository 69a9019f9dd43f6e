//! virt-fsck against a real libvirtd and real QEMU guests.
//!
//! The one test that is run by itself starts this program again in namespaces of its own, as the only processes
//! there: a libvirtd that may be running on this machine is neither seen nor touched, and everything is gone when
//! the last process is. The tests marked `ignore` are what runs inside; outside they do nothing.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test may panic"
)]

#[path = "../support/mod.rs"]
mod support;

mod bases;
mod encrypted;
mod hook;
mod kinds;
mod meanwhile;
mod namespaces;
mod pools;
mod race;
mod secrets;
mod session;
mod sharing;
mod site;
mod started;
mod states;

#[test]
fn with_a_libvirtd_of_its_own() {
    if support::lab::is_root() {
        namespaces::run_the_ignored_tests_inside();
    }
}
