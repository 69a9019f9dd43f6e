//! What a LUKS header says of the cipher, as a value.

use std::fmt;

use SpecError::{UnknownCipher, UnknownForm, UnknownIv, UnknownMode, WrongKeyLength};

/// The block ciphers that are known here. All have blocks of 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// AES.
    Aes,
    /// Serpent.
    Serpent,
    /// Twofish.
    Twofish,
    /// Camellia.
    Camellia,
}

/// How the blocks of a sector depend on one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// XTS (IEEE 1619): two keys, of which the second encrypts the initialisation vector.
    Xts,
    /// CBC: each block depends on those before it.
    Cbc,
}

/// The hash of ESSIV. Its length is that of the key that encrypts the sector number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EssivHash {
    /// SHA-256.
    Sha256,
}

/// The initialisation vector by the number of the sector; the rest of its 16 bytes are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Iv {
    /// Nothing but zeros.
    Null,
    /// The lower 32 bits, little-endian, in the first bytes.
    Plain,
    /// 64 bits, little-endian, in the first bytes.
    Plain64,
    /// 64 bits, big-endian, in the last bytes.
    Plain64be,
    /// As [`Iv::Plain64`], encrypted by the cipher with the hash of the whole volume key as key.
    Essiv(EssivHash),
}

/// Why a cipher cannot be had here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// It is no cipher, mode and initialisation vector.
    #[error("the encryption {0} is not known here")]
    UnknownForm(String),
    /// The block cipher is none of [`Algorithm`].
    #[error("the cipher {0} is not known here")]
    UnknownCipher(String),
    /// The mode is none of [`Mode`].
    #[error("the cipher mode {0} is not known here")]
    UnknownMode(String),
    /// The initialisation vector is none of [`Iv`].
    #[error("the initialisation vector {0} is not known here")]
    UnknownIv(String),
    /// The cipher takes no such key.
    #[error("{encryption} takes no key of {length} bytes")]
    WrongKeyLength {
        /// Cipher, mode and initialisation vector.
        encryption: String,
        /// How long the key is, in bytes.
        length: usize,
    },
}

/// A cipher with all that it takes but the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CipherSpec {
    algorithm: Algorithm,
    mode: Mode,
    iv: Iv,
    key_length: usize,
}

impl CipherSpec {
    /// What the header of LUKS1 says: the cipher (`aes`), its mode (`xts-plain64`), and how long the
    /// volume key is in bytes.
    ///
    /// # Errors
    /// [`SpecError`] if it is not known here.
    pub fn of_luks1(cipher: &str, mode: &str, key_length: usize) -> Result<Self, SpecError> {
        Self::parse(&format!("{cipher}-{mode}"), key_length)
    }

    /// What a segment of LUKS2 says (`aes-xts-plain64`), and how long the volume key is in bytes:
    /// dm-crypt's `cipher-chainmode-ivmode[:ivopts]`.
    ///
    /// # Errors
    /// [`SpecError`] if it is not known here.
    pub fn parse(encryption: &str, key_length: usize) -> Result<Self, SpecError> {
        let unknown_form = || UnknownForm(encryption.to_owned());
        // Names of the kernel's own are another form, and have hyphens elsewhere.
        if encryption.starts_with("capi:") {
            return Err(unknown_form());
        }
        let (cipher, rest) = encryption.split_once('-').ok_or_else(unknown_form)?;
        let (mode, iv) = rest.split_once('-').unwrap_or((rest, ""));
        let algorithm = match cipher {
            "aes" => Algorithm::Aes,
            "serpent" => Algorithm::Serpent,
            "twofish" => Algorithm::Twofish,
            "camellia" => Algorithm::Camellia,
            _ => return Err(UnknownCipher(cipher.to_owned())),
        };
        let (mode, keys) = match mode {
            "xts" => (Mode::Xts, 2),
            "cbc" => (Mode::Cbc, 1),
            _ => return Err(UnknownMode(mode.to_owned())),
        };
        let iv = match iv {
            "null" => Iv::Null,
            "plain" => Iv::Plain,
            "plain64" => Iv::Plain64,
            "plain64be" => Iv::Plain64be,
            "essiv:sha256" => Iv::Essiv(EssivHash::Sha256),
            "" => return Err(unknown_form()),
            _ => return Err(UnknownIv(iv.to_owned())),
        };
        if ![16, 24, 32]
            .map(|length| length * keys)
            .contains(&key_length)
        {
            return Err(WrongKeyLength {
                encryption: encryption.to_owned(),
                length: key_length,
            });
        }
        Ok(Self {
            algorithm,
            mode,
            iv,
            key_length,
        })
    }

    /// The block cipher.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// How the blocks of a sector depend on one another.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The initialisation vector of a sector.
    pub const fn iv(&self) -> Iv {
        self.iv
    }

    /// How long the volume key is, in bytes; both keys of XTS together.
    pub const fn key_length(&self) -> usize {
        self.key_length
    }
}

/// As LUKS2 and dm-crypt have it: `aes-xts-plain64`.
impl fmt::Display for CipherSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cipher = match self.algorithm {
            Algorithm::Aes => "aes",
            Algorithm::Serpent => "serpent",
            Algorithm::Twofish => "twofish",
            Algorithm::Camellia => "camellia",
        };
        let mode = match self.mode {
            Mode::Xts => "xts",
            Mode::Cbc => "cbc",
        };
        let iv = match self.iv {
            Iv::Null => "null",
            Iv::Plain => "plain",
            Iv::Plain64 => "plain64",
            Iv::Plain64be => "plain64be",
            Iv::Essiv(EssivHash::Sha256) => "essiv:sha256",
        };
        write!(f, "{cipher}-{mode}-{iv}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_headers_say() {
        let spec = CipherSpec::of_luks1("aes", "xts-plain64", 64).unwrap();
        assert_eq!(Ok(spec), CipherSpec::parse("aes-xts-plain64", 64));
        assert_eq!(
            (spec.algorithm(), spec.mode(), spec.iv(), spec.key_length()),
            (Algorithm::Aes, Mode::Xts, Iv::Plain64, 64)
        );
        let spec = CipherSpec::of_luks1("serpent", "cbc-essiv:sha256", 24).unwrap();
        assert_eq!(
            (spec.algorithm(), spec.mode(), spec.iv(), spec.key_length()),
            (
                Algorithm::Serpent,
                Mode::Cbc,
                Iv::Essiv(EssivHash::Sha256),
                24
            )
        );
    }

    #[test]
    fn all_of_them_are_shown_as_they_are_written() {
        for cipher in ["aes", "serpent", "twofish", "camellia"] {
            for (mode, lengths) in [("xts", [32, 48, 64]), ("cbc", [16, 24, 32])] {
                for iv in ["null", "plain", "plain64", "plain64be", "essiv:sha256"] {
                    let encryption = format!("{cipher}-{mode}-{iv}");
                    for length in 0..=512 {
                        let spec = CipherSpec::parse(&encryption, length);
                        assert_eq!(spec.is_ok(), lengths.contains(&length));
                        if let Ok(spec) = spec {
                            assert_eq!(spec.to_string(), encryption);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (encryption, length, says) in [
            ("", 32, "the encryption  is not known here"),
            ("aes", 32, "the encryption aes is not known here"),
            ("aes-xts", 32, "the encryption aes-xts is not known here"),
            ("aes-xts-", 32, "the encryption aes-xts- is not known here"),
            (
                "capi:xts(aes)-plain64",
                64,
                "the encryption capi:xts(aes)-plain64 is not known here",
            ),
            ("AES-xts-plain64", 32, "the cipher AES is not known here"),
            (
                "cast5-cbc-plain64",
                16,
                "the cipher cast5 is not known here",
            ),
            ("aes:64-cbc-lmk", 32, "the cipher aes:64 is not known here"),
            ("-xts-plain64", 32, "the cipher  is not known here"),
            ("aes-ecb", 32, "the cipher mode ecb is not known here"),
            ("aes-lrw-benbi", 48, "the cipher mode lrw is not known here"),
            (
                "aes-cbc-tcw",
                32,
                "the initialisation vector tcw is not known here",
            ),
            (
                "aes-cbc-essiv:md5",
                32,
                "the initialisation vector essiv:md5 is not known here",
            ),
            (
                "aes-xts-plain64-more",
                32,
                "the initialisation vector plain64-more is not known here",
            ),
            (
                "aes-xts-plain64",
                16,
                "aes-xts-plain64 takes no key of 16 bytes",
            ),
        ] {
            let error = CipherSpec::parse(encryption, length).unwrap_err();
            assert_eq!(error.to_string(), says);
        }
    }
}
