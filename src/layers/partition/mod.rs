//! Partition tables: MBR with its extended chain, and GPT.
//!
//! The parsers see the disk as the guest does, with its sector size, and follow Linux in what is a
//! table and how its partitions are numbered.

mod gpt;
mod mbr;
mod span;
mod table;
mod types;

pub use table::{Partition, PartitionError, PartitionTable, read};

#[cfg(test)]
mod tests;
