//! The places that a key may come from.

use std::fmt;
use std::path::PathBuf;

use crate::config::KeyEntry;
use crate::keys::askpass::Askpass;
use crate::keys::container::{KeyFile, Secret};
use crate::keys::passphrase::Passphrase;
use crate::keys::selector::KeySelector;

/// Where a key may come from. For each device they are tried in the order in which they stand here,
/// which virt-fsck(8) tells too: first what is meant for this device alone, then what is for any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A `--key` that names the device.
    Selector(KeySelector),
    /// The key file that the host has for it, by crypttab or `[[crypt]]`.
    HostFile(KeyFile),
    /// A `[[key]]` of the configuration that names it.
    Configured(KeyEntry),
    /// The secret that libvirt has for it.
    Secret(Secret),
    /// The LUKS2 tokens in its header: their types. Those of a guest only a `--key` asks.
    Tokens(Vec<String>),
    /// A file in `$CREDENTIALS_DIRECTORY` (systemd.exec(5), CREDENTIALS).
    Credential(PathBuf),
    /// A `--key` for all.
    SelectorForAll(KeySelector),
    /// A `[[key]]` for all.
    ConfiguredForAll(KeyEntry),
    /// Answers that were right for others in this run.
    Answered(Vec<Passphrase>),
    /// A program that asks for it.
    Askpass(Askpass),
    /// The terminal, which is asked a few times.
    Terminal,
}

/// In plain words, and never the key.
impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Selector(selector) | Self::SelectorForAll(selector) => selector.fmt(f),
            Self::HostFile(file) => write!(f, "the key file {}", file.path.display()),
            Self::Configured(entry) | Self::ConfiguredForAll(entry) => {
                write!(f, "{} of [[key]] in {}", entry.file.display(), entry.origin)
            }
            Self::Secret(_) => f.write_str("the secret of libvirt"),
            Self::Tokens(kinds) => write!(f, "what its tokens give ({})", kinds.join(", ")),
            Self::Credential(path) => write!(f, "the credential {}", path.display()),
            Self::Answered(_) => f.write_str("what was typed for others before"),
            Self::Askpass(askpass) => write!(f, "what {askpass} gave"),
            Self::Terminal => f.write_str("what was typed at the terminal"),
        }
    }
}
