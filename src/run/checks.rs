//! Checking what was found, one filesystem after the other.

use crate::check::checker::{Checker, Mode, Subject};
use crate::check::companion::journal_of;
use crate::check::layer::{self, Need};
use crate::check::outcome::{Event, LayerResult, Verdict};
use crate::check::run::check;
use crate::engine::choice::{self, EngineChoice};
use crate::engine::session::{Session, SessionError, Shown, Writes, overlay_is_full};
use crate::layers::filesystem::Filesystem;
use crate::layers::tree::{Layer, ReadOnly};
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
    /// The layer that holds its journal, where that is another.
    journal: Option<&'a Layer>,
    /// Why it is only checked, whatever was asked for.
    only_checked: Option<String>,
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
            Need::Check { .. } if is_better_started(run, session, reached, layer, mode) => {
                left.push(layer);
                continue;
            }
            Need::Check { .. } if run.interrupt.is_raised() => {
                LayerResult::without_checker(Verdict::Interrupted)
            }
            Need::Check {
                checker,
                filesystem,
            } => match journal_of(filesystem, &looked.layers) {
                Err(verdict) => LayerResult::without_checker(verdict),
                Ok(Some(journal)) if !can_show_both(session, journal, layer) => {
                    left.push(layer);
                    continue;
                }
                Ok(journal) => {
                    ask_again(reached, origin).await?;
                    let mut needed = journal.into_iter().chain([layer]);
                    let task = Task {
                        layer,
                        checker,
                        filesystem,
                        journal,
                        only_checked: needed
                            .find_map(|layer| only_checked(layer, reached, session, mode)),
                    };
                    check_one(run, session, &task, mode).await
                }
            },
        };
        report.results.insert(layer.path.clone(), result);
    }
    Ok(left)
}

/// Why nothing may be written to one of the disks.
fn only_looked_at(layer: &Layer, reached: &[Reached<'_>]) -> Option<&'static str> {
    let mut places = layer.extents.places();
    places.find_map(|extent| reached.get(extent.image.0)?.only_looked_at())
}

/// Why a layer is only checked, whatever was asked for.
fn only_checked(
    layer: &Layer,
    reached: &[Reached<'_>],
    session: &Session,
    mode: Mode,
) -> Option<String> {
    let is_read_only = || {
        (mode.writes() && !session.is_writable(&layer.extents)).then_some(&ReadOnly::ForTheGuest)
    };
    let of_layer = || {
        let reason = layer.read_only.as_ref().or_else(is_read_only);
        reason.map(ToString::to_string)
    };
    let of_disks = only_looked_at(layer, reached).map(str::to_owned);
    of_disks.or_else(of_layer)
}

/// Whether a repair must wait for the kernel engine, which lets MD start the mirror under it.
fn is_better_started(
    run: &Run<'_>,
    session: &Session,
    reached: &[Reached<'_>],
    layer: &Layer,
    mode: Mode,
) -> bool {
    let may_be_started = matches!(
        layer.read_only,
        Some(ReadOnly::Mirror {
            may_be_started: true,
            ..
        })
    );
    may_be_started
        && mode.writes()
        && matches!(session, Session::User(_))
        && run.options.engine == EngineChoice::Auto
        && only_looked_at(layer, reached).is_none()
        && choice::no_kernel_engine().is_none()
}

/// QEMU lets one export write to a disk, not two to parts of the same.
fn can_show_both(session: &Session, one: &Layer, other: &Layer) -> bool {
    let mut images = one.extents.places().map(|extent| extent.image);
    let is_under_the_other = |image| other.extents.places().any(|extent| extent.image == image);
    matches!(session, Session::Kernel(_)) || !images.any(is_under_the_other)
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
    let mode = mode.on(task.only_checked.is_some());
    let writes = match mode.writes() {
        true => Writes::ToTheDisk,
        false => Writes::ToAnOverlay,
    };
    let shown = match show(run, session, task, writes).await {
        Ok(shown) => shown,
        Err(error) => return LayerResult::without_checker(not_opened(&error)),
    };
    let subject = Subject {
        layer: path,
        filesystem: task.filesystem,
        path: shown.own.path(),
        journal: shown.journal.as_ref().map(Shown::path),
        mode,
        allowed: &run.options.allowed,
    };
    let step = Step::Check {
        layer: path.as_str().to_owned(),
    };
    let mut result = match run.ledger.about_to(step) {
        Ok(()) => check(task.checker, subject, run.interrupt, run.observer).await,
        Err(error) => LayerResult::without_checker(failed(&error)),
    };
    run.ledger.taken();
    if writes == Writes::ToAnOverlay
        && matches!(result.verdict, Verdict::Failed(_) | Verdict::ErrorsLeft)
        && let Some(reason) = overlay_is_full(&run.options.state_base)
    {
        result.verdict = Verdict::Failed(reason);
    }
    if let Err(error) = take_back(run, session, shown).await {
        // What was written may not be on the disk: that outweighs what the checker said.
        result.verdict = failed(&error);
    }
    result.notes.extend(task.only_checked.clone());
    result
}

/// A filesystem, and its journal where that lies elsewhere.
struct Together {
    own: Shown,
    journal: Option<Shown>,
}

async fn show(
    run: &mut Run<'_>,
    session: &mut Session,
    task: &Task<'_>,
    writes: Writes,
) -> Result<Together, SessionError> {
    let journal = match task.journal {
        Some(layer) => {
            let shown = session.show(run.ledger, &layer.path, &layer.extents, writes);
            Some(shown.await?)
        }
        None => None,
    };
    let layer = task.layer;
    match (
        session
            .show(run.ledger, &layer.path, &layer.extents, writes)
            .await,
        journal,
    ) {
        (Ok(own), journal) => Ok(Together { own, journal }),
        (Err(error), None) => Err(error),
        (Err(error), Some(journal)) => {
            session.take_back(run.ledger, journal).await?;
            Err(error)
        }
    }
}

/// The last that was shown goes first.
async fn take_back(
    run: &mut Run<'_>,
    session: &mut Session,
    shown: Together,
) -> Result<(), SessionError> {
    let outcome = session.take_back(run.ledger, shown.own).await;
    match shown.journal {
        Some(journal) => outcome.and(session.take_back(run.ledger, journal).await),
        None => outcome,
    }
}
