//! Images that are an ISO 9660 filesystem and a partitioned disk at once, as isohybrid, xorriso and
//! grub-mkrescue make them: their partitions are windows on the filesystem's own bytes.

use std::io;

use crate::layers::filesystem::FilesystemKind;
use crate::layers::partition::span::{Notes, Span};
use crate::layers::partition::window::{Window, read_inside};
use crate::layers::read::ReadAt;
use crate::layers::signature::{Signature, field, recognise};
use crate::units::Bytes;

/// Where the volume descriptors begin, the primary one first (ECMA-119, 8.4).
const DESCRIPTOR: Bytes = Bytes::kib(32);
const DESCRIPTOR_LENGTH: Bytes = Bytes::kib(2);
const MAGIC: &[u8] = b"\x01CD001";

/// What may follow the filesystem in an image of it: padding, and the backup of a GPT.
const PADDING: Bytes = Bytes::mib(1);

/// Takes out the partitions that lie in an ISO 9660 filesystem over the whole disk, which is never
/// written to: a repair in there would change a medium with checksums of its own. What follows the
/// filesystem, such as a live system's storage, stays. Tells whether the disk is nothing but the
/// filesystem.
///
/// A descriptor may also be left over from before the disk was partitioned. But then no partition
/// reaches over it, as whatever was made in one would have overwritten it, and the disk is hardly
/// as long as the filesystem.
///
/// # Errors
/// If the disk cannot be read.
pub(super) fn take_out(
    disk: &dyn ReadAt,
    spans: &mut Vec<Span>,
    notes: &mut Notes,
) -> io::Result<bool> {
    let Some(size) = size(disk)? else {
        return Ok(false);
    };
    let is_image = size <= disk.size() && disk.size().saturating_sub(size) <= PADDING;
    let covering = covered_until(disk, spans)?;
    if !is_image && covering.is_none() {
        notes.add(
            "in front of the partitions lies the descriptor of an ISO 9660 filesystem, left over \
             from an earlier use of the disk"
                .to_owned(),
        );
        return Ok(false);
    }
    let end = covering.unwrap_or_default().max(size);
    let mut inside = Vec::new();
    spans.retain_mut(|span| {
        if span.start < end && span.end <= end {
            inside.push(span.number.to_string());
            return false;
        }
        if span.start < end {
            span.held = Some("it begins in an ISO 9660 filesystem, which is read-only".to_owned());
        }
        true
    });
    if spans.is_empty() {
        return Ok(true);
    }
    notes.add(format!(
        "the disk begins with an ISO 9660 filesystem of {} bytes, which is read-only by nature; \
         what lies in it, partitions {}, is left out",
        end.get(),
        inside.join(", ")
    ));
    Ok(false)
}

/// How long the filesystem is that the disk's descriptor is of.
fn size(disk: &dyn ReadAt) -> io::Result<Option<Bytes>> {
    let Some(descriptor) = read_inside(disk, Some(DESCRIPTOR), DESCRIPTOR_LENGTH)? else {
        return Ok(None);
    };
    let blocks = field::le32(&descriptor, 80).map(u64::from);
    let block_size = field::le16(&descriptor, 128).map(u64::from);
    let size = blocks
        .zip(block_size)
        .and_then(|(count, size)| count.checked_mul(size));
    Ok(size
        .filter(|_| field::is(&descriptor, 0, MAGIC))
        .map(Bytes::new))
}

/// Where the partitions end that have the descriptor in them, and nothing that lives.
fn covered_until(disk: &dyn ReadAt, spans: &[Span]) -> io::Result<Option<Bytes>> {
    let mut end = None;
    for span in spans {
        if span.start > DESCRIPTOR || span.end <= DESCRIPTOR {
            continue;
        }
        let part = Window::new(disk, span.start, span.end.saturating_sub(span.start));
        let is_other = match recognise(&part)? {
            Some(Signature::Filesystem(found)) => found.kind != FilesystemKind::Iso9660,
            Some(_) => true,
            None => false,
        };
        if !is_other {
            end = end.max(Some(span.end));
        }
    }
    Ok(end)
}
