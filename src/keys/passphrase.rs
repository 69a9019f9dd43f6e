//! A passphrase, or the bytes of a key file.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::keys::memory::SecretMemory;

/// The largest key file, in bytes: what cryptsetup takes by default (`cryptsetup --help`).
const LARGEST_FILE: usize = 8192 * 1024;

/// The room for a file that does not tell its size, in bytes, before it turns out to need more.
const FIRST_ROOM: usize = 4096;

/// A secret. Its bytes lie in memory of their own, which is locked and left out of core dumps; they are
/// overwritten when it is dropped, and shown nowhere.
pub struct Passphrase(SecretMemory);

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(...)")
    }
}

impl Clone for Passphrase {
    fn clone(&self) -> Self {
        Self::new(self.bytes())
    }
}

impl PartialEq for Passphrase {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Passphrase {}

impl From<SecretMemory> for Passphrase {
    fn from(memory: SecretMemory) -> Self {
        Self(memory)
    }
}

impl Passphrase {
    /// A copy of these bytes, as they are.
    pub fn new(bytes: &[u8]) -> Self {
        Self(SecretMemory::copy_of(bytes))
    }

    /// The bytes of a file, all of them.
    ///
    /// # Errors
    /// When it cannot be read, or holds more than a key.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        // One more, so that its end is seen without growing.
        let room = size.clamp(FIRST_ROOM, LARGEST_FILE).saturating_add(1);
        let mut bytes = SecretMemory::with_room(room);
        loop {
            if bytes.room().is_empty() {
                bytes.grow();
            }
            match file.read(bytes.room()) {
                Ok(0) => return Ok(Self(bytes)),
                Ok(count) => bytes.wrote(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if bytes.len() > LARGEST_FILE {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
        }
    }

    /// The same without a newline at its end; `None` if there is none.
    pub fn without_newline(&self) -> Option<Self> {
        self.bytes().strip_suffix(b"\n").map(Self::new)
    }

    /// What somebody may have meant who gave it with a newline at its end: the line, then all of it.
    pub(super) fn line_or_whole(self) -> impl Iterator<Item = Self> {
        self.without_newline().into_iter().chain([self])
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
        let secret = Passphrase::new(b"tell nobody");
        assert_eq!(
            format!("{secret:?} {:?}", Some(&secret)),
            "Passphrase(...) Some(Passphrase(...))"
        );
    }

    #[test]
    fn copies_are_equal_and_elsewhere() {
        let secret = Passphrase::new(b"tell nobody");
        let copy = secret.clone();
        assert_eq!(secret, copy);
        assert_ne!(secret.bytes().as_ptr(), copy.bytes().as_ptr());
        assert_ne!(secret, Passphrase::new(b"tell somebody"));
        assert_eq!(Passphrase::new(b"").bytes(), b"");
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
        let file = File::create(&path).unwrap();
        file.set_len(LARGEST_FILE as u64).unwrap();
        assert_eq!(
            Passphrase::of_file(&path).unwrap().bytes().len(),
            LARGEST_FILE
        );
        file.set_len(LARGEST_FILE as u64 + 1).unwrap();
        assert!(Passphrase::of_file(&path).is_err());
        assert!(Passphrase::of_file(Path::new("/dev/zero")).is_err());
    }

    #[test]
    fn a_pipe_tells_no_size() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let long = vec![b'x'; 3 * FIRST_ROOM];
        let sent = long.clone();
        let sender = std::thread::spawn(move || io::Write::write_all(&mut writer, &sent));
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        let key = Passphrase::of_file(Path::new(&path)).unwrap();
        sender.join().unwrap().unwrap();
        assert!(key.bytes() == long);
    }
}
