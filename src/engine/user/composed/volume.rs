//! A layer's bytes, wherever they lie: the one place through which the composer reads and writes.

use rustix::io::Errno;

use super::transfers::{Transfer, reads, writes};
use crate::layers::extent::{ExtentMap, ImageIndex, OutOfRange};
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

/// A layer over images.
#[derive(Debug)]
pub struct Volume {
    map: ExtentMap,
}

impl Volume {
    /// The layer that `map` lays out.
    pub fn new(map: ExtentMap) -> Self {
        Self { map }
    }

    /// How many bytes it has.
    pub fn size(&self) -> Bytes {
        self.map.size()
    }

    /// The images that it lies on, each once.
    pub fn images(&self) -> Vec<ImageIndex> {
        let mut images: Vec<_> = self.map.places().map(|extent| extent.image).collect();
        images.sort_unstable();
        images.dedup();
        images
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
        let transfers = reads(&self.map, offset, buffer.len());
        let transfers = transfers.map_err(|OutOfRange { .. }| Errno::INVAL)?;
        images.read(&transfers, buffer)
    }

    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// `ENOSPC` past the end, as a disk says it, else what the images say.
    pub fn write(&self, images: &mut impl Images, offset: Bytes, data: &[u8]) -> Result<(), Errno> {
        let transfers = writes(&self.map, offset, data.len());
        let transfers = transfers.map_err(|OutOfRange { .. }| Errno::NOSPC)?;
        images.write(&transfers, data)
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

#[cfg(test)]
mod tests;
