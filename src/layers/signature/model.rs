//! What a signature tells.

use crate::layers::filesystem::{Filesystem, JournalKind};

/// What a layer is, by its own bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signature {
    /// A filesystem that virt-fsck can check.
    Filesystem(Filesystem),
    /// Swap space.
    Swap {
        /// Its UUID.
        uuid: Option<String>,
        /// Its label.
        label: Option<String>,
        /// The signature of a suspended system whose memory lies in it.
        hibernated: Option<String>,
    },
    /// The journal of a filesystem that lies elsewhere.
    Journal {
        /// Of which kind.
        kind: JournalKind,
        /// The UUID that ties the two together.
        uuid: Option<String>,
    },
    /// Recognised, but what is inside cannot be reached or checked.
    Opaque {
        /// What it is: "LUKS2", "RAID member", "ReiserFS".
        what: String,
        /// Its UUID, as blkid(8) writes it.
        uuid: Option<String>,
        /// Why it goes no further, as the rest of a sentence.
        reason: String,
    },
}

impl Signature {
    pub(super) fn encrypted(what: &str, uuid: Option<String>) -> Self {
        Self::Opaque {
            what: what.to_owned(),
            uuid,
            reason: "encrypted by the guest, and this version cannot be given a key for that"
                .to_owned(),
        }
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::Filesystem(filesystem) => filesystem.kind.name(),
            Self::Swap { .. } => "swap",
            Self::Journal { kind, .. } => kind.name(),
            Self::Opaque { what, .. } => what,
        }
    }
}
