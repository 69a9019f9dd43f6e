//! A part of a disk, read as if it were all there is.

use std::io;

use crate::layers::read::ReadAt;
use crate::units::Bytes;

/// The bytes of `disk` from `start`, as many as `length` and the disk allow.
pub(super) struct Window<'a> {
    disk: &'a dyn ReadAt,
    start: Bytes,
    length: Bytes,
}

impl<'a> Window<'a> {
    /// The part of a disk; empty if it lies past the end.
    pub(super) fn new(disk: &'a dyn ReadAt, start: Bytes, length: Bytes) -> Self {
        let length = disk.size().saturating_sub(start).min(length);
        Self {
            disk,
            start,
            length,
        }
    }
}

impl ReadAt for Window<'_> {
    fn size(&self) -> Bytes {
        self.length
    }

    fn held(&self, offset: Bytes, length: Bytes) -> Option<&[u8]> {
        offset
            .checked_add(length)
            .filter(|end| *end <= self.length)?;
        self.disk.held(self.start.checked_add(offset)?, length)
    }

    fn read_exact_at(&self, offset: Bytes, buffer: &mut [u8]) -> io::Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        let end = offset.checked_add(Bytes::new(buffer.len() as u64));
        match (end, self.start.checked_add(offset)) {
            (Some(end), Some(from)) if end <= self.length => self.disk.read_exact_at(from, buffer),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Reads bytes that may lie past the end: `None` if they do, or if the place is no number.
pub(super) fn read_inside(
    disk: &dyn ReadAt,
    start: Option<Bytes>,
    length: Bytes,
) -> io::Result<Option<Vec<u8>>> {
    let Some(start) = start else { return Ok(None) };
    match start.checked_add(length) {
        Some(end) if end <= disk.size() => disk.read_at(start, length).map(Some),
        _ => Ok(None),
    }
}
