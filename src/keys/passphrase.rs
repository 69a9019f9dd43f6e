//! A passphrase, or the bytes of a key file.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

/// The largest key file, in bytes: what cryptsetup takes by default (`cryptsetup --help`).
const LARGEST_FILE: u64 = 8192 * 1024;

/// A secret. Its bytes are overwritten when it is dropped, and shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(...)")
    }
}

impl Passphrase {
    /// These bytes, as they are.
    pub const fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    /// The bytes of a file, all of them.
    ///
    /// # Errors
    /// When it cannot be read, or holds more than a key.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len().min(LARGEST_FILE);
        // Room for all of it, so that no copies stay behind as it grows.
        let room = usize::try_from(size).map_err(io::Error::other)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(room.saturating_add(64)));
        file.take(LARGEST_FILE.saturating_add(1))
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LARGEST_FILE {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(Self(bytes))
    }

    /// The same without a newline at its end; `None` if there is none.
    pub fn without_newline(&self) -> Option<Self> {
        let line = self.0.strip_suffix(b"\n")?;
        Some(Self(Zeroizing::new(line.to_vec())))
    }

    /// The bytes, for the standard input of a tool.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_not_shown() {
        let secret = Passphrase::new(Zeroizing::new(b"tell nobody".to_vec()));
        assert_eq!(
            format!("{secret:?} {:?}", Some(&secret)),
            "Passphrase(...) Some(Passphrase(...))"
        );
    }

    #[test]
    fn a_line_and_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, b"a b\r\n\n").unwrap();
        let whole = Passphrase::of_file(&path).unwrap();
        assert_eq!(whole.bytes(), b"a b\r\n\n");
        assert_eq!(whole.without_newline().unwrap().bytes(), b"a b\r\n");
        std::fs::write(&path, b"\xff\0").unwrap();
        assert_eq!(Passphrase::of_file(&path).unwrap().without_newline(), None);
        File::create(&path)
            .unwrap()
            .set_len(LARGEST_FILE + 1)
            .unwrap();
        assert!(Passphrase::of_file(&path).is_err());
        assert!(Passphrase::of_file(Path::new("/dev/zero")).is_err());
    }
}
