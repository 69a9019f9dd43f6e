//! The disks of a domain, opened for the parsers to read.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::engine::decrypted::{Decrypted, Unreadable};
use crate::engine::user::daemon::Export;
use crate::layers::extent::{ExtentMap, ImageIndex};
use crate::layers::read::{LayerReader, ReadAt, ReadImages, past_the_end};
use crate::units::Bytes;

/// A read of so many bytes takes longer than to ask whether there is anything to read.
const WORTH_ASKING: usize = 64 * 1024;

/// A disk, opened for the parsers to read.
#[derive(Debug)]
#[must_use = "a shown disk must be taken back"]
pub struct ShownDisk {
    pub(super) export: Option<Export>,
    pub(super) file: File,
    offset: Bytes,
    size: Bytes,
    /// From where to where in the file nothing was ever written; nobody writes while it is shown.
    hole: Cell<(u64, u64)>,
}

impl ShownDisk {
    /// The disk whose `size` bytes begin at `offset` of a file.
    pub(super) fn new(file: File, offset: Bytes, size: Bytes) -> Self {
        Self {
            export: None,
            file,
            offset,
            size,
            hole: Cell::default(),
        }
    }

    /// Its size as the guest sees it.
    pub fn size(&self) -> Bytes {
        self.size
    }

    /// Nothing was ever written there; `false` where that cannot be told.
    fn is_hole(&self, at: Bytes, length: usize) -> bool {
        let end = at.get().saturating_add(length as u64);
        let (from, to) = self.hole.get();
        if from <= at.get() && end <= to {
            return true;
        }
        let Some(data) = self.data_from(at) else {
            return false;
        };
        self.hole.set((at.get(), data));
        end <= data
    }

    /// Where the next data begins, or the disk ends.
    fn data_from(&self, at: Bytes) -> Option<u64> {
        let end = self.offset.checked_add(self.size)?.get();
        match rustix::fs::seek(&self.file, SeekFrom::Data(at.get())) {
            Ok(data) => Some(data.min(end)),
            Err(Errno::NXIO) => Some(end),
            Err(_) => None,
        }
    }
}

impl ReadAt for ShownDisk {
    fn size(&self) -> Bytes {
        self.size
    }

    fn read_exact_at(&self, offset: Bytes, buffer: &mut [u8]) -> io::Result<()> {
        let at = self.offset.checked_add(offset);
        let at = at.ok_or(io::ErrorKind::UnexpectedEof)?;
        if buffer.len() >= WORTH_ASKING && self.is_hole(at, buffer.len()) {
            buffer.fill(0);
            return Ok(());
        }
        self.file.read_exact_at(buffer, at.get())
    }
}

/// An image for the parsers to read.
#[derive(Debug)]
#[must_use = "a shown disk must be taken back"]
pub enum ShownImage {
    /// A disk, or a device that something else was opened as.
    Disk(ShownDisk),
    /// A container over other images.
    Decrypted(Decrypted),
}

impl ShownImage {
    /// Its size as the guest sees it.
    pub fn size(&self) -> Bytes {
        match self {
            Self::Disk(disk) => disk.size,
            Self::Decrypted(container) => container.size(),
        }
    }
}

/// The disks that parsers read, by index.
#[derive(Debug, Default)]
pub struct ShownDisks(Vec<Option<ShownImage>>);

impl ShownDisks {
    /// Adds the next disk; `None` if it could not be opened.
    pub fn push(&mut self, disk: Option<ShownDisk>) {
        self.0.push(disk.map(ShownImage::Disk));
    }

    /// Adds an image with a number of its own.
    pub fn put(&mut self, image: ImageIndex, disk: ShownImage) {
        if self.0.len() <= image.0 {
            self.0.resize_with(image.0.saturating_add(1), || None);
        }
        if let Some(place) = self.0.get_mut(image.0) {
            *place = Some(disk);
        }
    }
}

impl IntoIterator for ShownDisks {
    type Item = ShownImage;
    type IntoIter = std::iter::Flatten<std::vec::IntoIter<Option<ShownImage>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}

impl ReadImages for ShownDisks {
    fn read_image(&self, index: ImageIndex, offset: Bytes, buffer: &mut [u8]) -> io::Result<()> {
        match self.0.get(index.0).and_then(Option::as_ref) {
            None => Err(past_the_end()),
            Some(ShownImage::Disk(disk)) => disk.read_exact_at(offset, buffer),
            Some(ShownImage::Decrypted(container)) => {
                let under = |map: &ExtentMap, offset: Bytes, sectors: &mut [u8]| {
                    LayerReader::new(self, map).read_exact_at(offset, sectors)
                };
                container
                    .read(offset, buffer, under)
                    .map_err(|error| match error {
                        Unreadable::Under(error) => error,
                        Unreadable::Outside => past_the_end(),
                    })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// The bytes as a plain read gives them, in any order of the reads, with holes or without.
    #[test]
    fn a_hole_is_where_nothing_is() {
        let file = tempfile::tempfile().unwrap();
        let written = [(0, 4096), (3 * MIB + 512, 1), (7 * MIB, 65_536)];
        for (at, length) in written {
            file.write_all_at(&vec![7; length], at).unwrap();
        }
        file.set_len(10 * MIB).unwrap();
        let begin = MIB / 2;
        let size = 9 * MIB;
        let other = file.try_clone().unwrap();
        let disk = ShownDisk::new(other, Bytes::new(begin), Bytes::new(size));
        let mut offsets: Vec<u64> = (0..size).step_by(WORTH_ASKING / 2).collect();
        let backwards: Vec<u64> = offsets.iter().rev().copied().collect();
        offsets.extend(backwards);
        for offset in offsets {
            for length in [512, WORTH_ASKING as u64, MIB] {
                let length = length.min(size - offset);
                let shown = disk.read_at(Bytes::new(offset), Bytes::new(length));
                let mut plain = vec![0; length as usize];
                file.read_exact_at(&mut plain, begin + offset).unwrap();
                assert!(shown.unwrap() == plain, "{length} at {offset}");
            }
        }
        let past = disk.read_at(Bytes::new(size), Bytes::new(2 * MIB));
        assert_eq!(past.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
