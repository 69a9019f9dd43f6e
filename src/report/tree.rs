//! The report that a person reads at a glance.

use std::collections::BTreeSet;

use crate::check::outcome::{LayerResult, Verdict};
use crate::layers::tree::{Content, Layer, LayerPath};
use crate::report::model::{DiskContent, DiskReport, DomainReport};
use crate::report::outline::{Column, Entry, Line, Outline, Span};
use crate::report::style::{Paint, Style, Verbosity};
use crate::report::text::expand_tabs;
use crate::report::words;

/// How many lines of a checker are shown before the gap, ...
const FIRST_LINES: usize = 15;
/// ... and how many after it.
const LAST_LINES: usize = 5;

const COLUMNS: [Column; 7] = [
    Column::new("NAME", false, 44),
    Column::new("TYPE", false, 30),
    Column::new("LABEL", false, 34),
    Column::new("AT", true, 20),
    Column::new("SIZE", true, 12),
    Column::new("VERDICT", false, 16),
    Column::new("TIME", true, 14),
];

/// What was found for one domain, as lines of text. Empty for [`Verbosity::Quiet`] if all is well.
pub fn render(report: &DomainReport, style: Style, verbosity: Verbosity) -> String {
    let sound = |verdict: &Verdict| matches!(verdict, Verdict::Clean | Verdict::NothingToCheck(_));
    if verbosity == Verbosity::Quiet && report.verdicts().all(sound) {
        return String::new();
    }
    let teller = Teller {
        report,
        style,
        verbosity,
    };
    let mut headline = words::headline(report);
    if !report.duration.is_zero() {
        let duration = format!("  {}", words::duration(report.duration));
        headline.push(Span::new(Paint::Dim, duration));
    }
    let mut entries: Vec<Entry> = report.disks.iter().map(|disk| teller.disk(disk)).collect();
    entries.extend(teller.without_a_row());
    Outline {
        headline,
        below: words::below_headline(report),
        columns: &COLUMNS,
        headings: false,
        entries,
        after: &report.plan,
    }
    .draw(style)
}

fn sentence(text: &str) -> Line {
    vec![Span::plain(text)]
}

/// Tells of one domain.
struct Teller<'a> {
    report: &'a DomainReport,
    style: Style,
    verbosity: Verbosity,
}

impl Teller<'_> {
    fn disk(&self, disk: &DiskReport) -> Entry {
        let mut entry = match &disk.content {
            DiskContent::Opened(root) => self.layer(disk, root, None),
            DiskContent::NotOpened(verdict) => self.unopened(disk, verdict),
        };
        entry.below = words::below_disk(disk, entry.below);
        entry.below.extend(self.image(disk));
        entry
    }

    /// What came of the check of the image itself, where there is more to tell than that it is sound.
    fn image(&self, disk: &DiskReport) -> Vec<Line> {
        let Some(result) = &disk.image else {
            return Vec::new();
        };
        let is_sound = result.verdict == Verdict::Clean && result.notes.is_empty();
        if is_sound && self.verbosity < Verbosity::Verbose {
            return Vec::new();
        }
        let mut line = vec![
            Span::plain("image: "),
            Span::new(
                words::verdict_paint(&result.verdict),
                result.verdict.words(),
            ),
        ];
        let told = match &disk.content {
            DiskContent::NotOpened(verdict) => verdict.reason(),
            DiskContent::Opened(_) => None,
        };
        let reason = result
            .verdict
            .reason()
            .filter(|reason| told != Some(*reason));
        line.extend(reason.map(|reason| Span::plain(format!(": {reason}"))));
        let mut lines = vec![line];
        lines.extend(result.notes.iter().map(|note| words::note(note)));
        if !result.output.is_empty() {
            lines.extend(self.output(&LayerPath::disk(&disk.target), result));
        }
        lines
    }

    fn unopened(&self, disk: &DiskReport, verdict: &Verdict) -> Entry {
        let size = disk.size.map_or_else(String::new, |size| size.to_string());
        Entry {
            cells: vec![
                Span::new(Paint::Strong, &disk.target),
                Span::default(),
                Span::default(),
                Span::default(),
                Span::plain(size),
                Span::new(words::verdict_paint(verdict), verdict.words()),
                Span::default(),
            ],
            below: verdict.reason().map(sentence).into_iter().collect(),
            inside: Vec::new(),
        }
    }

    fn layer(&self, disk: &DiskReport, layer: &Layer, parent: Option<&LayerPath>) -> Entry {
        let result = self.report.results.get(&layer.path);
        let name_paint = match parent {
            None => Paint::Strong,
            Some(_) => Paint::Plain,
        };
        let position = words::position(self.report, disk, &layer.extents, parent.is_none(), |at| {
            format!("at {}", at.offset)
        });
        let mut cells = vec![
            Span::new(name_paint, words::name(&layer.path, parent)),
            Span::plain(words::kind(layer)),
            Span::plain(words::quoted(words::label(&layer.content), self.style)),
            Span::new(Paint::Dim, position),
            Span::plain(layer.size().to_string()),
        ];
        cells.extend(verdict_cells(result));

        let mut below = Vec::new();
        let told = result.and_then(|result| self.reason(layer, &result.verdict));
        below.extend(
            told.or_else(|| match result {
                None => words::reason(&layer.content),
                Some(_) => None,
            })
            .map(sentence),
        );
        let mut notes: Vec<&String> = layer.notes.iter().collect();
        if let Some(result) = result {
            notes.extend(
                result
                    .notes
                    .iter()
                    .filter(|note| !layer.notes.contains(note)),
            );
        }
        below.extend(notes.into_iter().map(|note| words::note(note)));
        if let Some(result) = result {
            below.extend(self.output(&layer.path, result));
        }
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

    /// The reason of a verdict, but for those that repeat what the row already says.
    fn reason<'v>(&self, layer: &Layer, verdict: &'v Verdict) -> Option<&'v str> {
        let boot_code = layer.role.as_ref().is_some_and(|role| role.holds_boot_code);
        let plain = match layer.content {
            Content::Blank => true,
            Content::Swap { ref hibernated, .. } => hibernated.is_none(),
            Content::Unknown => boot_code,
            _ => false,
        };
        let repeats = matches!(verdict, Verdict::NothingToCheck(_)) && plain;
        match repeats && self.verbosity < Verbosity::Verbose {
            true => None,
            false => verdict.reason(),
        }
    }

    /// What the checker said, where something was wrong; with `-v` always, and all of it.
    fn output(&self, path: &LayerPath, result: &LayerResult) -> Vec<Line> {
        let wrong = matches!(
            result.verdict,
            Verdict::Corrected | Verdict::ErrorsLeft | Verdict::Failed(_)
        );
        let wordy = self.verbosity == Verbosity::Verbose;
        let said: Vec<&str> = result.output.trim_matches('\n').lines().collect();
        let silent = said.iter().all(|line| line.trim().is_empty());
        let Some(checker) = result.checker.filter(|_| wrong || (wordy && !silent)) else {
            return Vec::new();
        };
        let status = match result.exit_code {
            Some(code) => format!(" (exit status {code})"),
            None => String::new(),
        };
        if silent {
            let text = format!("{path}: {checker}{status} said nothing");
            return vec![sentence(&text)];
        }
        let bar = if self.style.unicode { "┃ " } else { "| " };
        let quoted = |line: &str| {
            let text = expand_tabs(line.trim_end());
            vec![Span::new(Paint::Dim, bar), Span::plain(text)]
        };
        let mut lines = vec![sentence(&format!("{path}: {checker}{status} said:"))];
        let left_out = said
            .len()
            .saturating_sub(FIRST_LINES.saturating_add(LAST_LINES));
        // A gap of one line would save nothing.
        if wordy || left_out <= 1 {
            lines.extend(said.into_iter().map(quoted));
            return lines;
        }
        let gap = format!("... {} (-v shows all)", words::count(left_out, "more line"));
        lines.extend(said.iter().take(FIRST_LINES).copied().map(quoted));
        lines.push(vec![Span::new(Paint::Dim, format!("{bar}{gap}"))]);
        let last = said.len().saturating_sub(LAST_LINES);
        lines.extend(said.iter().skip(last).copied().map(quoted));
        lines
    }

    /// Results of layers that are in no disk's tree, so that none is ever lost.
    fn without_a_row(&self) -> Vec<Entry> {
        let rows: BTreeSet<&LayerPath> = self
            .report
            .disks
            .iter()
            .flat_map(layers)
            .map(|l| &l.path)
            .collect();
        let lost = self
            .report
            .results
            .iter()
            .filter(|(path, _)| !rows.contains(path));
        lost.map(|(path, result)| {
            let mut cells = vec![Span::plain(path.as_str())];
            cells.resize_with(5, Span::default);
            cells.extend(verdict_cells(Some(result)));
            let mut below: Vec<Line> = result.verdict.reason().map(sentence).into_iter().collect();
            below.extend(result.notes.iter().map(|note| words::note(note)));
            below.extend(self.output(path, result));
            Entry {
                cells,
                below,
                inside: Vec::new(),
            }
        })
        .collect()
    }
}

fn layers(disk: &DiskReport) -> Vec<&Layer> {
    match &disk.content {
        DiskContent::Opened(root) => root.walk(),
        DiskContent::NotOpened(_) => Vec::new(),
    }
}

/// The verdict, and the time the checker took.
fn verdict_cells(result: Option<&LayerResult>) -> [Span; 2] {
    let Some(result) = result else {
        return [Span::default(), Span::default()];
    };
    let duration = match result.checker {
        Some(_) => words::duration(result.duration),
        None => String::new(),
    };
    [
        Span::new(
            words::verdict_paint(&result.verdict),
            result.verdict.words(),
        ),
        Span::new(Paint::Dim, duration),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::layers::tree::PartitionRole;
    use crate::report::samples::{
        checked, disk, domain, everyday, fs, gpt, hostile, layer, not_opened, path, results, with,
    };
    use crate::report::summary::summary;

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
        shows(
            &render(&everyday(), BOXES, Verbosity::Normal),
            r#"vm1  qemu:///system  6.3 s
├─ vda                gpt, 3 partitions                         10.0 GiB
│  │  qcow2  /var/lib/libvirt/images/vda.qcow2
│  ├─ p1              vfat               "EFI"     at 1.0 MiB  512.0 MiB  clean             0.1 s
│  ├─ p2              swap                       at 513.0 MiB    1.0 GiB  nothing to check
│  └─ p3              LVM PV of lvg1               at 1.5 GiB    8.5 GiB
│     ├─ lvg1/lvroot  ext4               "root"    at 1.5 GiB    2.0 GiB  clean             1.2 s
│     └─ lvg1/lvhome  ext4               "home"      2 pieces   10.5 GiB  corrected         4.8 s
│           note: undo: virt-fsck undo 20261120-140307-vm1
│           vda/p3/lvg1/lvhome: e2fsck (exit status 1) said:
│           ┃ Inode 12, i_blocks is 16, should be 8.  Fix? yes
│           ┃
│           ┃ home: ***** FILE SYSTEM WAS MODIFIED *****
├─ vdb                LVM PV of lvg1                            20.0 GiB
│     qcow2  /var/lib/libvirt/images/vdb.qcow2
└─ sda                                                                    nothing to check
      no medium in the drive
"#,
        );
    }

    #[test]
    fn verbose_tells_what_went_well() {
        let text = render(&everyday(), BOXES, Verbosity::Verbose);
        assert!(
            text.contains("\n│  │     swap space holds no filesystem\n"),
            "{text}"
        );
        assert!(
            text.contains("│     │     vda/p3/lvg1/lvroot: e2fsck (exit status 0) said:\n│     │     ┃ Pass 1: ...\n"),
            "{text}"
        );
    }

    #[test]
    fn a_hostile_guest_commands_nothing() {
        shows(
            &render(&hostile(), BOXES, Verbosity::Normal),
            r#"vm\x1b]0;x\x07  qemu:///system  6.3 s
└─ vda                gpt, 2 partitions                                            1.0 GiB
   │  qcow2  /images/\x1bc.qcow2
   │  note: partition named \x07bell
   ├─ p1              ext4               "\x1b[2J\u{202e}x\" clean"   at 1.0 MiB  10.0 MiB  ERRORS LEFT  0.0 s
   │     vda/p1: e2fsck (exit status 4) said:
   │     ┃ bad\x1b[1A
   │     ┃         name \u{9b}2J
   │     ┃ end
   └─ p2/\x1bvg/lv\n  btrfs              "数据"                      at 11.0 MiB  10.0 MiB  not checked
         no\x08 checker
"#,
        );
        let ascii = render(&hostile(), Style::PLAIN, Verbosity::Normal);
        assert!(ascii.is_ascii());
        assert!(
            ascii.contains(r#"   `- p2/\x1bvg/lv\n  btrfs              "\u{6570}\u{636e}"  "#),
            "{ascii}"
        );
    }

    #[test]
    fn the_only_escape_sequences_are_our_own() {
        let colour = Style {
            colour: true,
            unicode: true,
        };
        let mut all = render(&hostile(), colour, Verbosity::Verbose);
        all.push_str(&summary(&[hostile()], colour));
        for sequence in all.split('\x1b').skip(1) {
            assert!(
                [
                    "[0m", "[1m", "[2m", "[31m", "[32m", "[33m", "[35m", "[1;31m"
                ]
                .iter()
                .any(|own| sequence.starts_with(own)),
                "{sequence:?}"
            );
        }
        assert!(!all.contains(|c: char| c.is_control() && c != '\x1b' && c != '\n'));
        assert!(all.contains("\x1b[1;31mERRORS LEFT\x1b[0m"));
        assert!(all.contains("\x1b[35mnot checked\x1b[0m"));
    }

    #[test]
    fn a_refused_domain_and_one_without_disks() {
        let mut refused = domain("vm2", vec![], results(vec![]));
        refused.duration = Duration::ZERO;
        refused.verdict = Some(Verdict::Refused(
            "the domain is running; shut it down first".to_owned(),
        ));
        refused.notes = vec!["it has a managed save".to_owned()];
        shows(
            &render(&refused, BOXES, Verbosity::Quiet),
            "vm2  qemu:///system  REFUSED\n   the domain is running; shut it down first\n   note: it has a managed save\n",
        );
        let mut empty = refused;
        empty.verdict = None;
        empty.notes.clear();
        shows(
            &render(&empty, BOXES, Verbosity::Normal),
            "vm2  qemu:///system\n   no disks\n",
        );
        assert_eq!(render(&empty, BOXES, Verbosity::Quiet), "");
    }

    #[test]
    fn quiet_speaks_only_of_trouble() {
        let root = || {
            layer(
                "vda",
                &[(0, 0, 64)],
                fs(crate::layers::filesystem::FilesystemKind::Ext4, ""),
            )
        };
        for (verdict, silent) in [
            (Verdict::Clean, true),
            (Verdict::NothingToCheck(String::new()), true),
            (Verdict::Corrected, false),
            (Verdict::ErrorsLeft, false),
            (Verdict::NotChecked(String::new()), false),
            (Verdict::Failed(String::new()), false),
            (Verdict::Refused(String::new()), false),
            (Verdict::Interrupted, false),
        ] {
            let result = LayerResult::without_checker(verdict);
            let report = domain(
                "vm1",
                vec![disk("vda", root())],
                results(vec![("vda", result)]),
            );
            assert_eq!(render(&report, BOXES, Verbosity::Quiet).is_empty(), silent);
        }
    }

    #[test]
    fn layers_within_layers_and_disks_that_were_not_opened() {
        let luks = Content::Opaque {
            what: "LUKS2".to_owned(),
            uuid: None,
            reason: "no key was given".to_owned(),
        };
        let mut boot = layer("vda/p1", &[(0, 1, 1)], Content::Unknown);
        boot.role = Some(PartitionRole {
            type_code: "21686148-6449-6E6F-744E-656564454649".to_owned(),
            type_name: Some("BIOS boot"),
            name: None,
            holds_boot_code: true,
        });
        let mut vda = with(
            layer("vda", &[(0, 0, 1024)], gpt()),
            vec![
                boot,
                with(
                    layer("vda/p2", &[(0, 2, 900)], gpt()),
                    vec![with(
                        layer("vda/p2/p1", &[(0, 3, 800)], gpt()),
                        vec![layer("vda/p2/p1/p5", &[(0, 4, 700)], luks)],
                    )],
                ),
                layer(
                    "vda/p3",
                    &[(0, 950, 8)],
                    Content::Unreadable {
                        cause: "input/output error".to_owned(),
                    },
                ),
                layer("vda/p4", &[(1, 7, 8)], Content::Blank),
            ],
        );
        vda.notes.push("the backup GPT is missing".to_owned());
        let mut broken = not_opened(
            "vdc",
            Some("/images/c.img"),
            Verdict::Failed("opening /images/c.img: no such file or directory".to_owned()),
        );
        broken.notes.push("startupPolicy is mandatory".to_owned());
        let nothing = Verdict::NothingToCheck("boot code".to_owned());
        let report = domain(
            "vm3",
            vec![
                disk("vda", vda),
                broken,
                not_opened(
                    "vdd",
                    Some("rbd:pool/d"),
                    Verdict::NotChecked("the source is on a network".to_owned()),
                ),
            ],
            results(vec![
                ("vda/p1", LayerResult::without_checker(nothing)),
                (
                    "vda/p2/p1/p5",
                    LayerResult::without_checker(Verdict::NotChecked(
                        "no key was given".to_owned(),
                    )),
                ),
                ("vda/p9", checked(Verdict::ErrorsLeft, 4, 75_000, " \n")),
            ]),
        );
        shows(
            &render(&report, Style::PLAIN, Verbosity::Normal),
            r#"vm3  qemu:///system  6.3 s
|- vda          gpt, 4 partitions                    1.0 GiB
|  |  qcow2  /var/lib/libvirt/images/vda.qcow2
|  |  note: the backup GPT is missing
|  |- p1        BIOS boot              at 1.0 MiB    1.0 MiB  nothing to check
|  |- p2        gpt, 1 partition       at 2.0 MiB  900.0 MiB
|  |  `- p1     gpt, 1 partition       at 3.0 MiB  800.0 MiB
|  |     `- p5  LUKS2                  at 4.0 MiB  700.0 MiB  not checked
|  |           no key was given
|  |- p3        unreadable           at 950.0 MiB    8.0 MiB
|  |     input/output error
|  `- p4        blank              vdc at 7.0 MiB    8.0 MiB
|- vdc                                                        FAILED
|     raw  /images/c.img
|     opening /images/c.img: no such file or directory
|     note: startupPolicy is mandatory
|- vdd                                                        not checked
|     raw  rbd:pool/d
|     the source is on a network
`- vda/p9                                                     ERRORS LEFT       1 min 15 s
      vda/p9: e2fsck (exit status 4) said nothing
"#,
        );
        assert_eq!(
            summary(&[report], BOXES),
            "1 filesystem: 1 with ERRORS LEFT; 1 layer not checked; 1 disk FAILED; 1 disk not checked\n"
        );
    }

    #[test]
    fn long_outputs_keep_their_ends() {
        let shown = |lines: usize, verbosity| {
            let said: String = (1..=lines).map(|line| format!("line {line}\n")).collect();
            let root = layer(
                "vda",
                &[(0, 0, 64)],
                fs(crate::layers::filesystem::FilesystemKind::Ext4, ""),
            );
            let report = domain(
                "vm1",
                vec![disk("vda", root)],
                results(vec![("vda", checked(Verdict::ErrorsLeft, 4, 10, &said))]),
            );
            let text = render(&report, BOXES, verbosity);
            let bars = text.lines().filter_map(|line| line.split_once("┃ "));
            bars.map(|(_, said)| said.to_owned()).collect::<Vec<_>>()
        };
        for (lines, verbosity, rows) in [
            (20, Verbosity::Normal, 20),
            (21, Verbosity::Normal, 21),
            (22, Verbosity::Normal, 21),
            (500, Verbosity::Normal, 21),
            (500, Verbosity::Verbose, 500),
        ] {
            assert_eq!(shown(lines, verbosity).len(), rows, "{lines} {verbosity:?}");
        }
        let long = shown(500, Verbosity::Normal);
        assert_eq!(
            long[14..17],
            ["line 15", "... 480 more lines (-v shows all)", "line 496"]
        );
        assert_eq!(long[20], "line 500");
    }

    #[test]
    fn the_rows_of_a_layer_make_its_path() {
        let at = path("vda/p3/lvg1/lvroot");
        assert_eq!(words::name(&at, Some(&path("vda/p3"))), "lvg1/lvroot");
        assert_eq!(words::name(&at, None), "vda/p3/lvg1/lvroot");
    }
}
