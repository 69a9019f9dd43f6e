//! Bytes that lie in turns over several places.

use std::sync::Arc;

use serde::Serialize;

use super::{Extent, ExtentMap, ImageIndex};
use crate::units::Bytes;

/// How many columns there may be: LVM's own limit (`MAX_STRIPES`, lib/metadata/metadata-exported.h).
pub const MAX_COLUMNS: usize = 128;

/// Whole rows of stripes: the first stripe of each column in the order of the columns, then the
/// second one of each. Columns are of one length, a multiple of the stripe size, and none is empty.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Striped {
    /// Where the columns begin: 2 to [`MAX_COLUMNS`]. A map that is sliced shares them.
    #[serde(serialize_with = "serialize")]
    columns: Arc<[Column]>,
    column_length: Bytes,
    stripe_size: Bytes,
}

/// Where a column begins; its bytes up to the column's length are offsets without overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
struct Column {
    image: ImageIndex,
    offset: Bytes,
}

fn serialize<S: serde::Serializer>(
    columns: &Arc<[Column]>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    columns.as_ref().serialize(serializer)
}

/// Why columns cannot be striped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StripesFault {
    /// Fewer than two, or more than [`MAX_COLUMNS`].
    #[error("{0} stripes, where there are 2 to {MAX_COLUMNS}")]
    Count(usize),
    /// One is longer than another.
    #[error("stripes of different lengths")]
    Uneven,
    /// Zero, or a column does not end with a stripe.
    #[error("a stripe size of {stripe} bytes, which does not divide {column} bytes", stripe = .stripe_size.get(), column = .column.get())]
    StripeSize {
        /// The stripe size.
        stripe_size: Bytes,
        /// The length of the columns.
        column: Bytes,
    },
    /// An offset or the sum of the lengths is past 2^64, or there are no bytes.
    #[error("stripes of an impossible length")]
    Length,
}

impl Striped {
    /// The columns, in turns of `stripe_size` bytes.
    ///
    /// # Errors
    /// [`StripesFault`] if these are no whole rows of stripes.
    pub fn new(columns: &[Extent], stripe_size: Bytes) -> Result<Self, StripesFault> {
        let count = columns.len();
        let first = columns.first().ok_or(StripesFault::Count(count))?;
        if !(2..=MAX_COLUMNS).contains(&count) {
            return Err(StripesFault::Count(count));
        }
        let column_length = first.length;
        if columns.iter().any(|column| column.length != column_length) {
            return Err(StripesFault::Uneven);
        }
        let total = column_length.checked_mul(count as u64);
        let ends = |column: &Extent| column.offset.checked_add(column_length).is_some();
        if column_length == Bytes::ZERO || total.is_none() || !columns.iter().all(ends) {
            return Err(StripesFault::Length);
        }
        if column_length.get().checked_rem(stripe_size.get()) != Some(0) {
            return Err(StripesFault::StripeSize {
                stripe_size,
                column: column_length,
            });
        }
        Ok(Self {
            columns: columns
                .iter()
                .map(|column| Column {
                    image: column.image,
                    offset: column.offset,
                })
                .collect(),
            column_length,
            stripe_size,
        })
    }

    /// The columns, in the order of their turns; all of one length.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = Extent> + '_ {
        self.columns.iter().map(|column| Extent {
            image: column.image,
            offset: column.offset,
            length: self.column_length,
        })
    }

    /// How many bytes one column has before it is the next one's turn; never zero.
    pub fn stripe_size(&self) -> Bytes {
        self.stripe_size
    }

    /// How many bytes there are in all columns.
    pub fn length(&self) -> Bytes {
        Bytes::new(self.column_length.get().saturating_mul(self.count()))
    }

    fn count(&self) -> u64 {
        self.columns.len() as u64
    }

    fn row(&self) -> u64 {
        self.stripe_size.get().saturating_mul(self.count())
    }

    /// From byte `at` to the end of its stripe; `None` past the last byte.
    pub(super) fn run_at(&self, at: u64) -> Option<Extent> {
        if at >= self.length().get() {
            return None;
        }
        let stripe = self.stripe_size.get();
        let number = at.checked_div(stripe)?;
        let within = at.checked_rem(stripe)?;
        let row = number.checked_div(self.count())?;
        let column = usize::try_from(number.checked_rem(self.count())?).ok()?;
        let column = self.columns.get(column)?;
        let skipped = row.checked_mul(stripe)?.checked_add(within)?;
        Some(Extent {
            image: column.image,
            offset: column.offset.checked_add(Bytes::new(skipped))?,
            length: Bytes::new(stripe.saturating_sub(within)),
        })
    }

    /// Appends `length` bytes from `offset`: the whole rows as such, what there is of a row before
    /// and after them as runs. At most two rows come apart.
    pub(super) fn slice_into(&self, part: &mut ExtentMap, offset: Bytes, length: Bytes) {
        let from = offset.get();
        let to = from.saturating_add(length.get());
        let row = self.row();
        let first = from.div_ceil(row).saturating_mul(row);
        let last = to.checked_div(row).unwrap_or(0).saturating_mul(row);
        match self.rows(first, last) {
            Some(rows) => {
                self.runs_into(part, from, first);
                part.push_striped(rows);
                self.runs_into(part, last, to);
            }
            None => self.runs_into(part, from, to),
        }
    }

    /// The rows that begin at byte `first` and end at byte `last`; `None` if there are none.
    fn rows(&self, first: u64, last: u64) -> Option<Self> {
        if first == 0 && last == self.length().get() {
            return Some(self.clone());
        }
        let skipped = Bytes::new(first.checked_div(self.count())?);
        let length = last
            .checked_sub(first)
            .filter(|length| *length > 0)?
            .checked_div(self.count())?;
        let columns = self.columns.iter().map(|column| {
            Some(Column {
                image: column.image,
                offset: column.offset.checked_add(skipped)?,
            })
        });
        Some(Self {
            columns: columns.collect::<Option<_>>()?,
            column_length: Bytes::new(length),
            stripe_size: self.stripe_size,
        })
    }

    fn runs_into(&self, part: &mut ExtentMap, from: u64, to: u64) {
        let mut at = from;
        while at < to
            && let Some(run) = self.run_at(at)
        {
            let length = run.length.get().min(to.saturating_sub(at));
            part.push(Extent {
                length: Bytes::new(length),
                ..run
            });
            at = at.saturating_add(length);
        }
    }
}
