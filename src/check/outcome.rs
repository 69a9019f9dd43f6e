//! What a check found. Errors found on a disk are a result here, never an `Err`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::layers::tree::LayerPath;
use crate::units::Bytes;

/// The answer for one filesystem, or for a layer that may hold filesystems.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", content = "reason", rename_all = "kebab-case")]
pub enum Verdict {
    /// A full, forced check found nothing.
    Clean,
    /// There were errors; they were corrected.
    Corrected,
    /// There are errors that were not corrected.
    ErrorsLeft,
    /// It may hold filesystems, or is one, and nobody looked: the reason.
    NotChecked(String),
    /// Looking was tried and did not succeed: the cause.
    Failed(String),
    /// Nothing there that a filesystem check could look at: the reason.
    NothingToCheck(String),
    /// Somebody may be using it, so it was not touched: who, and the way out.
    Refused(String),
    /// The run was stopped by a signal before an answer was there.
    Interrupted,
}

impl Verdict {
    /// The verdict in words, without its reason.
    pub const fn words(&self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Corrected => "corrected",
            Self::ErrorsLeft => "ERRORS LEFT",
            Self::NotChecked(_) => "not checked",
            Self::Failed(_) => "FAILED",
            Self::NothingToCheck(_) => "nothing to check",
            Self::Refused(_) => "REFUSED",
            Self::Interrupted => "interrupted",
        }
    }

    /// The reason, for the verdicts that have one.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::NotChecked(reason)
            | Self::Failed(reason)
            | Self::NothingToCheck(reason)
            | Self::Refused(reason) => Some(reason),
            Self::Clean | Self::Corrected | Self::ErrorsLeft | Self::Interrupted => None,
        }
    }
}

/// What came of one layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerResult {
    /// The answer.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The checker that gave it: `e2fsck`; `None` if none ran.
    pub checker: Option<&'static str>,
    /// The checker's own exit status.
    pub exit_code: Option<i32>,
    /// How long the checker ran.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub duration: Duration,
    /// What the checker said, without its progress; the last lines if it said much.
    pub output: String,
    /// What a reader should know: "the journal was replayed on the overlay".
    pub notes: Vec<String>,
}

impl LayerResult {
    /// A verdict that no checker was needed for.
    pub fn without_checker(verdict: Verdict) -> Self {
        Self {
            verdict,
            checker: None,
            exit_code: None,
            duration: Duration::ZERO,
            output: String::new(),
            notes: Vec::new(),
        }
    }
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1000.0).round() / 1000.0)
}

/// The results of a domain's layers, by their place in the tree.
pub type Results = BTreeMap<LayerPath, LayerResult>;

/// What happens during a run, for those who watch it.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A domain is begun.
    DomainStarted {
        /// Its name.
        domain: &'a str,
    },
    /// A checker is started.
    CheckStarted {
        /// The filesystem's place.
        path: &'a LayerPath,
        /// Its type, as blkid(8) names it.
        kind: &'a str,
        /// The length of the layer it lies in.
        size: Bytes,
    },
    /// A checker has come further.
    CheckAdvanced {
        /// The filesystem's place.
        path: &'a LayerPath,
        /// How far.
        progress: Progress,
    },
    /// A checker has ended.
    CheckFinished {
        /// The filesystem's place.
        path: &'a LayerPath,
        /// What came of it.
        result: &'a LayerResult,
    },
}

/// How far a checker has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Progress {
    /// e2fsck's passes: `e2fsck -C`.
    Pass {
        /// The pass, from 1 to 5.
        pass: u8,
        /// Percent of this pass, 0 to 100.
        percent: f32,
    },
    /// For checkers that say nothing of their progress: what they have read so far.
    Read(Bytes),
}

/// Somebody who watches a run.
pub trait Observer {
    /// Takes notice of an event.
    fn notice(&self, event: &Event<'_>);

    /// Whether it is to be told how far each checker has come. Asking costs the checker time.
    fn wants_progress(&self) -> bool {
        false
    }

    /// Makes room on the terminal for a checker that talks to the user itself.
    fn step_aside(&self) {}
}
