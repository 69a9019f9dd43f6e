//! LVM's UUIDs and names, and how text from a guest is shown.

use std::fmt;

/// A name is shorter than this (`NAME_LEN`, lib/misc/lvm-string.h).
const NAME_LENGTH_LIMIT: usize = 128;

/// How much of a guest's text an error or a note repeats.
const SHOWN_CHARACTERS: usize = 48;

/// Where the dashes stand: groups of 6, 4, 4, 4, 4, 4 and 6 (`id_write_format`, lib/uuid/uuid.c).
const GROUP_ENDS: [usize; 6] = [6, 10, 14, 18, 22, 26];

/// The 32 characters of an LVM UUID, without dashes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Characters([u8; 32]);

impl Characters {
    /// LVM's alphabet is `0-9a-zA-Z!#`.
    fn new(characters: [u8; 32]) -> Option<Self> {
        characters
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'!' | b'#'))
            .then_some(Self(characters))
    }

    /// From text; dashes may stand anywhere or nowhere, as LVM reads them.
    fn parse(text: &str) -> Option<Self> {
        let mut characters = [0; 32];
        let mut slots = characters.iter_mut();
        for byte in text.bytes().filter(|byte| *byte != b'-') {
            *slots.next()? = byte;
        }
        if slots.next().is_some() {
            return None;
        }
        Self::new(characters)
    }
}

impl fmt::Display for Characters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(self.0.len() + GROUP_ENDS.len());
        for (index, byte) in self.0.iter().enumerate() {
            if GROUP_ENDS.contains(&index) {
                text.push('-');
            }
            text.push(char::from(*byte));
        }
        f.pad(&text)
    }
}

macro_rules! identifier {
    ($name:ident, $of:literal) => {
        #[doc = concat!("The UUID of a ", $of, ", shown as LVM shows it, with six dashes.")]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Characters);

        impl $name {
            /// From its 32 characters on disk; `None` if any is none of LVM's.
            pub fn new(characters: [u8; 32]) -> Option<Self> {
                Characters::new(characters).map(Self)
            }

            /// From text, with or without dashes; `None` if it is no LVM UUID.
            pub fn parse(text: &str) -> Option<Self> {
                Characters::parse(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

identifier!(PhysicalVolumeId, "physical volume");
identifier!(VolumeGroupId, "volume group");
identifier!(LogicalVolumeId, "logical volume");

/// Whether LVM would give this name to a group or a volume (`validate_name_detailed`,
/// lib/misc/lvm-string.c). Such a name is also safe on a terminal and as a part of a path.
pub fn is_valid_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() < NAME_LENGTH_LIMIT
        && !name.starts_with('-')
        && !matches!(name, "." | "..")
        && name.bytes().all(is_name_byte)
}

/// Whether the byte may stand in a name.
pub(super) const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'_' | b'.' | b'-')
}

/// A guest's text, made safe to show: cut off, and escaped but for printable ASCII.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(SHOWN_CHARACTERS)
        .flat_map(char::escape_default)
        .collect();
    if text.chars().nth(SHOWN_CHARACTERS).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_reads_and_prints_as_lvm_writes_it() {
        let text = "IxB8c7-cWRy-OYas-M5h7-3Nq8-fiv0-7A6jOA";
        let id = PhysicalVolumeId::parse(text).unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(PhysicalVolumeId::parse(&text.replace('-', "")), Some(id));
        for wrong in [
            "",
            "IxB8c7",
            "IxB8c7-cWRy-OYas-M5h7-3Nq8-fiv0-7A6jOA0",
            "IxB8c7-cWRy-OYas-M5h7-3Nq8-fiv0-7A6jO/",
            "IxB8c7-cWRy-OYas-M5h7-3Nq8-fiv0-7A6jO\u{e9}",
        ] {
            assert_eq!(PhysicalVolumeId::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_follow_lvms_rule() {
        for (name, valid) in [
            ("root", true),
            ("vg.1+a_b-c", true),
            (".hidden", true),
            ("", false),
            (".", false),
            ("..", false),
            ("-n", false),
            ("a/b", false),
            ("a b", false),
            ("a\u{1b}[2J", false),
            ("gr\u{fc}n", false),
        ] {
            assert_eq!(is_valid_name(name), valid, "{name:?}");
        }
        assert!(is_valid_name(&"a".repeat(127)));
        assert!(!is_valid_name(&"a".repeat(128)));
    }

    #[test]
    fn shown_text_cannot_drive_a_terminal() {
        assert_eq!(shown("a\u{1b}[2J"), "a\\u{1b}[2J");
        assert_eq!(shown(&"x".repeat(1000)).len(), SHOWN_CHARACTERS + 3);
    }
}
