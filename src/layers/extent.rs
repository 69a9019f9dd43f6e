//! Where the bytes of a layer lie: ordered pieces of the domain's images.

use crate::units::Bytes;

mod mirrored;
mod runs;
mod striped;

pub use mirrored::{MAX_LEGS, MirrorFault, Mirrored};
pub use runs::{Copied, Copies, Runs};
pub use striped::{MAX_COLUMNS, Striped, StripesFault};

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

impl Extent {
    /// `length` bytes from `offset` of it; `None` if that is past its end.
    fn part(self, offset: Bytes, length: Bytes) -> Option<Self> {
        if offset.checked_add(length)? > self.length {
            return None;
        }
        Some(Self {
            image: self.image,
            offset: self.offset.checked_add(offset)?,
            length,
        })
    }

    /// The two as one, if `next` continues this one.
    fn joined(&self, next: &Self) -> Option<Self> {
        let continues =
            self.image == next.image && self.offset.checked_add(self.length) == Some(next.offset);
        let length = self.length.checked_add(next.length)?;
        continues.then_some(Self { length, ..*self })
    }
}

/// A part of a layer whose bytes lie by one rule.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub enum Piece {
    /// One after the other.
    Run(Extent),
    /// In turns over several places.
    Striped(Striped),
    /// In several places, each of which has all of them.
    Mirrored(Mirrored),
}

impl Piece {
    /// How many bytes it has.
    pub fn length(&self) -> Bytes {
        match self {
            Self::Run(extent) => extent.length,
            Self::Striped(striped) => striped.length(),
            Self::Mirrored(mirrored) => mirrored.length(),
        }
    }
}

/// A layer as ordered pieces. It says nothing about how it will be realised.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct ExtentMap {
    pieces: Vec<Piece>,
    /// Where each piece ends, in bytes of the layer.
    #[serde(skip)]
    ends: Vec<Bytes>,
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

impl OutOfRange {
    fn check(self) -> Result<(), Self> {
        let end = self.offset.checked_add(self.length);
        if end.is_some_and(|end| end <= self.size) {
            Ok(())
        } else {
            Err(self)
        }
    }
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

    /// The pieces, in the order of the layer's bytes.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Every place the layer takes up: each contiguous run, each column of what is striped, each
    /// leg of what is mirrored.
    pub fn places(&self) -> impl Iterator<Item = Extent> + '_ {
        self.pieces.iter().flat_map(|piece| {
            let (places, columns) = match piece {
                Piece::Run(extent) => (std::slice::from_ref(extent), None),
                Piece::Striped(striped) => (&[][..], Some(striped.columns())),
                Piece::Mirrored(mirrored) => (mirrored.legs(), None),
            };
            places.iter().copied().chain(columns.into_iter().flatten())
        })
    }

    /// The one extent of a contiguous layer; `None` if there are several or none.
    pub fn single(&self) -> Option<Extent> {
        match self.pieces.as_slice() {
            [Piece::Run(only)] => Some(*only),
            _ => None,
        }
    }

    /// The layer's length in bytes.
    pub fn size(&self) -> Bytes {
        self.ends.last().copied().unwrap_or_default()
    }

    /// Appends an extent; one that continues the last is joined to it, an empty one is left out.
    pub fn push(&mut self, extent: Extent) {
        if extent.length == Bytes::ZERO {
            return;
        }
        if let Some(Piece::Run(last)) = self.pieces.last_mut()
            && let Some(joined) = last.joined(&extent)
        {
            *last = joined;
            self.lengthen(extent.length);
            return;
        }
        self.push_piece(Piece::Run(extent));
    }

    /// Appends copies; those that continue the last ones are joined to them, as runs are.
    fn push_copies(&mut self, mirrored: Mirrored) {
        if mirrored.length() == Bytes::ZERO {
            return;
        }
        if let Some(Piece::Mirrored(last)) = self.pieces.last_mut()
            && let Some(joined) = last.joined(&mirrored)
        {
            *last = joined;
            self.lengthen(mirrored.length());
            return;
        }
        self.push_piece(Piece::Mirrored(mirrored));
    }

    /// The last piece has grown.
    fn lengthen(&mut self, more: Bytes) {
        let end = self.end_with(more);
        self.ends.pop();
        self.ends.push(end);
    }

    /// Appends rows of stripes.
    pub fn push_striped(&mut self, striped: Striped) {
        self.push_piece(Piece::Striped(striped));
    }

    fn push_piece(&mut self, piece: Piece) {
        self.ends.push(self.end_with(piece.length()));
        self.pieces.push(piece);
    }

    fn end_with(&self, more: Bytes) -> Bytes {
        Bytes::new(self.size().get().saturating_add(more.get()))
    }

    /// The pieces from the one with the byte at `offset` on, and how far into it that byte is.
    fn from(&self, offset: Bytes) -> (&[Piece], Bytes) {
        let first = self.ends.partition_point(|end| *end <= offset);
        let start = first.checked_sub(1).and_then(|last| self.ends.get(last));
        let into = offset.saturating_sub(start.copied().unwrap_or_default());
        (self.pieces.get(first..).unwrap_or_default(), into)
    }

    /// Appends all pieces of another map.
    pub fn append(&mut self, other: &Self) {
        for piece in &other.pieces {
            match piece {
                Piece::Run(extent) => self.push(*extent),
                Piece::Striped(striped) => self.push_striped(striped.clone()),
                Piece::Mirrored(mirrored) => self.push_copies(mirrored.clone()),
            }
        }
    }

    /// The part of `length` bytes from `offset`, as a map of its own. Of what is striped, the rows
    /// that it has as a whole stay striped; the stripes before and after them become runs.
    ///
    /// # Errors
    /// [`OutOfRange`] if any byte of it lies outside the layer.
    pub fn slice(&self, offset: Bytes, length: Bytes) -> Result<Self, OutOfRange> {
        let outside = self.outside(offset, length);
        outside.check()?;
        let mut part = Self::default();
        let (pieces, mut from) = self.from(offset);
        let mut left = length;
        for piece in pieces {
            if left == Bytes::ZERO {
                break;
            }
            let taken = piece.length().saturating_sub(from).min(left);
            match piece {
                Piece::Run(extent) => part.push(extent.part(from, taken).ok_or(outside)?),
                Piece::Striped(striped) => striped.slice_into(&mut part, from, taken),
                Piece::Mirrored(mirrored) => {
                    part.push_copies(mirrored.part(from, taken).ok_or(outside)?);
                }
            }
            left = left.saturating_sub(taken);
            from = Bytes::ZERO;
        }
        Ok(part)
    }

    /// The contiguous runs that the part of `length` bytes from `offset` consists of, in their
    /// order; of what is mirrored, the first copy. They are worked out one at a time: of stripes
    /// there may be millions. Who writes asks for [`ExtentMap::copies`].
    ///
    /// # Errors
    /// [`OutOfRange`] if any byte of it lies outside the layer.
    pub fn runs(&self, offset: Bytes, length: Bytes) -> Result<Runs<'_>, OutOfRange> {
        Ok(Runs(self.copies(offset, length)?))
    }

    /// The same runs, each with all places that have its bytes: whoever writes must write to
    /// every one of them.
    ///
    /// # Errors
    /// [`OutOfRange`] if any byte of it lies outside the layer.
    pub fn copies(&self, offset: Bytes, length: Bytes) -> Result<Copies<'_>, OutOfRange> {
        self.outside(offset, length).check()?;
        let (pieces, at) = self.from(offset);
        Ok(Copies::new(pieces, at, length))
    }

    fn outside(&self, offset: Bytes, length: Bytes) -> OutOfRange {
        OutOfRange {
            offset,
            length,
            size: self.size(),
        }
    }
}

#[cfg(test)]
mod tests;
