//! ext2, ext3, ext4: e2fsck(8), always a full check (`-f`).

use crate::check::checker::{Judgement, Mode, Runs, Step, Subject, ended, left_by_safe_repairs};
use crate::check::outcome::Verdict;
use crate::check::patterns;
use crate::cmd::Tool;

/// e2fsck's exit status is a sum of these (e2fsck(8), EXIT CODE).
mod bits {
    pub const CORRECTED: i32 = 1;
    pub const REBOOT: i32 = 2;
    pub const UNCORRECTED: i32 = 4;
    pub const CANCELED: i32 = 32;
}

/// The problem that a superblock's hint, the number of the journal's device, is not the one that the
/// device has on the host (e2fsck/problem.h, `PR_0_EXTERNAL_JOURNAL_HINT`): the guest's kernel goes
/// by the number, so it stays as it is, and is no error.
const KEEP_THE_HINT: &str =
    "[problems]\n0x000033 = {\nforce_no = true\nno_ok = true\nno_nomsg = true\n}";

fn e2fsck<const N: usize>(options: [&str; N], subject: &Subject<'_>) -> Step {
    let mut step = Step::new(Tool::E2FSCK, options, subject.path).telling_passes();
    if subject.journal.is_some() {
        step = step.with_journal("-j", subject.journal);
        let call = step.invocation.with_env("E2FSCK_CONFIG", "/dev/stdin");
        step.invocation = call.answered(KEEP_THE_HINT);
    }
    step
}

/// A journal is replayed first when nothing may change: on the overlay, so that the read-only
/// check that follows sees what a mount would see, and reports no errors that are not there.
///
/// A journal elsewhere is always named (`-j`): e2fsck would look for one among the host's own
/// devices, by its UUID and by a device number that only the guest knows the meaning of
/// (e2fsck/journal.c, `e2fsck_get_journal`). Where the user is asked, nothing can be said of the
/// hint, so such a filesystem is only looked at.
pub(super) fn steps(subject: &Subject<'_>) -> Vec<Step> {
    match subject.mode {
        Mode::Check if subject.is_dirty() => vec![
            e2fsck(["-p", "-E", "journal_only"], subject),
            e2fsck(["-f", "-n"], subject),
        ],
        Mode::Check => vec![e2fsck(["-f", "-n"], subject)],
        Mode::Preen => vec![e2fsck(["-f", "-p"], subject)],
        Mode::Repair => vec![e2fsck(["-f", "-y"], subject)],
        Mode::Interactive if subject.journal.is_some() => vec![e2fsck(["-f", "-n"], subject)],
        Mode::Interactive => vec![e2fsck(["-f"], subject).at_the_terminal()],
    }
}

pub(super) fn judge(subject: &Subject<'_>, runs: &Runs<'_>) -> Judgement {
    let replayed = match runs.done {
        [first, ..] if runs.steps == 2 => Some(first.status.code().unwrap_or(i32::MAX)),
        _ => None,
    };
    if runs.done.len() < runs.steps {
        return Judgement::GoOn;
    }
    let verdict = verdict(runs.code, runs.output);
    match replayed {
        None => {}
        Some(code) if code & !(bits::CORRECTED | bits::REBOOT) == 0 => {
            return Judgement::noted(
                verdict,
                "the journal was replayed on the throw-away overlay",
            );
        }
        Some(_) => {
            let verdict = match verdict {
                Verdict::Clean => Verdict::ErrorsLeft,
                other => other,
            };
            return Judgement::noted(verdict, "the journal could not be replayed");
        }
    }
    if subject.mode == Mode::Interactive && subject.journal.is_some() {
        return Judgement::noted(
            verdict,
            "with its journal elsewhere it is only looked at with -r",
        );
    }
    if verdict == Verdict::ErrorsLeft && subject.mode == Mode::Preen {
        return left_by_safe_repairs();
    }
    Judgement::done(verdict)
}

fn verdict(code: i32, output: &str) -> Verdict {
    if code == 0 {
        return Verdict::Clean;
    }
    if let Some(reason) = too_new(output) {
        return Verdict::NotChecked(reason);
    }
    if code & bits::CANCELED != 0 {
        return Verdict::Interrupted;
    }
    if code & bits::UNCORRECTED != 0 {
        return Verdict::ErrorsLeft;
    }
    if code & !(bits::CORRECTED | bits::REBOOT) != 0 {
        return Verdict::Failed(match patterns::has_no_superblock(output) {
            true => format!(
                "e2fsck (exit status {code}) finds no superblock it can use; on a copy of the \
                 disk, try a backup superblock: e2fsck -b 32768"
            ),
            false => ended("e2fsck", code, output),
        });
    }
    Verdict::Corrected
}

fn too_new(output: &str) -> Option<String> {
    let features = patterns::unsupported_features(output)?;
    Some(format!(
        "this host's e2fsck is too old for its features ({features}); install a newer e2fsprogs"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::checker::case::Case;
    use crate::layers::filesystem::FilesystemKind;

    const fn ext4(mode: Mode) -> Case {
        Case::new(FilesystemKind::Ext4, mode)
    }

    #[test]
    fn the_bits_of_e2fsck() {
        for (code, verdict) in [
            (0, Verdict::Clean),
            (1, Verdict::Corrected),
            (2, Verdict::Corrected),
            (3, Verdict::Corrected),
            (4, Verdict::ErrorsLeft),
            (5, Verdict::ErrorsLeft),
            (12, Verdict::ErrorsLeft),
            (32, Verdict::Interrupted),
            (33, Verdict::Interrupted),
        ] {
            let judged = ext4(Mode::Repair).verdict(&[(code, "")]);
            assert_eq!(judged, verdict, "{code}");
        }
        for code in [8, 9, 16, 128] {
            let judged = ext4(Mode::Repair).verdict(&[(code, "x\n")]);
            assert!(matches!(judged, Verdict::Failed(why) if why.ends_with(": x")));
        }
    }

    #[test]
    fn a_feature_from_the_future_is_not_an_error() {
        let output = "/x/1-vda has unsupported feature(s): FEATURE_C12\ne2fsck: Get a newer version of e2fsck!\n";
        let Verdict::NotChecked(reason) = ext4(Mode::Repair).verdict(&[(8, output)]) else {
            panic!("not checked was expected");
        };
        assert!(reason.contains("(FEATURE_C12)"), "{reason}");
    }

    #[test]
    fn a_journal_that_cannot_be_replayed_is_never_clean() {
        let dirty = ext4(Mode::Check).dirty();
        assert_eq!(
            dirty.judged(&[(4, ""), (0, "")]),
            Judgement::noted(Verdict::ErrorsLeft, "the journal could not be replayed")
        );
        assert_eq!(
            dirty.judged(&[(0, ""), (0, "")]),
            Judgement::noted(
                Verdict::Clean,
                "the journal was replayed on the throw-away overlay"
            )
        );
    }

    #[test]
    fn a_journal_elsewhere_is_named_in_every_call() {
        let elsewhere = |mode| Case {
            journal: Some("/j"),
            ..ext4(mode)
        };
        for (mode, options) in [
            (Mode::Check, "-f -n"),
            (Mode::Preen, "-f -p"),
            (Mode::Repair, "-f -y"),
            (Mode::Interactive, "-f -n"),
        ] {
            let calls = elsewhere(mode).calls();
            let [call] = calls.as_slice() else {
                panic!("{calls:?}");
            };
            let end = format!("| E2FSCK_CONFIG=/dev/stdin e2fsck {options} -j /j /x");
            assert!(
                call.starts_with("echo $'[problems]") && call.ends_with(&end),
                "{call}"
            );
        }
        let calls = elsewhere(Mode::Check).dirty().calls();
        assert!(
            calls.iter().all(|call| call.ends_with("-j /j /x")),
            "{calls:?}"
        );
        assert_eq!(calls.len(), 2);
    }
}
