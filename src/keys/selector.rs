//! `--key SELECTOR`, in guestfish's words: which key is for which encrypted device.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::keys::passphrase::Passphrase;

/// The ID that stands for every device.
pub(super) const ALL: &str = "all";

/// How a selector ends that stands for the tokens of a device.
const CLEVIS: &str = ":clevis";

/// A key of the command line: `ID:key:PASSPHRASE`, `ID:file:FILE` or `ID:clevis`.
#[derive(Clone, PartialEq, Eq)]
pub struct KeySelector {
    /// Whose key it is.
    pub(super) id: String,
    /// The key.
    pub(super) key: SelectedKey,
}

/// What a selector gives.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum SelectedKey {
    /// A passphrase.
    Passphrase(Passphrase),
    /// A file with one.
    File(PathBuf),
    /// The device's own tokens.
    Token,
}

/// A selector that says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be ID:file:FILENAME, ID:key:PASSPHRASE or ID:clevis, where ID is a LUKS UUID, a device, a \
     name in /dev/mapper, a path in the tree such as vda/p3, or all"
)]
pub struct SelectorError;

impl fmt::Debug for KeySelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySelector")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What it gives, never the key itself.
impl fmt::Display for KeySelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = &self.id;
        match &self.key {
            SelectedKey::Passphrase(_) => write!(f, "the passphrase of --key {id}"),
            SelectedKey::File(path) => write!(f, "{} of --key {id}", path.display()),
            SelectedKey::Token => write!(f, "the token of --key {id}{CLEVIS}"),
        }
    }
}

impl FromStr for KeySelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const KINDS: [&str; 2] = [":key:", ":file:"];
        // A device's path may have colons, and so may a passphrase: what is first counts.
        let found = KINDS
            .iter()
            .filter_map(|kind| Some((text.find(kind)?, *kind)));
        let Some((at, kind)) = found.min() else {
            let id = text.strip_suffix(CLEVIS).filter(|id| !id.is_empty());
            return Ok(Self {
                id: id.ok_or(SelectorError)?.to_owned(),
                key: SelectedKey::Token,
            });
        };
        let (id, rest) = text.split_at_checked(at).ok_or(SelectorError)?;
        let value = rest.strip_prefix(kind).unwrap_or_default();
        if id.is_empty() || value.is_empty() {
            return Err(SelectorError);
        }
        let key = match kind {
            ":key:" => SelectedKey::Passphrase(Passphrase::new(value.as_bytes())),
            _ => SelectedKey::File(PathBuf::from(value)),
        };
        let id = id.to_owned();
        Ok(Self { id, key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors() {
        for (text, id, bytes) in [
            ("all:key:a", "all", "a"),
            ("cr_hd0:key:a:b:key:c", "cr_hd0", "a:b:key:c"),
            (
                "/dev/disk/by-path/pci-0000:00:1f.2:key: ",
                "/dev/disk/by-path/pci-0000:00:1f.2",
                " ",
            ),
            ("a:key:b:file:c", "a", "b:file:c"),
            ("a:key:b:clevis", "a", "b:clevis"),
        ] {
            let selector: KeySelector = text.parse().unwrap();
            assert_eq!(selector.id, id, "{text}");
            assert!(
                selector.key == SelectedKey::Passphrase(Passphrase::new(bytes.as_bytes())),
                "{text}"
            );
        }
        for (text, id, key, shown) in [
            (
                "all:file:/a:key:b",
                "all",
                SelectedKey::File("/a:key:b".into()),
                "/a:key:b of --key all",
            ),
            (
                "vda/p3:clevis",
                "vda/p3",
                SelectedKey::Token,
                "the token of --key vda/p3:clevis",
            ),
            (
                "pci-0000:00:clevis",
                "pci-0000:00",
                SelectedKey::Token,
                "the token of --key pci-0000:00:clevis",
            ),
        ] {
            let selector: KeySelector = text.parse().unwrap();
            assert_eq!(selector.id, id, "{text}");
            assert!(selector.key == key, "{text}");
            assert_eq!(selector.to_string(), shown);
        }
    }

    #[test]
    fn what_is_none() {
        for text in [
            "",
            "a",
            "a:b",
            "key:a",
            "a:key:",
            ":key:a",
            "a:KEY:b",
            "a:file",
            "all",
            ":clevis",
            "clevis",
            "a:clevis:",
            "a:clevis:b",
        ] {
            assert_eq!(text.parse::<KeySelector>(), Err(SelectorError), "{text}");
        }
        let selector: KeySelector = "id:key:secret".parse().unwrap();
        assert!(!format!("{selector:?} {selector}").contains("secret"));
    }
}
