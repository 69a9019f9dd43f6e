//! LUKS headers: the first version's, the second's two copies, and their metadata.
#![no_main]

use libfuzzer_sys::fuzz_target;
use virt_fsck::layers::luks::{header, metadata_area};
use virt_fsck::units::Bytes;
use virt_fsck_fuzz as _;

fuzz_target!(|bytes: &[u8]| {
    let _ = header::uuid(bytes);
    for detached in [false, true] {
        let _ = header::luks1(bytes, detached).map(|found| found.length(Bytes::mib(64)));
        let _ = header::luks2(bytes, detached).map(|found| found.length(Bytes::mib(64)));
    }
    let read = |offset: Bytes, length: usize| {
        let start = usize::try_from(offset.get()).map_err(drop)?;
        let end = start.checked_add(length).ok_or(())?;
        bytes.get(start..end).map(<[u8]>::to_vec).ok_or(())
    };
    let _ = metadata_area::sound_metadata(read);
});
