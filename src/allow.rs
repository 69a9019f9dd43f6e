//! What is dangerous, and done only when it is asked for by name.

use clap::ValueEnum;

/// Something that no mode does by itself: `--allow NAME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Allowance {
    /// With -y, run btrfs check --repair, which its authors warn of: it can make
    /// a damaged filesystem worse
    BtrfsRepair,
    /// Repair on a network or cluster filesystem (NFS, Ceph, GFS2, ...), though
    /// another host may be using the disk: that is not seen from here
    SharedNfs,
    /// Repair in a volume group that is shared with other hosts, or inside the
    /// guest with other guests, though one of them may be using it
    SharedLvm,
}

impl Allowance {
    /// The name it is asked for by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BtrfsRepair => "btrfs-repair",
            Self::SharedNfs => "shared-nfs",
            Self::SharedLvm => "shared-lvm",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_asked_for_by_its_name() {
        for allowance in Allowance::value_variants() {
            let value = allowance.to_possible_value();
            assert_eq!(value.unwrap().get_name(), allowance.name());
        }
    }
}
