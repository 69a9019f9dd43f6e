//! The words for layers, verdicts and times that people read.

use std::time::Duration;

use crate::check::outcome::Verdict;
use crate::layers::dormant::Opener;
use crate::layers::extent::{Extent, ExtentMap, ImageIndex, Piece};
use crate::layers::tree::{Closed, Content, Layer, LayerPath};
use crate::report::model::{DiskReport, DomainReport};
use crate::report::outline::{Line, Span};
use crate::report::style::{Paint, Style};
use crate::units::Bytes;

/// Labels are cut at this many columns; ext has 16 bytes, GPT names 36 characters, others 256.
const LABEL_WIDTH: usize = 32;

/// `1 disk`, `2 disks`; for nouns whose plural ends in s.
pub(super) fn count(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// `0.3 s`, `2 min 5 s`, `3 h 20 min`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        // So that no time is rounded up to "60.0 s".
        0..60 => format!("{seconds}.{} s", duration.subsec_millis() / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// The colour of a verdict.
pub(super) const fn verdict_paint(verdict: &Verdict) -> Paint {
    match verdict {
        Verdict::Clean => Paint::Good,
        Verdict::Corrected | Verdict::Interrupted => Paint::Warn,
        Verdict::ErrorsLeft | Verdict::Failed(_) | Verdict::Refused(_) => Paint::Bad,
        Verdict::NotChecked(_) => Paint::Open,
        Verdict::NothingToCheck(_) => Paint::Dim,
    }
}

/// What a layer is.
pub(super) fn kind(layer: &Layer) -> String {
    let role = layer.role.as_ref().filter(|role| role.holds_boot_code);
    match (&layer.content, role) {
        (Content::Blank | Content::Unknown, Some(role)) => {
            role.type_name.unwrap_or("boot code").to_owned()
        }
        (Content::PartitionTable { scheme, .. }, _) => {
            let partitions = count(layer.children.len(), "partition");
            format!("{}, {partitions}", scheme.name())
        }
        (Content::PhysicalVolume { volume_group, .. }, _) => match volume_group {
            Some(name) => format!("LVM PV of {name}"),
            None => "LVM PV of no group".to_owned(),
        },
        (Content::RaidMember { array, level, .. }, _) => format!("{level} member of {array}"),
        (Content::Filesystem(filesystem), _) => filesystem.kind.name().to_owned(),
        (Content::Swap { hibernated, .. }, _) => match hibernated {
            Some(_) => "swap, hibernated".to_owned(),
            None => "swap".to_owned(),
        },
        (Content::Opaque { what, .. } | Content::Pool { what, .. }, _) => what.clone(),
        (Content::Luks { version, .. }, _) => version.to_string(),
        (Content::Journal { kind, .. }, _) => kind.name().to_owned(),
        (Content::Dormant { by, .. }, _) => by.what().to_owned(),
        (Content::Blank, None) => "blank".to_owned(),
        (Content::Unknown, None) => "unknown data".to_owned(),
        (Content::Unreadable { .. }, _) => "unreadable".to_owned(),
    }
}

/// The label of what is in a layer.
pub(super) fn label(content: &Content) -> Option<&str> {
    match content {
        Content::Filesystem(filesystem) => filesystem.label.as_deref(),
        Content::Swap { label, .. } => label.as_deref(),
        _ => None,
    }
}

/// The UUID of what is in a layer, as blkid(8) or LVM writes it.
pub(super) fn uuid(content: &Content) -> Option<&str> {
    match content {
        Content::Filesystem(filesystem) => filesystem.uuid.as_deref(),
        Content::PhysicalVolume { uuid, .. }
        | Content::RaidMember { uuid, .. }
        | Content::Dormant { uuid, .. }
        | Content::Pool { uuid, .. } => Some(uuid),
        Content::Swap { uuid, .. }
        | Content::Journal { uuid, .. }
        | Content::Luks { uuid, .. }
        | Content::Opaque { uuid, .. } => uuid.as_deref(),
        Content::PartitionTable { .. }
        | Content::Blank
        | Content::Unknown
        | Content::Unreadable { .. } => None,
    }
}

/// Why a layer cannot be looked into, where its content itself says so.
pub(super) fn reason(content: &Content) -> Option<&str> {
    match content {
        Content::Opaque { reason, .. } | Content::Dormant { reason, .. } => Some(reason),
        Content::Luks { closed, .. } => closed.as_ref().map(Closed::reason),
        Content::Unreadable { cause } => Some(cause),
        _ => None,
    }
}

/// A label in quotes; empty if there is none.
pub(super) fn quoted(label: Option<&str>, style: Style) -> String {
    label.map_or_else(String::new, |label| {
        style.charset().quote(label, LABEL_WIDTH)
    })
}

/// The part of a layer's path that its row shows; with the rows above it makes the whole path.
pub(super) fn name(path: &LayerPath, parent: Option<&LayerPath>) -> String {
    parent
        .map_or_else(|| path.as_str(), |parent| path.below(parent))
        .to_owned()
}

/// Where a disk's bytes come from: `qcow2  /var/lib/libvirt/images/vm1.qcow2`.
pub(super) fn source(disk: &DiskReport) -> Option<Line> {
    let source = disk.source.as_deref()?;
    let text = format!("{}  {source}", disk.format);
    Some(vec![Span::new(Paint::Dim, text)])
}

/// A remark below a row.
pub(super) fn note(note: &str) -> Line {
    vec![Span::plain(format!("note: {note}"))]
}

/// What stands below a domain's first line: why there are no answers of its disks, and notes.
pub(super) fn below_headline(report: &DomainReport) -> Vec<Line> {
    let reason = report.verdict.as_ref().and_then(Verdict::reason);
    let mut below: Vec<Line> = reason
        .map(|reason| vec![Span::plain(reason)])
        .into_iter()
        .collect();
    below.extend(report.notes.iter().map(|note| self::note(note)));
    if report.disks.is_empty() && report.verdict.is_none() {
        below.push(vec![Span::new(Paint::Dim, "no disks")]);
    }
    below
}

/// What stands below a disk's row: where it is, what is to be said of its layers, its notes.
pub(super) fn below_disk(disk: &DiskReport, of_layers: Vec<Line>) -> Vec<Line> {
    let mut below: Vec<Line> = source(disk).into_iter().collect();
    below.extend(of_layers);
    below.extend(disk.notes.iter().map(|note| self::note(note)));
    below
}

/// The first line for a domain: `vm1  qemu:///system`.
pub(super) fn headline(report: &DomainReport) -> Line {
    let mut line = vec![
        Span::new(Paint::Strong, &report.domain),
        Span::plain(format!("  {}", report.origin)),
    ];
    if let Some(verdict) = &report.verdict {
        line.push(Span::plain("  "));
        line.push(Span::new(verdict_paint(verdict), verdict.words()));
    }
    line
}

/// The target of the image with this number; images are counted as the report's disks are, and
/// after them come the volumes and arrays that LVM and MD themselves have opened.
pub(super) fn image(report: &DomainReport, image: ImageIndex) -> String {
    let opened = || match opener(report, image) {
        Some(Opener::Md) => "an array started by MD",
        Some(Opener::Luks) => "a container that was opened",
        Some(Opener::Lvm) | None => "a volume activated by LVM",
    };
    let disk = report.disks.get(image.0);
    disk.map_or_else(|| opened().to_owned(), |disk| disk.target.clone())
}

/// Who has opened the image with this number; `None` for a disk.
fn opener(report: &DomainReport, image: ImageIndex) -> Option<Opener> {
    let number = image.0.checked_sub(report.disks.len())?;
    report.opened.get(number).map(|image| image.by)
}

/// Where a layer begins, for a column of `disk`: the words of `offset` if it is one piece, with the
/// disk's name if it is another one. Empty for a whole disk.
pub(super) fn position(
    report: &DomainReport,
    disk: &DiskReport,
    extents: &ExtentMap,
    whole: bool,
    offset: impl Fn(&Extent) -> String,
) -> String {
    if whole {
        return String::new();
    }
    match (extents.single(), extents.pieces()) {
        (Some(extent), _) if let Some(by) = opener(report, extent.image) => match by {
            Opener::Luks if extent.offset == Bytes::ZERO => "decrypted".to_owned(),
            Opener::Luks => format!("decrypted {}", offset(&extent)),
            Opener::Lvm | Opener::Md => format!("through {}", by.name()),
        },
        (Some(extent), _) => {
            let target = image(report, extent.image);
            if target == disk.target {
                offset(&extent)
            } else {
                format!("{target} {}", offset(&extent))
            }
        }
        (None, []) => String::new(),
        (None, [Piece::Striped(striped)]) => format!("{} stripes", striped.columns().len()),
        (None, [Piece::Mirrored(mirrored)]) => format!("{} copies", mirrored.legs().len()),
        (None, _) => format!("{} pieces", extents.places().count()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_never_rounded_up() {
        for (millis, words) in [
            (0, "0.0 s"),
            (99, "0.0 s"),
            (1_250, "1.2 s"),
            (59_999, "59.9 s"),
            (60_000, "1 min 0 s"),
            (3_599_999, "59 min 59 s"),
            (12_000_000, "3 h 20 min"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), words);
        }
    }
}
