//! A qcow2's header with its extensions, and the directory of its bitmaps.
#![no_main]

use libfuzzer_sys::fuzz_target;
use virt_fsck::check::image::qcow2;
use virt_fsck_fuzz as _;

fuzz_target!(|bytes: &[u8]| {
    let _ = qcow2::header(bytes);
    let _ = qcow2::unsaved(bytes, u32::MAX);
});
