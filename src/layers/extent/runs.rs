//! The contiguous runs of a layer's bytes, one at a time.

use std::slice::Iter;

use super::{Extent, Piece};
use crate::units::Bytes;

/// What [`super::ExtentMap::runs`] gives. Never empty ones; neighbours may continue each other.
#[derive(Clone, Debug)]
pub struct Runs<'a>(pub(super) Copies<'a>);

impl Iterator for Runs<'_> {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        self.0.next().map(|run| run.place)
    }
}

/// A run of bytes, and where else they are.
#[derive(Clone, Copy, Debug)]
pub struct Copied<'a> {
    /// Where they are read.
    place: Extent,
    /// The legs of the mirror they are in, with how far into them they are.
    mirror: Option<(&'a [Extent], u64)>,
}

impl Copied<'_> {
    /// How many bytes; never zero.
    pub fn length(&self) -> Bytes {
        self.place.length
    }

    /// All places that have these bytes, the one that is read first; each of the same length.
    pub fn places(&self) -> impl Iterator<Item = Extent> + '_ {
        let (legs, at) = self.mirror.unwrap_or_default();
        let others = legs.iter().skip(1);
        let others = others.filter_map(move |leg| leg.part(Bytes::new(at), self.place.length));
        std::iter::once(self.place).chain(others)
    }
}

/// What [`super::ExtentMap::copies`] gives. Never empty ones; neighbours may continue each other.
#[derive(Clone, Debug)]
pub struct Copies<'a> {
    current: Option<&'a Piece>,
    later: Iter<'a, Piece>,
    /// The next byte of the current piece.
    at: u64,
    /// How many bytes are still to come.
    left: u64,
}

impl<'a> Copies<'a> {
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

impl<'a> Iterator for Copies<'a> {
    type Item = Copied<'a>;

    fn next(&mut self) -> Option<Copied<'a>> {
        if self.left == 0 {
            return None;
        }
        loop {
            let at = self.at;
            let (run, mirror) = match self.current? {
                Piece::Run(extent) => (rest_of(*extent, at), None),
                Piece::Striped(striped) => (striped.run_at(at), None),
                Piece::Mirrored(mirrored) => {
                    let legs = mirrored.legs();
                    let first = legs.first().and_then(|leg| rest_of(*leg, at));
                    (first, Some((legs, at)))
                }
            };
            if let Some(run) = run {
                let length = run.length.get().min(self.left);
                self.at = at.saturating_add(length);
                self.left = self.left.saturating_sub(length);
                let place = Extent {
                    length: Bytes::new(length),
                    ..run
                };
                return Some(Copied { place, mirror });
            }
            self.current = self.later.next();
            self.at = 0;
        }
    }
}

/// From byte `at` of it to its end.
fn rest_of(extent: Extent, at: u64) -> Option<Extent> {
    let length = extent.length.get().checked_sub(at)?;
    (length > 0).then_some(())?;
    extent.part(Bytes::new(at), Bytes::new(length))
}
