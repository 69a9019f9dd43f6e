//! The text in a metadata area, and where the volumes of such a group lie.
#![no_main]

use libfuzzer_sys::fuzz_target;
use virt_fsck::layers::lvm::{VolumeGroup, text};
use virt_fsck_fuzz as _;

fuzz_target!(|text: &[u8]| {
    if let Ok(root) = text::parse(text) {
        let _ = VolumeGroup::from_text(&root);
    }
});
