//! MBR and GPT, with sectors of both sizes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use virt_fsck::layers::partition;
use virt_fsck::units::SectorSize;
use virt_fsck_fuzz::Disks;

fuzz_target!(|disks: Disks| {
    let Some(disk) = disks.first() else { return };
    for sector_size in [SectorSize::S512, SectorSize::S4096] {
        let _ = partition::read(disk, sector_size);
    }
});
