//! XFS: xfs_repair(8). It is never told to zero a log (`-L`): that throws the newest writes away.

use crate::check::checker::{Judgement, Mode, Runs, Step, Subject, ended, left_by_looking};
use crate::check::outcome::Verdict;
use crate::check::patterns;
use crate::cmd::Tool;

fn xfs_repair<const N: usize>(options: [&str; N], subject: &Subject<'_>) -> Step {
    Step::new(Tool::XFS_REPAIR, options, subject.path).with_journal("-l", subject.journal)
}

pub(super) fn steps(subject: &Subject<'_>) -> Vec<Step> {
    let check = xfs_repair(["-n", "-f"], subject);
    match subject.mode {
        Mode::Check | Mode::Preen | Mode::Interactive => vec![check],
        Mode::Repair => vec![
            check.clone(),
            xfs_repair(["-f"], subject).only("if there are errors"),
            check.only("after a repair"),
        ],
    }
}

pub(super) fn judge(subject: &Subject<'_>, runs: &Runs<'_>) -> Judgement {
    if let Some(reason) = no_answer(runs.output) {
        return Judgement::done(Verdict::NotChecked(reason));
    }
    match (runs.done.len(), runs.code) {
        (1, 0) => Judgement::done(Verdict::Clean),
        (1, 1) if runs.steps > 1 => Judgement::GoOn,
        (1, 1) => left_by_looking("xfs_repair", subject.mode),
        (2, 0) => Judgement::GoOn,
        (3, 0) => Judgement::done(Verdict::Corrected),
        (3, 1) => Judgement::done(Verdict::ErrorsLeft),
        _ => Judgement::done(Verdict::Failed(ended("xfs_repair", runs.code, runs.output))),
    }
}

/// Where what xfs_repair says of the filesystem cannot be trusted.
fn no_answer(output: &str) -> Option<String> {
    if patterns::has_dirty_log(output) {
        return Some(
            "its log is dirty, and only a mount can replay it: start the guest and shut it down \
             cleanly, then check again"
                .to_owned(),
        );
    }
    if output.contains("Using a more recent xfs_repair is recommended") {
        return Some(
            "this host's xfs_repair is too old for its features; install a newer xfsprogs"
                .to_owned(),
        );
    }
    if output.contains("force_geometry") {
        return Some(
            "it has too few allocation groups for xfs_repair to be sure of its \
             geometry; run xfs_repair -o force_geometry yourself"
                .to_owned(),
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::checker::case::Case;
    use crate::layers::filesystem::FilesystemKind;

    const fn xfs(mode: Mode) -> Case {
        Case::new(FilesystemKind::Xfs, mode)
    }

    #[test]
    fn a_dirty_log_is_neither_clean_nor_an_error() {
        let words = "ALERT: The filesystem has valuable metadata changes in a log which is being\n";
        for code in [0, 1, 2] {
            let verdict = xfs(Mode::Check).verdict(&[(code, words)]);
            assert!(matches!(verdict, Verdict::NotChecked(_)), "{verdict:?}");
        }
    }

    #[test]
    fn a_repair_is_checked_again() {
        let repair = xfs(Mode::Repair);
        let verdict = |last| repair.verdict(&[(1, ""), (0, ""), (last, "")]);
        assert_eq!(verdict(0), Verdict::Corrected);
        assert_eq!(verdict(1), Verdict::ErrorsLeft);
    }

    #[test]
    fn without_y_nothing_is_repaired() {
        for mode in [Mode::Check, Mode::Preen, Mode::Interactive] {
            assert_eq!(xfs(mode).calls(), ["xfs_repair -n -f /x"]);
            assert_eq!(xfs(mode).verdict(&[(1, "")]), Verdict::ErrorsLeft);
        }
    }

    #[test]
    fn a_log_elsewhere_is_named_in_every_call() {
        let elsewhere = Case {
            journal: Some("/l"),
            ..xfs(Mode::Repair)
        };
        assert_eq!(
            elsewhere.calls(),
            [
                "xfs_repair -n -f -l /l /x",
                "xfs_repair -f -l /l /x",
                "xfs_repair -n -f -l /l /x"
            ]
        );
    }
}
