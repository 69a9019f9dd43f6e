//! One domain from start to end.

pub mod checks;
pub mod domain;
pub mod guarded;
pub mod hibernation;
pub mod images;
pub mod look;
pub mod options;
pub mod reached;
pub mod unlock;

pub use domain::{not_looked_at, run};
pub use options::{Action, Options, Origin, Run};
