//! A domain's XML, as libvirt or a file has it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use virt_fsck_fuzz as _;

fuzz_target!(|xml: &str| {
    let _ = virt_fsck::domain::xml::parse(xml);
});
