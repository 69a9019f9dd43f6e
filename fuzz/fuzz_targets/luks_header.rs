//! LUKS headers: the first version's, the second's two copies, and their metadata.
#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use virt_fsck::layers::luks::{self, header, metadata_area};
use virt_fsck::layers::read::ReadAt;
use virt_fsck::units::Bytes;
use virt_fsck_fuzz as _;

/// The bytes of the fuzzer, and zeros behind them to the end of a device.
struct Device(Vec<u8>);

impl ReadAt for Device {
    fn size(&self) -> Bytes {
        Bytes::mib(512)
    }

    fn read_exact_at(&self, offset: Bytes, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset.get()).map_err(io::Error::other)?;
        let there = self.0.get(start..).unwrap_or_default();
        let length = there.len().min(buffer.len());
        buffer.fill(0);
        buffer[..length].copy_from_slice(&there[..length]);
        Ok(())
    }
}

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
    // As it is, and as the text of a sound copy.
    let _ = luks::read(&Device(bytes.to_vec()));
    let mut copy = vec![0; 16384];
    copy[..8].copy_from_slice(b"LUKS\xba\xbe\x00\x02");
    copy[8..16].copy_from_slice(&16384_u64.to_be_bytes());
    copy[72..78].copy_from_slice(b"sha256");
    let length = bytes.len().min(copy.len() - 4097);
    copy[4096..][..length].copy_from_slice(&bytes[..length]);
    let sum = Sha256::digest(&copy);
    copy[448..480].copy_from_slice(&sum);
    if let Ok(Some(found)) = luks::read(&Device(copy)) {
        assert!(found.header_area <= header::LONGEST_HEADER_AREA);
    }
});
