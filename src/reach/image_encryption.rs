//! An image that QEMU itself encrypts (`<encryption>` in the XML, or what its header says): how, and
//! the key for it once it was found.

use crate::domain::model::Encryption;
use crate::keys::Passphrase;

/// How QEMU encrypts images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// LUKS1, in a raw image or in the header of a qcow2.
    Luks,
    /// AES as in the first versions of qcow2, which tools can still read.
    Aes,
}

impl Method {
    /// QEMU's name for it (`BlockdevQcow2EncryptionFormat` in qapi/block-core.json).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Luks => "luks",
            Self::Aes => "aes",
        }
    }

    /// The one of this name, as the XML (`qcow`) or an image's header (`aes`) has it.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "luks" => Some(Self::Luks),
            "aes" | "qcow" => Some(Self::Aes),
            _ => None,
        }
    }
}

/// How an image is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageEncryption {
    /// How.
    pub method: Method,
    /// The UUID of its LUKS header, where it is known.
    pub uuid: Option<String>,
    /// What the XML says of it, if it does.
    pub declared: Option<Encryption>,
    /// The passphrase; `None` until it was found.
    pub key: Option<Passphrase>,
}

impl ImageEncryption {
    /// One whose key is not known yet.
    pub const fn new(method: Method, declared: Option<Encryption>) -> Self {
        Self {
            method,
            uuid: None,
            declared,
            key: None,
        }
    }
}
