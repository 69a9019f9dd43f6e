//! The host's tables of encrypted devices and of mount points.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use virt_fsck::reach::{crypttab, fstab};
use virt_fsck_fuzz as _;

fuzz_target!(|text: &str| {
    for entry in crypttab::parse(text, Path::new("/etc/crypttab")) {
        let _ = format!("{entry:?}");
    }
    for entry in fstab::parse(text, Path::new("/etc/fstab")) {
        let _ = entry.mount_options();
    }
});
