//! NTFS: no tool on Linux checks it in full. What ntfs-3g's tools can look at is looked at, and
//! the best answer is "not checked", with what was seen.
//!
//! Nothing is written in any mode: ntfsfix(8) would empty the journal, which Windows replays, and
//! mark the volume for a check by Windows, which says "errors" of a sound one.

use crate::check::checker::{Judgement, Runs, Step, Subject, ended, tail};
use crate::check::outcome::Verdict;
use crate::cmd::Tool;

/// `ntfsresize -i` (info) compares which clusters the files have with which are marked as used.
pub(super) fn steps(subject: &Subject<'_>) -> Vec<Step> {
    let resize = ["-i", "-f", "-P"];
    vec![
        Step::new(Tool::NTFSFIX, ["-n"], subject.path),
        Step::new(Tool::NTFSRESIZE, resize, subject.path).only("if ntfsfix finds nothing"),
    ]
}

pub(super) fn judge(subject: &Subject<'_>, runs: &Runs<'_>) -> Judgement {
    match (runs.done.len(), runs.code) {
        (1, 0) => Judgement::GoOn,
        (1, 1) if !runs.output.contains("Error opening '") => errors(subject)
            .and_noted("ntfsfix was told to change nothing, whatever its words say of corrections"),
        (1, _) => Judgement::done(Verdict::Failed(ended("ntfsfix", runs.code, runs.output))),
        (_, 1) if runs.output.contains("NTFS is inconsistent") => errors(subject),
        _ if subject.is_dirty() => errors(subject),
        (_, 0) => Judgement::done(Verdict::NotChecked(sound(
            ", that one's copy and the clusters in use",
        ))),
        _ => Judgement::noted(
            Verdict::NotChecked(sound(" and that one's copy")),
            &format!(
                "ntfsresize could not compare the clusters in use{}",
                tail(runs.output)
            ),
        ),
    }
}

fn errors(subject: &Subject<'_>) -> Judgement {
    let errors = Judgement::noted(
        Verdict::ErrorsLeft,
        "only Windows can repair it: run chkdsk /f in the guest",
    );
    match subject.is_dirty() {
        true => errors.and_noted("it is marked dirty: Windows checks it when it starts next"),
        false => errors,
    }
}

fn sound(more: &str) -> String {
    format!(
        "no tool on Linux checks NTFS in full: no error was found in its boot sectors, the \
         beginning of its file table{more}; folders, files and journal were not looked at; run \
         chkdsk in the guest"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::checker::Mode;
    use crate::check::checker::case::Case;
    use crate::layers::filesystem::FilesystemKind;

    const fn ntfs(mode: Mode) -> Case {
        Case::new(FilesystemKind::Ntfs, mode)
    }

    #[test]
    fn it_is_never_clean() {
        let check = ntfs(Mode::Check);
        let verdict = check.verdict(&[(0, ""), (0, "")]);
        assert!(matches!(verdict, Verdict::NotChecked(why) if why.contains("chkdsk")));
        let full = check.verdict(&[(0, ""), (1, "ERROR: Volume is full\n")]);
        assert!(matches!(full, Verdict::NotChecked(_)), "{full:?}");
        for runs in [
            &[(1, "$MFTMirr does not match $MFT (record 0).\n")][..],
            &[(0, ""), (1, "ERROR: NTFS is inconsistent. Run chkdsk /f\n")],
        ] {
            assert_eq!(check.verdict(runs), Verdict::ErrorsLeft);
            assert!(check.notes(runs).contains("chkdsk"));
        }
        let dirty = check.dirty();
        assert_eq!(dirty.verdict(&[(0, ""), (0, "")]), Verdict::ErrorsLeft);
        let failed = check.verdict(&[(1, "Error opening '/x': Permission denied\n")]);
        assert!(matches!(failed, Verdict::Failed(_)), "{failed:?}");
    }

    #[test]
    fn nothing_is_written_in_any_mode() {
        for mode in [Mode::Check, Mode::Preen, Mode::Repair, Mode::Interactive] {
            assert_eq!(
                ntfs(mode).calls(),
                ["ntfsfix -n /x", "ntfsresize -i -f -P /x"]
            );
        }
    }
}
