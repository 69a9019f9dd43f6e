//! virt-fsck: from a domain's name to a verdict on every filesystem inside it,
//! with the host left exactly as it was.
//!
//! The modules stand in the order the data takes:

pub mod check;
pub mod domain;
pub mod engine;
pub mod guard;
pub mod layers;
pub mod ledger;
pub mod reach;
pub mod report;
pub mod run;
pub mod sweep;

pub mod allow;
pub mod cause;
pub mod cli;
pub mod cmd;
pub mod config;
pub mod crypt;
pub mod dry_run;
pub mod folders;
pub mod hook;
pub mod interrupt;
pub mod keys;
pub mod names;
pub mod namespace;
pub mod secrecy;
pub mod select;
pub mod units;
