//! Why a text is no domain, each time with the place and the way out.

use std::fmt;

/// A place in a text, counted from 1; the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The character in that line.
    pub column: usize,
}

impl Place {
    /// The place of the byte at `offset` of `text`; past the end is the end.
    pub(super) fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before
            .rfind('\n')
            .map_or(0, |newline| newline.saturating_add(1));
        Self {
            line: before.matches('\n').count().saturating_add(1),
            column: before
                .get(line_start..)
                .unwrap_or_default()
                .chars()
                .count()
                .saturating_add(1),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Why domain XML could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XmlError {
    /// More bytes than libvirt ever sends.
    #[error("the XML has {size} bytes; libvirt takes at most {limit}")]
    TooLong {
        /// Its length in bytes.
        size: usize,
        /// The most that is read, in bytes.
        limit: usize,
    },
    /// Not well-formed.
    #[error("malformed XML at {place}: {what}")]
    Malformed {
        /// Where.
        place: Place,
        /// What was expected or found there.
        what: String,
    },
    /// Elements in elements without end.
    #[error("malformed XML at {place}: elements are nested more than {limit} deep")]
    TooDeep {
        /// Where the bound was passed.
        place: Place,
        /// The bound.
        limit: usize,
    },
    /// A document type: it may define entities and attributes, which are never expanded.
    #[error("the XML has a <!DOCTYPE> at {place}, which the XML of a domain never has; remove it")]
    DocumentType {
        /// Where.
        place: Place,
    },
    /// `<domstatus>`, from libvirt's run directory.
    #[error(
        "this is the status file of a running domain, not its definition; give the output of `virsh dumpxml --inactive`"
    )]
    RunningDomain,
    /// `<domainsnapshot>`.
    #[error(
        "this is a snapshot, not a domain; give the output of `virsh dumpxml --inactive` of its domain"
    )]
    Snapshot,
    /// `<domaincheckpoint>`.
    #[error(
        "this is a checkpoint, not a domain; give the output of `virsh dumpxml --inactive` of its domain"
    )]
    Checkpoint,
    /// `<domainbackup>`.
    #[error(
        "this is a backup job, not a domain; give the output of `virsh dumpxml --inactive` of its domain"
    )]
    Backup,
    /// Any other root element.
    #[error(
        "the root element is <{root}>, not <domain>; give the output of `virsh dumpxml --inactive`"
    )]
    NotADomain {
        /// Its name.
        root: String,
    },
    /// No `<name>`, or an empty one.
    #[error("the domain has no <name>")]
    NoName,
    /// A `<uuid>` without exactly 32 hexadecimal digits.
    #[error("the domain's UUID '{value}' is not one")]
    Uuid {
        /// The text found.
        value: String,
    },
    /// More disks than any machine has.
    #[error("the domain has more than {limit} disks")]
    TooManyDisks {
        /// The most that are read.
        limit: usize,
    },
    /// A disk that cannot be understood.
    #[error("disk {disk} (line {line}): {problem}")]
    Disk {
        /// Its target, or `number N` from 1.
        disk: String,
        /// The line where it begins.
        line: usize,
        /// What is wrong with it.
        problem: DiskProblem,
    },
}

/// What is wrong with a disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskProblem {
    /// An element that may stand once stands twice, or text stands where elements belong.
    #[error("{0}")]
    Structure(String),
    /// `device=` is none of disk, lun, cdrom, floppy.
    #[error("its device '{0}' is unknown")]
    Device(String),
    /// A source without an attribute or element its type needs.
    #[error("its source of type '{kind}' has no {missing}")]
    Incomplete {
        /// `type=`.
        kind: String,
        /// What is missing.
        missing: &'static str,
    },
    /// A number that is none, or out of range.
    #[error("its {what} '{value}' is not {expected}")]
    Number {
        /// The element or attribute.
        what: &'static str,
        /// The text found.
        value: String,
        /// The values it may have.
        expected: &'static str,
    },
    /// Two `<backingStore>` under one image.
    #[error("an image of its chain has more than one backing store")]
    Forked,
    /// A `<backingStore>` without `<source>`.
    #[error("a backing store in its chain has no source")]
    BackingWithoutSource,
    /// A `<backingStore>` without `<format type=>`, which must never be guessed.
    #[error("a backing store in its chain names no format")]
    BackingWithoutFormat,
    /// More images on top of each other than libvirt lets a domain have.
    #[error("its backing chain has more than {limit} images")]
    ChainTooLong {
        /// The most that are read.
        limit: usize,
    },
    /// A `<secret>` of an `<encryption>` that names none, or may be one of two.
    #[error("the secret of its encryption has {0}")]
    Secret(&'static str),
    /// `<encryption>` under `<disk>` and under `<source>`.
    #[error("it has an <encryption> of its own and another under its source")]
    EncryptedTwice,
}
