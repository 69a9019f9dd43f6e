//! HOW: an extent map becomes a path that a checker can open.

pub mod user;
