//! Checking what was found, one filesystem after the other.

use crate::check::checker::{Checker, Mode};
use crate::check::layer::{self, Need};
use crate::check::outcome::{Event, LayerResult, Verdict};
use crate::check::run::{Subject, check};
use crate::engine::session::{Session, Writes, overlay_is_full};
use crate::layers::filesystem::Filesystem;
use crate::layers::tree::Layer;
use crate::ledger::Step;
use crate::report::model::DomainReport;
use crate::run::look::{Looked, not_opened};
use crate::run::options::{Origin, Run, failed};
use crate::run::reached::{Reached, ask_again};

/// A filesystem that waits for its checker.
struct Task<'a> {
    layer: &'a Layer,
    checker: Checker,
    filesystem: &'a Filesystem,
    read_only: bool,
}

/// Checks what is wanted and has no answer yet; what the engine cannot show is left, and named.
///
/// # Errors
/// The verdict if the domain may no longer be touched.
pub async fn check_all<'l>(
    run: &mut Run<'_>,
    origin: &Origin<'_>,
    session: &mut Session,
    reached: &[Reached<'_>],
    looked: &'l Looked,
    mode: Mode,
    report: &mut DomainReport,
) -> Result<Vec<&'l Layer>, Verdict> {
    let mut left = Vec::new();
    for layer in run.options.selection.wanted(&looked.layers) {
        if report.results.contains_key(&layer.path) {
            continue;
        }
        let result = match layer::need(layer) {
            Need::Nothing => continue,
            Need::Answer(verdict) => LayerResult::without_checker(verdict),
            Need::Activation { .. } => {
                left.push(layer);
                continue;
            }
            Need::Check { .. } if run.interrupt.is_raised() => {
                LayerResult::without_checker(Verdict::Interrupted)
            }
            Need::Check { .. } if !session.can_show(&layer.extents) => {
                left.push(layer);
                continue;
            }
            Need::Check {
                checker,
                filesystem,
            } => {
                ask_again(reached, origin).await?;
                let task = Task {
                    layer,
                    checker,
                    filesystem,
                    read_only: layer.read_only
                        || lies_on_read_only(layer, reached)
                        || mode.writes() && !session.is_writable(&layer.extents),
                };
                check_one(run, session, &task, mode).await
            }
        };
        report.results.insert(layer.path.clone(), result);
    }
    Ok(left)
}

/// The guest may not write to one of the disks.
fn lies_on_read_only(layer: &Layer, reached: &[Reached<'_>]) -> bool {
    layer.extents.places().any(|extent| {
        let disk = reached.get(extent.image.0);
        disk.is_some_and(|reached| reached.disk.read_only)
    })
}

/// Checks one filesystem, and tells who watches.
async fn check_one(
    run: &mut Run<'_>,
    session: &mut Session,
    task: &Task<'_>,
    mode: Mode,
) -> LayerResult {
    let path = &task.layer.path;
    run.observer.notice(&Event::CheckStarted {
        path,
        kind: task.filesystem.kind.name(),
        size: task.layer.size(),
    });
    let result = check_shown(run, session, task, mode).await;
    run.observer.notice(&Event::CheckFinished {
        path,
        result: &result,
    });
    result
}

/// Shows a filesystem, checks it, takes it back.
async fn check_shown(
    run: &mut Run<'_>,
    session: &mut Session,
    task: &Task<'_>,
    mode: Mode,
) -> LayerResult {
    let path = &task.layer.path;
    let mode = mode.on(task.read_only);
    let writes = match mode.writes() {
        true => Writes::ToTheDisk,
        false => Writes::ToAnOverlay,
    };
    let extents = &task.layer.extents;
    let shown = match session.show(run.ledger, path, extents, writes).await {
        Ok(shown) => shown,
        Err(error) => return LayerResult::without_checker(not_opened(&error)),
    };
    let subject = Subject {
        layer: path,
        filesystem: task.filesystem,
        path: shown.path(),
    };
    let step = Step::Check {
        layer: path.as_str().to_owned(),
    };
    let mut result = match run.ledger.about_to(step) {
        Ok(()) => check(task.checker, mode, subject, run.interrupt, run.observer).await,
        Err(error) => LayerResult::without_checker(failed(&error)),
    };
    run.ledger.taken();
    if writes == Writes::ToAnOverlay
        && matches!(result.verdict, Verdict::Failed(_) | Verdict::ErrorsLeft)
        && let Some(reason) = overlay_is_full(&run.options.state_base)
    {
        result.verdict = Verdict::Failed(reason);
    }
    if let Err(error) = session.take_back(run.ledger, shown).await {
        // What was written may not be on the disk: that outweighs what the checker said.
        result.verdict = failed(&error);
    }
    if task.read_only {
        let note = "it is read-only for the guest, so it was only checked";
        result.notes.push(note.to_owned());
    }
    result
}
