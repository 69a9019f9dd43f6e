//! XFS: xfs_repair(8). It is never told to zero a log (`-L`): that throws the newest writes away.

use std::path::Path;

use crate::check::checker::{Judgement, Mode, Step};
use crate::check::ext::tail;
use crate::check::outcome::Verdict;
use crate::check::patterns;
use crate::cmd::watch::Finished;

pub(super) fn steps(mode: Mode, path: &Path) -> Vec<Step> {
    let check = Step::xfs_repair(["-n", "-f"], path);
    match mode {
        Mode::Check | Mode::Preen | Mode::Interactive => vec![check],
        Mode::Repair => vec![
            check.clone(),
            Step::xfs_repair(["-f"], path).only("if there are errors"),
            check.only("after a repair"),
        ],
    }
}

pub(super) fn judge(mode: Mode, code: i32, done: &[Finished], steps: usize) -> Judgement {
    let output = done.last().map_or("", |last| last.output.as_str());
    if let Some(reason) = no_answer(output) {
        return Judgement::done(Verdict::NotChecked(reason));
    }
    let failed = || {
        Judgement::done(Verdict::Failed(format!(
            "xfs_repair ended with exit status {code}{}",
            tail(output)
        )))
    };
    match (done.len(), code) {
        (1, 0) => Judgement::done(Verdict::Clean),
        (1, 1) if steps > 1 => Judgement::GoOn,
        (1, 1) => Judgement::noted(
            Verdict::ErrorsLeft,
            match mode {
                Mode::Preen | Mode::Interactive => {
                    "xfs_repair has neither safe nor interactive repairs: run again with -y"
                }
                Mode::Check | Mode::Repair => "run again with -y to repair",
            },
        ),
        (2, 0) => Judgement::GoOn,
        (3, 0) => Judgement::done(Verdict::Corrected),
        (3, 1) => Judgement::done(Verdict::ErrorsLeft),
        _ => failed(),
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
    use crate::check::checker::finished;

    fn verdict(judgement: &Judgement) -> Option<&Verdict> {
        match judgement {
            Judgement::Done { verdict, .. } => Some(verdict),
            Judgement::GoOn => None,
        }
    }

    #[test]
    fn a_dirty_log_is_neither_clean_nor_an_error() {
        let words = "ALERT: The filesystem has valuable metadata changes in a log which is being\n";
        for code in [0, 1, 2] {
            let judgement = judge(Mode::Check, code, &[finished(code, words)], 1);
            assert!(
                matches!(verdict(&judgement), Some(Verdict::NotChecked(_))),
                "{judgement:?}"
            );
        }
    }

    #[test]
    fn a_repair_is_checked_again() {
        let runs = [finished(1, ""), finished(0, ""), finished(0, "")];
        assert_eq!(judge(Mode::Repair, 1, &runs[..1], 3), Judgement::GoOn);
        assert_eq!(judge(Mode::Repair, 0, &runs[..2], 3), Judgement::GoOn);
        let judgement = judge(Mode::Repair, 0, &runs, 3);
        assert_eq!(verdict(&judgement), Some(&Verdict::Corrected));
        let judgement = judge(Mode::Repair, 1, &runs, 3);
        assert_eq!(verdict(&judgement), Some(&Verdict::ErrorsLeft));
    }

    #[test]
    fn without_y_nothing_is_repaired() {
        for mode in [Mode::Check, Mode::Preen, Mode::Interactive] {
            assert_eq!(steps(mode, Path::new("/x")).len(), 1);
            let judgement = judge(mode, 1, &[finished(1, "")], 1);
            assert_eq!(verdict(&judgement), Some(&Verdict::ErrorsLeft));
        }
    }
}
