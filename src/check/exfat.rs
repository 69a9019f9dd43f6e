//! exFAT: fsck.exfat(8) of exfatprogs, whose exit status is one of fsck(8)'s
//! (exfatprogs: fsck/fsck.c).

use crate::check::checker::{Judgement, Mode, Runs, Step, Subject, ended, left_by_safe_repairs};
use crate::check::outcome::Verdict;
use crate::cmd::Tool;

const CORRECTED: i32 = 1;
const ERRORS_LEFT: i32 = 4;

/// A repair that ends with "corrected" is followed by a look.
pub(super) fn steps(subject: &Subject<'_>) -> Vec<Step> {
    let call = |option| Step::new(Tool::FSCK_EXFAT, [option], subject.path);
    let repair = match subject.mode {
        Mode::Check => return vec![call("-n")],
        Mode::Preen => call("-p"),
        Mode::Repair => call("-y"),
        Mode::Interactive => call("-r").at_the_terminal(),
    };
    vec![repair, call("-n").only("if there were errors")]
}

pub(super) fn judge(subject: &Subject<'_>, runs: &Runs<'_>) -> Judgement {
    if let Some(reason) = no_answer(runs.output) {
        return Judgement::done(Verdict::NotChecked(reason));
    }
    match (runs.done.len(), runs.code) {
        (1, 0) => clean(subject),
        (1, CORRECTED) if runs.steps > 1 => Judgement::GoOn,
        (2, 0) => Judgement::done(Verdict::Corrected),
        (_, CORRECTED | ERRORS_LEFT) => match subject.mode {
            Mode::Preen => left_by_safe_repairs(),
            _ => Judgement::done(Verdict::ErrorsLeft),
        },
        _ => Judgement::done(Verdict::Failed(ended("fsck.exfat", runs.code, runs.output))),
    }
}

/// fsck.exfat says nothing of the flag that stands while a volume is in use, and clears it when it
/// may write.
fn clean(subject: &Subject<'_>) -> Judgement {
    let clean = Judgement::done(Verdict::Clean);
    match (subject.is_dirty(), subject.mode) {
        (false, _) => clean,
        (true, Mode::Check) => clean.and_noted(
            "it is marked as not cleanly unmounted; the check found nothing wrong, and -p clears \
             the mark",
        ),
        (true, _) => clean.and_noted(
            "it was marked as not cleanly unmounted; the check found nothing wrong and cleared \
             the mark",
        ),
    }
}

/// A volume of a later version of the format, or with two tables (TexFAT), is no damaged one.
fn no_answer(output: &str) -> Option<String> {
    let newer = ["unsupported exfat version", "unsupported FAT count"];
    let newer = newer.iter().any(|words| output.contains(words));
    newer.then(|| "this host's fsck.exfat does not know this version of the format".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::checker::case::Case;
    use crate::layers::filesystem::FilesystemKind;

    const fn exfat(mode: Mode) -> Case {
        Case::new(FilesystemKind::Exfat, mode)
    }

    #[test]
    fn the_table_of_fsck_exfat() {
        let check = exfat(Mode::Check);
        assert_eq!(check.judged(&[(0, "")]), Judgement::done(Verdict::Clean));
        for code in [1, 4] {
            assert_eq!(check.verdict(&[(code, "")]), Verdict::ErrorsLeft);
        }
        for code in [2, 8, 16] {
            let verdict = check.verdict(&[(code, "failed to open\n")]);
            assert!(matches!(verdict, Verdict::Failed(_)), "{verdict:?}");
        }
        for mode in [Mode::Preen, Mode::Repair, Mode::Interactive] {
            let repair = exfat(mode);
            assert_eq!(repair.verdict(&[(0, "")]), Verdict::Clean);
            assert_eq!(repair.verdict(&[(4, "")]), Verdict::ErrorsLeft);
            assert_eq!(repair.verdict(&[(1, ""), (0, "")]), Verdict::Corrected);
            assert_eq!(repair.verdict(&[(1, ""), (4, "")]), Verdict::ErrorsLeft);
        }
        assert!(exfat(Mode::Preen).notes(&[(4, "")]).contains("-y"));
    }

    #[test]
    fn each_mode_has_its_option() {
        for (mode, option) in [
            (Mode::Check, "-n"),
            (Mode::Preen, "-p"),
            (Mode::Repair, "-y"),
            (Mode::Interactive, "-r"),
        ] {
            let first = exfat(mode).calls().into_iter().next();
            assert_eq!(first, Some(format!("fsck.exfat {option} /x")));
        }
    }

    #[test]
    fn a_dirty_flag_is_told_of() {
        for (mode, words) in [
            (Mode::Check, "-p clears"),
            (Mode::Preen, "cleared the mark"),
        ] {
            let dirty = exfat(mode).dirty();
            assert_eq!(dirty.verdict(&[(0, "")]), Verdict::Clean);
            assert!(dirty.notes(&[(0, "")]).contains(words));
        }
    }

    #[test]
    fn a_version_of_the_future_is_not_an_error() {
        let said = "unsupported exfat version: 2.0\nboot region is corrupted.\n";
        let verdict = exfat(Mode::Repair).verdict(&[(4, said)]);
        assert!(matches!(verdict, Verdict::NotChecked(_)), "{verdict:?}");
    }
}
