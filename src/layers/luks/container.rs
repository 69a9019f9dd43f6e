//! A LUKS container as it lies in a layer: all of its header, judged before anybody asks for a key.

use std::fmt;
use std::io;

use super::header::{self, Header, HeaderError, LUKS1_LENGTH};
use super::luks1;
use super::metadata::Metadata;
use super::metadata_area::{self, Copies, Found};
use crate::layers::read::ReadAt;
use crate::layers::signature::field;
use crate::units::Bytes;

/// What is read to tell whether there is a header, and which.
const START: Bytes = Bytes::new(LUKS1_LENGTH as u64);
const UUID: usize = 168;
const UUID_LENGTH: usize = 40;

/// Which form of header it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Version {
    /// LUKS1.
    One,
    /// LUKS2.
    Two,
}

impl Version {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::One => "LUKS1",
            Self::Two => "LUKS2",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How the encrypted sectors are protected by checksums: dm-integrity below dm-crypt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Integrity {
    /// `hmac(sha256)`, `aead`, `poly1305`.
    pub kind: String,
    /// How dm-integrity's journal is encrypted; `none` in what cryptsetup makes.
    pub journal_encryption: String,
    /// How dm-integrity's journal is authenticated; `none` in what cryptsetup makes.
    pub journal_integrity: String,
    /// How long the key of the checksums is, in bytes, if the header says.
    pub key_size: Option<u64>,
    /// The header asks for writes past the journal.
    pub no_journal: bool,
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its form.
    pub version: Version,
    /// Its UUID, if it is one, as blkid(8) writes it.
    pub uuid: Option<String>,
    /// What is encrypted, and how.
    pub header: Header,
    /// How many bytes from the beginning hold all that a key is found by: the header itself, the
    /// copies of its metadata and the key slots.
    pub header_area: Bytes,
    /// The types of its tokens, in the order of their numbers.
    pub tokens: Vec<String>,
    /// Its checksums, if it has some.
    pub integrity: Option<Integrity>,
    /// It is only the header: the encrypted bytes lie elsewhere.
    pub is_detached: bool,
    /// What is odd about it, as sentences.
    pub notes: Vec<String>,
}

/// Why a container cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LuksError {
    /// Its bytes cannot be read.
    #[error("the LUKS header cannot be read")]
    Read(#[from] io::Error),
    /// It is being re-encrypted.
    #[error(
        "it is being re-encrypted; finish that in the guest first: cryptsetup reencrypt --resume-only"
    )]
    Reencrypted {
        /// What it is.
        version: Version,
        /// Its UUID.
        uuid: Option<String>,
    },
    /// Its header is damaged, or says what virt-fsck does not open.
    #[error("{why}")]
    Header {
        /// What it is; `None` if there is no such version.
        version: Option<Version>,
        /// Its UUID.
        uuid: Option<String>,
        /// What is wrong.
        why: HeaderError,
    },
}

impl LuksError {
    /// What it is, as far as that is known.
    pub fn version(&self) -> Option<Version> {
        match self {
            Self::Read(_) => None,
            Self::Reencrypted { version, .. } => Some(*version),
            Self::Header { version, .. } => *version,
        }
    }

    /// Its UUID, as far as that is known.
    pub fn uuid(&self) -> Option<&str> {
        match self {
            Self::Read(_) => None,
            Self::Reencrypted { uuid, .. } | Self::Header { uuid, .. } => uuid.as_deref(),
        }
    }
}

/// The container in a layer; `None` if it does not begin with a header.
///
/// # Errors
/// [`LuksError`] if there is one, but not one that can be opened.
pub fn read(layer: &dyn ReadAt) -> Result<Option<Container>, LuksError> {
    read_header(layer, None)
}

/// The container whose header lies elsewhere: `header` begins with it, and `data` bytes are there for
/// what is encrypted.
///
/// # Errors
/// [`LuksError`] if there is one, but not one that can be opened.
pub fn read_detached(header: &dyn ReadAt, data: Bytes) -> Result<Option<Container>, LuksError> {
    read_header(header, Some(data))
}

fn read_header(layer: &dyn ReadAt, data: Option<Bytes>) -> Result<Option<Container>, LuksError> {
    if layer.size() < START {
        return Ok(None);
    }
    let start = layer.look_at(Bytes::ZERO, START)?;
    let Some(version) = header::version(&start) else {
        return Ok(None);
    };
    let uuid = field::uuid_text(&start, UUID, UUID_LENGTH);
    let found = match version {
        1 => luks1(&start, layer.size(), data),
        // As cryptsetup does: the first copy may be damaged here.
        0 | 2 => luks2(layer, data)?,
        _ => Err(HeaderError::Beyond(format!("has the version {version}"))),
    };
    let version = match version {
        1 => Some(Version::One),
        0 | 2 => Some(Version::Two),
        _ => None,
    };
    match (found, version) {
        (Ok(container), _) => Ok(Some(container)),
        (Err(HeaderError::Reencrypted(_)), Some(version)) => {
            Err(LuksError::Reencrypted { version, uuid })
        }
        (Err(why), version) => Err(LuksError::Header { version, uuid, why }),
    }
}

fn luks1(start: &[u8], layer: Bytes, data: Option<Bytes>) -> Result<Container, HeaderError> {
    let found = luks1::parse(start)?;
    let container = Container {
        version: Version::One,
        uuid: field::uuid_text(start, UUID, UUID_LENGTH),
        is_detached: found.header.offset == Bytes::ZERO,
        header: found.header,
        header_area: found.header_area,
        tokens: Vec::new(),
        integrity: None,
        notes: found.notes,
    };
    container.fits(layer, data)
}

fn luks2(layer: &dyn ReadAt, data: Option<Bytes>) -> io::Result<Result<Container, HeaderError>> {
    let copies = Copies::read(layer)?;
    Ok(copies.newest().and_then(|found| {
        let Found { copy, note } = found;
        let metadata = Metadata::parse(metadata_area::text_alone(copy)?)?;
        if metadata.copy() != copy.len() as u64 {
            return Err(HeaderError::damaged(
                "its metadata is of another length than it says",
            ));
        }
        let header = metadata.header()?;
        let container = Container {
            version: Version::Two,
            uuid: field::uuid_text(copy, UUID, UUID_LENGTH),
            is_detached: header.offset == Bytes::ZERO,
            header,
            header_area: metadata.header_area(),
            tokens: metadata.tokens().to_vec(),
            integrity: metadata.integrity()?,
            notes: note.into_iter().map(str::to_owned).collect(),
        };
        container.fits(layer.size(), data)
    }))
}

impl Container {
    /// Refuses one that is longer than its layer, or than the `data` of one whose header lies
    /// elsewhere.
    fn fits(self, layer: Bytes, data: Option<Bytes>) -> Result<Self, HeaderError> {
        if self.header_area > layer {
            return Err(HeaderError::damaged("its device ends before its key slots"));
        }
        let room = data.unwrap_or(layer);
        match (self.is_detached && data.is_none(), &self.integrity) {
            (true, _) => {}
            (false, None) => drop(self.header.length(room)?),
            // How many sectors there are between the checksums, dm-integrity knows.
            (false, Some(_)) if self.header.offset < room => {}
            (false, Some(_)) => {
                return Err(HeaderError::damaged(
                    "its device ends before the encrypted part",
                ));
            }
        }
        Ok(self)
    }
}
