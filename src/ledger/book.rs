//! The ledger's file, and the steps of this run that are still to be taken back.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::cause;
use crate::ledger::step::{Handle, Step};
use crate::ledger::undo;
use crate::names::{self, RunId};

/// The ledger could not be written.
#[derive(Debug, thiserror::Error)]
#[error("the folder {path} of this run cannot be used")]
pub struct LedgerError {
    path: String,
    #[source]
    source: io::Error,
}

impl LedgerError {
    pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self { path, source }
    }
}

/// One line of the file. Lines are only ever added; each is on the disk before what it speaks of
/// is done.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Line {
    /// The first line: whose ledger it is.
    Run {
        /// Its process.
        process: ProcessIdentity,
    },
    /// A step is about to be taken.
    Begun {
        /// Its number in the run, from 1.
        number: u32,
        /// The step.
        #[serde(flatten)]
        step: Step,
    },
    /// A step was taken back.
    Undone {
        /// Its number.
        undone: u32,
    },
}

/// A process, told apart from a later one with the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessIdentity {
    number: i32,
    /// When it was started, in clock ticks since the system was (`starttime` of proc(5)).
    started: Option<u64>,
}

impl ProcessIdentity {
    fn own() -> Self {
        let number = rustix::process::getpid().as_raw_nonzero().get();
        Self {
            number,
            started: started(number),
        }
    }

    pub(super) fn lives(&self) -> bool {
        self.started.is_some() && started(self.number) == self.started
    }
}

fn started(process: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in parentheses, may hold anything; the fields after it are counted from the third.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The place in the ledger up to which something is to be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(usize);

#[derive(Debug)]
struct Open {
    number: u32,
    step: Step,
    handle: Option<Handle>,
}

#[derive(Debug)]
struct Book {
    folder: PathBuf,
    id: RunId,
    file: File,
}

/// What this run has opened and not yet closed.
#[derive(Debug)]
pub struct Ledger {
    base: PathBuf,
    /// Made when the first step is written.
    book: Option<Book>,
    open: Vec<Open>,
    steps: u32,
    kill: KillPoint,
}

impl Ledger {
    /// An empty ledger. Its folder will lie below `base`, and is made when it is first needed.
    pub fn new(base: &Path) -> Self {
        Self {
            base: base.to_owned(),
            book: None,
            open: Vec::new(),
            steps: 0,
            kill: KillPoint::from_environment(),
        }
    }

    fn book(&mut self) -> Result<&mut Book, LedgerError> {
        if self.book.is_none() {
            self.book = Some(Book::begin(&self.base)?);
        }
        self.book
            .as_mut()
            .ok_or_else(|| LedgerError::at(&self.base)(io::ErrorKind::NotFound.into()))
    }

    /// The folder of this run, which only its owner can look into.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&mut self) -> Result<&Path, LedgerError> {
        Ok(&self.book()?.folder)
    }

    /// What tells this run from all others.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn run(&mut self) -> Result<&RunId, LedgerError> {
        Ok(&self.book()?.id)
    }

    /// Writes down that a step is about to be taken. To be called right before it is taken, and
    /// [`Ledger::taken`] right after. A step that failed stays in the ledger: taking it back does
    /// no harm.
    ///
    /// # Errors
    /// When it cannot be written; then the step must not be taken.
    pub fn about_to(&mut self, step: Step) -> Result<(), LedgerError> {
        self.steps = self.steps.saturating_add(1);
        let number = self.steps;
        tracing::trace!(target: "virt_fsck::ledger", "step {number}: {step:?}");
        let line = Line::Begun { number, step };
        self.book()?.write(&line)?;
        if let Line::Begun { number, step } = line {
            self.open.push(Open {
                number,
                step,
                handle: None,
            });
        }
        self.kill.pass();
        Ok(())
    }

    /// The step that was written last has been taken.
    pub fn taken(&mut self) {
        self.kill.pass();
    }

    /// The same, and this is what holds it open.
    pub fn taken_with(&mut self, handle: Handle) {
        if let Some(last) = self.open.last_mut() {
            last.handle = Some(handle);
        }
        self.taken();
    }

    /// A number that nothing else of this run has, for the name of what the next step makes.
    pub fn number(&self) -> usize {
        usize::try_from(self.steps)
            .unwrap_or(usize::MAX)
            .saturating_add(1)
    }

    /// The present place: what is opened from here on can be taken back by [`Ledger::undo_to`].
    pub fn mark(&self) -> Mark {
        Mark(self.open.len())
    }

    /// Takes back all steps since `mark`, the last first. One that cannot be taken back does not
    /// keep the others; it stays in the ledger's file, so that a later run tries again.
    ///
    /// # Errors
    /// What could not be taken back, one sentence each, the first failure first.
    pub async fn undo_to(&mut self, mark: Mark) -> Result<(), Left> {
        let mut left = Vec::new();
        while self.open.len() > mark.0 {
            let Some(open) = self.open.pop() else { break };
            let number = open.number;
            let shown = format!("{:?}", open.step);
            tracing::trace!(target: "virt_fsck::ledger", "taking back step {number}: {shown}");
            match undo::undo(&open.step, open.handle).await {
                Ok(()) => {
                    self.kill.pass();
                    let line = Line::Undone { undone: number };
                    if let Err(error) = self.book().and_then(|book| book.write(&line)) {
                        left.push(cause::sentence(&error));
                    }
                }
                Err(error) => left.push(cause::sentence(&error)),
            }
        }
        match left.is_empty() {
            true => Ok(()),
            false => Err(Left(left)),
        }
    }

    /// Takes back everything; the ledger itself goes last, if nothing is left.
    ///
    /// # Errors
    /// What could not be taken back.
    pub async fn end(mut self) -> Result<(), Left> {
        self.undo_to(Mark(0)).await?;
        match self.book.take() {
            Some(book) => book
                .remove()
                .map_err(|error| Left(vec![cause::sentence(&error)])),
            None => Ok(()),
        }
    }
}

/// What could not be taken back.
#[derive(Debug, thiserror::Error)]
#[error("{}; it is written down, and virt-fsck recover tries again", .0.join("; "))]
pub struct Left(pub Vec<String>);

impl Book {
    /// A new folder below `base`, with a ledger that is locked for as long as this process or any of
    /// its children lives, because they inherit it: by that others know that the run has not ended.
    /// It gets its name when that is so.
    fn begin(base: &Path) -> Result<Self, LedgerError> {
        std::fs::create_dir_all(base).map_err(LedgerError::at(base))?;
        let unfinished = tempfile::Builder::new()
            .prefix(names::UNFINISHED_PREFIX)
            .tempdir_in(base)
            .map_err(|source| LedgerError::at(base)(source.kind().into()))?;
        let at = || LedgerError::at(unfinished.path());
        let file = File::create_new(unfinished.path().join(names::LEDGER)).map_err(at())?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| at()(error.into()))?;
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty())
            .map_err(|error| at()(error.into()))?;
        let name = unfinished.path().file_name().unwrap_or_default();
        let id = name.to_string_lossy().replace(names::UNFINISHED_PREFIX, "");
        let folder = base.join(format!("{}{id}", names::PREFIX));
        let id =
            RunId::of_folder(&folder).ok_or_else(|| at()(io::ErrorKind::InvalidFilename.into()))?;
        std::fs::rename(unfinished.path(), &folder).map_err(at())?;
        let _renamed = unfinished.keep();
        let mut book = Self { folder, id, file };
        let process = ProcessIdentity::own();
        book.write(&Line::Run { process })?;
        Ok(book)
    }

    fn write(&mut self, line: &Line) -> Result<(), LedgerError> {
        let at = || LedgerError::at(&self.folder);
        let mut text = serde_json::to_vec(line).map_err(|error| at()(error.into()))?;
        text.push(b'\n');
        self.file.write_all(&text).map_err(at())?;
        self.file.sync_data().map_err(at())
    }

    fn remove(self) -> Result<(), LedgerError> {
        remove(&self.folder)
    }
}

/// Removes a run's folder, in which only the ledger is left.
pub(super) fn remove(folder: &Path) -> Result<(), LedgerError> {
    let ledger = folder.join(names::LEDGER);
    std::fs::remove_file(&ledger).map_err(LedgerError::at(&ledger))?;
    std::fs::remove_dir(folder).map_err(LedgerError::at(folder))
}

/// Where a test wants the run to be killed: `VIRT_FSCK_KILL_AT=3` ends it by SIGKILL at the third
/// moment, counted before and after each step and after each step that is taken back. Only a real
/// SIGKILL at every such moment shows that nothing stays behind (tests/bench-vm/scenarios/kill-*).
#[derive(Debug)]
struct KillPoint {
    moments_left: Option<u32>,
}

impl KillPoint {
    fn from_environment() -> Self {
        let wanted = std::env::var("VIRT_FSCK_KILL_AT").ok();
        Self {
            moments_left: wanted.and_then(|moment| moment.parse().ok()),
        }
    }

    fn pass(&mut self) {
        let Some(left) = &mut self.moments_left else {
            return;
        };
        *left = left.saturating_sub(1);
        if *left == 0 {
            // Should it fail, the run goes on, and the test sees that.
            let _killed = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn steps_are_taken_back_in_reverse_and_nothing_is_left() {
        let base = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::new(base.path());
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
        let outer = ledger.folder().unwrap().join("outer");
        let inner = outer.join("inner");
        for path in [&outer, &inner] {
            ledger
                .about_to(Step::Folder { path: path.clone() })
                .unwrap();
            std::fs::create_dir(path).unwrap();
            ledger.taken();
        }
        let mark = ledger.mark();
        let file = inner.join("file");
        ledger.about_to(Step::File { path: file.clone() }).unwrap();
        std::fs::write(&file, b"x").unwrap();
        ledger.undo_to(mark).await.unwrap();
        assert!(!file.exists() && inner.exists());
        ledger.end().await.unwrap();
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_cannot_be_taken_back_is_named_and_keeps_nothing_else() {
        let base = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::new(base.path());
        let first = ledger.folder().unwrap().join("first");
        let second = base.path().join("second");
        for path in [&first, &second] {
            ledger
                .about_to(Step::Folder { path: path.clone() })
                .unwrap();
            std::fs::create_dir(path).unwrap();
        }
        std::fs::write(second.join("precious"), b"x").unwrap();
        let error = ledger.end().await.unwrap_err().to_string();
        assert!(error.contains("second"), "{error}");
        assert!(second.join("precious").exists());
        assert!(!first.exists());
    }
}
