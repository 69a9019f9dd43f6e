//! `--list`: the tree alone, with what the layers themselves tell.

use crate::layers::extent::{Extent, Piece};
use crate::layers::filesystem::{CheckRecord, Filesystem, FilesystemKind, Timestamp};
use crate::layers::tree::{Content, Layer, LayerPath, PartitionRole};
use crate::report::clock::Clock;
use crate::report::model::{DiskContent, DiskReport, DomainReport};
use crate::report::outline::{Column, Entry, Line, Outline, Span};
use crate::report::style::{Paint, Style};
use crate::report::words;

/// How many pieces of a layer are told of; `--format json` has all.
const PIECES: usize = 8;

const COLUMNS: [Column; 6] = [
    Column::new("NAME", false, 44),
    Column::new("TYPE", false, 30),
    Column::new("LABEL", false, 34),
    Column::new("UUID", false, 40),
    Column::new("AT BYTE", true, 24),
    Column::new("SIZE", true, 12),
];

/// One domain's layers, as lines of text.
pub fn render(report: &DomainReport, style: Style, clock: &Clock) -> String {
    let lister = Lister {
        report,
        style,
        clock,
    };
    Outline {
        headline: words::headline(report),
        below: words::below_headline(report),
        columns: &COLUMNS,
        headings: true,
        entries: report.disks.iter().map(|disk| lister.disk(disk)).collect(),
        after: &report.plan,
    }
    .draw(style)
}

/// Lists one domain.
struct Lister<'a> {
    report: &'a DomainReport,
    style: Style,
    clock: &'a Clock,
}

impl Lister<'_> {
    fn disk(&self, disk: &DiskReport) -> Entry {
        let mut entry = match &disk.content {
            DiskContent::Opened(root) => self.layer(disk, root, None),
            DiskContent::NotOpened(verdict) => {
                let paint = words::verdict_paint(verdict);
                let mut why = vec![Span::new(paint, verdict.words())];
                if let Some(reason) = verdict.reason() {
                    why.push(Span::plain(format!(": {reason}")));
                }
                let mut cells = vec![Span::new(Paint::Strong, &disk.target)];
                cells.resize_with(5, Span::default);
                cells.push(Span::plain(
                    disk.size.map_or_else(String::new, |size| size.to_string()),
                ));
                Entry {
                    cells,
                    below: vec![why],
                    inside: Vec::new(),
                }
            }
        };
        entry.below = words::below_disk(disk, entry.below);
        entry
    }

    fn layer(&self, disk: &DiskReport, layer: &Layer, parent: Option<&LayerPath>) -> Entry {
        let name_paint = match parent {
            None => Paint::Strong,
            Some(_) => Paint::Plain,
        };
        let position = words::position(self.report, disk, &layer.extents, parent.is_none(), |at| {
            at.offset.get().to_string()
        });
        let label = words::label(&layer.content);
        let cells = vec![
            Span::new(name_paint, words::name(&layer.path, parent)),
            Span::plain(words::kind(layer)),
            Span::plain(words::quoted(label, self.style)),
            Span::plain(words::uuid(&layer.content).unwrap_or_default()),
            Span::plain(position),
            Span::plain(layer.size().to_string()),
        ];
        let mut below = Vec::new();
        below.extend(layer.role.as_ref().and_then(|role| self.role(role)));
        below.extend(words::reason(&layer.content).map(|reason| vec![Span::plain(reason)]));
        below.extend(self.pieces(layer));
        match &layer.content {
            Content::Filesystem(filesystem) => {
                below.extend(self.history(&filesystem.record));
                below.extend(state(filesystem));
            }
            Content::Swap {
                hibernated: Some(signature),
                ..
            } => {
                let text = format!("a suspended system's memory lies in it ({signature})");
                below.push(vec![Span::new(Paint::Bad, text)]);
            }
            _ => {}
        }
        below.extend(layer.notes.iter().map(|note| words::note(note)));
        Entry {
            cells,
            below,
            inside: layer
                .children
                .iter()
                .map(|child| self.layer(disk, child, Some(&layer.path)))
                .collect(),
        }
    }

    /// What the partition table says: `partition "root", Linux filesystem`.
    fn role(&self, role: &PartitionRole) -> Option<Line> {
        let type_name = role.type_name.unwrap_or(&role.type_code);
        let text = match &role.name {
            Some(name) => format!(
                "partition {}, type {type_name}",
                words::quoted(Some(name), self.style)
            ),
            None if type_name.is_empty() => return None,
            None => format!("partition type {type_name}"),
        };
        Some(vec![Span::new(Paint::Dim, text)])
    }

    /// Where the pieces lie of a layer that is not contiguous.
    fn pieces(&self, layer: &Layer) -> Vec<Line> {
        let pieces = layer.extents.places().count();
        if pieces < 2 {
            return Vec::new();
        }
        let mut lines: Vec<Line> = layer
            .extents
            .pieces()
            .iter()
            .flat_map(|piece| self.piece(piece))
            .take(PIECES)
            .collect();
        let more = pieces.saturating_sub(PIECES);
        if more > 0 {
            let text = format!(
                "... {} (see --format json)",
                words::count(more, "more piece")
            );
            lines.push(vec![Span::new(Paint::Dim, text)]);
        }
        lines
    }

    /// A line for each place that a piece takes up.
    fn piece<'b>(&'b self, piece: &'b Piece) -> impl Iterator<Item = Line> + 'b {
        let (run, striped, legs) = match piece {
            Piece::Run(extent) => (Some(*extent), None, &[][..]),
            Piece::Striped(striped) => (None, Some(striped), &[][..]),
            Piece::Mirrored(mirrored) => (None, None, mirrored.legs()),
        };
        let columns = striped.into_iter().flat_map(|striped| {
            let turns = format!(", in turns of {}", striped.stripe_size());
            striped.columns().map(move |column| (column, turns.clone()))
        });
        let run = run.into_iter().map(|extent| (extent, String::new()));
        let copies = move |leg: &Extent| (*leg, format!(", one of {} copies", legs.len()));
        let legs = legs.iter().map(copies);
        run.chain(columns).chain(legs).map(|(place, turns)| {
            let target = words::image(self.report, place.image);
            let at = place.offset.get();
            let text = format!("{} at byte {at} of {target}{turns}", place.length);
            vec![Span::new(Paint::Dim, text)]
        })
    }

    /// When it was checked and when it is to be checked again, for filesystems that remember.
    fn history(&self, record: &CheckRecord) -> Option<Line> {
        if record.last_check.is_none() && record.mount_count.is_none() {
            return None;
        }
        let mut line = Vec::new();
        line.push(match record.last_check {
            Some(time) if time > Timestamp(0) => {
                Span::plain(format!("last check {}", self.clock.local(time)))
            }
            _ => Span::new(Paint::Warn, "never checked"),
        });
        line.extend(record.mount_count.map(|mounts| {
            let since = match record.max_mount_count {
                Some(maximum) => format!(", {mounts} of {maximum} mounts since"),
                None => format!(", {} since", words::count(mounts as usize, "mount")),
            };
            Span::plain(since)
        }));
        line.push(Span::plain(", next check "));
        line.push(self.next_check(record));
        Some(line)
    }

    fn next_check(&self, record: &CheckRecord) -> Span {
        if record.is_due_by_its_counters(self.clock.now()) {
            return Span::new(Paint::Warn, "due now");
        }
        let date = record.next_check.map(|time| self.clock.local(time));
        let mounts = record
            .mounts_left()
            .map(|left| words::count(left as usize, "mount"));
        Span::plain(match (date, mounts) {
            (Some(date), Some(mounts)) => format!("on {date} or in {mounts}"),
            (Some(date), None) => format!("on {date}"),
            (None, Some(mounts)) => format!("in {mounts}"),
            (None, None) => "never".to_owned(),
        })
    }
}

/// What a filesystem itself says of its state.
fn state(filesystem: &Filesystem) -> Option<Line> {
    let record = &filesystem.record;
    let mut words = Vec::new();
    if record.dirty == Some(true) {
        words.push((
            Paint::Warn,
            match filesystem.kind {
                FilesystemKind::Ext3 | FilesystemKind::Ext4 => "needs journal recovery".to_owned(),
                _ => "was not cleanly unmounted".to_owned(),
            },
        ));
    }
    if record.has_errors == Some(true) {
        words.push((Paint::Bad, "has errors".to_owned()));
    }
    if record.primary_damaged {
        words.push((Paint::Bad, "primary superblock damaged".to_owned()));
    }
    if let Some(devices) = record.devices.filter(|&devices| devices > 1) {
        words.push((Paint::Plain, format!("spans {devices} devices")));
    }
    let mut line = Vec::new();
    for (paint, text) in words {
        if !line.is_empty() {
            line.push(Span::plain(", "));
        }
        line.push(Span::new(paint, text));
    }
    (!line.is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::outcome::Verdict;
    use crate::layers::extent::{ExtentMap, ImageIndex, Striped};
    use crate::report::samples::{
        CHECKED, DUE, disk, domain, everyday, fs, hostile, layer, not_opened, pv, results, swap,
        with,
    };

    use crate::units::Bytes;

    const BOXES: Style = Style {
        colour: false,
        unicode: true,
    };

    #[track_caller]
    fn shows(text: &str, expected: &str) {
        assert!(text == expected, "shown:\n{text}\nexpected:\n{expected}");
    }

    #[test]
    fn an_everyday_guest() {
        let mut report = everyday();
        report.results.clear();
        shows(
            &render(&report, BOXES, &Clock::utc(CHECKED)),
            r#"vm1  qemu:///system
NAME                  TYPE               LABEL   UUID                                       AT BYTE       SIZE
├─ vda                gpt, 3 partitions                                                               10.0 GiB
│  │  qcow2  /var/lib/libvirt/images/vda.qcow2
│  ├─ p1              vfat               "EFI"   0f3e9a52-7c1d-4b8e-9f60-1a2b3c4d5e6f       1048576  512.0 MiB
│  │     partition "esp", type EFI System
│  ├─ p2              swap                                                                537919488    1.0 GiB
│  └─ p3              LVM PV of lvg1             AbCdEf-0123-4567-89ab-cdef-0123-456789  1611661312    8.5 GiB
│     ├─ lvg1/lvroot  ext4               "root"  0f3e9a52-7c1d-4b8e-9f60-1a2b3c4d5e6f    1612709888    2.0 GiB
│     │     last check 2026-11-20 14:03, 12 of 30 mounts since, next check on 2027-05-19 14:03 or in 18 mounts
│     │     needs journal recovery, has errors
│     └─ lvg1/lvhome  ext4               "home"  0f3e9a52-7c1d-4b8e-9f60-1a2b3c4d5e6f      2 pieces   10.5 GiB
│           6.5 GiB at byte 3760193536 of vda
│           4.0 GiB at byte 1048576 of vdb
│           last check 2026-11-20 14:03, 1 mount since, next check never
├─ vdb                LVM PV of lvg1             AbCdEf-0123-4567-89ab-cdef-0123-456789               20.0 GiB
│     qcow2  /var/lib/libvirt/images/vdb.qcow2
└─ sda
      nothing to check: no medium in the drive
"#,
        );
    }

    #[test]
    fn where_copies_lie() {
        let legs = [8, 1].map(|offset| {
            let mut leg = ExtentMap::default();
            leg.push(Extent {
                image: ImageIndex(usize::from(offset == 1)),
                offset: Bytes::mib(offset),
                length: Bytes::mib(32),
            });
            leg
        });
        let mut array = layer("vda/md0", &[], Content::Blank);
        array.extents.push_mirrored(&[&legs[0], &legs[1]]).unwrap();
        let member = || Content::RaidMember {
            uuid: "0f3e9a52-7c1d-4b8e-9f60-1a2b3c4d5e6f".to_owned(),
            array: "md0".to_owned(),
            level: "RAID 1".to_owned(),
        };
        let vda = with(layer("vda", &[(0, 0, 64)], member()), vec![array]);
        let vdb = layer("vdb", &[(1, 0, 64)], member());
        let disks = vec![disk("vda", vda), disk("vdb", vdb)];
        let report = domain("vm1", disks, results(vec![]));
        shows(
            &render(&report, Style::PLAIN, &Clock::utc(CHECKED)),
            "\
vm1  qemu:///system
NAME       TYPE                  UUID                                   AT BYTE      SIZE
|- vda     RAID 1 member of md0  0f3e9a52-7c1d-4b8e-9f60-1a2b3c4d5e6f            64.0 MiB
|  |  qcow2  /var/lib/libvirt/images/vda.qcow2
|  `- md0  blank                                                       2 copies  32.0 MiB
|        32.0 MiB at byte 8388608 of vda, one of 2 copies
|        32.0 MiB at byte 1048576 of vdb, one of 2 copies
`- vdb     RAID 1 member of md0  0f3e9a52-7c1d-4b8e-9f60-1a2b3c4d5e6f            64.0 MiB
      qcow2  /var/lib/libvirt/images/vdb.qcow2
",
        );
    }

    #[test]
    fn where_stripes_lie() {
        let place = |image, offset| Extent {
            image: ImageIndex(image),
            offset: Bytes::mib(offset),
            length: Bytes::mib(32),
        };
        let striped = Striped::new(&[place(0, 8), place(1, 0)], Bytes::kib(64)).unwrap();
        let listed = |more: &[Extent]| {
            let mut volume = layer("vda/vg/st", &[], Content::Blank);
            volume.extents.push_striped(striped.clone());
            more.iter().for_each(|extent| volume.extents.push(*extent));
            let vda = with(layer("vda", &[(0, 0, 64)], pv("vg")), vec![volume]);
            let vdb = layer("vdb", &[(1, 0, 64)], pv("vg"));
            let disks = vec![disk("vda", vda), disk("vdb", vdb)];
            let report = domain("vm1", disks, results(vec![]));
            let text = render(&report, Style::PLAIN, &Clock::utc(CHECKED));
            let from = text.find("vg/st").unwrap();
            let lines: Vec<_> = text[from..].lines().map(str::trim).collect();
            lines.join("\n")
        };
        let text = listed(&[]);
        assert!(text.contains(" 2 stripes  64.0 MiB\n"), "{text}");
        assert!(
            text.contains(
                "32.0 MiB at byte 8388608 of vda, in turns of 64.0 KiB\n\
                 |        32.0 MiB at byte 0 of vdb, in turns of 64.0 KiB\n"
            ),
            "{text}"
        );
        let more: Vec<_> = (0..8).map(|number| place(0, 200 - number)).collect();
        let text = listed(&more);
        assert!(text.contains(" 10 pieces  320.0 MiB\n"), "{text}");
        assert!(
            text.contains(" 2 more pieces (see --format json)\n"),
            "{text}"
        );
    }

    #[test]
    fn when_the_next_check_is_due() {
        let report = domain("vm1", vec![], results(vec![]));
        let record = |mounts, max_mount_count, next_check| CheckRecord {
            last_check: Some(CHECKED),
            mount_count: Some(mounts),
            max_mount_count,
            next_check,
            ..CheckRecord::default()
        };
        let before = Timestamp(DUE.0 - 1);
        for (record, now, text) in [
            (
                record(0, None, None),
                DUE,
                "0 mounts since, next check never",
            ),
            (
                record(0, None, Some(DUE)),
                before,
                "0 mounts since, next check on 2027-05-19 14:03",
            ),
            (
                record(0, None, Some(DUE)),
                DUE,
                "0 mounts since, next check due now",
            ),
            (
                record(29, Some(30), None),
                DUE,
                "29 of 30 mounts since, next check in 1 mount",
            ),
            (
                record(30, Some(30), None),
                DUE,
                "30 of 30 mounts since, next check due now",
            ),
            (
                record(31, Some(30), Some(DUE)),
                before,
                "31 of 30 mounts since, next check due now",
            ),
        ] {
            let clock = Clock::utc(now);
            let lister = Lister {
                report: &report,
                style: BOXES,
                clock: &clock,
            };
            let line = Outline {
                headline: lister.history(&record).unwrap(),
                below: vec![],
                columns: &[],
                headings: false,
                entries: vec![],
                after: &[],
            };
            assert_eq!(
                line.draw(BOXES),
                format!("last check 2026-11-20 14:03, {text}\n")
            );
        }
        let clock = Clock::utc(DUE);
        let lister = Lister {
            report: &report,
            style: BOXES,
            clock: &clock,
        };
        assert!(lister.history(&CheckRecord::default()).is_none());
    }

    #[test]
    fn states_flags_and_what_was_not_opened() {
        let mut dirty = layer("vda", &[(0, 0, 64)], fs(FilesystemKind::Vfat, ""));
        let mut damaged = layer("vdb", &[(1, 0, 64)], fs(FilesystemKind::Btrfs, ""));
        for (layer, record) in [
            (
                &mut dirty,
                CheckRecord {
                    dirty: Some(true),
                    ..CheckRecord::default()
                },
            ),
            (
                &mut damaged,
                CheckRecord {
                    primary_damaged: true,
                    devices: Some(2),
                    ..CheckRecord::default()
                },
            ),
        ] {
            if let Content::Filesystem(filesystem) = &mut layer.content {
                filesystem.record = record;
                filesystem.uuid = None;
            }
        }
        let mut suspended = layer("vdc", &[(2, 0, 64)], swap());
        if let Content::Swap { hibernated, .. } = &mut suspended.content {
            *hibernated = Some("S1SUSPEND".to_owned());
        }
        let report = domain(
            "vm1",
            vec![
                disk("vda", dirty),
                disk("vdb", damaged),
                disk("vdc", suspended),
                not_opened(
                    "vdd",
                    Some("/d"),
                    Verdict::Refused("in use by qemu-nbd (1234)".to_owned()),
                ),
            ],
            results(vec![]),
        );
        shows(
            &render(&report, Style::PLAIN, &Clock::utc(CHECKED)),
            r#"vm1  qemu:///system
NAME    TYPE                  SIZE
|- vda  vfat              64.0 MiB
|     qcow2  /var/lib/libvirt/images/vda.qcow2
|     was not cleanly unmounted
|- vdb  btrfs             64.0 MiB
|     qcow2  /var/lib/libvirt/images/vdb.qcow2
|     primary superblock damaged, spans 2 devices
|- vdc  swap, hibernated  64.0 MiB
|     qcow2  /var/lib/libvirt/images/vdc.qcow2
|     a suspended system's memory lies in it (S1SUSPEND)
`- vdd
      raw  /d
      REFUSED: in use by qemu-nbd (1234)
"#,
        );
    }

    #[test]
    fn a_hostile_guest_commands_nothing() {
        let colour = Style {
            colour: true,
            unicode: true,
        };
        let text = render(&hostile(), colour, &Clock::utc(CHECKED));
        assert!(!text.contains(|c: char| c.is_control() && c != '\x1b' && c != '\n'));
        assert!(!text.contains("\x1b]") && !text.contains("\x1bc") && !text.contains("\x1b[2J"));
        assert!(!text.contains('\u{202e}'));
    }
}
