//! The bytes of a layer that signatures are looked for in.

use std::borrow::Cow;
use std::io;

use crate::layers::ends::HEAD;
use crate::layers::read::ReadAt;
use crate::layers::signature::field;
use crate::units::Bytes;

/// A layer with its beginning in memory.
pub(super) struct Probe<'a> {
    layer: &'a dyn ReadAt,
    head: Cow<'a, [u8]>,
}

impl<'a> Probe<'a> {
    /// Reads the beginning.
    pub(super) fn new(layer: &'a dyn ReadAt) -> io::Result<Self> {
        let head = layer.look_at(Bytes::ZERO, layer.size().min(HEAD))?;
        Ok(Self { layer, head })
    }

    /// The layer's size in bytes.
    pub(super) fn size(&self) -> u64 {
        self.layer.size().get()
    }

    /// The beginning of the layer, from `offset`; empty past its end.
    pub(super) fn from(&self, offset: usize) -> &[u8] {
        self.head.get(offset..).unwrap_or_default()
    }

    /// Whether `magic` stands at `offset` of the beginning.
    pub(super) fn is(&self, offset: usize, magic: &[u8]) -> bool {
        field::is(&self.head, offset, magic)
    }

    /// `length` bytes from anywhere; `None` if the layer does not have them.
    pub(super) fn bytes(&self, offset: u64, length: usize) -> io::Result<Option<Cow<'_, [u8]>>> {
        let Some(end) = offset.checked_add(length as u64) else {
            return Ok(None);
        };
        if end > self.size() {
            return Ok(None);
        }
        if let (Ok(from), Ok(to)) = (usize::try_from(offset), usize::try_from(end))
            && let Some(part) = self.head.get(from..to)
        {
            return Ok(Some(Cow::Borrowed(part)));
        }
        let (offset, length) = (Bytes::new(offset), Bytes::new(length as u64));
        self.layer.look_at(offset, length).map(Some)
    }
}

/// The largest multiple of `unit` (a power of two) in `size`, less `back`; `None` if it is negative.
pub(super) fn from_end(size: u64, unit: u64, back: u64) -> Option<u64> {
    (size & !unit.checked_sub(1)?).checked_sub(back)
}
