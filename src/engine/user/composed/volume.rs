//! A layer's bytes, wherever they lie: the one place through which the composer reads and writes.

use rustix::io::Errno;

use super::transfers::{Transfer, reads, writes};
use crate::engine::decrypted::{Decrypted, DecryptedImages, Unreadable, lowest};
use crate::layers::extent::{Extent, ExtentMap, ImageIndex, OutOfRange};
use crate::units::Bytes;

/// The most bytes that one step of [`Volume::zero`] covers, so that what is laid out for it stays
/// small even for stripes of one sector.
const ZERO_STEP: usize = 64 * 1024 * 1024;

/// Whether zeroed bytes keep their place on the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// It may be given back: the bytes were discarded.
    GivenBack,
    /// It stays.
    Kept,
}

/// What holds the images. A request may reach several of them; all of it was done when a call
/// returns without an error, and nothing is said of the order.
pub trait Images {
    /// Fills each part of `buffer` that a transfer names.
    ///
    /// # Errors
    /// What the image says.
    fn read(&mut self, transfers: &[Transfer], buffer: &mut [u8]) -> Result<(), Errno>;

    /// Writes each part of `data` that a transfer names.
    ///
    /// # Errors
    /// What the image says, such as `ENOSPC`.
    fn write(&mut self, transfers: &[Transfer], data: &[u8]) -> Result<(), Errno>;

    /// Makes the runs read as zeros, without writing zeros out.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where the image cannot, else what it says.
    fn zero(&mut self, transfers: &[Transfer], space: Space) -> Result<(), Errno>;

    /// All that was written before is on the storage of these images afterwards.
    ///
    /// # Errors
    /// What the image says.
    fn flush(&mut self) -> Result<(), Errno>;
}

/// A layer over images, some of which may be containers that were opened.
#[derive(Debug)]
pub struct Volume {
    map: ExtentMap,
    opened: DecryptedImages,
}

impl Volume {
    /// The layer that `map` lays out.
    pub fn new(map: ExtentMap, opened: DecryptedImages) -> Self {
        Self { map, opened }
    }

    /// How many bytes it has.
    pub fn size(&self) -> Bytes {
        self.map.size()
    }

    /// The images that it lies on at last, each once.
    pub fn images(&self) -> Vec<ImageIndex> {
        lowest(&self.map, &self.opened)
    }

    /// Fills the whole buffer from `offset`.
    ///
    /// # Errors
    /// `EINVAL` past the end, else what the images say.
    pub fn read(
        &self,
        images: &mut impl Images,
        offset: Bytes,
        buffer: &mut [u8],
    ) -> Result<(), Errno> {
        self.read_map(images, &self.map, offset, buffer)
    }

    fn read_map(
        &self,
        images: &mut impl Images,
        map: &ExtentMap,
        offset: Bytes,
        buffer: &mut [u8],
    ) -> Result<(), Errno> {
        let transfers = reads(map, offset, buffer.len());
        let transfers = transfers.map_err(|OutOfRange { .. }| Errno::INVAL)?;
        let (decrypted, plain) = self.apart(transfers);
        if !plain.is_empty() {
            images.read(&plain, buffer)?;
        }
        for (container, transfer) in decrypted {
            let mut read = |offset: Bytes, part: &mut [u8]| {
                let under = |map: &ExtentMap, at: Bytes, sectors: &mut [u8]| {
                    self.read_map(images, map, at, sectors)
                };
                container.read(offset, part, under).map_err(errno)
            };
            match transfer.parts.as_slice() {
                [part] => {
                    let part = buffer.get_mut(part.clone()).ok_or(Errno::IO)?;
                    read(transfer.offset, part)?;
                }
                _ => {
                    let mut joined = vec![0; transfer.length];
                    read(transfer.offset, &mut joined)?;
                    transfer.scatter(&joined, buffer)?;
                }
            }
        }
        Ok(())
    }

    /// The transfers of containers, and those of all other images.
    fn apart(&self, transfers: Vec<Transfer>) -> (Vec<(&Decrypted, Transfer)>, Vec<Transfer>) {
        let mut decrypted = Vec::new();
        let mut plain = Vec::new();
        for transfer in transfers {
            match self.opened.get(&transfer.image) {
                Some(container) => decrypted.push((container, transfer)),
                None => plain.push(transfer),
            }
        }
        (decrypted, plain)
    }

    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// `ENOSPC` past the end, as a disk says it, else what the images say.
    pub fn write(&self, images: &mut impl Images, offset: Bytes, data: &[u8]) -> Result<(), Errno> {
        self.write_map(images, &self.map, offset, data)
    }

    fn write_map(
        &self,
        images: &mut impl Images,
        map: &ExtentMap,
        offset: Bytes,
        data: &[u8],
    ) -> Result<(), Errno> {
        let transfers = writes(map, offset, data.len());
        let transfers = transfers.map_err(|OutOfRange { .. }| Errno::NOSPC)?;
        let (decrypted, plain) = self.apart(transfers);
        if !plain.is_empty() {
            images.write(&plain, data)?;
        }
        for (container, transfer) in decrypted {
            let mut joined = Vec::new();
            let data = match transfer.parts.as_slice() {
                [part] => data.get(part.clone()).ok_or(Errno::IO)?,
                _ => {
                    transfer.gather(data, &mut joined);
                    &joined
                }
            };
            let written = container.write(
                images,
                transfer.offset,
                data,
                |images, map, at, sectors| self.read_map(images, map, at, sectors),
                |images, map, at, sectors| self.write_map(images, map, at, sectors),
            );
            written.map_err(errno)?;
        }
        Ok(())
    }

    /// Makes `length` bytes from `offset` read as zeros.
    ///
    /// # Errors
    /// `ENOSPC` past the end, `EOPNOTSUPP` where an image cannot; a part may be zero then.
    pub fn zero(
        &self,
        images: &mut impl Images,
        offset: Bytes,
        length: Bytes,
        space: Space,
    ) -> Result<(), Errno> {
        let end = offset.checked_add(length);
        if end.is_none_or(|end| end > self.size()) {
            return Err(Errno::NOSPC);
        }
        // What reads as zeros through a cipher is written out.
        let is_container = |extent: Extent| self.opened.contains_key(&extent.image);
        if self.map.places().any(is_container) {
            return Err(Errno::OPNOTSUPP);
        }
        let (mut at, mut left) = (offset.get(), length.get());
        while left > 0 {
            let step = left.min(ZERO_STEP as u64);
            let now = usize::try_from(step).unwrap_or(ZERO_STEP);
            let transfers = writes(&self.map, Bytes::new(at), now);
            let transfers = transfers.map_err(|OutOfRange { .. }| Errno::NOSPC)?;
            images.zero(&transfers, space)?;
            at = at.saturating_add(step);
            left = left.saturating_sub(step);
        }
        Ok(())
    }
}

const fn errno(error: Unreadable<Errno>) -> Errno {
    match error {
        Unreadable::Under(errno) => errno,
        Unreadable::Outside => Errno::INVAL,
    }
}

#[cfg(test)]
mod decrypted_tests;
#[cfg(test)]
mod tests;
