//! What LVM's mirrored volumes note of their copies: dm-raid's superblocks, and logs. The first disk is a
//! log too; all are superblocks.
#![no_main]

use libfuzzer_sys::fuzz_target;
use virt_fsck::layers::extent::ExtentMap;
use virt_fsck::layers::lvm::Copies;
use virt_fsck::layers::lvm::copies::{Log, RaidCopy, raid};
use virt_fsck::layers::read::{ReadAt, ReadImages};
use virt_fsck_fuzz::Disks;

fuzz_target!(|disks: Disks| {
    let open = disks.open();
    let whole: Vec<ExtentMap> = open
        .iter()
        .map(|disk| ExtentMap::whole(disk.image, disk.size))
        .collect();
    for disk in &open {
        let layer: Option<&dyn ReadAt> = disks.image(disk.image);
        if let Some(Ok(metadata)) = layer.map(raid::read) {
            assert!(u64::from(metadata.position) < metadata.devices);
            let _ = metadata.has_failed(metadata.position);
        }
    }
    let copies = whole.iter().enumerate().map(|(number, extents)| RaidCopy {
        name: format!("lv_rimage_{number}"),
        data: extents.clone(),
        metadata: extents.clone(),
        to_be_filled: number == 3,
        write_mostly: number == 0,
    });
    let of_raid = Copies::Raid(copies.collect());
    let log = whole.first().cloned().unwrap_or_default();
    let regions = log.size().get() / 4096;
    let of_mirror = Copies::Mirror {
        legs: whole,
        log: Log::Disk {
            extents: log,
            regions,
        },
    };
    for copies in [of_raid, of_mirror] {
        if let Ok(readable) = copies.readable(&disks) {
            assert!(readable.extents.places().count() > 0 || readable.extents.size().get() == 0);
        }
    }
});
