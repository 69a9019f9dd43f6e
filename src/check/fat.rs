//! FAT: fsck.fat(8).

use crate::check::checker::{Judgement, Mode, Runs, Step, Subject, ended};
use crate::check::outcome::Verdict;
use crate::cmd::Tool;

/// fsck.fat's exit status is 1 both for errors it corrected and for those it could not, so a
/// repair is always followed by a look.
pub(super) fn steps(subject: &Subject<'_>) -> Vec<Step> {
    let call = |option| Step::new(Tool::FSCK_FAT, [option], subject.path);
    let look = call("-n");
    match subject.mode {
        Mode::Check => vec![look],
        Mode::Preen | Mode::Repair => vec![call("-a"), look.only("if there were errors")],
        Mode::Interactive => vec![
            call("-r").at_the_terminal(),
            look.only("if there were errors"),
        ],
    }
}

pub(super) fn judge(runs: &Runs<'_>) -> Judgement {
    match (runs.done.len(), runs.code) {
        (1, 0) => Judgement::done(Verdict::Clean),
        (2, 0) => Judgement::done(Verdict::Corrected),
        (1, 1) if runs.steps > 1 => Judgement::GoOn,
        (_, 1) => Judgement::done(Verdict::ErrorsLeft),
        _ => Judgement::done(Verdict::Failed(ended("fsck.fat", runs.code, runs.output))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::checker::case::Case;
    use crate::layers::filesystem::FilesystemKind;

    #[test]
    fn the_table_of_fsck_fat() {
        let repair = Case::new(FilesystemKind::Vfat, Mode::Repair);
        assert_eq!(repair.verdict(&[(0, "")]), Verdict::Clean);
        assert_eq!(repair.verdict(&[(1, ""), (0, "")]), Verdict::Corrected);
        assert_eq!(repair.verdict(&[(1, ""), (1, "")]), Verdict::ErrorsLeft);
        let check = Case::new(FilesystemKind::Vfat, Mode::Check);
        assert_eq!(check.verdict(&[(1, "")]), Verdict::ErrorsLeft);
        assert_eq!(
            check.verdict(&[(2, "fsck.fat: bad usage\n")]),
            Verdict::Failed("fsck.fat ended with exit status 2: fsck.fat: bad usage".to_owned())
        );
    }
}
