//! The checkers: which one serves a filesystem, its calls, and what they mean.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use crate::allow::Allowance;
use crate::check::outcome::Verdict;
use crate::check::{btrfs, exfat, ext, f2fs, fat, ntfs, xfs};
use crate::cmd::watch::{Finished, ProgressSource};
use crate::cmd::{Invocation, Tool};
use crate::layers::filesystem::{Filesystem, FilesystemKind};
use crate::layers::tree::LayerPath;

/// What a checker may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Change nothing: the filesystem lies on a throw-away overlay.
    Check,
    /// Safe repairs, as at boot.
    Preen,
    /// Repair everything.
    Repair,
    /// Ask the user at the terminal.
    Interactive,
}

impl Mode {
    /// What it comes to where the guest itself may not write.
    #[must_use]
    pub const fn on(self, read_only: bool) -> Self {
        if read_only { Self::Check } else { self }
    }

    /// Whether repairs go to the disk.
    pub const fn writes(self) -> bool {
        !matches!(self, Self::Check)
    }
}

/// The filesystem that is to be checked, and how.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its place in the tree.
    pub layer: &'a LayerPath,
    /// What its superblock tells.
    pub filesystem: &'a Filesystem,
    /// The plain file or device that shows it.
    pub path: &'a Path,
    /// The plain file or device that shows its journal, where that lies outside it.
    pub journal: Option<&'a Path>,
    /// The plain files or devices that show the filesystem's other devices.
    pub devices: &'a [&'a Path],
    /// What the checker may do.
    pub mode: Mode,
    /// What else it may do, because it was asked for by name.
    pub allowed: &'a [Allowance],
}

impl Subject<'_> {
    /// Whether the filesystem itself says that it was not cleanly unmounted.
    pub(super) fn is_dirty(&self) -> bool {
        self.filesystem.record.dirty == Some(true)
    }

    pub(super) fn may(&self, allowance: Allowance) -> bool {
        self.allowed.contains(&allowance)
    }
}

/// A checker for one family of filesystems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checker {
    /// e2fsck(8).
    E2fsck,
    /// xfs_repair(8).
    XfsRepair,
    /// fsck.fat(8).
    FsckFat,
    /// fsck.exfat(8).
    FsckExfat,
    /// btrfs-check(8).
    BtrfsCheck,
    /// fsck.f2fs(8).
    FsckF2fs,
    /// ntfsfix(8) and ntfsresize(8), which together look at a part of NTFS.
    NtfsFix,
}

/// Which checker serves a filesystem, or why none does.
///
/// # Errors
/// The verdict where no checker can be run.
pub fn checker_for(kind: FilesystemKind) -> Result<Checker, Verdict> {
    match kind {
        FilesystemKind::Ext2 | FilesystemKind::Ext3 | FilesystemKind::Ext4 => Ok(Checker::E2fsck),
        FilesystemKind::Xfs => Ok(Checker::XfsRepair),
        FilesystemKind::Vfat => Ok(Checker::FsckFat),
        FilesystemKind::Exfat => Ok(Checker::FsckExfat),
        FilesystemKind::Btrfs => Ok(Checker::BtrfsCheck),
        FilesystemKind::F2fs => Ok(Checker::FsckF2fs),
        FilesystemKind::Ntfs => Ok(Checker::NtfsFix),
        FilesystemKind::Iso9660 | FilesystemKind::Squashfs => Err(Verdict::NothingToCheck(
            format!("{} is read-only by nature and has no checker", kind.name()),
        )),
    }
}

/// One call of a checker.
#[derive(Clone, Debug)]
pub struct Step {
    /// The call.
    pub invocation: Invocation,
    /// How its progress is told.
    pub progress: ProgressSource,
    /// When it is made, in words, for those who read the plan.
    pub when: &'static str,
}

/// A step that is always taken.
const ALWAYS: &str = "";

impl Step {
    /// A call whose last argument is the filesystem, and that tells nothing of its progress.
    pub(super) fn new<const N: usize>(tool: Tool, options: [&str; N], path: &Path) -> Self {
        let arguments = options
            .into_iter()
            .map(OsString::from)
            .chain(std::iter::once(path.as_os_str().to_owned()));
        Self {
            invocation: Invocation::new(tool, arguments),
            progress: ProgressSource::BytesRead,
            when: ALWAYS,
        }
    }

    /// The same, and the progress is told in lines.
    pub(super) fn telling_passes(mut self) -> Self {
        self.progress = ProgressSource::PassLines;
        self
    }

    pub(super) fn with_journal(mut self, option: &str, journal: Option<&Path>) -> Self {
        if let Some(journal) = journal {
            let arguments = &mut self.invocation.arguments;
            let before_the_path = arguments.len().saturating_sub(1);
            let named = [OsStr::new(option), journal.as_os_str()].map(OsStr::to_owned);
            arguments.splice(before_the_path..before_the_path, named);
        }
        self
    }

    /// The tool looks for the filesystem's devices, and finds only these.
    pub(super) fn finding(mut self, devices: &[&Path]) -> Self {
        let devices = devices.iter().map(|device| device.to_path_buf());
        self.invocation.devices = devices.collect();
        self
    }

    pub(super) fn only(mut self, when: &'static str) -> Self {
        self.when = when;
        self
    }

    pub(super) fn at_the_terminal(mut self) -> Self {
        self.progress = ProgressSource::Terminal;
        self
    }
}

/// What the steps so far mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The next step is needed.
    GoOn,
    /// The answer.
    Done {
        /// The verdict.
        verdict: Verdict,
        /// What a reader should know.
        notes: Vec<String>,
    },
}

impl Judgement {
    pub(super) fn done(verdict: Verdict) -> Self {
        Self::Done {
            verdict,
            notes: Vec::new(),
        }
    }

    pub(super) fn noted(verdict: Verdict, note: &str) -> Self {
        Self::Done {
            verdict,
            notes: vec![note.to_owned()],
        }
    }

    /// The same with a note more; nothing where the next step is needed.
    pub(super) fn and_noted(mut self, note: &str) -> Self {
        if let Self::Done { notes, .. } = &mut self {
            notes.push(note.to_owned());
        }
        self
    }
}

/// A checker's runs so far, none of which was interrupted.
pub(super) struct Runs<'a> {
    /// How the last one ended.
    pub code: i32,
    /// What it said.
    pub output: &'a str,
    /// All of them, the last one too.
    pub done: &'a [Finished],
    /// How many there may be in all.
    pub steps: usize,
}

/// Errors that safe repairs leave.
pub(super) fn left_by_safe_repairs() -> Judgement {
    Judgement::noted(
        Verdict::ErrorsLeft,
        "what is left needs more than safe repairs: run again with -y to repair everything, or \
         with -r to decide yourself",
    )
}

/// Errors that a tool has only looked at, because it knows no repairs but all of them.
pub(super) fn left_by_looking(tool: &str, mode: Mode) -> Judgement {
    let way_out = match mode {
        Mode::Preen | Mode::Interactive => {
            &format!("{tool} has neither safe nor interactive repairs: run again with -y")
        }
        Mode::Check | Mode::Repair => "run again with -y to repair",
    };
    Judgement::noted(Verdict::ErrorsLeft, way_out)
}

/// Why a checker gave no answer: how it ended, and its last words.
pub(super) fn ended(tool: &str, code: i32, output: &str) -> String {
    format!("{tool} ended with exit status {code}{}", tail(output))
}

/// The checker's last words, for an error.
pub(super) fn tail(output: &str) -> String {
    match output.lines().map(str::trim).rfind(|line| !line.is_empty()) {
        Some(line) => format!(": {line}"),
        None => String::new(),
    }
}

impl Checker {
    /// The tool's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::E2fsck => Tool::E2FSCK.name,
            Self::XfsRepair => Tool::XFS_REPAIR.name,
            Self::FsckFat => Tool::FSCK_FAT.name,
            Self::FsckExfat => Tool::FSCK_EXFAT.name,
            Self::BtrfsCheck => "btrfs check",
            Self::FsckF2fs => Tool::FSCK_F2FS.name,
            Self::NtfsFix => Tool::NTFSFIX.name,
        }
    }

    /// The calls for a filesystem, in order; [`Checker::judge`] tells after each whether the next
    /// is needed.
    pub fn steps(self, subject: &Subject<'_>) -> Vec<Step> {
        match self {
            Self::E2fsck => ext::steps(subject),
            Self::XfsRepair => xfs::steps(subject),
            Self::FsckFat => fat::steps(subject),
            Self::FsckExfat => exfat::steps(subject),
            Self::BtrfsCheck => btrfs::steps(subject),
            Self::FsckF2fs => f2fs::steps(subject),
            Self::NtfsFix => ntfs::steps(subject),
        }
    }

    /// What the calls made so far mean. `steps` is how many there are in all.
    pub fn judge(self, subject: &Subject<'_>, done: &[Finished], steps: usize) -> Judgement {
        let Some(last) = done.last() else {
            return Judgement::GoOn;
        };
        if last.interrupted {
            return Judgement::done(Verdict::Interrupted);
        }
        let Some(code) = last.status.code() else {
            return Judgement::done(Verdict::Failed(format!(
                "{} was ended by {}",
                self.name(),
                crate::cmd::child::ending(last.status)
            )));
        };
        let runs = Runs {
            code,
            output: &last.output,
            done,
            steps,
        };
        match self {
            Self::E2fsck => ext::judge(subject, &runs),
            Self::XfsRepair => xfs::judge(subject, &runs),
            Self::FsckFat => fat::judge(&runs),
            Self::FsckExfat => exfat::judge(subject, &runs),
            Self::BtrfsCheck => btrfs::judge(subject, &runs),
            Self::FsckF2fs => f2fs::judge(subject, &runs),
            Self::NtfsFix => ntfs::judge(subject, &runs),
        }
    }
}

/// What the tables in the checkers' tests are made of.
#[cfg(test)]
pub(super) mod case {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    /// A finished call.
    pub fn finished(code: i32, output: &str) -> Finished {
        Finished {
            status: std::process::ExitStatus::from_raw(code << 8),
            output: output.to_owned(),
            duration: std::time::Duration::ZERO,
            interrupted: false,
        }
    }

    /// A filesystem that is to be checked.
    #[derive(Clone, Copy, Debug)]
    pub struct Case {
        pub kind: FilesystemKind,
        pub mode: Mode,
        pub dirty: bool,
        pub allowed: &'static [Allowance],
        pub journal: Option<&'static str>,
    }

    impl Case {
        pub const fn new(kind: FilesystemKind, mode: Mode) -> Self {
            Self {
                kind,
                mode,
                dirty: false,
                allowed: &[],
                journal: None,
            }
        }

        pub const fn dirty(mut self) -> Self {
            self.dirty = true;
            self
        }

        fn with<T>(self, call: impl FnOnce(Checker, &Subject<'_>) -> T) -> T {
            let mut filesystem = Filesystem {
                kind: self.kind,
                uuid: None,
                label: None,
                size: None,
                record: Default::default(),
            };
            filesystem.record.dirty = Some(self.dirty);
            let subject = Subject {
                layer: &LayerPath::disk("vda"),
                filesystem: &filesystem,
                path: Path::new("/x"),
                journal: self.journal.map(Path::new),
                devices: &[],
                mode: self.mode,
                allowed: self.allowed,
            };
            call(checker_for(self.kind).unwrap(), &subject)
        }

        /// The calls as a shell takes them.
        pub fn calls(self) -> Vec<String> {
            let steps = self.with(|checker, subject| checker.steps(subject));
            steps
                .iter()
                .map(|step| step.invocation.to_string())
                .collect()
        }

        /// What calls that end so mean. All but the last must ask for the next.
        pub fn judged(self, runs: &[(i32, &str)]) -> Judgement {
            self.with(|checker, subject| {
                let steps = checker.steps(subject).len();
                assert!(runs.len() <= steps, "{runs:?}");
                let done: Vec<_> = runs
                    .iter()
                    .map(|(code, said)| finished(*code, said))
                    .collect();
                for count in 1..done.len() {
                    let so_far = checker.judge(subject, &done[..count], steps);
                    assert_eq!(so_far, Judgement::GoOn, "{count} of {runs:?}");
                }
                checker.judge(subject, &done, steps)
            })
        }

        pub fn verdict(self, runs: &[(i32, &str)]) -> Verdict {
            match self.judged(runs) {
                Judgement::Done { verdict, .. } => verdict,
                Judgement::GoOn => panic!("{runs:?} is not the end"),
            }
        }

        pub fn notes(self, runs: &[(i32, &str)]) -> String {
            match self.judged(runs) {
                Judgement::Done { notes, .. } => notes.join("\n"),
                Judgement::GoOn => panic!("{runs:?} is not the end"),
            }
        }
    }
}
