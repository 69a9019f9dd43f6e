//! Device-mapper tables: an extent map as the kernel takes it.
//!
//! The lines are those of the kernel's `Documentation/admin-guide/device-mapper/linear.rst`,
//! `striped.rst`, `snapshot.rst` and `dm-crypt.rst`; that of mirrors is described above `mirror_ctr` in
//! `drivers/md/dm-raid1.c`. They count in sectors of 512 bytes, whatever the sectors of
//! the devices are.

mod integrity;

use std::fmt::{self, Display, Write as _};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use zeroize::Zeroizing;

use crate::layers::extent::{Extent, ExtentMap, ImageIndex, Piece};
use crate::units::{Bytes, SectorSize};

pub use integrity::{Tags, authenticated, integrity};

/// How many lines a table may have. A volume that LVM keeps in so many pieces is none that anybody
/// made, and the kernel keeps all of them in memory.
pub const MAX_LINES: usize = 16_384;

/// How much of a snapshot is kept apart at once: a page, and whole blocks of any device
/// (drivers/md/dm-exception-store.c refuses less than one).
pub const SNAPSHOT_CHUNK: Bytes = Bytes::kib(4);

/// How many copies a mirror of device-mapper has (`MAX_NR_MIRRORS`, drivers/md/dm-raid1.c).
const MAX_COPIES: usize = 9;

/// How many sectors a mirror counts as in step or not at once, where it is as long as that; never
/// fewer than two (drivers/md/dm-log.c).
const REGION: u64 = 1024;
const LEAST_REGION: u64 = 2;

/// A block device as the kernel counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceNumber {
    /// The driver's number.
    pub major: u32,
    /// The driver's number for the device.
    pub minor: u32,
}

impl DeviceNumber {
    /// The device that `path` leads to.
    ///
    /// # Errors
    /// What the system says of the path; `InvalidInput` if it is no block device.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = path.metadata()?;
        if !metadata.file_type().is_block_device() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a block device",
            ));
        }
        let number = metadata.rdev();
        Ok(Self {
            major: rustix::fs::major(number),
            minor: rustix::fs::minor(number),
        })
    }

    /// The length of its sectors in bytes, which nothing can read a part of; 512 where the kernel
    /// does not say. A partition has those of its disk.
    pub fn logical_block_size(self) -> u32 {
        let device = format!("/sys/dev/block/{self}");
        ["queue", "../queue"]
            .iter()
            .find_map(|queue| {
                let file = format!("{device}/{queue}/logical_block_size");
                std::fs::read_to_string(file).ok()?.trim().parse().ok()
            })
            .unwrap_or(SectorSize::S512.get())
    }
}

/// As tables and `/sys/dev/block` have it: `253:7`.
impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// Why there is no table for a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Device-mapper counts in sectors of 512 bytes, and a cipher may have larger ones.
    #[error("{what} of {number} bytes is no multiple of {unit}", number = .bytes.get())]
    Unaligned {
        /// An offset, a length or a stripe size.
        what: &'static str,
        /// It.
        bytes: Bytes,
        /// Of what, in bytes.
        unit: u32,
    },
    /// The map names an image that no device stands for.
    #[error("image {} is no block device here", .0.0)]
    NoDevice(ImageIndex),
    /// More than [`MAX_LINES`] pieces.
    #[error("{0} pieces are too many for a device-mapper table")]
    TooManyLines(usize),
    /// The map has no bytes.
    #[error("a device-mapper table of no bytes")]
    Empty,
    /// The kernel counts the sectors of a stripe in 32 bits.
    #[error("a stripe size of {number} bytes is more than device-mapper takes", number = .0.get())]
    StripeSize(Bytes),
    /// A mirror has too many copies, or is too short for one.
    #[error("device-mapper has no mirror of {copies} copies of {number} bytes", number = .length.get())]
    Mirror {
        /// How many.
        copies: usize,
        /// How long each is.
        length: Bytes,
    },
}

/// The table of a device that has the map's bytes: a line for each piece. Devices are named by
/// their numbers or their paths.
///
/// # Errors
/// [`TableError`] if device-mapper cannot have the map.
pub fn table<D: Display>(
    map: &ExtentMap,
    device: impl Fn(ImageIndex) -> Option<D>,
) -> Result<String, TableError> {
    let pieces = map.pieces();
    if pieces.is_empty() {
        return Err(TableError::Empty);
    }
    if pieces.len() > MAX_LINES {
        return Err(TableError::TooManyLines(pieces.len()));
    }
    let place = |extent: Extent| {
        let device = device(extent.image).ok_or(TableError::NoDevice(extent.image))?;
        Ok(format!("{device} {}", sectors("an offset", extent.offset)?))
    };
    let mut text = String::new();
    let mut start = 0_u64;
    for piece in pieces {
        let length = sectors("a length", piece.length())?;
        let mut line = format!("{start} {length} ");
        match piece {
            Piece::Run(extent) => {
                line.push_str("linear ");
                line.push_str(&place(*extent)?);
            }
            Piece::Striped(striped) => {
                let columns = striped.columns();
                let chunk = chunk("a stripe size", striped.stripe_size())?;
                // A string takes whatever is written to it.
                let _ = write!(line, "striped {} {chunk}", columns.len());
                for column in columns {
                    line.push(' ');
                    line.push_str(&place(column)?);
                }
            }
            Piece::Mirrored(mirrored) => {
                let copies = mirrored.legs().len();
                if copies > MAX_COPIES || length < LEAST_REGION {
                    let length = piece.length();
                    return Err(TableError::Mirror { copies, length });
                }
                // In step by our own word: nothing is copied from one to the other. The first is
                // read as long as it can be.
                let region = REGION.min(1 << length.ilog2());
                let _ = write!(line, "mirror core 2 {region} nosync {copies}");
                for leg in mirrored.legs() {
                    line.push(' ');
                    line.push_str(&place(*leg)?);
                }
            }
        }
        line.push('\n');
        text.push_str(&line);
        start = start.saturating_add(length);
    }
    Ok(text)
}

/// The table of a device that has `length` bytes of another one from `offset`.
///
/// # Errors
/// [`TableError`] if these are no whole sectors, or none at all.
pub fn linear(device: DeviceNumber, offset: Bytes, length: Bytes) -> Result<String, TableError> {
    let mut map = ExtentMap::default();
    map.push(Extent {
        image: ImageIndex(0),
        offset,
        length,
    });
    table(&map, |_| Some(device))
}

/// The table of a snapshot: it has the first `length` bytes of `origin`, and what is written to it
/// goes to `store`, by [`SNAPSHOT_CHUNK`]. Nothing of it outlives the mapping: the list of what was
/// written is only in the kernel's memory (`N`, not persistent). A write that finds no room in the
/// store makes the snapshot invalid, and every read of it an error.
///
/// # Errors
/// [`TableError`] if the length is not of whole sectors, or zero.
pub fn snapshot(
    length: Bytes,
    origin: impl Display,
    store: impl Display,
) -> Result<String, TableError> {
    if length == Bytes::ZERO {
        return Err(TableError::Empty);
    }
    let length = sectors("a length", length)?;
    let chunk = chunk("a chunk size", SNAPSHOT_CHUNK)?;
    Ok(format!("0 {length} snapshot {origin} {store} N {chunk}\n"))
}

/// How dm-crypt encrypts (Documentation/admin-guide/device-mapper/dm-crypt.rst). The names and the key
/// are words of a table: without blanks and backslashes.
#[derive(Clone, Copy)]
pub struct Cipher<'a> {
    /// Cipher, mode and initialisation vector: `aes-xts-plain64`.
    pub name: &'a str,
    /// The key, in hexadecimal.
    pub key: &'a str,
    /// What is added to a sector's number for its initialisation vector, in sectors of 512 bytes.
    pub iv_tweak: u64,
    /// What is encrypted at once: 512 to 4096 bytes.
    pub sector_size: SectorSize,
    /// Discards are passed on.
    pub discards: bool,
}

impl fmt::Debug for Cipher<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cipher")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The table of a device that decrypts the `length` bytes from `offset` of another one. The key is in
/// it, so it is overwritten when it is dropped.
///
/// # Errors
/// [`TableError`] if these are no whole sectors of the cipher, or none at all.
pub fn encrypted(
    length: Bytes,
    cipher: Cipher<'_>,
    device: impl Display,
    offset: Bytes,
) -> Result<Zeroizing<String>, TableError> {
    crypt_line(length, cipher, device, offset, None)
}

/// The same; with the size of its tags where there is dm-integrity below.
fn crypt_line(
    length: Bytes,
    cipher: Cipher<'_>,
    device: impl Display,
    offset: Bytes,
    tag_size: Option<u16>,
) -> Result<Zeroizing<String>, TableError> {
    if length == Bytes::ZERO {
        return Err(TableError::Empty);
    }
    whole("a length", length, cipher.sector_size)?;
    let length = sectors("a length", length)?;
    let offset = sectors("an offset", offset)?;
    let mut options = Vec::new();
    if cipher.discards {
        options.push("allow_discards".to_owned());
    }
    if cipher.sector_size != SectorSize::S512 {
        options.push(format!("sector_size:{}", cipher.sector_size.get()));
    }
    if let Some(size) = tag_size {
        options.push(format!("integrity:{size}:aead"));
    }
    let Cipher {
        name,
        key,
        iv_tweak,
        ..
    } = cipher;
    let device = device.to_string();
    // Room for all of it: growing would leave a copy of the key behind.
    let words = [name, key, &device].map(str::len);
    let room = words
        .iter()
        .fold(256, |sum: usize, word| sum.saturating_add(*word));
    let mut text = Zeroizing::new(String::with_capacity(room));
    // A string takes whatever is written to it.
    let _ = write!(
        text,
        "0 {length} crypt {name} {key} {iv_tweak} {device} {offset}"
    );
    if !options.is_empty() {
        let _ = write!(text, " {} {}", options.len(), options.join(" "));
    }
    text.push('\n');
    Ok(text)
}

/// The table of a device whose first `length` bytes are kept encrypted on another one, by a key in
/// hexadecimal that nobody else has.
///
/// # Errors
/// As [`encrypted`].
pub fn crypt(
    length: Bytes,
    key: &str,
    device: impl Display,
) -> Result<Zeroizing<String>, TableError> {
    let cipher = Cipher {
        name: "aes-xts-plain64",
        key,
        iv_tweak: 0,
        sector_size: SectorSize::S512,
        discards: false,
    };
    encrypted(length, cipher, device, Bytes::ZERO)
}

/// Bytes as whole sectors.
fn sectors(what: &'static str, bytes: Bytes) -> Result<u64, TableError> {
    whole(what, bytes, SectorSize::S512)
}

fn whole(what: &'static str, bytes: Bytes, size: SectorSize) -> Result<u64, TableError> {
    let unit = size.get();
    if bytes.get().checked_rem(unit.into()) != Some(0) {
        return Err(TableError::Unaligned { what, bytes, unit });
    }
    Ok(bytes.get() / u64::from(unit))
}

/// The same, in 32 bits.
fn chunk(what: &'static str, size: Bytes) -> Result<u32, TableError> {
    u32::try_from(sectors(what, size)?).map_err(|_| TableError::StripeSize(size))
}

#[cfg(test)]
mod tests;
