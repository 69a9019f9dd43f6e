//! The last line of a run.

use std::collections::BTreeSet;

use crate::check::outcome::Verdict;
use crate::layers::tree::Content;
use crate::report::model::{DiskContent, DomainReport};
use crate::report::style::Style;
use crate::report::words;

/// One line for a whole run: `3 filesystems: 2 clean, 1 corrected; 1 layer not checked`.
pub fn summary(reports: &[DomainReport], style: Style) -> String {
    let mut filesystems = Vec::new();
    let mut layers = Vec::new();
    let mut images = Vec::new();
    let mut disks = Vec::new();
    let mut domains = Vec::new();
    for report in reports {
        domains.extend(&report.verdict);
        let mut within = BTreeSet::new();
        for disk in &report.disks {
            // A disk whose image cannot be used is counted as one.
            let of_disk = match &disk.content {
                DiskContent::NotOpened(verdict) => Some(verdict),
                DiskContent::Opened(_) => None,
            };
            let of_image = disk.image.as_ref().map(|result| &result.verdict);
            images.extend(of_image.filter(|verdict| Some(*verdict) != of_disk));
            match &disk.content {
                DiskContent::NotOpened(verdict) => disks.push(verdict),
                DiskContent::Opened(root) => within.extend(
                    root.walk()
                        .into_iter()
                        .filter(|layer| matches!(layer.content, Content::Filesystem(_)))
                        .map(|layer| &layer.path),
                ),
            }
        }
        for (path, result) in &report.results {
            if within.contains(path) || result.checker.is_some() {
                filesystems.push(&result.verdict);
            } else {
                layers.push(&result.verdict);
            }
        }
    }

    let mut text = String::new();
    if reports.len() > 1 {
        text.push_str(&words::count(reports.len(), "domain"));
        text.push_str(", ");
    }
    if filesystems.is_empty() {
        text.push_str("no filesystem was checked");
    } else {
        text.push_str(&words::count(filesystems.len(), "filesystem"));
        text.push_str(": ");
        text.push_str(&tally(&filesystems, None, style).join(", "));
    }
    for (noun, verdicts) in [
        ("layer", layers),
        ("image", images),
        ("disk", disks),
        ("domain", domains),
    ] {
        let told: Vec<&Verdict> = verdicts
            .into_iter()
            .filter(|verdict| !matches!(verdict, Verdict::NothingToCheck(_) | Verdict::Clean))
            .collect();
        for part in tally(&told, Some(noun), style) {
            text.push_str("; ");
            text.push_str(&part);
        }
    }
    text.push('\n');
    text
}

/// How often each verdict is there, the good ones first.
fn tally(verdicts: &[&Verdict], noun: Option<&str>, style: Style) -> Vec<String> {
    const ORDER: [&str; 8] = [
        "clean",
        "corrected",
        "ERRORS LEFT",
        "FAILED",
        "REFUSED",
        "not checked",
        "interrupted",
        "nothing to check",
    ];
    let mut parts = Vec::new();
    for words in ORDER {
        let mut same = verdicts.iter().filter(|verdict| verdict.words() == words);
        let Some(first) = same.next() else { continue };
        let number = same.count().saturating_add(1);
        let counted = match noun {
            Some(noun) => words::count(number, noun),
            None => number.to_string(),
        };
        let words = match first {
            Verdict::ErrorsLeft => "with ERRORS LEFT",
            _ => words,
        };
        parts.push(style.paint(words::verdict_paint(first), &format!("{counted} {words}")));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::{domain, everyday, hostile, results};

    const BOXES: Style = Style {
        colour: false,
        unicode: true,
    };

    #[test]
    fn a_summary_of_many() {
        let mut refused = domain("vm2", vec![], results(vec![]));
        refused.verdict = Some(Verdict::Refused("running".to_owned()));
        for (reports, line) in [
            (vec![], "no filesystem was checked\n"),
            (vec![everyday()], "3 filesystems: 2 clean, 1 corrected\n"),
            (
                vec![refused.clone()],
                "no filesystem was checked; 1 domain REFUSED\n",
            ),
            (
                vec![everyday(), hostile(), refused.clone(), refused],
                "4 domains, 5 filesystems: 2 clean, 1 corrected, 1 with ERRORS LEFT, 1 not checked; 2 domains REFUSED\n",
            ),
        ] {
            assert_eq!(summary(&reports, BOXES), line);
        }
        let colour = Style {
            colour: true,
            unicode: true,
        };
        assert_eq!(
            summary(&[everyday()], colour),
            "3 filesystems: \x1b[32m2 clean\x1b[0m, \x1b[33m1 corrected\x1b[0m\n"
        );
    }
}
