//! Taking a checker's steps, one after the other.

use std::time::Duration;

use crate::check::checker::{Checker, Judgement, Subject};
use crate::check::outcome::{Event, LayerResult, Observer, Progress, Verdict};
use crate::check::patterns;
use crate::cmd::watch::{self, Finished, ProgressSource};
use crate::interrupt::Interrupt;

/// Runs the checker until it has an answer.
pub async fn check(
    checker: Checker,
    subject: Subject<'_>,
    interrupt: &mut Interrupt,
    observer: &dyn Observer,
) -> LayerResult {
    let steps = checker.steps(&subject);
    let mut done: Vec<Finished> = Vec::new();
    let mut judgement = Judgement::GoOn;
    for step in &steps {
        if step.progress == ProgressSource::Terminal {
            observer.step_aside();
        }
        let mut tell = |progress| {
            observer.notice(&Event::CheckAdvanced {
                path: subject.layer,
                progress,
            });
        };
        let advanced: Option<&mut dyn FnMut(Progress)> = match observer.wants_progress() {
            true => Some(&mut tell),
            false => None,
        };
        match watch::run(&step.invocation, step.progress, interrupt, advanced).await {
            Ok(finished) => done.push(finished),
            Err(error) => {
                let cause = crate::cause::sentence(&error);
                judgement = Judgement::done(Verdict::Failed(cause));
                break;
            }
        }
        judgement = checker.judge(&subject, &done, steps.len());
        if judgement != Judgement::GoOn {
            break;
        }
    }
    let (verdict, notes) = match judgement {
        Judgement::Done { verdict, notes } => (verdict, notes),
        Judgement::GoOn => (
            Verdict::Failed(format!("{} gave no answer", checker.name())),
            Vec::new(),
        ),
    };
    LayerResult {
        verdict,
        checker: Some(checker.name()),
        exit_code: done.last().and_then(|last| last.status.code()),
        duration: done
            .iter()
            .fold(Duration::ZERO, |sum, run| sum.saturating_add(run.duration)),
        output: words(&done, subject),
        notes,
    }
}

/// All that was said, with the filesystem's place in the tree instead of its mount point.
fn words(done: &[Finished], subject: Subject<'_>) -> String {
    let path = subject.path.to_string_lossy();
    let said: String = done.iter().map(|run| run.output.as_str()).collect();
    said.replace(path.as_ref(), subject.layer.as_str())
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty() && !patterns::is_banner(line))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use crate::check::checker::Mode;
    use crate::check::checker::case::finished;
    use crate::layers::filesystem::{CheckRecord, Filesystem, FilesystemKind};
    use crate::layers::tree::LayerPath;

    #[test]
    fn a_checkers_words_name_the_layer_and_leave_out_what_says_nothing() {
        let filesystem = Filesystem {
            kind: FilesystemKind::Ext4,
            uuid: None,
            label: None,
            size: None,
            record: CheckRecord::default(),
        };
        let layer = LayerPath::disk("vda").join("p1");
        let subject = Subject {
            layer: &layer,
            filesystem: &filesystem,
            path: Path::new("/run/x/1-vda-p1"),
            journal: None,
            devices: &[],
            mode: Mode::Check,
            allowed: &[],
        };
        let done = [
            finished(
                0,
                "e2fsck 1.47.0 (5-Feb-2023)\nPass 1\n\n/run/x/1-vda-p1: clean\n",
            ),
            finished(0, "e2fsck: aborted\n"),
        ];
        assert_eq!(
            words(&done, subject),
            "Pass 1\nvda/p1: clean\ne2fsck: aborted"
        );
    }
}
