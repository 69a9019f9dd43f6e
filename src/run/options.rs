//! What is asked of a run, and what it holds on to from start to end.

use std::path::PathBuf;

use uuid::Uuid;

use crate::allow::Allowance;
use crate::cause;
use crate::check::checker::Mode;
use crate::check::outcome::{Observer, Verdict};
use crate::domain::libvirt::{KnownDomain, Libvirt};
use crate::engine::choice::EngineChoice;
use crate::guard;
use crate::guard::others::Others;
use crate::guard::watch::Watch;
use crate::interrupt::Interrupt;
use crate::layers::dormant::Headers;
use crate::ledger::Ledger;
use crate::reach::host::Host;
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
    pub const fn writes(self) -> bool {
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
    /// What no mode does by itself.
    pub allowed: Vec<Allowance>,
    /// Which parts of a domain.
    pub selection: Selection,
    /// The headers of containers that have none in front of them.
    pub headers: Headers,
    /// By which engine.
    pub engine: EngineChoice,
    /// Where the run's folder goes.
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
    /// For the report.
    pub fn words(&self) -> String {
        match self {
            Self::Libvirt { libvirt, .. } => libvirt.uri().to_owned(),
            Self::XmlFile(file) => file.clone(),
            Self::Images => "image".to_owned(),
        }
    }

    /// The connection, if there is one.
    pub const fn libvirt(&self) -> Option<&Libvirt> {
        match self {
            Self::Libvirt { libvirt, .. } => Some(libvirt),
            Self::XmlFile(_) | Self::Images => None,
        }
    }

    /// The domain's UUID, as libvirt has it.
    pub const fn uuid(&self) -> Option<Uuid> {
        match self {
            Self::Libvirt { known, .. } => Some(known.uuid),
            Self::XmlFile(_) | Self::Images => None,
        }
    }

    /// What a reader should know of the domain, though it may be touched.
    ///
    /// # Errors
    /// The verdict if libvirt does not tell.
    pub fn note(&self) -> Result<Option<String>, Verdict> {
        let Self::Libvirt { libvirt, known } = self else {
            return Ok(None);
        };
        let snapshots = libvirt.snapshots_with_memory(known);
        Ok(guard::domain::note(
            snapshots.map_err(|error| failed(&error))?,
        ))
    }

    /// Asks libvirt whether the domain may be touched at this moment.
    ///
    /// # Errors
    /// Why it may not.
    pub fn ask(&self) -> Result<(), Refused> {
        let Self::Libvirt { libvirt, known } = self else {
            return Ok(());
        };
        let condition = libvirt.condition(known);
        let condition = condition.map_err(|error| Refused::for_good(failed(&error)))?;
        match guard::domain::refusal(&known.name, condition) {
            Some(reason) => Err(Refused {
                verdict: Verdict::Refused(reason),
                may_pass: condition.is_starting(),
            }),
            None => Ok(()),
        }
    }
}

/// Something may not be touched at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub verdict: Verdict,
    /// A domain is about to start, which may fail: who has its claim need not give up yet.
    pub may_pass: bool,
}

impl Refused {
    /// Whatever comes.
    pub const fn for_good(verdict: Verdict) -> Self {
        Self {
            verdict,
            may_pass: false,
        }
    }
}

/// What runs hold on to, one domain after the other.
pub struct Run<'a> {
    /// What is asked.
    pub options: &'a Options,
    /// What is open.
    pub ledger: &'a mut Ledger,
    /// The host's own layers under the disks.
    pub host: &'a mut Host,
    /// What stops it.
    pub interrupt: &'a mut Interrupt,
    /// The domains of this host.
    pub others: &'a Others,
    /// The watch over them.
    pub watch: &'a Watch,
    /// Who watches.
    pub observer: &'a dyn Observer,
}

impl std::fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run")
            .field("options", self.options)
            .field("ledger", self.ledger)
            .finish_non_exhaustive()
    }
}

/// What could not be done, as a verdict.
pub fn failed(error: &(dyn std::error::Error + 'static)) -> Verdict {
    Verdict::Failed(cause::sentence(error))
}
