//! The steps a check would take, as commands that can be pasted.

mod containers;
mod kernel;
pub mod plan;
mod user;

pub use plan::{PlannedDisk, steps};
