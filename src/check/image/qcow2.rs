//! What a qcow2's header tells beside its geometry (docs/interop/qcow2.rst of QEMU): whether it was
//! closed, whether QEMU has given it up, and its dirty bitmaps.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The first version with feature bits.
const FIRST_WITH_FEATURES: u32 = 3;
const MAGIC: &[u8] = b"QFI\xfb";

/// Incompatible features: the reference counts may be out of date.
const DIRTY: u64 = 1;
/// Incompatible features: nothing may be written any more.
const CORRUPT: u64 = 1 << 1;
/// Autoclear features: whoever wrote last knew of the bitmaps extension.
const BITMAPS_ARE_VALID: u64 = 1;

/// Header extensions: the end of the list, and the bitmaps.
const END: u32 = 0;
const BITMAPS: u32 = 0x2385_2875;

/// How much of the image is read for its header. All extensions QEMU writes fit into 1 KiB.
const HEADER_LENGTH: usize = 64 * 1024;
/// Extensions that are looked at.
const MOST_EXTENSIONS: usize = 64;
/// QEMU's own limits (block/qcow2.h, `QCOW2_MAX_BITMAPS` and the directory's size).
const MOST_BITMAPS: u32 = 65_535;
const LONGEST_DIRECTORY: u64 = 4 * 1024 * 1024;

/// A directory entry's length without its extra data and name.
const ENTRY_LENGTH: usize = 24;
/// A bitmap's flags: it was not saved.
const IN_USE: u32 = 1;

/// What the header tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// It was not closed: the reference counts may be out of date.
    pub dirty: bool,
    /// QEMU has found it damaged, and writes to it no more.
    pub corrupt: bool,
    pub(super) directory: Option<Directory>,
}

/// Where the list of the bitmaps lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Directory {
    bitmaps: u32,
    offset: u64,
    length: u64,
}

/// A header, and the bitmaps in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The header.
    pub header: Header,
    /// The names of the bitmaps that were not saved when the image was last written: they are
    /// worth nothing any more.
    pub unsaved: Vec<String>,
}

/// Reads an image that begins at `offset` of a file.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path, offset: u64) -> io::Result<Told> {
    let file = File::open(path)?;
    let bytes = read_up_to(&file, offset, HEADER_LENGTH)?;
    let header = header(&bytes).unwrap_or_default();
    let unsaved = match header.directory {
        Some(directory) => {
            let length = usize::try_from(directory.length.min(LONGEST_DIRECTORY));
            let at = offset.saturating_add(directory.offset);
            let bytes = read_up_to(&file, at, length.unwrap_or_default())?;
            unsaved(&bytes, directory.bitmaps)
        }
        None => Vec::new(),
    };
    Ok(Told { header, unsaved })
}

/// What is there of `length` bytes.
fn read_up_to(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(count) => filled = filled.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// What the first bytes of an image tell; `None` for what is no qcow2 of a version with features.
pub fn header(bytes: &[u8]) -> Option<Header> {
    if !bytes.starts_with(MAGIC) || number(bytes, 4)? < FIRST_WITH_FEATURES {
        return None;
    }
    let incompatible = long(bytes, 72)?;
    let autoclear = long(bytes, 88)?;
    let extensions = usize::try_from(number(bytes, 100)?).ok()?;
    let directory = match autoclear & BITMAPS_ARE_VALID {
        0 => None,
        _ => directory(bytes, extensions),
    };
    Some(Header {
        dirty: incompatible & DIRTY != 0,
        corrupt: incompatible & CORRUPT != 0,
        directory,
    })
}

fn directory(bytes: &[u8], extensions: usize) -> Option<Directory> {
    let mut at = extensions;
    for _ in 0..MOST_EXTENSIONS {
        let kind = number(bytes, at)?;
        let length = usize::try_from(number(bytes, at.checked_add(4)?)?).ok()?;
        let content = at.checked_add(8)?;
        match kind {
            END => return None,
            BITMAPS => {
                return Some(Directory {
                    bitmaps: number(bytes, content)?,
                    length: long(bytes, content.checked_add(8)?)?,
                    offset: long(bytes, content.checked_add(16)?)?,
                });
            }
            _ => at = content.checked_add(length)?.checked_next_multiple_of(8)?,
        }
    }
    None
}

/// The names of those of a directory's bitmaps that were not saved.
pub fn unsaved(bytes: &[u8], bitmaps: u32) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = bytes;
    for _ in 0..bitmaps.min(MOST_BITMAPS) {
        let Some((entry, length)) = entry(rest) else {
            break;
        };
        names.extend(entry);
        rest = rest.get(length..).unwrap_or_default();
    }
    names
}

/// The name of the first entry, if its bitmap was not saved; and the entry's length.
fn entry(bytes: &[u8]) -> Option<(Option<String>, usize)> {
    let flags = number(bytes, 12)?;
    let name_length = usize::from(u16::from_be_bytes(field(bytes, 18)?));
    let extra = usize::try_from(number(bytes, 20)?).ok()?;
    let begin = ENTRY_LENGTH.checked_add(extra)?;
    let end = begin.checked_add(name_length)?;
    let name = String::from_utf8_lossy(bytes.get(begin..end)?).into_owned();
    let length = end.checked_next_multiple_of(8)?;
    Some(((flags & IN_USE != 0).then_some(name), length))
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    field(bytes, at).map(u32::from_be_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    field(bytes, at).map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn run(program: &str, arguments: &[&str], image: &Path) {
        let ended = Command::new(program)
            .args(arguments)
            .arg(image)
            .output()
            .unwrap();
        // `qemu-io -c abort` dies of it.
        assert!(
            ended.status.code().is_none_or(|code| code == 0),
            "{program}: {ended:?}"
        );
    }

    /// A qcow2 as qemu-img makes it.
    fn image(folder: &Path, options: &str) -> std::path::PathBuf {
        let image = folder.join("image.qcow2");
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-o", options])
            .arg(&image)
            .arg("8M")
            .status()
            .unwrap();
        assert!(made.success());
        image
    }

    const WRITE_AND_DIE: &[&str] = &["-f", "qcow2", "-c", "write 0 64k", "-c", "abort"];

    #[test]
    fn an_image_that_was_not_closed_is_told_with_its_bitmaps() {
        let folder = tempfile::tempdir().unwrap();
        let image = image(folder.path(), "lazy_refcounts=on");
        assert_eq!(read(&image, 0).unwrap(), Told::default());
        let name = "x".repeat(33);
        for (kind, name) in [
            ("--enable", "b\u{f6}1"),
            ("--disable", "b2"),
            ("--enable", &name),
        ] {
            let made = Command::new("qemu-img")
                .args(["bitmap", "-f", "qcow2", "--add", kind])
                .arg(&image)
                .arg(name)
                .status();
            assert!(made.unwrap().success());
        }
        let closed = read(&image, 0).unwrap();
        assert!(!closed.header.dirty && closed.unsaved.is_empty());
        assert!(closed.header.directory.is_some());
        run("qemu-io", WRITE_AND_DIE, &image);
        let told = read(&image, 0).unwrap();
        assert!(told.header.dirty && !told.header.corrupt);
        assert_eq!(told.unsaved, ["b\u{f6}1", "b2", name.as_str()]);
    }

    #[test]
    fn nothing_is_made_of_nonsense() {
        let folder = tempfile::tempdir().unwrap();
        let image = image(folder.path(), "compat=1.1");
        let whole = std::fs::read(&image).unwrap();
        assert!(header(&whole).is_some());
        for length in 0..112 {
            // An empty list of extensions and none at all are the same.
            let _told = header(&whole[..length]);
            assert_eq!(unsaved(&whole[..length], u32::MAX).len(), 0);
        }
        let mut marked = whole;
        marked[79] |= 2;
        assert!(header(&marked).unwrap().corrupt);
        marked[4..8].copy_from_slice(&2_u32.to_be_bytes());
        assert_eq!(header(&marked), None);
        marked.fill(0xff);
        assert_eq!(header(&marked), None);
    }
}
