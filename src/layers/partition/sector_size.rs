//! Tables that were written for sectors of another size than the guest sees.

use std::io;

use crate::layers::lvm;
use crate::layers::partition::gpt;
use crate::layers::partition::mbr::Record;
use crate::layers::partition::span::{Notes, Span};
use crate::layers::partition::window::Window;
use crate::layers::read::ReadAt;
use crate::layers::signature::{Signature, recognise};
use crate::units::{Bytes, SectorSize};

/// So many partitions are looked into; what is wrong for one is wrong for all.
const ENOUGH: usize = 8;

fn others(given: SectorSize) -> impl Iterator<Item = SectorSize> {
    [SectorSize::S512, SectorSize::S4096]
        .into_iter()
        .filter(move |other| *other != given)
}

/// The size for which a sound GPT header lies where it belongs.
///
/// # Errors
/// If the disk cannot be read.
pub(super) fn of_gpt(disk: &dyn ReadAt, given: SectorSize) -> io::Result<Option<SectorSize>> {
    for other in others(given) {
        if gpt::has_header(disk, other)? {
            return Ok(Some(other));
        }
    }
    Ok(None)
}

/// The size for which the partitions of an MBR fit what they hold, if by the guest's size none of
/// them, which are `spans`, holds anything. The record itself does not tell.
///
/// # Errors
/// If the disk cannot be read.
pub(super) fn of_mbr(
    disk: &dyn ReadAt,
    record: &Record,
    given: SectorSize,
    spans: &[Span],
) -> io::Result<Option<SectorSize>> {
    if spans.is_empty() || any(disk, spans, holds_something)? {
        return Ok(None);
    }
    for other in others(given) {
        // What is wrong with the chain by that size is of no interest.
        let (spans, _) = record.partitions(disk, other, &mut Notes::default())?;
        if spans.iter().all(|span| span.end <= disk.size()) && any(disk, &spans, is_filled)? {
            return Ok(Some(other));
        }
    }
    Ok(None)
}

fn any(
    disk: &dyn ReadAt,
    spans: &[Span],
    question: fn(&Window<'_>) -> io::Result<bool>,
) -> io::Result<bool> {
    let inside = |span: &&Span| span.start > Bytes::ZERO && span.start < disk.size();
    for span in spans.iter().filter(inside).take(ENOUGH) {
        let length = span.end.saturating_sub(span.start);
        if question(&Window::new(disk, span.start, length))? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn holds_something(part: &Window<'_>) -> io::Result<bool> {
    Ok(recognise(part)?.is_some() || matches!(lvm::read(part), Ok(Some(_))))
}

/// Whether what lies there was made for a partition of about this length: where the partitions of
/// another size would begin, something may begin by chance, or be left over.
fn is_filled(part: &Window<'_>) -> io::Result<bool> {
    let size = match recognise(part)? {
        Some(Signature::Filesystem(filesystem)) => filesystem.size,
        Some(_) => None,
        None => match lvm::read(part) {
            Ok(Some(volume)) => Some(volume.device_size),
            _ => None,
        },
    };
    let length = part.size().get();
    Ok(size.is_some_and(|size| size.get() <= length && size.get() >= length / 2))
}
