//! Checking what was found, one filesystem after the other.

use std::collections::HashSet;
use std::path::Path;

use crate::check::checker::{Checker, Mode, Subject};
use crate::check::companion::{Companions, companions_of};
use crate::check::layer::{self, Need};
use crate::check::outcome::{Event, LayerResult, Verdict};
use crate::check::run::check;
use crate::cmd::confine;
use crate::engine::choice::{EngineChoice, kernel_engine_follows};
use crate::engine::session::{Beside, Session, SessionError, Shown, Writes, overlay_is_full};
use crate::layers::filesystem::Filesystem;
use crate::layers::tree::{Layer, ReadOnly};
use crate::ledger::Step;
use crate::report::model::DomainReport;
use crate::run::guarded::ask_again;
use crate::run::look::{Looked, not_opened};
use crate::run::options::{Origin, Run, failed};
use crate::run::reached::Reached;

/// A filesystem that waits for its checker.
struct Task<'a> {
    layer: &'a Layer,
    checker: Checker,
    filesystem: &'a Filesystem,
    /// The layers that are shown together with it.
    companions: Companions<'a>,
    /// Whether two of what is shown at once lie on the same disk.
    beside: Beside,
    /// Why it is only checked, whatever was asked for.
    only_checked: Option<String>,
}

/// Checks what is wanted and has no answer yet; what the engine cannot show is left, and named. Before
/// each filesystem it is asked again whether the domain may be touched, and once where there is none.
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
    let mut is_asked = false;
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
            Need::Check {
                checker,
                filesystem,
            } => match companions_of(layer, filesystem, &looked.layers) {
                Err(verdict) => LayerResult::without_checker(verdict),
                Ok(companions)
                    if awaits_the_kernel_engine(
                        layer,
                        &companions,
                        session,
                        looked,
                        reached,
                        mode,
                        run.options.engine,
                    ) =>
                {
                    left.push(layer);
                    continue;
                }
                Ok(companions) => match answered(&companions, report) {
                    Some(verdict) => LayerResult::without_checker(verdict),
                    None => {
                        ask_again(run, reached, origin).await?;
                        is_asked = true;
                        let only_checked = companions
                            .all()
                            .chain([layer])
                            .find_map(|layer| only_checked(layer, looked, reached, session, mode))
                            .or_else(|| only_checked_together(&companions, mode));
                        let task = Task {
                            layer,
                            checker,
                            filesystem,
                            beside: beside(layer, &companions, looked),
                            companions,
                            only_checked,
                        };
                        check_one(run, session, &task, mode).await
                    }
                },
            },
        };
        report.results.insert(layer.path.clone(), result);
    }
    if !is_asked && !run.interrupt.is_raised() {
        ask_again(run, reached, origin).await?;
    }
    Ok(left)
}

/// Why nothing may be written to one of the disks.
fn only_looked_at(layer: &Layer, looked: &Looked, reached: &[Reached<'_>]) -> Option<&'static str> {
    let disks = looked.disks_of(&layer.extents);
    let mut reached = disks.iter().filter_map(|disk| reached.get(disk.0));
    reached.find_map(Reached::only_looked_at)
}

/// Why a layer is only checked, whatever was asked for.
fn only_checked(
    layer: &Layer,
    looked: &Looked,
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
    let of_disks = only_looked_at(layer, looked, reached).map(str::to_owned);
    of_disks.or_else(of_layer)
}

/// What could only be checked here, and LVM or MD lets repair.
fn awaits_the_kernel_engine(
    layer: &Layer,
    companions: &Companions<'_>,
    session: &Session,
    looked: &Looked,
    reached: &[Reached<'_>],
    mode: Mode,
    choice: EngineChoice,
) -> bool {
    let mut all = companions.all().chain([layer]);
    let is_lifted = |layer: &Layer| {
        let reason = layer.read_only.as_ref();
        reason.is_some_and(ReadOnly::is_lifted_by_the_kernel_engine)
    };
    mode.writes()
        && companions.devices.is_empty()
        && !session.opens_dormant()
        && all.clone().any(is_lifted)
        && all.all(|layer| only_looked_at(layer, looked, reached).is_none())
        && kernel_engine_follows(choice)
}

/// Whether two of what is to be shown at once lie on the same disk.
fn beside(layer: &Layer, companions: &Companions<'_>, looked: &Looked) -> Beside {
    let mut taken = HashSet::new();
    let is_apart = companions.all().chain([layer]).all(|layer| {
        let own = looked.disks_of(&layer.extents);
        own.into_iter().all(|disk| taken.insert(disk))
    });
    match is_apart {
        true => Beside::Nothing,
        false => Beside::Another,
    }
}

/// Several devices are one filesystem, which is checked once.
fn answered(companions: &Companions<'_>, report: &DomainReport) -> Option<Verdict> {
    if companions.devices.is_empty() {
        return None;
    }
    if !confine::is_possible() {
        return Some(Verdict::NotChecked(
            "it spans several devices, and only root can keep btrfs check from looking for them \
             among the host's own"
                .to_owned(),
        ));
    }
    let mut devices = companions.devices.iter();
    let other = devices.find(|device| report.results.contains_key(&device.path))?;
    Some(Verdict::NothingToCheck(format!(
        "it is one of the devices of the filesystem that is checked as {}",
        other.path
    )))
}

fn only_checked_together(companions: &Companions<'_>, mode: Mode) -> Option<String> {
    let several = mode.writes() && !companions.devices.is_empty();
    several.then(|| "it spans several devices, so it was only checked".to_owned())
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
    let devices: Vec<&Path> = shown.devices.iter().map(Shown::path).collect();
    let subject = Subject {
        layer: path,
        filesystem: task.filesystem,
        path: shown.own.path(),
        journal: shown.journal.as_ref().map(Shown::path),
        devices: &devices,
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

/// A filesystem, and what of it lies elsewhere.
struct Together {
    own: Shown,
    journal: Option<Shown>,
    devices: Vec<Shown>,
}

async fn show(
    run: &mut Run<'_>,
    session: &mut Session,
    task: &Task<'_>,
    writes: Writes,
) -> Result<Together, SessionError> {
    let beside = task.beside;
    let mut others = Vec::new();
    for layer in task.companions.all() {
        match show_one(run, session, layer, writes, beside).await {
            Ok(other) => others.push(other),
            Err(error) => return Err(given_up(run, session, others, error).await),
        }
    }
    match show_one(run, session, task.layer, writes, beside).await {
        Ok(own) => {
            let devices = others.split_off(usize::from(task.companions.journal.is_some()));
            Ok(Together {
                own,
                journal: others.pop(),
                devices,
            })
        }
        Err(error) => Err(given_up(run, session, others, error).await),
    }
}

async fn show_one(
    run: &mut Run<'_>,
    session: &mut Session,
    layer: &Layer,
    writes: Writes,
    beside: Beside,
) -> Result<Shown, SessionError> {
    let shown = session.show(run.ledger, &layer.path, &layer.extents, writes, beside);
    shown.await
}

/// The error to tell where not all could be shown: that something stays shown outweighs the cause.
async fn given_up(
    run: &mut Run<'_>,
    session: &mut Session,
    shown: Vec<Shown>,
    cause: SessionError,
) -> SessionError {
    let taken_back = take_all_back(run, session, shown).await;
    taken_back.err().unwrap_or(cause)
}

/// The last that was shown goes first.
async fn take_back(
    run: &mut Run<'_>,
    session: &mut Session,
    shown: Together,
) -> Result<(), SessionError> {
    let mut all: Vec<Shown> = shown.journal.into_iter().chain(shown.devices).collect();
    all.push(shown.own);
    take_all_back(run, session, all).await
}

async fn take_all_back(
    run: &mut Run<'_>,
    session: &mut Session,
    shown: Vec<Shown>,
) -> Result<(), SessionError> {
    let mut outcome = Ok(());
    for one in shown.into_iter().rev() {
        let taken_back = session.take_back(run.ledger, one).await;
        outcome = outcome.and(taken_back);
    }
    outcome
}
