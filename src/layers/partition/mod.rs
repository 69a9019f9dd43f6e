//! Partition tables: MBR with its extended chain, GPT, and the disklabels of BSD.
//!
//! The parsers see the disk as the guest does, with its sector size, and follow Linux in what is a
//! table and how its partitions are numbered. Where Linux' kernel, util-linux and the firmware
//! see a disk differently, a note says so.

mod bsd;
mod extended;
mod gpt;
mod gpt_header;
mod inside;
mod iso;
mod mbr;
mod overlap;
mod protective;
mod sector_size;
mod span;
mod table;
mod types;
mod window;

pub use inside::Inside;
pub use table::{Partition, PartitionError, PartitionTable, read, read_nested};

#[cfg(test)]
mod tests;
