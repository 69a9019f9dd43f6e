//! The key that the bytes of a device are encrypted with.

use std::fmt;

use zeroize::Zeroizing;

/// The bytes of a volume key. They are overwritten when it is dropped, and shown nowhere.
pub struct VolumeKey(Zeroizing<Vec<u8>>);

impl fmt::Debug for VolumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VolumeKey(...)")
    }
}

impl VolumeKey {
    /// These bytes, as they are.
    pub const fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    /// The bytes that pairs of hexadecimal digits stand for; `None` if it is anything else.
    pub fn of_digits(digits: &str) -> Option<Self> {
        // Room for all of it, so that no copies stay behind as it grows.
        let mut bytes = Zeroizing::new(Vec::with_capacity(digits.len() / 2));
        let mut rest = digits.bytes();
        while let Some(first) = rest.next() {
            let high = char::from(first).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            bytes.push(u8::try_from((high << 4) | low).ok()?);
        }
        Some(Self(bytes))
    }

    /// How many bytes it has.
    pub fn length(&self) -> usize {
        self.0.len()
    }

    /// The key in hexadecimal, for a table of device-mapper.
    pub fn digits(&self) -> Zeroizing<String> {
        // Room for all of it: growing would leave a copy behind.
        let mut digits = Zeroizing::new(String::with_capacity(self.0.len().saturating_mul(2)));
        let halves = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        digits.extend(halves.filter_map(|half| char::from_digit(half.into(), 16)));
        digits
    }

    /// The bytes, for a cipher.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_not_shown() {
        let key = VolumeKey::new(Zeroizing::new(b"tell nobody".to_vec()));
        assert_eq!(
            format!("{key:?} {:?}", Some(&key)),
            "VolumeKey(...) Some(VolumeKey(...))"
        );
    }

    #[test]
    fn digits() {
        let key = VolumeKey::of_digits("00fF7a").unwrap();
        assert_eq!((key.bytes(), key.length()), (&[0, 255, 122][..], 3));
        assert_eq!(*key.digits(), "00ff7a");
        assert_eq!(VolumeKey::of_digits("").unwrap().length(), 0);
        for none in ["0", "000", "0g", "g0", "+1", "0 ", "é"] {
            assert!(VolumeKey::of_digits(none).is_none(), "{none}");
        }
    }
}
