//! What is encrypted, and a key for it.

use std::path::PathBuf;

use uuid::Uuid;

use crate::keys::passphrase::Passphrase;

/// An encrypted device, or something encrypted inside a guest, for which a key is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its name, as a person knows it: `/dev/mapper/cr_hd0 (on /dev/lvg2/lvhd0)`.
    pub shown: String,
    /// All that a `--key` or `[[key]]` may call it; the best first.
    pub ids: Vec<String>,
    /// The key file that the host has for it.
    pub file: Option<KeyFile>,
    /// Where the host would get its key from, if virt-fsck cannot: `the TPM`.
    pub elsewhere: Option<String>,
    /// What libvirt said when it was asked for the secret of its `<encryption>`.
    pub secret: Option<Secret>,
    /// The types of the LUKS2 tokens in its header: `clevis`, `systemd-tpm2`.
    pub tokens: Vec<String>,
    /// A guest has written its header. What a token says is acted upon on the host (Clevis asks the
    /// server that it names, systemd the host's TPM), so those of a guest are asked only on request.
    pub is_of_a_guest: bool,
}

/// A secret of libvirt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// Its value.
    Value(Passphrase),
    /// libvirt does not give it: why.
    Unreadable(String),
}

/// A key in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyFile {
    /// The file.
    pub path: PathBuf,
    /// Where in it the key begins, in bytes.
    pub offset: Option<u64>,
    /// How long the key is, in bytes; to the end of the file if `None`.
    pub size: Option<u64>,
}

/// A key that may be the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// In a file, which whoever opens the device reads.
    File(KeyFile),
    /// In memory.
    Passphrase(Passphrase),
    /// Whatever the tokens in its header give, which whoever opens the device asks.
    Token,
}

/// No key opened the device.
#[derive(Debug, thiserror::Error)]
pub enum KeyError<E: std::error::Error + 'static> {
    /// None was right, or none was there: the sentence.
    #[error("{0}")]
    NoKey(String),
    /// A signal came.
    #[error("interrupted")]
    Interrupted,
    /// The device could not be tried.
    #[error(transparent)]
    Device(E),
}

impl Container {
    /// Whether an ID names it. UUIDs may be written in any way, also as `UUID=...`.
    pub(super) fn is_called(&self, id: &str) -> bool {
        self.ids
            .iter()
            .any(|known| known == id || uuid(known).is_some_and(|known| Some(known) == uuid(id)))
    }
}

fn uuid(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text.strip_prefix("UUID=").unwrap_or(text)).ok()
}
