//! What a layer is: filesystems, swap, members of arrays.
#![no_main]

use libfuzzer_sys::fuzz_target;
use virt_fsck::layers::signature;
use virt_fsck_fuzz::Disks;

fuzz_target!(|disks: Disks| {
    let Some(layer) = disks.first() else { return };
    let _ = signature::array_member(layer);
    let _ = signature::recognise(layer);
    let _ = signature::is_blank(layer);
});
