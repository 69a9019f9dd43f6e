//! Why a layer with a superblock of MD is no usable member.

use std::io;

use super::superblock::Version;
use crate::units::Bytes;

/// Why a member cannot be read. The message is a whole sentence fragment: the part and its cause.
#[derive(Debug, thiserror::Error)]
pub enum MdError {
    /// The places of superblocks cannot be read.
    #[error("RAID superblock: {0}")]
    Read(io::Error),
    /// There is a superblock, but it cannot be relied on.
    #[error("RAID superblock, metadata {}: {fault}", .version.name())]
    Superblock {
        /// Which.
        version: Version,
        /// What is wrong with it.
        fault: Fault,
    },
    /// There are two, of which only one can be right.
    #[error("two RAID superblocks, metadata {} and {}: which is left over cannot be told; \
        `mdadm --zero-superblock --metadata=` in the guest removes one", .0.name(), .1.name())]
    Two(Version, Version),
}

/// What is wrong with a superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The bytes were changed since MD wrote them.
    #[error("wrong checksum")]
    Checksum,
    /// Written by a machine whose byte order is not that of the metadata's usual readers.
    #[error("written by a big-endian machine, in whose byte order only such a machine reads it")]
    BigEndian,
    /// A minor version that is not known.
    #[error("unknown minor version {0}")]
    MinorVersion(u32),
    /// Features that must be understood, and are not.
    #[error("unknown feature flags {0:#x}")]
    Features(u32),
    /// Bytes are in use that were reserved.
    #[error("reserved bytes are in use, by a newer version of MD")]
    Reserved,
    /// More devices than the superblock has room for, or none.
    #[error("impossible number of devices, {0}")]
    Devices(u32),
    /// A chunk size that no array has.
    #[error("impossible chunk size of {0} bytes")]
    Chunk(u64),
    /// The data do not lie inside the member.
    #[error("its data, {length} bytes from byte {offset}, do not fit into the {available} bytes \
        that are there for them", offset = .offset.get(), length = .length.get(),
        available = .available.get())]
    Bounds {
        /// Where they begin.
        offset: Bytes,
        /// How many bytes.
        length: Bytes,
        /// Up to where there is room.
        available: Bytes,
    },
    /// A number of sectors past 2^64 bytes.
    #[error("a size of {0} sectors")]
    Size(u64),
}
