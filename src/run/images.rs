//! The images themselves, before anything opens them to look inside.

use crate::check::checker::Mode;
use crate::check::image::{self, ImageCheck, Usable};
use crate::check::outcome::{Event, LayerResult, Observer, Progress, Verdict};
use crate::domain::model::Format;
use crate::layers::tree::LayerPath;
use crate::ledger::Step;
use crate::reach::chain::Chain;
use crate::run::guarded::ask_again;
use crate::run::options::{Action, Origin, Run, failed};
use crate::run::reached::Reached;
use crate::units::Bytes;

/// Checks the images of every disk, and repairs those that were asked for and may be written. A disk
/// whose images cannot be trusted is left out from here on.
///
/// # Errors
/// The verdict if nothing of the domain may be touched any more.
pub async fn check_all(
    run: &mut Run<'_>,
    origin: &Origin<'_>,
    reached: &mut [Reached<'_>],
) -> Result<(), Verdict> {
    for index in 0..reached.len() {
        let Some((target, chain)) = with_format(reached, index) else {
            continue;
        };
        let path = LayerPath::disk(&target);
        let kind = format!("{} image", chain.top.format.name());
        let is_watched = matches!(run.options.action, Action::Check(_));
        if is_watched {
            let size = std::fs::metadata(&chain.top.path);
            run.observer.notice(&Event::CheckStarted {
                path: &path,
                kind: &kind,
                size: Bytes::new(size.map_or(0, |metadata| metadata.len())),
            });
        }
        let checked = check_one(run, origin, reached, index, &path, &chain).await;
        if is_watched {
            run.observer.notice(&Event::CheckFinished {
                path: &path,
                result: &told(&checked, &kind),
            });
        }
        let checked = checked?;
        if let Some(disk) = reached.get_mut(index) {
            if let Usable::No(verdict) = &checked.usable {
                disk.chain = Err(verdict.clone());
            }
            disk.image = Some(checked);
        }
    }
    Ok(())
}

/// For who watches.
fn told(checked: &Result<ImageCheck, Verdict>, kind: &str) -> LayerResult {
    let without = LayerResult::without_checker;
    match checked {
        Err(verdict) => without(verdict.clone()),
        Ok(checked) => match (&checked.result, &checked.usable) {
            (Some(result), _) => result.clone(),
            (None, Usable::No(verdict)) => without(verdict.clone()),
            (None, Usable::Fully | Usable::ForReading(_)) => {
                without(Verdict::NothingToCheck(format!("{kind}s have no check")))
            }
        },
    }
}

/// A disk whose images have formats to be checked.
fn with_format(reached: &[Reached<'_>], index: usize) -> Option<(String, Chain)> {
    let disk = reached.get(index)?;
    let chain = disk.chain.as_ref().ok()?;
    let target = disk.disk.target.clone();
    image::has_format(chain).then(|| (target, chain.clone()))
}

async fn check_one(
    run: &mut Run<'_>,
    origin: &Origin<'_>,
    reached: &mut [Reached<'_>],
    index: usize,
    path: &LayerPath,
    chain: &Chain,
) -> Result<ImageCheck, Verdict> {
    let observer = run.observer;
    let mut tell = |progress| observer.notice(&Event::CheckAdvanced { path, progress });
    let looked = image::look(chain, run.interrupt, wanted(observer, &mut tell)).await;
    let finding = match looked {
        Ok(finding) => finding,
        Err(checked) => return Ok(checked),
    };
    let is_wanted = run.options.selection.wants_disk(path.as_str());
    let is_read_only = reached.get(index).is_none_or(|disk| disk.disk.read_only);
    let may_repair = is_wanted && !is_read_only && chain.top.format != Format::Raw;
    let remedy = |mode: Mode| finding.remedy(mode.on(!may_repair));
    match run.options.action {
        Action::List => Ok(finding.left_as_it_is(may_repair).only_told()),
        Action::DryRun(mode) => {
            let calls = image::calls(chain, remedy(mode));
            if let Some(disk) = reached.get_mut(index) {
                disk.plan.push(format!("# the image of {path}"));
                disk.plan.extend(calls);
            }
            Ok(finding.left_as_it_is(may_repair).only_told())
        }
        Action::Check(mode) => match remedy(mode) {
            None => Ok(finding.left_as_it_is(may_repair)),
            Some(_) if run.interrupt.is_raised() => Ok(ImageCheck::stopped(Verdict::Interrupted)),
            Some(remedy) => {
                ask_again(run, reached, origin).await?;
                let step = Step::Check {
                    layer: path.as_str().to_owned(),
                };
                run.ledger.about_to(step).map_err(|error| failed(&error))?;
                let repaired = finding.repair(remedy, wanted(observer, &mut tell)).await;
                run.ledger.taken();
                Ok(repaired)
            }
        },
    }
}

fn wanted<'t>(
    observer: &dyn Observer,
    tell: &'t mut dyn FnMut(Progress),
) -> Option<&'t mut dyn FnMut(Progress)> {
    observer.wants_progress().then_some(tell)
}
