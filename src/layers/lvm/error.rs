//! Why a layer with an LVM2 label cannot be read.

use std::io;

use super::text::TextError;
use crate::units::Bytes;

/// Why a physical volume cannot be read. The message is a whole sentence fragment:
/// the part and its cause.
#[derive(Debug, thiserror::Error)]
pub enum LvmError {
    /// The sectors that may hold the label cannot be read.
    #[error("LVM label: {cause}")]
    Read {
        /// What the system says.
        cause: io::Error,
    },
    /// There is an LVM label, but it is damaged.
    #[error("LVM label in sector {sector}: {fault}")]
    Label {
        /// Which of the first four sectors of 512 bytes.
        sector: u64,
        /// What is wrong with it.
        fault: LabelFault,
    },
    /// The label is sound, but none of its metadata areas can be read.
    #[error("LVM metadata area at byte {offset}: {fault}", offset = .offset.get())]
    Area {
        /// Where the area begins.
        offset: Bytes,
        /// What is wrong with it.
        fault: AreaFault,
    },
    /// Two metadata areas of one physical volume contradict each other.
    #[error("LVM metadata areas at bytes {first} and {second}: both have sequence number {sequence}, but they differ", first = .first.get(), second = .second.get())]
    Contradiction {
        /// Where the one begins.
        first: Bytes,
        /// Where the other begins.
        second: Bytes,
        /// The sequence number (`seqno`) of both.
        sequence: u32,
    },
    /// Two metadata areas of one physical volume name different volume groups.
    #[error("LVM metadata areas at bytes {first} and {second}: they belong to different volume groups", first = .first.get(), second = .second.get())]
    TwoGroups {
        /// Where the one begins.
        first: Bytes,
        /// Where the other begins.
        second: Bytes,
    },
}

/// What is wrong with a label sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelFault {
    /// The bytes were changed since LVM wrote them.
    #[error("wrong checksum")]
    Checksum,
    /// It was copied from another place.
    #[error("it was written for sector {0}")]
    Moved(u64),
    /// Its type is not `LVM2 001`.
    #[error("unknown label type")]
    Type,
    /// The physical volume header, or its lists of areas, reach out of the sector.
    #[error("the physical volume header does not fit into the sector")]
    Bounds,
    /// The UUID has characters LVM does not use.
    #[error("invalid physical volume UUID")]
    Uuid,
}

/// What is wrong with a metadata area.
#[derive(Debug, thiserror::Error)]
pub enum AreaFault {
    /// It cannot be read.
    #[error("{0}")]
    Read(io::Error),
    /// The header was changed since LVM wrote it.
    #[error("wrong header checksum")]
    HeaderChecksum,
    /// It does not begin as a header does.
    #[error("wrong magic number")]
    Magic,
    /// Another version than 1.
    #[error("unknown header version {0}")]
    Version(u32),
    /// It was copied from another place.
    #[error("it was written for byte {0}")]
    Moved(u64),
    /// It reaches out of the layer.
    #[error("its {0} bytes do not fit into the physical volume")]
    Size(u64),
    /// The metadata text does not lie inside the area.
    #[error("metadata text of {size} bytes at its byte {offset} does not fit into it")]
    TextBounds {
        /// Where the text begins, from the beginning of the area.
        offset: u64,
        /// How many bytes it has.
        size: u64,
    },
    /// The text was changed since LVM wrote it.
    #[error("wrong checksum of the metadata text")]
    TextChecksum,
    /// The text does not follow the grammar.
    #[error("metadata text, {0}")]
    Syntax(TextError),
    /// The text does not describe a volume group.
    #[error("metadata text, {0}")]
    Group(GroupFault),
}

/// Why a text does not describe a volume group. Names of sections are shown escaped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupFault {
    /// `contents` or `version` is not that of volume group metadata.
    #[error("not volume group metadata of version 1")]
    NotMetadata,
    /// Not exactly one section at the top.
    #[error("{0} volume groups where there must be one")]
    GroupCount(usize),
    /// A key is missing, or its value is of another type or out of range.
    #[error("section {section}: {key} is missing or has no valid value")]
    Key {
        /// The section.
        section: String,
        /// The key in it.
        key: &'static str,
    },
    /// Something that must be a section is a value.
    #[error("section {section}: {entry} is not a section")]
    NotSection {
        /// The section around it.
        section: String,
        /// The entry.
        entry: String,
    },
    /// LVM would not give this name.
    #[error("invalid name {0}")]
    Name(String),
    /// One UUID is used for two things.
    #[error("UUID {0} is used twice")]
    DuplicateUuid(String),
    /// The count of segments is not the number of segments.
    #[error("section {0}: segment_count does not match the segments")]
    SegmentCount(String),
    /// More segments than any volume needs.
    #[error("section {0}: too many segments")]
    TooManySegments(String),
}
