//! Which file or device a path leads to, whatever the path looks like.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// A file or block device, told apart from all others on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identity {
    /// A regular file: its filesystem's device number and its inode.
    File {
        /// `st_dev`.
        device: u64,
        /// `st_ino`.
        inode: u64,
    },
    /// A block device, by its number: two nodes of one device are the same.
    BlockDevice {
        /// `st_rdev`.
        number: u64,
    },
}

/// What lies at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A block device.
    BlockDevice,
}

/// A path leads to nothing an image can be in.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Nothing there.
    #[error("{0} does not exist")]
    Missing(String),
    /// A directory, socket, pipe or character device.
    #[error("{path} is {what}, not an image")]
    NotAnImage {
        /// The path.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// QEMU takes names as text, and would open another file.
    #[error("{0} has a name that is not UTF-8; check it under another name (a link will do)")]
    NotText(String),
    /// It could not be looked at.
    #[error("{path} cannot be looked at")]
    System {
        /// The path.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Follows a path to the end of its links.
///
/// # Errors
/// When there is no regular file or block device at its end.
pub fn identify(path: &Path) -> Result<(Identity, Kind), IdentityError> {
    let shown = || path.display().to_string();
    if path.to_str().is_none() {
        return Err(IdentityError::NotText(shown()));
    }
    let metadata = std::fs::metadata(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => IdentityError::Missing(shown()),
        _ => IdentityError::System {
            path: shown(),
            source,
        },
    })?;
    let what = |what| {
        Err(IdentityError::NotAnImage {
            path: shown(),
            what,
        })
    };
    match &metadata.file_type() {
        kind if kind.is_file() => Ok((of_file(&metadata), Kind::File)),
        kind if kind.is_block_device() => Ok((
            Identity::BlockDevice {
                number: metadata.rdev(),
            },
            Kind::BlockDevice,
        )),
        kind if kind.is_dir() => what("a directory"),
        kind if kind.is_char_device() => what("a character device"),
        kind if kind.is_socket() => what("a socket"),
        _ => what("a pipe"),
    }
}

fn of_file(metadata: &Metadata) -> Identity {
    Identity::File {
        device: metadata.dev(),
        inode: metadata.ino(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("image");
        std::fs::write(&file, b"x").unwrap();
        let hard = folder.path().join("hard");
        std::fs::hard_link(&file, &hard).unwrap();
        let soft = folder.path().join("soft");
        std::os::unix::fs::symlink(&hard, &soft).unwrap();
        let other = folder.path().join("other");
        std::fs::write(&other, b"x").unwrap();
        assert_eq!(identify(&file).unwrap(), identify(&soft).unwrap());
        assert_ne!(identify(&file).unwrap(), identify(&other).unwrap());
    }

    #[test]
    fn a_name_that_would_be_mistaken_is_refused() {
        use std::os::unix::ffi::OsStrExt;
        let path = Path::new(std::ffi::OsStr::from_bytes(b"/dev/caf\xe9"));
        let error = identify(path).unwrap_err().to_string();
        assert!(error.contains("not UTF-8"), "{error}");
    }

    #[test]
    fn what_is_no_image_is_named() {
        let error = identify(Path::new("/proc")).unwrap_err();
        assert_eq!(error.to_string(), "/proc is a directory, not an image");
        let error = identify(Path::new("/dev/null")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/dev/null is a character device, not an image"
        );
        let error = identify(Path::new("/proc/no-such-thing")).unwrap_err();
        assert_eq!(error.to_string(), "/proc/no-such-thing does not exist");
    }
}
