//! Members of MD's arrays, and the arrays they make up.
#![no_main]

use libfuzzer_sys::fuzz_target;
use virt_fsck::layers::extent::ExtentMap;
use virt_fsck::layers::md::{self, FoundMember};
use virt_fsck::layers::read::{ReadAt, ReadImages};
use virt_fsck::layers::tree::LayerPath;
use virt_fsck_fuzz::Disks;

fuzz_target!(|disks: Disks| {
    let members: Vec<FoundMember> = disks
        .open()
        .into_iter()
        .filter_map(|disk| {
            let layer: &dyn ReadAt = disks.image(disk.image)?;
            let superblock = md::read(layer).ok()??;
            Some(FoundMember {
                path: LayerPath::disk(&disk.target),
                extents: ExtentMap::whole(disk.image, disk.size),
                superblock,
            })
        })
        .collect();
    for array in md::assemble(&members) {
        if let Ok(map) = array.layout {
            let _ = map.slice(map.size(), map.size());
        }
    }
});
