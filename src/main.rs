//! The virt-fsck command.

fn main() {}
