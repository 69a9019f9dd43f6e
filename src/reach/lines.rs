//! What crypttab(5), fstab(5) and /proc/self/mountinfo have in common: lines of fields, octal
//! escapes, and names for devices.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where an entry was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", self.file.display(), self.line)
    }
}

/// The lines that are neither empty nor a comment, by number from 1, as fields.
pub fn fields(text: &str) -> impl Iterator<Item = (usize, Vec<String>)> {
    (1_usize..).zip(text.lines()).filter_map(|(number, line)| {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        Some((
            number,
            line.split_ascii_whitespace().map(unescaped).collect(),
        ))
    })
}

/// A field without its escapes: `\040` is a space (getmntent(3)). A backslash that begins none
/// stands for itself.
pub fn unescaped(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        match (first, after) {
            (
                b'\\',
                [
                    a @ b'0'..=b'3',
                    b @ b'0'..=b'7',
                    c @ b'0'..=b'7',
                    later @ ..,
                ],
            ) => {
                let octal = |digit: &u8| digit & 7;
                bytes.push(octal(a) << 6 | octal(b) << 3 | octal(c));
                rest = later;
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The path of a device that a table names: by its path, or by what lies in it (`UUID=...`), for
/// which udev keeps a link. `None` for what is no device of this host, such as `server:/export`.
pub fn device_path(name: &str) -> Option<PathBuf> {
    if name.starts_with('/') {
        return Some(PathBuf::from(name));
    }
    let (tag, value) = name.split_once('=')?;
    let value = value.trim_matches('"');
    let link = match tag {
        "UUID" if is_hex_uuid(value) => format!("by-uuid/{}", value.to_ascii_lowercase()),
        "UUID" => format!("by-uuid/{}", encoded(value)),
        "LABEL" => format!("by-label/{}", encoded(value)),
        "PARTUUID" => format!("by-partuuid/{}", value.to_ascii_lowercase()),
        "PARTLABEL" => format!("by-partlabel/{}", encoded(value)),
        "ID" => format!("by-id/{value}"),
        _ => return None,
    };
    Some(Path::new("/dev/disk").join(link))
}

/// `8-4-4-4-12`; what FAT and NTFS have instead is written in capitals.
fn is_hex_uuid(value: &str) -> bool {
    value.len() == 36 && uuid::Uuid::try_parse(value).is_ok()
}

/// As udev writes a label into the name of a link (`encode_devnode_name` of systemd).
fn encoded(label: &str) -> String {
    let mut name = String::new();
    for letter in label.chars() {
        match letter {
            letter if letter.is_ascii_alphanumeric() || "#+-.:=@_".contains(letter) => {
                name.push(letter);
            }
            letter if !letter.is_ascii() => name.push(letter),
            letter => name.push_str(&format!("\\x{:02x}", u32::from(letter))),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        for (field, plain) in [
            ("/mnt/a\\040b", "/mnt/a b"),
            ("\\134040", "\\040"),
            ("caf\\303\\251", "caf\u{e9}"),
            ("a\\", "a\\"),
            ("a\\04", "a\\04"),
            ("a\\999", "a\\999"),
            ("\\777", "\\777"),
            ("\\\\040", "\\ "),
        ] {
            assert_eq!(unescaped(field), plain, "{field}");
        }
    }

    #[test]
    fn lines_are_counted_with_those_that_say_nothing() {
        let text = "# a comment\n\n  a\tb  c \n\t# another\nd\r\n";
        let found: Vec<_> = fields(text).collect();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        assert_eq!(found, [(3, words(&["a", "b", "c"])), (5, words(&["d"]))]);
    }

    #[test]
    fn devices_by_what_lies_in_them() {
        for (name, path) in [
            ("/dev/vg/lv", Some("/dev/vg/lv")),
            (
                "UUID=0A1B2C3D-0000-4000-8000-00000000ABCD",
                Some("/dev/disk/by-uuid/0a1b2c3d-0000-4000-8000-00000000abcd"),
            ),
            ("UUID=\"4E2A-00FF\"", Some("/dev/disk/by-uuid/4E2A-00FF")),
            (
                "LABEL=my disk/1",
                Some("/dev/disk/by-label/my\\x20disk\\x2f1"),
            ),
            (
                "PARTLABEL=gr\u{fc}n",
                Some("/dev/disk/by-partlabel/gr\u{fc}n"),
            ),
            ("PARTUUID=AB-01", Some("/dev/disk/by-partuuid/ab-01")),
            ("ID=dm-name-x", Some("/dev/disk/by-id/dm-name-x")),
            ("server:/export", None),
            ("//server/share", Some("//server/share")),
            ("tmpfs", None),
            ("none", None),
        ] {
            assert_eq!(device_path(name).as_deref(), path.map(Path::new), "{name}");
        }
    }
}
