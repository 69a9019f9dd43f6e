//! Which bytes of which images a part of a layer consists of.

use std::ops::Range;

use rustix::io::Errno;

use crate::layers::extent::{Extent, ExtentMap, ImageIndex, MAX_COLUMNS, OutOfRange};
use crate::units::Bytes;

/// One contiguous run of an image, and which parts of the request it holds, in its own order.
/// Stripes that follow each other on one image are one transfer of several parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The image.
    pub image: ImageIndex,
    /// Where the run begins.
    pub offset: Bytes,
    /// How many bytes it has; the sum of its parts.
    pub length: usize,
    /// Where its bytes lie in the request.
    pub parts: Vec<Range<usize>>,
}

impl Transfer {
    fn new(run: Extent, part: Range<usize>) -> Self {
        Self {
            image: run.image,
            offset: run.offset,
            length: part.len(),
            parts: vec![part],
        }
    }

    /// Whether it ends where the run begins.
    fn is_continued_by(&self, run: &Extent) -> bool {
        self.image == run.image
            && self.offset.checked_add(Bytes::new(self.length as u64)) == Some(run.offset)
    }

    /// Puts its bytes, in the order of the run, into the parts of the request's `buffer`.
    ///
    /// # Errors
    /// `EIO` if they are not as many as the parts take.
    pub fn scatter(&self, bytes: &[u8], buffer: &mut [u8]) -> Result<(), Errno> {
        let mut rest = bytes;
        for part in &self.parts {
            let (now, later) = rest.split_at_checked(part.len()).ok_or(Errno::IO)?;
            let part = buffer.get_mut(part.clone()).ok_or(Errno::IO)?;
            part.copy_from_slice(now);
            rest = later;
        }
        Ok(())
    }

    /// The parts of the request's `data` in the order of the run, into `joined`.
    pub fn gather(&self, data: &[u8], joined: &mut Vec<u8>) {
        joined.clear();
        for part in &self.parts {
            joined.extend(data.get(part.clone()).unwrap_or_default());
        }
    }

    fn append(&mut self, part: Range<usize>) {
        self.length = self.length.saturating_add(part.len());
        match self.parts.last_mut() {
            Some(last) if last.end == part.start => last.end = part.end,
            _ => self.parts.push(part),
        }
    }
}

/// What to read for the `length` bytes of the layer from `offset`. Each byte of the request is in
/// exactly one part.
///
/// # Errors
/// [`OutOfRange`] if any of them lies outside the layer.
pub fn reads(map: &ExtentMap, offset: Bytes, length: usize) -> Result<Vec<Transfer>, OutOfRange> {
    transfers(map, offset, length, 1)
}

/// What to write for them. Each byte of the request is in as many parts as it has copies.
///
/// # Errors
/// [`OutOfRange`] if any of them lies outside the layer.
pub fn writes(map: &ExtentMap, offset: Bytes, length: usize) -> Result<Vec<Transfer>, OutOfRange> {
    transfers(map, offset, length, usize::MAX)
}

/// Of each byte so many copies, the first ones.
fn transfers(
    map: &ExtentMap,
    offset: Bytes,
    length: usize,
    copies: usize,
) -> Result<Vec<Transfer>, OutOfRange> {
    let mut transfers: Vec<Transfer> = Vec::new();
    let mut begin = 0_usize;
    for run in map.copies(offset, Bytes::new(length as u64))? {
        // A run is no longer than the request, whose length is a `usize`.
        let end = usize::try_from(run.length().get())
            .unwrap_or(usize::MAX)
            .saturating_add(begin);
        for place in run.places().take(copies) {
            let part = begin..end;
            // The columns of stripes take turns, so that one of the last few may go on.
            let mut recent = transfers.iter_mut().rev().take(MAX_COLUMNS);
            match recent.find(|transfer| transfer.is_continued_by(&place)) {
                Some(transfer) => transfer.append(part),
                None => transfers.push(Transfer::new(place, part)),
            }
        }
        begin = end;
    }
    Ok(transfers)
}
