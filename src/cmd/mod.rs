//! The one way to run a tool.
//!
//! Every child speaks plain English (`LC_ALL=C`), has its own process group so that the
//! terminal's Ctrl-C reaches only virt-fsck, and is ended by the kernel if virt-fsck dies; but for
//! those that are meant to go on after it (`detached`).

pub mod child;
pub mod confine;
pub mod detached;
pub mod lent;
pub mod tool;
pub mod watch;

pub use lent::LentFile;
pub use tool::{CmdError, Invocation, Tool};
