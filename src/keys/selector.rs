//! `--key SELECTOR`, in guestfish's words: which key is for which encrypted device.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use zeroize::Zeroizing;

use crate::keys::passphrase::Passphrase;

/// The ID that stands for every device.
const ALL: &str = "all";

/// A key of the command line: `ID:key:PASSPHRASE` or `ID:file:FILE`.
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
}

/// A selector that says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// It is of another form.
    #[error(
        "must be ID:key:PASSPHRASE or ID:file:FILENAME, where ID is a name in /dev/mapper, a \
         device, a LUKS UUID, or all"
    )]
    Form,
    /// Clevis is not asked.
    #[error("keys of Clevis cannot be used; unlock the device first, or give a passphrase")]
    Clevis,
}

impl fmt::Debug for KeySelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySelector")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl KeySelector {
    /// Whether it is for every device.
    pub(super) fn is_for_all(&self) -> bool {
        self.id == ALL
    }
}

impl FromStr for KeySelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const KINDS: [&str; 2] = [":key:", ":file:"];
        if text.ends_with(":clevis") {
            return Err(SelectorError::Clevis);
        }
        // A device's path may have colons, and so may a passphrase: what is first counts.
        let found = KINDS
            .iter()
            .filter_map(|kind| Some((text.find(kind)?, *kind)));
        let (at, kind) = found.min().ok_or(SelectorError::Form)?;
        let (id, rest) = text.split_at_checked(at).ok_or(SelectorError::Form)?;
        let value = rest.strip_prefix(kind).unwrap_or_default();
        if id.is_empty() || value.is_empty() {
            return Err(SelectorError::Form);
        }
        let key = match kind {
            ":key:" => {
                let bytes = Zeroizing::new(value.as_bytes().to_vec());
                SelectedKey::Passphrase(Passphrase::new(bytes))
            }
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
        ] {
            let selector: KeySelector = text.parse().unwrap();
            assert_eq!(selector.id, id, "{text}");
            match selector.key {
                SelectedKey::Passphrase(key) => assert_eq!(key.bytes(), bytes.as_bytes(), "{text}"),
                SelectedKey::File(path) => panic!("{text}: {}", path.display()),
            }
        }
        let selector: KeySelector = "all:file:/a:key:b".parse().unwrap();
        assert!(selector.is_for_all());
        assert!(selector.key == SelectedKey::File("/a:key:b".into()));
    }

    #[test]
    fn what_is_none() {
        for text in [
            "", "a", "a:b", "key:a", "a:key:", ":key:a", "a:KEY:b", "a:file", "all",
        ] {
            assert_eq!(
                text.parse::<KeySelector>(),
                Err(SelectorError::Form),
                "{text}"
            );
        }
        assert_eq!(
            "a:clevis".parse::<KeySelector>(),
            Err(SelectorError::Clevis)
        );
        let selector: KeySelector = "id:key:secret".parse().unwrap();
        assert!(!format!("{selector:?}").contains("secret"));
    }
}
