//! What a person, a script or a terminal is told.
//!
//! `tree`, `list`, `summary` and `json` turn reports into text and print nothing; `progress` is
//! the one part that writes while a run goes on. `outline` draws what `tree` and `list` have to
//! show, and everything it draws goes through [`text::Charset::clean`], so that a label made by a
//! guest cannot command the reader's terminal.

pub mod clock;
pub mod exit;
pub mod json;
pub mod list;
pub mod model;
mod outline;
pub mod progress;
#[cfg(test)]
mod samples;
pub mod style;
pub mod summary;
pub mod text;
pub mod tree;
mod words;
