//! LUKS1 and LUKS2 (cryptsetup: docs/on-disk-format.pdf, docs/on-disk-format-luks2.pdf).

use std::io;

use crate::layers::signature::field;
use crate::layers::signature::model::Signature;
use crate::layers::signature::probe::Probe;

const MAGIC: &[u8] = b"LUKS\xba\xbe";
const SECOND_MAGIC: &[u8] = b"SKUL\xba\xbe";
const UUID: usize = 168;
const UUID_LENGTH: usize = 40;
const HEADER_OFFSET: usize = 256;
const HEADER_LENGTH: usize = 512;

/// Where LUKS2's second header lies, for each size of the first.
const SECOND_HEADERS: [u64; 9] = [
    0x4000, 0x8000, 0x1_0000, 0x2_0000, 0x4_0000, 0x8_0000, 0x10_0000, 0x20_0000, 0x40_0000,
];

/// The first header, at byte 0.
pub(super) fn recognise(probe: &Probe) -> Option<Signature> {
    let header = probe.from(0);
    if !field::is(header, 0, MAGIC) {
        return None;
    }
    let what = match field::be16(header, 6)? {
        1 => "LUKS1",
        2 => "LUKS2",
        _ => "LUKS",
    };
    Some(Signature::encrypted(
        what,
        field::uuid_text(header, UUID, UUID_LENGTH),
    ))
}

/// LUKS2's second header, if the first is gone.
pub(super) fn second_header(probe: &Probe) -> io::Result<Option<Signature>> {
    for offset in SECOND_HEADERS {
        let Some(header) = probe.bytes(offset, HEADER_LENGTH)? else {
            break;
        };
        if field::is(&header, 0, SECOND_MAGIC)
            && field::be64(&header, HEADER_OFFSET) == Some(offset)
        {
            return Ok(Some(Signature::Opaque {
                what: "LUKS2".to_owned(),
                uuid: field::uuid_text(&header, UUID, UUID_LENGTH),
                reason: "encrypted, and its first header is damaged; `cryptsetup repair` restores \
                         it from the second"
                    .to_owned(),
            }));
        }
    }
    Ok(None)
}
