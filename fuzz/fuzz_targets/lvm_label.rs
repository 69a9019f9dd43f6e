//! An LVM2 physical volume: label, metadata areas, the group in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use virt_fsck::layers::lvm;
use virt_fsck_fuzz::Disks;

fuzz_target!(|disks: Disks| {
    if let Some(disk) = disks.first() {
        let _ = lvm::read(disk);
    }
});
