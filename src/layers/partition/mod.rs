//! Partition tables: MBR with its extended chain, and GPT.
