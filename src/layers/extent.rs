//! Where the bytes of a layer lie: ordered segments of the domain's images.

use crate::units::Bytes;

/// Which image of the domain, counted in the order of its disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct ImageIndex(pub usize);

/// One contiguous run of bytes of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Extent {
    /// The image that holds the run.
    pub image: ImageIndex,
    /// Where it begins, in bytes of the image as the guest sees it.
    pub offset: Bytes,
    /// How many bytes it has; never zero inside an [`ExtentMap`].
    pub length: Bytes,
}

/// A layer as ordered extents. It says nothing about how it will be realised.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct ExtentMap {
    extents: Vec<Extent>,
}

/// A part was asked for that the layer does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{length} bytes at byte {offset} lie outside a layer of {size} bytes", length = .length.get(), offset = .offset.get(), size = .size.get())]
pub struct OutOfRange {
    /// The first byte asked for.
    pub offset: Bytes,
    /// How many were asked for.
    pub length: Bytes,
    /// How many the layer has.
    pub size: Bytes,
}

impl ExtentMap {
    /// All `size` bytes of one image.
    pub fn whole(image: ImageIndex, size: Bytes) -> Self {
        let mut map = Self::default();
        map.push(Extent {
            image,
            offset: Bytes::ZERO,
            length: size,
        });
        map
    }

    /// The extents, in the order of the layer's bytes.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// The one extent of a contiguous layer; `None` if there are several or none.
    pub fn single(&self) -> Option<Extent> {
        match self.extents.as_slice() {
            [only] => Some(*only),
            _ => None,
        }
    }

    /// The layer's length in bytes.
    pub fn size(&self) -> Bytes {
        self.extents.iter().fold(Bytes::ZERO, |sum, extent| {
            Bytes::new(sum.get().saturating_add(extent.length.get()))
        })
    }

    /// Appends an extent; one that continues the last is joined to it, an empty one is left out.
    pub fn push(&mut self, extent: Extent) {
        if extent.length == Bytes::ZERO {
            return;
        }
        if let Some(last) = self.extents.last_mut()
            && last.image == extent.image
            && last.offset.checked_add(last.length) == Some(extent.offset)
            && let Some(joined) = last.length.checked_add(extent.length)
        {
            last.length = joined;
            return;
        }
        self.extents.push(extent);
    }

    /// Appends all extents of another map.
    pub fn append(&mut self, other: &Self) {
        for extent in &other.extents {
            self.push(*extent);
        }
    }

    /// The part of `length` bytes from `offset`, as a map of its own.
    ///
    /// # Errors
    /// [`OutOfRange`] if any byte of it lies outside the layer.
    pub fn slice(&self, offset: Bytes, length: Bytes) -> Result<Self, OutOfRange> {
        let size = self.size();
        let outside = OutOfRange {
            offset,
            length,
            size,
        };
        let end = offset.checked_add(length).ok_or(outside)?;
        if end > size {
            return Err(outside);
        }
        let mut part = Self::default();
        let mut start = Bytes::ZERO;
        for extent in &self.extents {
            let stop = start.checked_add(extent.length).ok_or(outside)?;
            let from = start.max(offset);
            let to = stop.min(end);
            if from < to {
                part.push(Extent {
                    image: extent.image,
                    offset: extent
                        .offset
                        .checked_add(from.saturating_sub(start))
                        .ok_or(outside)?,
                    length: to.saturating_sub(from),
                });
            }
            start = stop;
        }
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(image: usize, offset: u64, length: u64) -> Extent {
        Extent {
            image: ImageIndex(image),
            offset: Bytes::new(offset),
            length: Bytes::new(length),
        }
    }

    fn map(extents: &[Extent]) -> ExtentMap {
        let mut map = ExtentMap::default();
        for extent in extents {
            map.push(*extent);
        }
        map
    }

    #[test]
    fn adjacent_extents_are_joined_and_empty_ones_left_out() {
        let joined = map(&[extent(0, 0, 10), extent(0, 10, 5), extent(1, 15, 0)]);
        assert_eq!(joined.single(), Some(extent(0, 0, 15)));
        let apart = map(&[extent(0, 0, 10), extent(1, 10, 5)]);
        assert_eq!(apart.single(), None);
        assert_eq!(apart.size(), Bytes::new(15));
    }

    #[test]
    fn a_slice_crosses_extents() {
        let whole = map(&[extent(0, 100, 10), extent(1, 0, 10), extent(0, 0, 10)]);
        let part = whole.slice(Bytes::new(5), Bytes::new(20)).unwrap();
        assert_eq!(
            part.extents(),
            [extent(0, 105, 5), extent(1, 0, 10), extent(0, 0, 5)]
        );
    }

    #[test]
    fn a_slice_outside_is_refused() {
        let whole = map(&[extent(0, 100, 10)]);
        assert!(whole.slice(Bytes::new(5), Bytes::new(6)).is_err());
        assert!(whole.slice(Bytes::new(u64::MAX), Bytes::new(2)).is_err());
        assert!(whole.slice(Bytes::new(10), Bytes::ZERO).is_ok());
    }
}
