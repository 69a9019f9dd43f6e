//! `--format json`: one document for a run, made for scripts.
//!
//! The structs here are the schema. They are apart from the types the program works with, so that
//! those can change while the schema stays. Every key is always there, but for the two that only
//! stripes have; what is not known is null.
//! Within one `schema` number keys are only added. Texts are given as they were found; what no
//! terminal should see is written as `\u` escapes (RFC 8259, 7), which stand for the same text.

use std::time::Duration;

use serde::Serialize;

use crate::check::outcome::{LayerResult, Verdict};
use crate::layers::filesystem::{CheckRecord, Timestamp};
use crate::layers::tree::{Content, Layer, PartitionRole};
use crate::report::clock::rfc3339;
use crate::report::exit::ExitStatus;
use crate::report::model::{DiskContent, DiskReport, DomainReport};
use crate::report::text::escape_json;
use crate::report::words;
use crate::units::Bytes;

mod piece;

use piece::Piece;

/// The number of the schema; a new one when a key changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

/// The document, indented, with a newline at its end.
///
/// # Errors
///
/// None is known: all keys are strings and all numbers are finite.
pub fn render(
    reports: &[DomainReport],
    exit: ExitStatus,
    listed: bool,
) -> Result<String, serde_json::Error> {
    let document = Document {
        virt_fsck: env!("CARGO_PKG_VERSION"),
        schema: SCHEMA,
        mode: if listed { "list" } else { "check" },
        exit_status: exit.code(),
        domains: reports.iter().map(Domain::of).collect(),
    };
    serde_json::to_string_pretty(&document).map(|text| escape_json(&text) + "\n")
}

/// The whole document.
#[derive(Debug, Serialize)]
struct Document<'a> {
    /// The version of virt-fsck.
    virt_fsck: &'static str,
    /// [`SCHEMA`].
    schema: u32,
    /// `check`, or `list` for `--list`.
    mode: &'static str,
    /// The exit status of the run.
    exit_status: u8,
    /// One for each domain, in the order they were asked for.
    domains: Vec<Domain<'a>>,
}

/// One domain or bare image.
#[derive(Debug, Serialize)]
struct Domain<'a> {
    /// Its name; for a bare image its path.
    name: &'a str,
    /// Its UUID.
    uuid: Option<String>,
    /// Where it was read from.
    origin: &'a str,
    /// The answer for the whole domain if no disk was looked at, else null.
    verdict: Option<&'static str>,
    /// The reason of that verdict.
    reason: Option<&'a str>,
    /// How long it took.
    seconds: f64,
    /// Remarks.
    notes: &'a [String],
    /// In the order of the XML.
    disks: Vec<Disk<'a>>,
    /// With `--dry-run` the steps a check would take, as commands.
    plan: &'a [String],
    /// Results of layers that stand in no disk's tree; empty but for defects of virt-fsck.
    unplaced: Vec<Unplaced<'a>>,
}

/// A result without a layer.
#[derive(Debug, Serialize)]
struct Unplaced<'a> {
    /// The layer's place.
    path: &'a str,
    /// Its result.
    result: CheckResult<'a>,
}

/// One disk.
#[derive(Debug, Serialize)]
struct Disk<'a> {
    /// `vda`.
    target: &'a str,
    /// Where its image is; null for an empty drive.
    source: Option<&'a str>,
    /// `qcow2`.
    format: &'a str,
    /// Its size as the guest sees it; null if it was not opened.
    size_bytes: Option<u64>,
    /// The answer for the disk if it was not opened, else null.
    verdict: Option<&'static str>,
    /// The reason of that verdict.
    reason: Option<&'a str>,
    /// Remarks.
    notes: &'a [String],
    /// What came of `qemu-img check`; null where the format has no check, or nobody came so far.
    image_check: Option<CheckResult<'a>>,
    /// The whole disk as a layer; null if it was not opened.
    layer: Option<LayerNode<'a>>,
}

/// One layer.
#[derive(Debug, Serialize)]
struct LayerNode<'a> {
    /// Its place, as the command line takes it: `vda/p2/lvg1/lvroot`.
    path: &'a str,
    /// `partition-table`, `lvm-physical-volume`, `raid-member`, `filesystem`, `swap`, `journal`,
    /// `opaque`, `blank`, `unknown`, `unreadable`.
    #[serde(rename = "type")]
    content_type: &'static str,
    /// Which one: `gpt`, `dos`, `lvm2`, `RAID 1`, `ext4`, `swap`, `LUKS2`; null for the last three types.
    kind: Option<&'a str>,
    /// UUID or serial number, as blkid(8) or LVM writes it.
    uuid: Option<&'a str>,
    /// The label.
    label: Option<&'a str>,
    /// Where it begins on its disk; null if it lies in several pieces.
    offset_bytes: Option<u64>,
    /// Its length.
    size_bytes: u64,
    /// Where its bytes lie, in their order.
    extents: Vec<Piece<'a>>,
    /// What the partition table says; null for what is no partition.
    partition: Option<Partition<'a>>,
    /// The volume group of a physical volume.
    volume_group: Option<&'a str>,
    /// Of a LUKS container.
    cipher: Option<&'a str>,
    /// The name of a RAID member's array, as below `/dev`.
    array: Option<&'a str>,
    /// The sector size a partition table was read with.
    sector_bytes: Option<u32>,
    /// The size of a filesystem by its superblock.
    filesystem_size_bytes: Option<u64>,
    /// What a filesystem remembers; null for other layers.
    record: Option<Record>,
    /// The signature of a suspended system's memory in swap space.
    hibernated: Option<&'a str>,
    /// Why it cannot be looked into (`opaque`) or read (`unreadable`).
    reason: Option<&'a str>,
    /// Remarks on the layer.
    notes: &'a [String],
    /// What came of the check; null for layers that have no answer of their own, and with `--list`.
    result: Option<CheckResult<'a>>,
    /// The layers inside.
    children: Vec<LayerNode<'a>>,
}

/// What a partition table says of a partition.
#[derive(Debug, Serialize)]
struct Partition<'a> {
    /// A GUID, or `0x83`.
    #[serde(rename = "type")]
    type_code: &'a str,
    /// The type in words, where it is well known.
    type_name: Option<&'a str>,
    /// GPT's name.
    name: Option<&'a str>,
}

/// What a filesystem remembers of mounts and checks.
#[derive(Debug, Serialize)]
struct Record {
    /// RFC 3339, UTC.
    last_check: Option<String>,
    /// Mounts since then.
    mount_count: Option<u32>,
    /// Mounts after which a check is due; null if never.
    max_mount_count: Option<u32>,
    /// When a check is due by time, RFC 3339, UTC; null if never.
    next_check: Option<String>,
    /// It was not cleanly unmounted.
    dirty: Option<bool>,
    /// Errors were found while it was mounted.
    has_errors: Option<bool>,
    /// The primary superblock is damaged.
    primary_damaged: bool,
    /// How many devices it spans, for filesystems that may span several.
    devices: Option<u64>,
}

/// What came of a check.
#[derive(Debug, Serialize)]
struct CheckResult<'a> {
    /// `clean`, `corrected`, `errors-left`, `not-checked`, `failed`, `nothing-to-check`,
    /// `refused`, `interrupted`.
    verdict: &'static str,
    /// Why, for the verdicts that need a reason.
    reason: Option<&'a str>,
    /// `e2fsck`; null if none ran.
    checker: Option<&'a str>,
    /// The checker's own exit status.
    exit_code: Option<i32>,
    /// How long the checker ran.
    seconds: f64,
    /// What it said.
    output: &'a str,
    /// Remarks on the check.
    notes: &'a [String],
}

impl<'a> Domain<'a> {
    fn of(report: &'a DomainReport) -> Self {
        let placed: std::collections::BTreeSet<_> = report
            .disks
            .iter()
            .filter_map(|disk| match &disk.content {
                DiskContent::Opened(root) => Some(root.walk()),
                DiskContent::NotOpened(_) => None,
            })
            .flatten()
            .map(|layer| &layer.path)
            .collect();
        let unplaced = report
            .results
            .iter()
            .filter(|(path, _)| !placed.contains(path))
            .map(|(path, result)| Unplaced {
                path: path.as_str(),
                result: CheckResult::of(result),
            });
        Self {
            name: &report.domain,
            uuid: report.uuid.map(|uuid| uuid.to_string()),
            origin: &report.origin,
            verdict: report.verdict.as_ref().map(verdict_name),
            reason: report.verdict.as_ref().and_then(Verdict::reason),
            seconds: seconds(report.duration),
            notes: &report.notes,
            disks: report
                .disks
                .iter()
                .map(|disk| Disk::of(disk, report))
                .collect(),
            plan: &report.plan,
            unplaced: unplaced.collect(),
        }
    }
}

impl<'a> Disk<'a> {
    fn of(disk: &'a DiskReport, report: &'a DomainReport) -> Self {
        let (verdict, layer) = match &disk.content {
            DiskContent::Opened(root) => (None, Some(LayerNode::of(root, report))),
            DiskContent::NotOpened(verdict) => (Some(verdict), None),
        };
        Self {
            target: &disk.target,
            source: disk.source.as_deref(),
            format: &disk.format,
            size_bytes: disk.size.map(Bytes::get),
            verdict: verdict.map(verdict_name),
            reason: verdict.and_then(Verdict::reason),
            notes: &disk.notes,
            image_check: disk.image.as_ref().map(CheckResult::of),
            layer,
        }
    }
}

impl<'a> LayerNode<'a> {
    fn of(layer: &'a Layer, report: &'a DomainReport) -> Self {
        let mut node = Self {
            path: layer.path.as_str(),
            content_type: "unknown",
            kind: None,
            uuid: words::uuid(&layer.content),
            label: words::label(&layer.content),
            offset_bytes: layer.extents.single().map(|extent| extent.offset.get()),
            size_bytes: layer.size().get(),
            extents: layer
                .extents
                .pieces()
                .iter()
                .map(|piece| Piece::of(piece, report))
                .collect(),
            partition: layer.role.as_ref().map(Partition::of),
            volume_group: None,
            cipher: None,
            array: None,
            sector_bytes: None,
            filesystem_size_bytes: None,
            record: None,
            hibernated: None,
            reason: words::reason(&layer.content),
            notes: &layer.notes,
            result: report.results.get(&layer.path).map(CheckResult::of),
            children: layer
                .children
                .iter()
                .map(|child| Self::of(child, report))
                .collect(),
        };
        node.fill(&layer.content);
        node
    }

    /// The keys that depend on what the layer is.
    fn fill(&mut self, content: &'a Content) {
        match content {
            Content::PartitionTable {
                scheme,
                sector_size,
                ..
            } => {
                self.content_type = "partition-table";
                self.kind = Some(scheme.name());
                self.sector_bytes = Some(sector_size.get());
            }
            Content::PhysicalVolume { volume_group, .. } => {
                self.content_type = "lvm-physical-volume";
                self.kind = Some("lvm2");
                self.volume_group = volume_group.as_deref();
            }
            Content::RaidMember { array, level, .. } => {
                self.content_type = "raid-member";
                self.kind = Some(level);
                self.array = Some(array);
            }
            Content::Filesystem(filesystem) => {
                self.content_type = "filesystem";
                self.kind = Some(filesystem.kind.name());
                self.filesystem_size_bytes = filesystem.size.map(Bytes::get);
                self.record = Some(Record::of(&filesystem.record));
            }
            Content::Swap { hibernated, .. } => {
                self.content_type = "swap";
                self.kind = Some("swap");
                self.hibernated = hibernated.as_deref();
            }
            Content::Opaque { what, .. } => {
                self.content_type = "opaque";
                self.kind = Some(what);
            }
            Content::Luks {
                version, cipher, ..
            } => {
                self.content_type = match content.is_closed() {
                    true => "opaque",
                    false => "luks",
                };
                self.kind = Some(version.name());
                self.cipher = Some(cipher);
            }
            Content::Journal { kind, .. } => {
                self.content_type = "journal";
                self.kind = Some(kind.name());
            }
            Content::Dormant { by, .. } => {
                self.content_type = "opaque";
                self.kind = Some(by.what());
            }
            Content::Pool { what, .. } => {
                self.content_type = "pool";
                self.kind = Some(what);
            }
            Content::Blank => self.content_type = "blank",
            Content::Unknown => self.content_type = "unknown",
            Content::Unreadable { .. } => self.content_type = "unreadable",
        }
    }
}

impl<'a> Partition<'a> {
    fn of(role: &'a PartitionRole) -> Self {
        Self {
            type_code: &role.type_code,
            type_name: role.type_name,
            name: role.name.as_deref(),
        }
    }
}

impl Record {
    fn of(record: &CheckRecord) -> Self {
        let time = |time: Option<Timestamp>| time.and_then(rfc3339);
        Self {
            last_check: time(record.last_check),
            mount_count: record.mount_count,
            max_mount_count: record.max_mount_count,
            next_check: time(record.next_check),
            dirty: record.dirty,
            has_errors: record.has_errors,
            primary_damaged: record.primary_damaged,
            devices: record.devices,
        }
    }
}

impl<'a> CheckResult<'a> {
    fn of(result: &'a LayerResult) -> Self {
        Self {
            verdict: verdict_name(&result.verdict),
            reason: result.verdict.reason(),
            checker: result.checker,
            exit_code: result.exit_code,
            seconds: seconds(result.duration),
            output: &result.output,
            notes: &result.notes,
        }
    }
}

/// A verdict's name in the schema.
const fn verdict_name(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Clean => "clean",
        Verdict::Corrected => "corrected",
        Verdict::ErrorsLeft => "errors-left",
        Verdict::NotChecked(_) => "not-checked",
        Verdict::Failed(_) => "failed",
        Verdict::NothingToCheck(_) => "nothing-to-check",
        Verdict::Refused(_) => "refused",
        Verdict::Interrupted => "interrupted",
    }
}

/// Seconds, to the millisecond.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests;
