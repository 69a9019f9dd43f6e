//! The checkers: which one serves a filesystem, its calls, and what they mean.

use std::ffi::OsString;
use std::path::Path;

use crate::check::outcome::Verdict;
use crate::check::{ext, fat, xfs};
use crate::cmd::watch::{Finished, ProgressSource};
use crate::cmd::{Invocation, Tool};
use crate::layers::filesystem::{Filesystem, FilesystemKind};

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

/// A checker for one family of filesystems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checker {
    /// e2fsck(8).
    E2fsck,
    /// xfs_repair(8).
    XfsRepair,
    /// fsck.fat(8).
    FsckFat,
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
        FilesystemKind::Iso9660 | FilesystemKind::Squashfs => Err(Verdict::NothingToCheck(
            format!("{} is read-only by nature and has no checker", kind.name()),
        )),
        FilesystemKind::Exfat
        | FilesystemKind::Ntfs
        | FilesystemKind::Btrfs
        | FilesystemKind::F2fs => Err(Verdict::NotChecked(format!(
            "this version has no checker for {}",
            kind.name()
        ))),
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
    fn new<const N: usize>(
        tool: Tool,
        options: [&str; N],
        progress: ProgressSource,
        path: &Path,
    ) -> Self {
        let arguments = options
            .into_iter()
            .map(OsString::from)
            .chain(std::iter::once(path.as_os_str().to_owned()));
        Self {
            invocation: Invocation::new(tool, arguments),
            progress,
            when: ALWAYS,
        }
    }

    pub(super) fn e2fsck<const N: usize>(options: [&str; N], path: &Path) -> Self {
        Self::new(Tool::E2FSCK, options, ProgressSource::PassLines, path)
    }

    pub(super) fn xfs_repair<const N: usize>(options: [&str; N], path: &Path) -> Self {
        Self::new(Tool::XFS_REPAIR, options, ProgressSource::BytesRead, path)
    }

    pub(super) fn fsck_fat<const N: usize>(options: [&str; N], path: &Path) -> Self {
        Self::new(Tool::FSCK_FAT, options, ProgressSource::BytesRead, path)
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
}

impl Checker {
    /// The tool's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::E2fsck => Tool::E2FSCK.name,
            Self::XfsRepair => Tool::XFS_REPAIR.name,
            Self::FsckFat => Tool::FSCK_FAT.name,
        }
    }

    /// The calls for the filesystem at `path`, in order; [`Checker::judge`] tells after each
    /// whether the next is needed.
    pub fn steps(self, filesystem: &Filesystem, mode: Mode, path: &Path) -> Vec<Step> {
        match self {
            Self::E2fsck => ext::steps(filesystem, mode, path),
            Self::XfsRepair => xfs::steps(mode, path),
            Self::FsckFat => fat::steps(mode, path),
        }
    }

    /// What the calls made so far mean. `steps` is how many there are in all.
    pub fn judge(self, mode: Mode, done: &[Finished], steps: usize) -> Judgement {
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
        match self {
            Self::E2fsck => ext::judge(mode, code, done, steps),
            Self::XfsRepair => xfs::judge(mode, code, done, steps),
            Self::FsckFat => fat::judge(mode, code, done, steps),
        }
    }
}

/// A finished call, for the tables in the checkers' tests.
#[cfg(test)]
pub(super) fn finished(code: i32, output: &str) -> Finished {
    use std::os::unix::process::ExitStatusExt;
    Finished {
        status: std::process::ExitStatus::from_raw(code << 8),
        output: output.to_owned(),
        duration: std::time::Duration::ZERO,
        interrupted: false,
    }
}
