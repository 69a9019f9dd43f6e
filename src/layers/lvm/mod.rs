//! LVM2 physical volumes, volume groups and logical volumes, read from their on-disk metadata.
