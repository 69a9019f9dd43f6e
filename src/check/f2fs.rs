//! F2FS: fsck.f2fs(8). Its `-a` and `-p` skip what claims to be clean, so they are not used.

use crate::check::checker::{Judgement, Mode, Runs, Step, Subject, ended, left_by_looking};
use crate::check::outcome::Verdict;
use crate::cmd::Tool;

/// Exit statuses (f2fs-tools: fsck/fsck.h); before version 1.14 it was 0 whatever was found, and
/// -1 stands for a filesystem that cannot be opened.
const CORRECTED: i32 = 1;
const ERRORS_LEFT: i32 = 4;
const NOT_OPENED: i32 = 255;

/// fsck.f2fs has no repairs that it calls safer than others, so it repairs only with `-y`.
///
/// It asks whether lost files are to be saved in the host's working folder. It is told no; with
/// nothing to read it would end in the middle of its work. It would also write the version of the
/// host's kernel into the superblock, but for the option.
pub(super) fn steps(subject: &Subject<'_>) -> Vec<Step> {
    let call = |options| {
        let mut step = Step::new::<2>(Tool::FSCK_F2FS, options, subject.path);
        step.invocation = step.invocation.answered("n");
        step
    };
    let look = call(["--no-kernel-check", "--dry-run"]);
    match subject.mode {
        Mode::Check | Mode::Preen | Mode::Interactive => vec![look],
        Mode::Repair => vec![
            look.clone(),
            call(["--no-kernel-check", "-f"]).only("if there are errors"),
            look.only("after a repair"),
        ],
    }
}

pub(super) fn judge(subject: &Subject<'_>, runs: &Runs<'_>) -> Judgement {
    match (runs.done.len(), found(runs.code, runs.output)) {
        (_, Found::Nothing(verdict)) => Judgement::done(verdict),
        (_, Found::Unopened) => Judgement::noted(
            Verdict::ErrorsLeft,
            "fsck.f2fs could not even open it, and has no way to repair that",
        ),
        // What a repair says of itself does not count; the look after it does.
        (2, _) => Judgement::GoOn,
        (1, Found::Sound) => Judgement::done(Verdict::Clean),
        (_, Found::Sound) => Judgement::done(Verdict::Corrected),
        (1, Found::Errors) if runs.steps > 1 => Judgement::GoOn,
        (1, Found::Errors) => left_by_looking("fsck.f2fs", subject.mode),
        (_, Found::Errors) if has_damaged_superblock(runs.output) => Judgement::noted(
            Verdict::ErrorsLeft,
            "one of its two superblocks is damaged, which fsck.f2fs cannot repair; the guest's \
             kernel does when it mounts it",
        ),
        (_, Found::Errors) => Judgement::done(Verdict::ErrorsLeft),
    }
}

enum Found {
    Sound,
    Errors,
    /// Too damaged to be opened.
    Unopened,
    /// Nothing about the filesystem.
    Nothing(Verdict),
}

/// The exit status does not tell of a damaged superblock, and in old versions of nothing.
fn found(code: i32, output: &str) -> Found {
    let unopened = ["Can't find valid checkpoint", "Checkpoint is polluted"];
    if output.contains("supports only") {
        return Found::Nothing(Verdict::NotChecked(
            "this host's fsck.f2fs does not know its block size; install a newer f2fs-tools"
                .to_owned(),
        ));
    }
    match code {
        CORRECTED | ERRORS_LEFT => Found::Errors,
        0 if output.contains("[Fail]") || has_damaged_superblock(output) => Found::Errors,
        0 if output.contains("[Ok..]") => Found::Sound,
        NOT_OPENED
            if has_damaged_superblock(output)
                || unopened.iter().any(|words| output.contains(words)) =>
        {
            Found::Unopened
        }
        _ => Found::Nothing(Verdict::Failed(ended("fsck.f2fs", code, output))),
    }
}

fn has_damaged_superblock(output: &str) -> bool {
    output.contains("Can't find a valid F2FS superblock")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::checker::case::Case;
    use crate::layers::filesystem::FilesystemKind;

    const OK: &str = "[FSCK] other corrupted bugs                           [Ok..]\n";
    const FAIL: &str = "[FSCK] other corrupted bugs                           [Fail]\n";

    const fn f2fs(mode: Mode) -> Case {
        Case::new(FilesystemKind::F2fs, mode)
    }

    #[test]
    fn the_table_of_fsck_f2fs() {
        let check = f2fs(Mode::Check);
        let half = format!("\tCan't find a valid F2FS superblock at 0x0\n{OK}");
        assert_eq!(check.verdict(&[(0, OK)]), Verdict::Clean);
        for (code, said) in [
            (1, FAIL),
            (4, FAIL),
            (0, FAIL),
            (0, &half),
            (255, "\tCan't find a valid F2FS superblock at 0x1\n"),
            (255, "[f2fs_do_mount:3573] Can't find valid checkpoint\n"),
        ] {
            assert_eq!(
                check.verdict(&[(code, said)]),
                Verdict::ErrorsLeft,
                "{said}"
            );
        }
        for (code, said) in [
            (0, "Info: No error was reported\n"),
            (8, "\tError: In use by the system!\n"),
            (255, FAIL),
        ] {
            let verdict = check.verdict(&[(code, said)]);
            assert!(matches!(verdict, Verdict::Failed(_)), "{verdict:?}");
        }
    }

    #[test]
    fn a_repair_is_checked_again() {
        let repair = f2fs(Mode::Repair);
        assert_eq!(
            repair.calls(),
            [
                "echo n | fsck.f2fs --no-kernel-check --dry-run /x",
                "echo n | fsck.f2fs --no-kernel-check -f /x",
                "echo n | fsck.f2fs --no-kernel-check --dry-run /x"
            ]
        );
        let verdict = |last| repair.verdict(&[(4, FAIL), (1, FAIL), last]);
        assert_eq!(verdict((0, OK)), Verdict::Corrected);
        assert_eq!(verdict((4, FAIL)), Verdict::ErrorsLeft);
    }

    #[test]
    fn without_y_nothing_is_repaired() {
        for mode in [Mode::Check, Mode::Preen, Mode::Interactive] {
            let calls = f2fs(mode).calls();
            assert_eq!(calls, ["echo n | fsck.f2fs --no-kernel-check --dry-run /x"]);
            assert!(f2fs(mode).notes(&[(4, FAIL)]).contains("-y"));
        }
    }
}
