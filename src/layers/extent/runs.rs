//! The contiguous runs of a layer's bytes, one at a time.

use std::slice::Iter;

use super::{Extent, Piece};
use crate::units::Bytes;

/// What [`super::ExtentMap::runs`] gives. Never empty ones; neighbours may continue each other.
#[derive(Clone, Debug)]
pub struct Runs<'a> {
    current: Option<&'a Piece>,
    later: Iter<'a, Piece>,
    /// The next byte of the current piece.
    at: u64,
    /// How many bytes are still to come.
    left: u64,
}

impl<'a> Runs<'a> {
    /// `length` bytes from byte `at` of the first piece.
    pub(super) fn new(pieces: &'a [Piece], at: Bytes, length: Bytes) -> Self {
        let mut later = pieces.iter();
        Self {
            current: later.next(),
            later,
            at: at.get(),
            left: length.get(),
        }
    }
}

impl Iterator for Runs<'_> {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        if self.left == 0 {
            return None;
        }
        loop {
            let run = match self.current? {
                Piece::Run(extent) => rest_of(*extent, self.at),
                Piece::Striped(striped) => striped.run_at(self.at),
            };
            if let Some(run) = run {
                let length = run.length.get().min(self.left);
                self.at = self.at.saturating_add(length);
                self.left = self.left.saturating_sub(length);
                return Some(Extent {
                    length: Bytes::new(length),
                    ..run
                });
            }
            self.current = self.later.next();
            self.at = 0;
        }
    }
}

/// From byte `at` of it to its end.
fn rest_of(extent: Extent, at: u64) -> Option<Extent> {
    let length = extent.length.get().checked_sub(at)?;
    (length > 0).then_some(Extent {
        image: extent.image,
        offset: extent.offset.checked_add(Bytes::new(at))?,
        length: Bytes::new(length),
    })
}
