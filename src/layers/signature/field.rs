//! Fields of on-disk structures: numbers, text and UUIDs at an offset. Whatever lies outside the
//! bytes at hand is `None`.

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// One byte.
pub(in crate::layers) fn u8(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

/// A little-endian 16-bit number.
pub(in crate::layers) fn le16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

/// A little-endian 32-bit number.
pub(in crate::layers) fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

/// A little-endian 64-bit number.
pub(in crate::layers) fn le64(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

/// A big-endian 16-bit number.
pub(in crate::layers) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

/// A big-endian 32-bit number.
pub(in crate::layers) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_be_bytes)
}

/// A big-endian 64-bit number.
pub(in crate::layers) fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_be_bytes)
}

/// Whether exactly `magic` stands there.
pub(in crate::layers) fn is(bytes: &[u8], at: usize, magic: &[u8]) -> bool {
    bytes.get(at..).is_some_and(|rest| rest.starts_with(magic))
}

/// Text of at most `length` bytes, up to the first NUL; `None` if nothing is left of it.
pub(in crate::layers) fn text(bytes: &[u8], at: usize, length: usize) -> Option<String> {
    let field = bytes.get(at..at.checked_add(length)?)?;
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(length);
    printable(&String::from_utf8_lossy(field.get(..end)?))
}

/// UTF-16LE text of at most `length` bytes, up to the first NUL; `None` if nothing is left of it.
pub(in crate::layers) fn utf16(bytes: &[u8], at: usize, length: usize) -> Option<String> {
    let units: Vec<u16> = bytes
        .get(at..at.checked_add(length)?)?
        .chunks_exact(2)
        .filter_map(|unit| le16(unit, 0))
        .take_while(|unit| *unit != 0)
        .collect();
    printable(&String::from_utf16_lossy(&units))
}

/// A guest chooses its labels, and they end up on the host's terminal: what could move the cursor,
/// change colours or reverse the reading direction becomes U+FFFD.
pub(in crate::layers) fn printable(text: &str) -> Option<String> {
    let clean: String = text
        .trim()
        .chars()
        .map(|c| match c {
            '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect();
    (!clean.is_empty()).then_some(clean)
}

/// A UUID of 16 bytes in the order they are written; `None` if all are zero.
pub(in crate::layers) fn uuid(bytes: &[u8], at: usize) -> Option<String> {
    let raw: [u8; 16] = array(bytes, at)?;
    (raw != [0; 16]).then(|| uuid::Uuid::from_bytes(raw).hyphenated().to_string())
}

/// The UUID a superblock keeps as text; `None` unless it is one.
pub(in crate::layers) fn uuid_text(bytes: &[u8], at: usize, length: usize) -> Option<String> {
    let parsed = uuid::Uuid::try_parse(&text(bytes, at, length)?).ok()?;
    Some(parsed.hyphenated().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_outside_are_none() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(le32(&bytes, 4), Some(0x0807_0605));
        assert_eq!(be64(&bytes, 0), Some(0x0102_0304_0506_0708));
        assert_eq!(le32(&bytes, 5), None);
        assert_eq!(le64(&bytes, usize::MAX), None);
        assert_eq!(text(&bytes, usize::MAX, 2), None);
        assert!(!is(&bytes, 7, &[8, 9]));
    }

    #[test]
    fn hostile_labels_are_made_printable() {
        for (raw, shown) in [
            (&b"root\0junk"[..], Some("root")),
            (b"  padded   ", Some("padded")),
            (b"\0\0\0", None),
            (b"   ", None),
            (b"\x1b[2Jx", Some("\u{fffd}[2Jx")),
            ("a\u{202e}b".as_bytes(), Some("a\u{fffd}b")),
            (b"\xff\xfe", Some("\u{fffd}\u{fffd}")),
        ] {
            assert_eq!(text(raw, 0, raw.len()).as_deref(), shown);
        }
        assert_eq!(utf16(b"p\0q\0\0\0x\0", 0, 8).as_deref(), Some("pq"));
        assert_eq!(utf16(b"\0\xd8x\0", 0, 4).as_deref(), Some("\u{fffd}x"));
    }
}
