//! Bytes that several places have, each of them all.

use serde::Serialize;

use super::{Extent, ExtentMap, Piece};
use crate::units::Bytes;

/// How many legs there may be; people make two or three.
pub const MAX_LEGS: usize = 128;

/// How many pieces a mirror may come apart into, because its legs do.
const MAX_PIECES: usize = 8192;

/// The same bytes in several places. Reading takes the first; who writes, writes to all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Mirrored {
    /// 2 to [`MAX_LEGS`], of one length, which is not zero.
    legs: Vec<Extent>,
}

/// Why there is no mirror of these legs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MirrorFault {
    /// None, or more than [`MAX_LEGS`].
    #[error("{0} copies, where there are 1 to {MAX_LEGS}")]
    Count(usize),
    /// One is longer than another.
    #[error("copies of different lengths")]
    Uneven,
    /// A leg is striped, or a mirror itself.
    #[error("a copy that is striped or mirrored itself")]
    Nested,
    /// They lie in too many pieces.
    #[error("copies in more than {MAX_PIECES} pieces")]
    Pieces,
}

impl Mirrored {
    /// The places, the one that is read first; all of one length.
    pub fn legs(&self) -> &[Extent] {
        &self.legs
    }

    /// How many bytes a leg has.
    pub fn length(&self) -> Bytes {
        self.legs.first().map_or(Bytes::ZERO, |leg| leg.length)
    }

    /// `length` bytes from `offset`; `None` if that is past the end.
    pub(super) fn part(&self, offset: Bytes, length: Bytes) -> Option<Self> {
        let legs = self.legs.iter().map(|leg| leg.part(offset, length));
        Some(Self {
            legs: legs.collect::<Option<_>>()?,
        })
    }

    /// The two as one, if each leg of the other continues the leg of this one.
    pub(super) fn joined(&self, other: &Self) -> Option<Self> {
        if self.legs.len() != other.legs.len() {
            return None;
        }
        let pairs = self.legs.iter().zip(&other.legs);
        Some(Self {
            legs: pairs
                .map(|(leg, next)| leg.joined(next))
                .collect::<Option<_>>()?,
        })
    }
}

impl ExtentMap {
    /// Appends bytes that each of `legs` has, the first of which is read. Where a leg goes on
    /// elsewhere, a new piece begins. One leg alone is no mirror, and appended as it is.
    ///
    /// # Errors
    /// [`MirrorFault`] if they are no copies of each other that can be named so; the map has some
    /// of their pieces then.
    pub fn push_mirrored(&mut self, legs: &[&Self]) -> Result<(), MirrorFault> {
        let count = legs.len();
        let first = legs.first().ok_or(MirrorFault::Count(count))?;
        if count > MAX_LEGS {
            return Err(MirrorFault::Count(count));
        }
        if legs.iter().any(|leg| leg.size() != first.size()) {
            return Err(MirrorFault::Uneven);
        }
        if count == 1 {
            self.append(first);
            return Ok(());
        }
        let mut at = Bytes::ZERO;
        for _ in 0..MAX_PIECES {
            if at >= first.size() {
                return Ok(());
            }
            let mut rests = Vec::with_capacity(count);
            for leg in legs {
                rests.push(leg.run_from(at).ok_or(MirrorFault::Nested)?);
            }
            let shortest = rests.iter().map(|rest| rest.length).min();
            let length = shortest.unwrap_or(Bytes::ZERO);
            rests.iter_mut().for_each(|rest| rest.length = length);
            self.push_copies(Mirrored { legs: rests });
            at = at.checked_add(length).ok_or(MirrorFault::Pieces)?;
        }
        Err(MirrorFault::Pieces)
    }

    /// From a byte to the end of the run it lies in; `None` if it lies in none.
    fn run_from(&self, at: Bytes) -> Option<Extent> {
        let (pieces, into) = self.from(at);
        match pieces.first()? {
            Piece::Run(extent) => extent.part(into, extent.length.saturating_sub(into)),
            Piece::Striped(_) | Piece::Mirrored(_) => None,
        }
    }
}
