//! libvirt's qemu hook: `virt-fsck hook GUEST OPERATION SUBOPERATION EXTRA`.
//!
//! libvirt runs it whenever a guest starts or stops, waits for it, and lets its exit status decide
//! whether the guest may start (docs/hooks.rst of libvirt). So it never asks libvirt anything, which
//! would wait for the hook; it prints nothing on standard output, which libvirt may take for the
//! guest's new XML; and whatever it does not understand it lets pass.

pub mod answer;
pub mod call;
pub mod check;
pub mod decision;
pub mod incoming;
pub mod install;
pub mod memory;
pub mod queue;
