//! Cleaning up after runs that were killed.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;

use crate::cause;
use crate::guard::claim::Claim;
use crate::ledger::book::{self, Line};
use crate::ledger::step::Step;
use crate::ledger::undo;
use crate::names::{self, RunId};

/// How long the children of a killed run are waited for: the kernel has told them to end, and a
/// checker finishes its last write.
const LAST_WRITE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(20);

/// A dead run, and what became of its steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Its folder.
    pub folder: PathBuf,
    /// How many steps were taken back.
    pub undone: usize,
    /// What could not be taken back, one sentence each.
    pub left: Vec<String>,
}

/// One sentence.
impl std::fmt::Display for Recovered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let run = self
            .folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        write!(
            f,
            "cleaned up after {run}, which was killed ({} taken back)",
            steps(self.undone)
        )?;
        match self.left.as_slice() {
            [] => Ok(()),
            left => write!(f, "; what is left: {}", left.join("; ")),
        }
    }
}

fn steps(count: usize) -> String {
    match count {
        1 => "1 step".to_owned(),
        several => format!("{several} steps"),
    }
}

/// Takes back what dead runs have left, their claims and then the newest step first. Runs that live are left alone: they
/// hold the lock on their ledger.
pub async fn recover(base: &Path) -> Vec<Recovered> {
    Claim::clear_dead(base);
    let mut all = Vec::new();
    for folder in run_folders(base) {
        if let Some(recovered) = one(&folder).await {
            all.push(recovered);
        }
    }
    all
}

fn run_folders(base: &Path) -> Vec<PathBuf> {
    let ours = rustix::process::geteuid().as_raw();
    let is_ours = |path: &PathBuf| {
        use std::os::unix::fs::MetadataExt;
        std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir() && found.uid() == ours)
    };
    let entries = std::fs::read_dir(base).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| RunId::of_folder(path).is_some() && is_ours(path))
        .collect();
    folders.sort();
    folders
}

/// `None` for a run that lives, or that somebody else is cleaning up after.
async fn one(folder: &Path) -> Option<Recovered> {
    let mut recovered = Recovered {
        folder: folder.to_owned(),
        undone: 0,
        left: Vec::new(),
    };
    let path = folder.join(names::LEDGER);
    let at = |error: &std::io::Error| format!("{}: {}", path.display(), cause::sentence(error));
    let file = match File::options().read(true).write(true).open(&path) {
        Ok(file) => file,
        // Its run has ended in this moment.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            recovered.left.push(at(&error));
            return Some(recovered);
        }
    };
    let lines = lines(&file);
    if !locked(&file, &lines).await {
        let main = lines
            .iter()
            .any(|line| matches!(line, Line::Run { process } if process.lives()));
        if main {
            return None;
        }
        recovered.left.push(format!(
            "{}: the run was killed, but a process that it has started still runs; lsof {} names it",
            folder.display(),
            path.display()
        ));
        return Some(recovered);
    }
    for step in open_steps(lines).iter().rev() {
        match undo::undo(step, None).await {
            Ok(()) => recovered.undone += 1,
            Err(error) => recovered.left.push(cause::sentence(&error)),
        }
    }
    if recovered.left.is_empty()
        && let Err(error) = book::remove(folder)
    {
        recovered.left.push(cause::sentence(&error));
    }
    Some(recovered)
}

/// Takes the lock on a ledger, unless its run lives; the last children of a killed run are waited
/// for.
async fn locked(file: &File, lines: &[Line]) -> bool {
    let until = tokio::time::Instant::now() + LAST_WRITE;
    let lives = |line: &Line| matches!(line, Line::Run { process } if process.lives());
    loop {
        if rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return true;
        }
        if lines.iter().any(lives) || tokio::time::Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The lines of a ledger; one that was cut off by the end of the run speaks of a step that was not
/// taken.
fn lines(file: &File) -> Vec<Line> {
    BufReader::new(file)
        .lines()
        .map_while(Result::ok)
        .map_while(|line| serde_json::from_str(&line).ok())
        .collect()
}

/// The steps that were begun and not taken back, in order.
fn open_steps(lines: Vec<Line>) -> Vec<Step> {
    let undone: HashSet<u32> = lines
        .iter()
        .filter_map(|line| match line {
            Line::Undone { undone } => Some(*undone),
            Line::Run { .. } | Line::Begun { .. } => None,
        })
        .collect();
    let still_open = |line| match line {
        Line::Begun { number, step } => (!undone.contains(&number)).then_some(step),
        Line::Run { .. } | Line::Undone { .. } => None,
    };
    lines.into_iter().filter_map(still_open).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;

    #[tokio::test]
    async fn a_dead_run_is_cleaned_up_and_a_living_one_is_not() {
        let base = tempfile::tempdir().unwrap();
        let mut living = Ledger::new(base.path());
        let kept = living.folder().unwrap().join("kept");
        living
            .about_to(Step::Folder { path: kept.clone() })
            .unwrap();
        std::fs::create_dir(&kept).unwrap();

        let dead = base.path().join("virt-fsck-DEAD");
        let folder = dead.join("domain1");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("1-vda-p1"), b"").unwrap();
        let line = serde_json::to_string(&Line::Begun {
            number: 1,
            step: Step::Folder {
                path: folder.clone(),
            },
        })
        .unwrap();
        let cut_off = r#"{"number":2,"step":"folder","path":"/"#;
        std::fs::write(dead.join(names::LEDGER), format!("{line}\n{cut_off}")).unwrap();

        let recovered = recover(base.path()).await;
        assert_eq!(
            recovered,
            [Recovered {
                folder: dead.clone(),
                undone: 1,
                left: Vec::new()
            }]
        );
        assert!(!dead.exists());
        assert!(kept.exists());
        assert_eq!(recover(base.path()).await, []);
    }

    #[test]
    fn steps_survive_being_written() {
        let step = Step::Mount {
            device: "/dev/mapper/x".to_owned(),
            target: "/kvm".into(),
        };
        let text = serde_json::to_string(&Line::Begun {
            number: 7,
            step: step.clone(),
        })
        .unwrap();
        match serde_json::from_str(&text).unwrap() {
            Line::Begun { number, step: read } => assert_eq!((number, read), (7, step)),
            other => panic!("{other:?}"),
        }
    }
}
