//! One domain from start to end: the way of the data.

use std::path::PathBuf;
use std::time::Instant;

use crate::cause;
use crate::check::checker::{Checker, Mode};
use crate::check::image;
use crate::check::layer::{self, Need};
use crate::check::outcome::{Event, LayerResult, Observer, Verdict};
use crate::check::run::{Subject, check};
use crate::domain::libvirt::{KnownDomain, Libvirt};
use crate::domain::model::{Disk, Domain};
use crate::dry_run::{self, PlannedDisk};
use crate::engine::user::daemon::DaemonError;
use crate::engine::user::nodes::Access;
use crate::engine::user::session::{Session, SessionError, ShownDisk, ShownDisks, Writes};
use crate::guard;
use crate::guard::host::HostClaim;
use crate::guard::others::DiskInUse;
use crate::interrupt::Interrupt;
use crate::layers::extent::{Extent, ImageIndex};
use crate::layers::filesystem::Filesystem;
use crate::layers::peel::{self, OpenDisk};
use crate::layers::tree::Layer;
use crate::reach::chain::Chain;
use crate::reach::disk::reach;
use crate::report::model::{DiskContent, DiskReport, DomainReport};
use crate::select::Selection;

/// What is to be done with each domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Show its layers.
    List,
    /// Show the steps a check would take.
    DryRun(Mode),
    /// Check its filesystems.
    Check(Mode),
}

impl Action {
    /// Whether disks are written.
    const fn writes(self) -> bool {
        match self {
            Self::List | Self::DryRun(_) => false,
            Self::Check(mode) => mode.writes(),
        }
    }
}

/// What holds for all domains of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is to be done.
    pub action: Action,
    /// Which parts of a domain.
    pub selection: Selection,
    /// Where mount points go.
    pub run_base: PathBuf,
    /// Where overlays go.
    pub state_base: PathBuf,
}

/// Where a domain was read from.
#[derive(Debug)]
pub enum Origin<'a> {
    /// libvirt, which can be asked for its state.
    Libvirt {
        /// The connection.
        libvirt: &'a Libvirt,
        /// The domain there.
        known: &'a KnownDomain,
    },
    /// An XML file.
    XmlFile(String),
    /// Images named on the command line.
    Images,
}

impl Origin<'_> {
    fn words(&self) -> String {
        match self {
            Self::Libvirt { libvirt, .. } => libvirt.uri().to_owned(),
            Self::XmlFile(file) => file.clone(),
            Self::Images => "image".to_owned(),
        }
    }

    const fn libvirt(&self) -> Option<&Libvirt> {
        match self {
            Self::Libvirt { libvirt, .. } => Some(libvirt),
            Self::XmlFile(_) | Self::Images => None,
        }
    }

    /// Asks libvirt whether the domain may be touched at this moment.
    fn ask(&self) -> Result<(), Verdict> {
        let Self::Libvirt { libvirt, known } = self else {
            return Ok(());
        };
        let condition = libvirt.condition(known).map_err(|error| failed(&error))?;
        match guard::domain::refusal(&known.name, condition) {
            Some(reason) => Err(Verdict::Refused(reason)),
            None => Ok(()),
        }
    }
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Verdict {
    Verdict::Failed(cause::sentence(error))
}

/// A disk on its way: what was reached, or why not.
struct Reached<'a> {
    disk: &'a Disk,
    chain: Result<Chain, Verdict>,
    /// Held until the disk is closed again.
    claim: HostClaim,
}

impl Reached<'_> {
    /// Why the disk must not be touched, if one of these is the same.
    fn refusal(&self, in_use: &[DiskInUse]) -> Option<String> {
        let chain = self.chain.as_ref().ok()?;
        guard::others::refusal(self.disk, chain, in_use)
    }
}

/// What a run holds on to from start to end.
struct Run<'a> {
    origin: &'a Origin<'a>,
    options: &'a Options,
    interrupt: &'a mut Interrupt,
    observer: &'a dyn Observer,
}

/// A report on a domain of which nothing was looked at.
pub fn not_looked_at(domain: &str, origin: &str, verdict: Verdict) -> DomainReport {
    DomainReport {
        domain: domain.to_owned(),
        uuid: None,
        origin: origin.to_owned(),
        verdict: Some(verdict),
        disks: Vec::new(),
        results: Default::default(),
        notes: Vec::new(),
        plan: Vec::new(),
        duration: std::time::Duration::ZERO,
    }
}

/// Takes a domain all the way. Whatever happens, all that was opened is closed afterwards, and
/// the report says what came of it.
pub async fn run(
    domain: &Domain,
    origin: &Origin<'_>,
    options: &Options,
    interrupt: &mut Interrupt,
    observer: &dyn Observer,
) -> DomainReport {
    let begun = Instant::now();
    observer.notice(&Event::DomainStarted {
        domain: &domain.name,
    });
    let mut report = not_looked_at(&domain.name, &origin.words(), Verdict::Interrupted);
    report.uuid = domain.uuid;
    let mut run = Run {
        origin,
        options,
        interrupt,
        observer,
    };
    report.verdict = run.walk(domain, &mut report).await.err();
    report.duration = begun.elapsed();
    report
}

impl Run<'_> {
    /// May we, where, open, inside, close.
    async fn walk(&mut self, domain: &Domain, report: &mut DomainReport) -> Result<(), Verdict> {
        self.origin.ask()?;
        let mut reached = self.reach_all(domain).await;
        self.leave_out_what_others_use(&mut reached).await?;
        leave_out_what_the_host_uses(&mut reached);
        if reached.iter().all(|disk| disk.chain.is_err()) {
            report.disks = reached.iter().map(disk_report).collect();
            self.forget_unselected(report);
            return Ok(());
        }
        let mut session = Session::start(&self.options.run_base, &self.options.state_base)
            .await
            .map_err(|error| failed(&error))?;
        report.disks = reached.iter().map(disk_report).collect();
        let outcome = self.work(&mut session, &reached, report).await;
        let closed = session.close().await.map_err(|error| failed(&error));
        self.forget_unselected(report);
        outcome.and(closed)
    }

    async fn reach_all<'d>(&self, domain: &'d Domain) -> Vec<Reached<'d>> {
        let mut reached = Vec::new();
        for disk in &domain.disks {
            let writes = self.options.action.writes();
            let chain = reach(disk, self.origin.libvirt(), writes).await;
            reached.push(Reached {
                disk,
                chain,
                claim: HostClaim::default(),
            });
        }
        reached
    }

    async fn leave_out_what_others_use(&self, reached: &mut [Reached<'_>]) -> Result<(), Verdict> {
        let in_use = self.disks_in_use().await?;
        for disk in reached {
            if let Some(reason) = disk.refusal(&in_use) {
                disk.chain = Err(Verdict::Refused(reason));
            }
        }
        Ok(())
    }

    /// Asks once more, because a guest may have been started since: the domain itself, or another
    /// one that uses its disks.
    async fn ask_again(&self, reached: &[Reached<'_>]) -> Result<(), Verdict> {
        self.origin.ask()?;
        let in_use = self.disks_in_use().await?;
        match reached.iter().find_map(|disk| disk.refusal(&in_use)) {
            Some(reason) => Err(Verdict::Refused(reason)),
            None => Ok(()),
        }
    }

    async fn disks_in_use(&self) -> Result<Vec<DiskInUse>, Verdict> {
        match self.origin.libvirt() {
            Some(libvirt) => guard::others::disks_in_use(libvirt)
                .await
                .map_err(|error| failed(&error)),
            None => Ok(Vec::new()),
        }
    }

    /// All between opening and closing.
    async fn work(
        &mut self,
        session: &mut Session,
        reached: &[Reached<'_>],
        report: &mut DomainReport,
    ) -> Result<(), Verdict> {
        let layers = self.look(session, reached, report).await?;
        self.complain_of_unknown_names(reached, &layers)?;
        self.ask_again(reached).await?;
        match self.options.action {
            Action::List => Ok(()),
            Action::DryRun(mode) => {
                let disks: Vec<_> = reached.iter().zip(&report.disks).map(planned).collect();
                report.plan = dry_run::steps(&disks, &self.wanted(&layers), mode, self.options);
                Ok(())
            }
            Action::Check(mode) => {
                if let Some(reason) = layer::hibernated(&layers) {
                    return Err(Verdict::Refused(reason));
                }
                self.check_all(session, reached, &layers, mode, report)
                    .await
            }
        }
    }

    /// Opens the disks and looks what is inside.
    async fn look(
        &mut self,
        session: &mut Session,
        reached: &[Reached<'_>],
        report: &mut DomainReport,
    ) -> Result<Vec<Layer>, Verdict> {
        let mut shown = ShownDisks::default();
        let mut open = Vec::new();
        for (index, disk) in reached.iter().enumerate() {
            let image = ImageIndex(index);
            let opened = match &disk.chain {
                Ok(chain) => Some(self.open(session, image, disk.disk, chain).await),
                Err(_) => None,
            };
            match (opened, report.disks.get_mut(index)) {
                (Some(Ok(disk_shown)), Some(disk_report)) => {
                    disk_report.size = Some(disk_shown.size());
                    open.push(OpenDisk {
                        target: disk.disk.target.clone(),
                        image,
                        size: disk_shown.size(),
                        sector_size: disk.disk.sector_size,
                    });
                    shown.push(Some(disk_shown));
                }
                (Some(Err(verdict)), Some(disk_report)) => {
                    disk_report.content = DiskContent::NotOpened(verdict);
                    shown.push(None);
                }
                _ => shown.push(None),
            }
        }
        let layers = peel::peel(&open, &shown);
        for (disk, layer) in open.iter().zip(&layers) {
            if let Some(disk_report) = report.disks.get_mut(disk.image.0) {
                disk_report.content = DiskContent::Opened(layer.clone());
            }
        }
        session.hide(shown).await.map_err(|error| failed(&error))?;
        Ok(layers)
    }

    /// Opens a disk, if its images themselves are sound.
    async fn open(
        &self,
        session: &mut Session,
        index: ImageIndex,
        disk: &Disk,
        chain: &Chain,
    ) -> Result<ShownDisk, Verdict> {
        image::look(chain).await?;
        session
            .open(index, chain, self.access(disk))
            .await
            .map_err(|error| not_opened(&error))
    }

    const fn access(&self, disk: &Disk) -> Access {
        Access::of(self.options.action.writes() && !disk.read_only)
    }

    fn complain_of_unknown_names(
        &self,
        reached: &[Reached<'_>],
        layers: &[Layer],
    ) -> Result<(), Verdict> {
        let targets: Vec<&str> = reached
            .iter()
            .map(|disk| disk.disk.target.as_str())
            .collect();
        let unknown = self.options.selection.unknown(&targets, layers);
        if unknown.is_empty() {
            return Ok(());
        }
        Err(Verdict::Failed(format!(
            "it has no {}; --list shows what it has",
            unknown.join(", ")
        )))
    }

    fn wanted<'l>(&self, layers: &'l [Layer]) -> Vec<&'l Layer> {
        let wants = |layer: &&Layer| self.options.selection.wants(layer);
        layers.iter().flat_map(Layer::walk).filter(wants).collect()
    }

    async fn check_all(
        &mut self,
        session: &mut Session,
        reached: &[Reached<'_>],
        layers: &[Layer],
        mode: Mode,
        report: &mut DomainReport,
    ) -> Result<(), Verdict> {
        for layer in self.wanted(layers) {
            let result = match layer::need(layer) {
                Need::Nothing => continue,
                Need::Answer(verdict) => LayerResult::without_checker(verdict),
                Need::Check { .. } if self.interrupt.is_raised() => {
                    LayerResult::without_checker(Verdict::Interrupted)
                }
                Need::Check {
                    checker,
                    filesystem,
                    extent,
                } => {
                    self.ask_again(reached).await?;
                    let disk = reached.get(extent.image.0).map(|reached| reached.disk);
                    let size = report.disks.get(extent.image.0).and_then(|disk| disk.size);
                    let task = Task {
                        layer,
                        checker,
                        filesystem,
                        extent,
                        disk_size: size.unwrap_or_default(),
                        read_only: layer.read_only || disk.is_some_and(|disk| disk.read_only),
                    };
                    self.check_one(session, &task, mode).await
                }
            };
            report.results.insert(layer.path.clone(), result);
        }
        Ok(())
    }

    /// Checks one filesystem, and tells who watches.
    async fn check_one(
        &mut self,
        session: &mut Session,
        task: &Task<'_>,
        mode: Mode,
    ) -> LayerResult {
        let path = &task.layer.path;
        self.observer.notice(&Event::CheckStarted {
            path,
            kind: task.filesystem.kind.name(),
            size: task.layer.size(),
        });
        let result = self.check_shown(session, task, mode).await;
        self.observer.notice(&Event::CheckFinished {
            path,
            result: &result,
        });
        result
    }

    /// Shows a filesystem, checks it, takes it back.
    async fn check_shown(
        &mut self,
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
        let shown = session
            .show(path, task.extent, task.disk_size, writes)
            .await;
        let shown = match shown {
            Ok(shown) => shown,
            Err(error) => return LayerResult::without_checker(not_opened(&error)),
        };
        let subject = Subject {
            layer: path,
            filesystem: task.filesystem,
            path: shown.path(),
        };
        let mut result = check(task.checker, mode, subject, self.interrupt, self.observer).await;
        if writes == Writes::ToAnOverlay
            && matches!(result.verdict, Verdict::Failed(_) | Verdict::ErrorsLeft)
            && let Some(reason) = session.overlay_is_full()
        {
            result.verdict = Verdict::Failed(reason);
        }
        if let Err(error) = session.take_back(shown).await {
            // What was written may not be on the disk: that outweighs what the checker said.
            result.verdict = failed(&error);
        }
        if task.read_only {
            result
                .notes
                .push("it is read-only for the guest, so it was only checked".to_owned());
        }
        result
    }

    /// A disk that was not asked for has no answer, whatever became of it.
    fn forget_unselected(&self, report: &mut DomainReport) {
        for disk in &mut report.disks {
            if !self.options.selection.wants_disk(&disk.target)
                && matches!(disk.content, DiskContent::NotOpened(_))
            {
                let reason = "not asked for".to_owned();
                disk.content = DiskContent::NotOpened(Verdict::NothingToCheck(reason));
            }
        }
    }
}

fn planned<'a>((reached, report): (&'a Reached<'_>, &DiskReport)) -> Option<PlannedDisk<'a>> {
    Some(PlannedDisk {
        chain: reached.chain.as_ref().ok()?,
        size: report.size?,
        read_only: reached.disk.read_only,
    })
}

fn leave_out_what_the_host_uses(reached: &mut [Reached<'_>]) {
    for disk in reached {
        let Ok(chain) = &disk.chain else { continue };
        match guard::host::claim(chain) {
            Ok(claim) => disk.claim = claim,
            Err(reason) => disk.chain = Err(Verdict::Refused(reason)),
        }
    }
}

/// A filesystem that waits for its checker.
struct Task<'a> {
    layer: &'a Layer,
    checker: Checker,
    filesystem: &'a Filesystem,
    extent: Extent,
    disk_size: crate::units::Bytes,
    read_only: bool,
}

fn not_opened(error: &SessionError) -> Verdict {
    match error {
        SessionError::Daemon(DaemonError::InUse(_)) => Verdict::Refused(error.to_string()),
        _ => failed(error),
    }
}

fn disk_report(reached: &Reached<'_>) -> DiskReport {
    let disk = reached.disk;
    let mut notes = Vec::new();
    if disk.shareable {
        notes.push("shareable: other domains may be meant to use it too".to_owned());
    }
    if disk.transient {
        notes.push("transient: what the guest writes is dropped when it stops".to_owned());
    }
    DiskReport {
        target: disk.target.clone(),
        source: disk.image.source.as_ref().map(ToString::to_string),
        format: disk.image.format.name().to_owned(),
        size: None,
        notes,
        content: DiskContent::NotOpened(match &reached.chain {
            Ok(_) => Verdict::Interrupted,
            Err(verdict) => verdict.clone(),
        }),
    }
}
