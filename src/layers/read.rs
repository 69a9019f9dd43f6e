//! Reading a layer's bytes, wherever they lie.

use std::borrow::Cow;
use std::io;

use crate::layers::extent::{ExtentMap, ImageIndex};
use crate::units::Bytes;

/// The most bytes one read of a parser may ask for. LVM's largest metadata areas hold a few MiB;
/// anything above is a hostile length field.
pub const MAX_READ: Bytes = Bytes::mib(16);

/// Something with a size whose bytes can be read at any offset.
pub trait ReadAt {
    /// How many bytes there are.
    fn size(&self) -> Bytes;

    /// Fills the whole buffer from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the buffer reaches past the end, else what the system says.
    fn read_exact_at(&self, offset: Bytes, buffer: &mut [u8]) -> io::Result<()>;

    /// `length` bytes from `offset`, if they are in memory and need not be copied.
    fn held(&self, _offset: Bytes, _length: Bytes) -> Option<&[u8]> {
        None
    }

    /// `length` bytes from `offset`: those that are held, or a new buffer.
    ///
    /// # Errors
    /// As [`ReadAt::read_at`].
    fn look_at(&self, offset: Bytes, length: Bytes) -> io::Result<Cow<'_, [u8]>> {
        match self.held(offset, length) {
            Some(held) => Ok(Cow::Borrowed(held)),
            None => self.read_at(offset, length).map(Cow::Owned),
        }
    }

    /// `length` bytes from `offset` in a new buffer.
    ///
    /// # Errors
    /// As [`ReadAt::read_exact_at`]; `InvalidInput` above [`MAX_READ`].
    fn read_at(&self, offset: Bytes, length: Bytes) -> io::Result<Vec<u8>> {
        if length > MAX_READ {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a read of {length} is more than any layer needs"),
            ));
        }
        let length = usize::try_from(length.get()).map_err(io::Error::other)?;
        let mut buffer = vec![0; length];
        self.read_exact_at(offset, &mut buffer)?;
        Ok(buffer)
    }
}

/// What a read says that ends past the end, or is of no image at all.
pub fn past_the_end() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "a read past the end of the layer",
    )
}

/// Bytes in memory are a layer too: what tests and fuzzers read.
impl ReadAt for [u8] {
    fn size(&self) -> Bytes {
        Bytes::new(self.len() as u64)
    }

    fn read_exact_at(&self, offset: Bytes, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset.get()).map_err(|_| past_the_end())?;
        let end = start.checked_add(buffer.len()).ok_or_else(past_the_end)?;
        buffer.copy_from_slice(self.get(start..end).ok_or_else(past_the_end)?);
        Ok(())
    }
}

/// The opened images of a domain, by index.
pub trait ReadImages {
    /// Fills the whole buffer from `offset` of an image.
    ///
    /// # Errors
    /// As [`ReadAt::read_exact_at`]; `UnexpectedEof` if there is no such image.
    fn read_image(&self, index: ImageIndex, offset: Bytes, buffer: &mut [u8]) -> io::Result<()>;
}

/// Reads from one of several images that stand in a row.
///
/// # Errors
/// As [`ReadImages::read_image`].
pub fn read_one_of<R: ReadAt>(
    images: &[R],
    index: ImageIndex,
    offset: Bytes,
    buffer: &mut [u8],
) -> io::Result<()> {
    let image = images.get(index.0).ok_or_else(past_the_end)?;
    image.read_exact_at(offset, buffer)
}

/// A layer's bytes, read through its extent map.
pub struct LayerReader<'a> {
    images: &'a dyn ReadImages,
    map: &'a ExtentMap,
}

impl<'a> LayerReader<'a> {
    /// Reads the layer that `map` lays out over `images`.
    pub fn new(images: &'a dyn ReadImages, map: &'a ExtentMap) -> Self {
        Self { images, map }
    }
}

impl std::fmt::Debug for LayerReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerReader")
            .field("map", self.map)
            .finish_non_exhaustive()
    }
}

impl ReadAt for LayerReader<'_> {
    fn size(&self) -> Bytes {
        self.map.size()
    }

    fn read_exact_at(&self, offset: Bytes, buffer: &mut [u8]) -> io::Result<()> {
        let runs = self
            .map
            .runs(offset, Bytes::new(buffer.len() as u64))
            .map_err(|_| past_the_end())?;
        let mut rest = buffer;
        for extent in runs {
            let length = usize::try_from(extent.length.get()).map_err(io::Error::other)?;
            let (now, later) = rest.split_at_mut_checked(length).ok_or_else(past_the_end)?;
            self.images.read_image(extent.image, extent.offset, now)?;
            rest = later;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::extent::{Extent, Striped};

    struct Two([Vec<u8>; 2]);

    impl ReadImages for Two {
        fn read_image(&self, index: ImageIndex, at: Bytes, buffer: &mut [u8]) -> io::Result<()> {
            read_one_of(&self.0, index, at, buffer)
        }
    }

    impl ReadAt for Vec<u8> {
        fn size(&self) -> Bytes {
            self.as_slice().size()
        }

        fn read_exact_at(&self, offset: Bytes, buffer: &mut [u8]) -> io::Result<()> {
            self.as_slice().read_exact_at(offset, buffer)
        }
    }

    #[test]
    fn a_read_crosses_images() {
        let images = Two([b"abcdef".to_vec(), b"123456".to_vec()]);
        let mut map = ExtentMap::default();
        for (image, offset) in [(0, 3), (1, 0)] {
            map.push(Extent {
                image: ImageIndex(image),
                offset: Bytes::new(offset),
                length: Bytes::new(3),
            });
        }
        let layer = LayerReader::new(&images, &map);
        assert_eq!(layer.size(), Bytes::new(6));
        let mut buffer = [0; 4];
        layer.read_exact_at(Bytes::new(1), &mut buffer).unwrap();
        assert_eq!(&buffer, b"ef12");
        assert!(layer.read_exact_at(Bytes::new(3), &mut buffer).is_err());
    }

    #[test]
    fn a_read_goes_through_stripes() {
        let images = Two([b"abcdef".to_vec(), b"123456".to_vec()]);
        let columns = [(0, 2), (1, 0)].map(|(image, offset)| Extent {
            image: ImageIndex(image),
            offset: Bytes::new(offset),
            length: Bytes::new(4),
        });
        let mut map = ExtentMap::default();
        map.push_striped(Striped::new(&columns, Bytes::new(2)).unwrap());
        let layer = LayerReader::new(&images, &map);
        let all = layer.read_at(Bytes::ZERO, Bytes::new(8)).unwrap();
        assert_eq!(all, b"cd12ef34");
        let part = layer.read_at(Bytes::new(1), Bytes::new(4)).unwrap();
        assert_eq!(part, b"d12e");
        assert!(layer.read_at(Bytes::new(5), Bytes::new(4)).is_err());
    }

    #[test]
    fn a_hostile_length_is_not_allocated() {
        let error = [0_u8; 4][..]
            .read_at(Bytes::ZERO, Bytes::new(u64::MAX))
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
