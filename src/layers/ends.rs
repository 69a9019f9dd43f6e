//! A layer whose two ends are read once, however often they are asked for.
//!
//! Nearly all that tells what a layer is stands at its beginning or at its end, in many small
//! places; each read goes through another process.

use std::cell::OnceCell;
use std::io;

use crate::layers::read::ReadAt;
use crate::units::Bytes;

/// All superblocks at the beginning lie inside, ZFS's two labels too.
pub(in crate::layers) const HEAD: Bytes = Bytes::kib(512);

/// A layer is called blank by its first MiB.
const AFTER_HEAD: Bytes = Bytes::kib(512);

/// MD's oldest superblock begins in the last but one such piece, and those of the mainboards' RAID
/// behind it.
const TAIL: u64 = 64 * 1024;

/// A layer, and what was read of its ends.
pub(super) struct Ends<'a> {
    layer: &'a dyn ReadAt,
    windows: [Window; 3],
}

struct Window {
    start: u64,
    length: u64,
    /// `None` within: it cannot be read as a whole.
    bytes: OnceCell<Option<Vec<u8>>>,
}

impl<'a> Ends<'a> {
    /// Nothing is read yet.
    pub(super) fn new(layer: &'a dyn ReadAt) -> Self {
        let size = layer.size().get();
        let head = size.min(HEAD.get());
        let after = size.saturating_sub(head).min(AFTER_HEAD.get());
        let tail = (size & !(TAIL - 1)).saturating_sub(TAIL);
        let window = |start: u64, length: u64| Window {
            start,
            length,
            bytes: OnceCell::new(),
        };
        Self {
            layer,
            windows: [
                window(0, head),
                window(head, after),
                window(tail, size.saturating_sub(tail)),
            ],
        }
    }
}

impl Window {
    /// The bytes that a read of `length` wants, if they all lie in the window and it can be read.
    fn part(&self, layer: &dyn ReadAt, offset: Bytes, length: Bytes) -> Option<&[u8]> {
        let from = offset.get().checked_sub(self.start)?;
        let to = from.checked_add(length.get())?;
        if to > self.length {
            return None;
        }
        let read = || {
            let start = Bytes::new(self.start);
            layer.read_at(start, Bytes::new(self.length)).ok()
        };
        let bytes = self.bytes.get_or_init(read).as_ref()?;
        bytes.get(usize::try_from(from).ok()?..usize::try_from(to).ok()?)
    }
}

impl ReadAt for Ends<'_> {
    fn size(&self) -> Bytes {
        self.layer.size()
    }

    fn held(&self, offset: Bytes, length: Bytes) -> Option<&[u8]> {
        let mut windows = self.windows.iter();
        windows.find_map(|window| window.part(self.layer, offset, length))
    }

    fn read_exact_at(&self, offset: Bytes, buffer: &mut [u8]) -> io::Result<()> {
        match self.held(offset, Bytes::new(buffer.len() as u64)) {
            Some(part) => buffer.copy_from_slice(part),
            // In the middle, or a bad sector lies near: it need not be among these.
            None => self.layer.read_exact_at(offset, buffer)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// Its bytes tell where they stand; those at `bad` cannot be read.
    struct Disk {
        size: u64,
        bad: Option<u64>,
        reads: RefCell<Vec<(u64, usize)>>,
    }

    impl ReadAt for Disk {
        fn size(&self) -> Bytes {
            Bytes::new(self.size)
        }

        fn read_exact_at(&self, offset: Bytes, buffer: &mut [u8]) -> io::Result<()> {
            let offset = offset.get();
            let end = offset + buffer.len() as u64;
            if end > self.size {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if self.bad.is_some_and(|bad| (offset..end).contains(&bad)) {
                return Err(io::Error::other("a bad sector"));
            }
            self.reads.borrow_mut().push((offset, buffer.len()));
            for (at, byte) in (offset..).zip(buffer) {
                *byte = (at / 512 % 251) as u8;
            }
            Ok(())
        }
    }

    fn disk(size: u64, bad: Option<u64>) -> Disk {
        Disk {
            size,
            bad,
            reads: RefCell::default(),
        }
    }

    fn same(disk: &Disk, ends: &Ends<'_>, offset: u64, length: u64) {
        let (offset, length) = (Bytes::new(offset), Bytes::new(length));
        let plain = disk.read_at(offset, length).map_err(|error| error.kind());
        let through = ends.read_at(offset, length).map_err(|error| error.kind());
        assert!(plain == through, "{length} at {offset}");
        if let Some(held) = ends.held(offset, length) {
            assert!(
                plain.is_ok_and(|plain| plain == held),
                "{length} at {offset}"
            );
        }
    }

    #[test]
    fn the_ends_are_read_once() {
        let disk = disk((10 << 20) + 1536, None);
        let ends = Ends::new(&disk);
        for offset in (0..1 << 20).step_by(4096) {
            ends.read_at(Bytes::new(offset), Bytes::new(512)).unwrap();
        }
        for back in [512, 1024, 1536, 65536] {
            ends.read_at(Bytes::new(disk.size - back), Bytes::new(512))
                .unwrap();
        }
        let head = 512 << 10;
        let tail = (10 << 20) - (64 << 10);
        assert_eq!(
            *disk.reads.borrow(),
            [(0, head), (head as u64, head), (tail, (64 << 10) + 1536)]
        );
    }

    #[test]
    fn every_read_gives_what_the_layer_gives() {
        for size in [0, 512, 65536, 70_000, 512 << 10, 600 << 10, 5 << 20] {
            let disk = disk(size, None);
            let ends = Ends::new(&disk);
            for offset in [
                0,
                1,
                511,
                65535,
                (512 << 10) - 1,
                512 << 10,
                1 << 20,
                2 << 20,
            ] {
                for length in [0, 1, 512, 65537, 1 << 20] {
                    same(&disk, &ends, offset, length);
                    same(&disk, &ends, size.saturating_sub(offset), length);
                }
            }
        }
    }

    #[test]
    fn a_bad_sector_is_missed_only_where_it_is_asked_for() {
        let disk = disk(4 << 20, Some(4096));
        let ends = Ends::new(&disk);
        same(&disk, &ends, 0, 512);
        same(&disk, &ends, 4096, 512);
        assert!(ends.read_at(Bytes::new(4096), Bytes::new(512)).is_err());
    }
}
