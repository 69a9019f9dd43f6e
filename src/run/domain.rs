//! The way of the data: may we, where, open, inside, check, close.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::allow::Allowance;
use crate::check::layer::{self, Need};
use crate::check::outcome::{Event, LayerResult, Verdict};
use crate::domain::model::Domain;
use crate::dry_run::{self, PlannedDisk};
use crate::engine::choice::{self, EngineChoice};
use crate::engine::session::Session;
use crate::engine::user::nodes::Access;
use crate::engine::{kernel, user};
use crate::guard::claim::{Claim, Claimed};
use crate::layers::tree::Layer;
use crate::report::model::{DiskContent, DiskReport, DomainReport};
use crate::run::checks::check_all;
use crate::run::guarded::{ask_again, not_claimed, watched};
use crate::run::hibernation;
use crate::run::images;
use crate::run::look::{Looked, disks_of, look};
use crate::run::options::{Action, Options, Origin, Run, failed};
use crate::run::reached::{Reached, disk_report, reach_all};
use crate::run::unlock::Learned;
use crate::select::unknown_layers;

/// A report on a domain of which nothing was looked at.
pub fn not_looked_at(domain: &str, origin: &str, verdict: Verdict) -> DomainReport {
    DomainReport {
        domain: domain.to_owned(),
        uuid: None,
        origin: origin.to_owned(),
        verdict: Some(verdict),
        disks: Vec::new(),
        opened: Vec::new(),
        results: Default::default(),
        notes: Vec::new(),
        plan: Vec::new(),
        duration: Duration::ZERO,
    }
}

/// Takes a domain all the way. Whatever happens, all that was opened for it is closed afterwards,
/// and the report says what came of it.
pub async fn run(run: &mut Run<'_>, domain: &Domain, origin: &Origin<'_>) -> DomainReport {
    let begun = Instant::now();
    run.observer.notice(&Event::DomainStarted {
        domain: &domain.name,
    });
    let mut report = not_looked_at(&domain.name, &origin.words(), Verdict::Interrupted);
    report.uuid = domain.uuid;
    report.verdict = walk(run, domain, origin, &mut report).await.err();
    if let Some(reason) = run.interrupt.end_alarm() {
        tell_of_alarm(&mut report, &reason);
    }
    forget_unselected(run, &mut report);
    report.duration = begun.elapsed();
    report
}

/// A guest has started while it, or what it shares, was worked on.
fn tell_of_alarm(report: &mut DomainReport, reason: &str) {
    let in_the_middle = format!(
        "stopped in the middle, because since it began {reason}; then check again, with every \
         repair that it finds"
    );
    for result in report.results.values_mut() {
        if result.verdict == Verdict::Interrupted {
            result.verdict = match result.checker {
                Some(_) => Verdict::Failed(in_the_middle.clone()),
                None => Verdict::Refused(reason.to_owned()),
            };
        }
    }
    report.verdict = Some(Verdict::Refused(format!("while it was checked, {reason}")));
}

async fn walk(
    run: &mut Run<'_>,
    domain: &Domain,
    origin: &Origin<'_>,
    report: &mut DomainReport,
) -> Result<(), Verdict> {
    // Before the question: see there.
    let _claim = claim(run.options, domain, origin)?;
    origin.ask().map_err(|refused| refused.verdict)?;
    report.notes.extend(origin.note()?);
    let mut reached = reach_all(run, domain, origin, &mut report.notes).await?;
    let watch = run.watch;
    let _watching = watch.begin(watched(&reached, domain, origin, run.interrupt.alarm()));
    let images_checked = images::check_all(run, origin, &mut reached).await;
    report.plan = reached
        .iter_mut()
        .flat_map(|disk| disk.plan.drain(..))
        .collect();
    if images_checked.is_err() || reached.iter().all(|disk| disk.chain.is_err()) {
        report.disks = reached.iter().map(disk_report).collect();
        return images_checked;
    }
    let mut visit = Visit {
        run,
        origin,
        reached,
        report,
        domain: &domain.name,
        learned: Learned::default(),
    };
    let left = match first_engine(visit.run.options.engine) {
        First::User => visit.by_user_engine().await?,
        First::Kernel => return visit.by_kernel_engine(None).await,
    };
    let Some((looked, reason)) = left else {
        return Ok(());
    };
    match reason {
        None => visit.by_kernel_engine(Some(&looked)).await,
        Some(reason) => {
            visit.answer_the_rest(&looked, |layer| {
                layer::beyond_the_user_engine(layer, &reason)
            });
            Ok(())
        }
    }
}

/// The claim on a domain that has a UUID; bare images have none.
fn claim(
    options: &Options,
    domain: &Domain,
    origin: &Origin<'_>,
) -> Result<Option<Claim>, Verdict> {
    let Some(uuid) = origin.uuid().or(domain.uuid) else {
        return Ok(None);
    };
    let what = format!("domain {}", domain.name);
    let claim = Claim::take(
        &options.run_base,
        Claimed::Domain(uuid),
        Access::Write,
        &what,
    );
    claim.map(Some).map_err(|error| not_claimed(&error))
}

enum First {
    User,
    Kernel,
}

fn first_engine(choice: EngineChoice) -> First {
    let kernel_only = choice::no_user_engine() && choice::no_kernel_engine().is_none();
    match choice {
        EngineChoice::Kernel => First::Kernel,
        EngineChoice::Auto if kernel_only => First::Kernel,
        EngineChoice::Auto | EngineChoice::User => First::User,
    }
}

/// What the user engine has left, and why the kernel engine does not get it; `None` if it does.
type Rest = (Looked, Option<String>);

/// A domain whose disks have been found.
struct Visit<'v, 'r> {
    run: &'v mut Run<'r>,
    origin: &'v Origin<'v>,
    reached: Vec<Reached<'v>>,
    report: &'v mut DomainReport,
    /// The domain's name.
    domain: &'v str,
    /// The keys of its containers.
    learned: Learned,
}

impl Visit<'_, '_> {
    /// All that the user engine can do.
    async fn by_user_engine(&mut self) -> Result<Option<Rest>, Verdict> {
        let state_base = &self.run.options.state_base;
        let disks = self.reached.len();
        let session = user::session::Session::start(self.run.ledger, state_base, disks).await;
        let session = session.map_err(|error| failed(&error))?;
        let mut session = Session::User(Box::new(session));
        self.report.disks = self.reached.iter().map(disk_report).collect();
        let outcome = self.work(&mut session, None).await;
        let closed = session.close(self.run.ledger).await;
        let rest = outcome?;
        closed.map_err(|error| failed(&error))?;
        let Some(looked) = rest else { return Ok(None) };
        let reason = match (self.run.options.engine, choice::no_kernel_engine()) {
            (EngineChoice::User, _) => Some("--engine kernel can, as root".to_owned()),
            (_, Some(reason)) => Some(reason.to_owned()),
            (_, None) => None,
        };
        Ok(Some((looked, reason)))
    }

    /// All that has no answer yet. `before` is what another engine has found.
    async fn by_kernel_engine(&mut self, before: Option<&Looked>) -> Result<(), Verdict> {
        if let Some(reason) = choice::no_kernel_engine() {
            return Err(Verdict::Failed(reason.to_owned()));
        }
        if before.is_none() {
            self.report.disks = self.reached.iter().map(disk_report).collect();
        }
        let state_base = &self.run.options.state_base;
        let disks = self.reached.len();
        let session = kernel::session::Session::start(self.run.ledger, state_base, disks);
        let mut session = Session::Kernel(session);
        let outcome = self.work(&mut session, before).await;
        let closed = session.close(self.run.ledger).await;
        if let Some(looked) = outcome? {
            self.answer_the_rest(&looked, |layer| {
                layer::not_activated(layer, "its volume group is not complete")
            });
        }
        closed.map_err(|error| failed(&error))
    }

    /// All between opening and closing. What this engine cannot serve is given back.
    async fn work(
        &mut self,
        session: &mut Session,
        before: Option<&Looked>,
    ) -> Result<Option<Looked>, Verdict> {
        let looked = look(
            self.run,
            session,
            &mut self.reached,
            self.domain,
            &mut self.learned,
        )
        .await?;
        match before {
            Some(before) if !looked.has_all_of(before) => {
                let reason = "the kernel engine could not open all of its disks";
                self.answer_the_rest(before, |layer| layer::beyond_the_user_engine(layer, reason));
                return Ok(None);
            }
            _ => looked.tell(self.report),
        }
        self.complain_of_unknown_names(&looked)?;
        match self.run.options.action {
            Action::List => {
                ask_again(self.run, &self.reached, self.origin).await?;
                Ok(None)
            }
            Action::DryRun(mode) => {
                ask_again(self.run, &self.reached, self.origin).await?;
                let disks = self.reached.iter().zip(&self.report.disks);
                let disks: Vec<_> = disks.map(planned).collect();
                let wanted = self.run.options.selection.wanted(&looked.layers);
                let steps = dry_run::steps(&disks, &looked, &wanted, mode, self.run.options);
                self.report.plan.extend(steps);
                Ok(None)
            }
            Action::Check(mode) => {
                hibernation::refuse(self.run, session, &looked).await?;
                let is_allowed = self.run.options.allowed.contains(&Allowance::SharedLvm);
                if mode.writes()
                    && !is_allowed
                    && let Some(reason) = layer::shared_storage(&looked.layers)
                {
                    return Err(Verdict::Refused(reason));
                }
                let left = check_all(
                    self.run,
                    self.origin,
                    session,
                    &self.reached,
                    &looked,
                    mode,
                    self.report,
                );
                let nothing_left = left.await?.is_empty();
                Ok((!nothing_left).then_some(looked))
            }
        }
    }

    /// What no engine has checked, with the reason.
    fn answer_the_rest(&mut self, looked: &Looked, answer: impl Fn(&Layer) -> Verdict) {
        for layer in self.run.options.selection.wanted(&looked.layers) {
            if !matches!(layer::need(layer), Need::Nothing) {
                let results = &mut self.report.results;
                results
                    .entry(layer.path.clone())
                    .or_insert_with(|| LayerResult::without_checker(answer(layer)));
            }
        }
    }

    fn complain_of_unknown_names(&self, looked: &Looked) -> Result<(), Verdict> {
        let disks = self.reached.iter();
        let targets: Vec<&str> = disks.map(|disk| disk.disk.target.as_str()).collect();
        let options = self.run.options;
        let mut unknown = options.selection.unknown(&targets, &looked.layers);
        let headers = options.headers.keys().map(String::as_str);
        unknown.extend(unknown_layers(headers, &targets, &looked.layers));
        if unknown.is_empty() {
            return Ok(());
        }
        Err(Verdict::Failed(format!(
            "it has no {}; --list shows what it has",
            unknown.join(", ")
        )))
    }
}

fn planned<'a>((reached, report): (&'a Reached<'_>, &DiskReport)) -> Option<PlannedDisk<'a>> {
    Some(PlannedDisk {
        chain: reached.chain.as_ref().ok()?,
        size: report.size?,
        read_only: reached.only_looked_at().is_some(),
    })
}

/// A disk that was not asked for has no answer, whatever became of it; its image has one where
/// something that was asked for lies in it.
fn forget_unselected(run: &Run<'_>, report: &mut DomainReport) {
    let used = images_used(run, report);
    for (index, disk) in report.disks.iter_mut().enumerate() {
        if !run.options.selection.wants_disk(&disk.target) && !used.contains(&index) {
            disk.image = None;
        }
        if !run.options.selection.wants_disk(&disk.target)
            && matches!(disk.content, DiskContent::NotOpened(_))
        {
            let reason = "not asked for".to_owned();
            disk.content = DiskContent::NotOpened(Verdict::NothingToCheck(reason));
        }
    }
}

/// The disks that the layers asked for lie on, by their place.
fn images_used(run: &Run<'_>, report: &DomainReport) -> BTreeSet<usize> {
    let layers = report.disks.iter().filter_map(|disk| match &disk.content {
        DiskContent::Opened(root) => Some(root.walk()),
        DiskContent::NotOpened(_) => None,
    });
    let wanted = layers
        .flatten()
        .filter(|layer| run.options.selection.wants(layer));
    let disks = report.disks.len();
    wanted
        .flat_map(|layer| disks_of(&layer.extents, disks, &report.opened))
        .map(|disk| disk.0)
        .collect()
}
