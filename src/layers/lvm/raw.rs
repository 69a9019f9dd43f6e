//! The fields and the checksum of LVM's binary headers.

/// LVM's sector: 512 bytes, whatever the disk's own sectors are.
pub(super) const SECTOR: u64 = 512;

/// What LVM starts its checksum with (`INITIAL_CRC`, lib/misc/crc.h).
const INITIAL_CHECKSUM: u32 = 0xf597_a6cf;

/// LVM's checksum over the parts, one after the other: CRC-32 with its own start value and
/// without the final inversion (`calc_crc`, lib/misc/crc.c).
pub(super) fn checksum(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!INITIAL_CHECKSUM);
    for part in parts {
        hasher.update(part);
    }
    !hasher.finalize()
}

/// The little-endian 32-bit number at byte `at`; `None` past the end.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u32::from_le_bytes)
}

/// The little-endian 64-bit number at byte `at`; `None` past the end.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit by bit, as the definition says.
    fn by_definition(bytes: &[u8]) -> u32 {
        bytes.iter().fold(INITIAL_CHECKSUM, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
                if sum & 1 == 1 {
                    (sum >> 1) ^ 0xedb8_8320
                } else {
                    sum >> 1
                }
            })
        })
    }

    #[test]
    fn the_checksum_is_lvms_own() {
        for text in ["", "a", "vg1 {\nid = \"x\"\n}\n"] {
            assert_eq!(checksum(&[text.as_bytes()]), by_definition(text.as_bytes()));
        }
        assert_eq!(checksum(&[b"ab", b"c"]), checksum(&[b"abc"]));
    }

    #[test]
    fn numbers_past_the_end_are_none() {
        assert_eq!(u32_at(&[1, 0, 0, 0, 9], 0), Some(1));
        assert_eq!(u32_at(&[1, 0, 0, 0, 9], 2), None);
        assert_eq!(u64_at(&[0; 8], 1), None);
        assert_eq!(u64_at(&[0; 8], 9), None);
    }
}
