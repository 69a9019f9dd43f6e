//! What a run opens, written down before it is opened; taken back in the reverse order, by the run
//! itself or, after it was killed, by the next one.

pub mod book;
pub mod recover;
pub mod step;
pub mod undo;

pub use book::{Ledger, LedgerError, Mark};
pub use step::{Handle, Step};
