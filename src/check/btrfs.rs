//! btrfs: btrfs-check(8), which looks at the trees as they are since the last commit.
//!
//! Its exit status is 0 or 1. Version 6.2 ends with 0 where it could not read a tree's root, so a
//! sound filesystem is one of which it also says so in words.
//!
//! The other devices of a filesystem it looks for itself, among all block devices that libblkid finds,
//! and goes on where it does not find them; so it is shown all of them, and nothing else.

use crate::allow::Allowance;
use crate::check::checker::{Judgement, Mode, Runs, Step, Subject, ended};
use crate::check::outcome::Verdict;
use crate::cmd::Tool;

/// btrfs-check(8) warns of `--repair` itself, so no mode implies it. It would also throw a log
/// away that is still to be replayed, and asks before it does.
pub(super) fn steps(subject: &Subject<'_>) -> Vec<Step> {
    let call = |option| Step::new(Tool::BTRFS, ["check", option], subject.path);
    let look = call("--readonly");
    if !subject.devices.is_empty() {
        let mut all = vec![subject.path];
        all.extend(subject.devices);
        return vec![look.finding(&all)];
    }
    if !repairs(subject) {
        return vec![look];
    }
    vec![
        look.clone(),
        call("--repair").only("if there are errors"),
        look.only("after a repair"),
    ]
}

fn repairs(subject: &Subject<'_>) -> bool {
    subject.devices.is_empty()
        && subject.mode == Mode::Repair
        && subject.may(Allowance::BtrfsRepair)
        && !subject.is_dirty()
}

pub(super) fn judge(subject: &Subject<'_>, runs: &Runs<'_>) -> Judgement {
    if let Some(verdict) = no_answer(runs.code, runs.output) {
        return Judgement::done(verdict);
    }
    // What a repair says of itself does not count; the look after it does.
    let is_look = runs.done.len() != 2;
    let sound = is_sound(runs.code, runs.output);
    if !is_look || !sound && runs.done.len() < runs.steps {
        return Judgement::GoOn;
    }
    match (sound, runs.done.len()) {
        (true, 1) if subject.is_dirty() => Judgement::noted(
            Verdict::Clean,
            "what was synced last is still in its log, which the next mount replays; the trees \
             were checked as they are before that",
        ),
        (true, 1) => Judgement::done(Verdict::Clean),
        (true, _) => Judgement::done(Verdict::Corrected),
        (false, _) => left(subject, runs.output),
    }
}

/// Both copies of a block are seldom read: where the first was damaged and the second was not, the
/// exit status and the last words tell nothing of it.
fn is_sound(code: i32, output: &str) -> bool {
    const DAMAGE: [&str; 4] = [
        "ERROR: ",
        "checksum verify failed on ",
        "bad tree block ",
        "parent transid verify failed on ",
    ];
    code == 0
        && output.contains("no error found")
        && !DAMAGE.iter().any(|words| output.contains(words))
}

fn left(subject: &Subject<'_>, output: &str) -> Judgement {
    let mut left = Judgement::done(Verdict::ErrorsLeft);
    if output.contains("no error found") {
        left = left.and_noted(
            "only copies of sound blocks are damaged: btrfs scrub in the guest puts them right",
        );
    }
    if output.contains("cannot open file system") {
        left = left.and_noted(
            "btrfs check could not even open it: btrfs-rescue(8) and btrfs-restore(8) may help, \
             on a copy of the disk",
        );
    }
    if subject.is_dirty() {
        return left.and_noted(
            "its log was not replayed yet, and btrfs check --repair would throw it away: start \
             the guest and shut it down cleanly, then check again",
        );
    }
    if !subject.devices.is_empty() {
        return left.and_noted(
            "it spans several devices, which are only checked: btrfs scrub in the guest repairs \
             what it has other copies of",
        );
    }
    match repairs(subject) {
        true => left,
        false => left.and_noted(
            "btrfs check --repair can make it worse, so nothing was repaired: have a backup of \
             the disk, then run again with -y --allow btrfs-repair",
        ),
    }
}

/// Where what it says is no answer about the filesystem.
fn no_answer(code: i32, output: &str) -> Option<Verdict> {
    if output.contains("unsupported option features") {
        return Some(Verdict::NotChecked(
            "this host's btrfs check is too old for its features; install a newer btrfs-progs"
                .to_owned(),
        ));
    }
    if output.contains("warning, device ") && output.contains(" is missing") {
        return Some(Verdict::NotChecked(
            "btrfs check found not all of its devices; check it in the guest".to_owned(),
        ));
    }
    const OF_THE_HOST: [&str; 4] = [
        "ERROR: cannot open '",
        "could not check mount status",
        "is currently mounted",
        "Cannot allocate memory",
    ];
    let failed = OF_THE_HOST.iter().any(|words| output.contains(words));
    (failed || !matches!(code, 0 | 1)).then(|| Verdict::Failed(ended("btrfs check", code, output)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::checker::case::Case;
    use crate::layers::filesystem::FilesystemKind;

    const SOUND: (i32, &str) = (0, "found 483328 bytes used, no error found\n");
    const DAMAGED: (i32, &str) = (1, "found 483328 bytes used, error(s) found\n");
    const CHECK: Case = Case::new(FilesystemKind::Btrfs, Mode::Check);
    const ALLOWED: Case = Case {
        mode: Mode::Repair,
        allowed: &[Allowance::BtrfsRepair],
        ..CHECK
    };

    #[test]
    fn the_table_of_btrfs_check() {
        assert_eq!(CHECK.judged(&[SOUND]), Judgement::done(Verdict::Clean));
        for (code, said) in [
            DAMAGED,
            (1, "ERROR: cannot open file system\n"),
            (
                0,
                "ERROR: critical roots corrupted, unable to check the filesystem\n",
            ),
            (0, "nothing\n"),
            (
                0,
                "checksum verify failed on 1 wanted 2 found 3\nno error found\n",
            ),
        ] {
            assert_eq!(
                CHECK.verdict(&[(code, said)]),
                Verdict::ErrorsLeft,
                "{said}"
            );
        }
        for (code, said) in [
            (2, ""),
            (1, "ERROR: cannot open '/x': Permission denied\n"),
            (
                1,
                "ERROR: could not check mount status: No such file or directory\n",
            ),
        ] {
            let verdict = CHECK.verdict(&[(code, said)]);
            assert!(matches!(verdict, Verdict::Failed(_)), "{verdict:?}");
        }
        let lacking = (0, "warning, device 2 is missing\nno error found\n");
        assert!(
            matches!(CHECK.verdict(&[lacking]), Verdict::NotChecked(why) if why.contains("not all"))
        );
        let newer = (
            1,
            "couldn't open because of unsupported option features (10000).\n",
        );
        assert!(
            matches!(CHECK.verdict(&[newer]), Verdict::NotChecked(why) if why.contains("too old"))
        );
    }

    #[test]
    fn nothing_is_repaired_unless_it_is_asked_for_by_name() {
        for mode in [Mode::Check, Mode::Preen, Mode::Repair, Mode::Interactive] {
            let case = Case { mode, ..CHECK };
            assert_eq!(case.calls(), ["btrfs check --readonly /x"]);
            assert_eq!(case.verdict(&[DAMAGED]), Verdict::ErrorsLeft);
            assert!(case.notes(&[DAMAGED]).contains("--allow btrfs-repair"));
        }
        let not_asked = Case {
            mode: Mode::Preen,
            ..ALLOWED
        };
        assert_eq!(not_asked.calls().len(), 1);
    }

    #[test]
    fn a_repair_is_checked_again() {
        assert_eq!(
            ALLOWED.calls(),
            [
                "btrfs check --readonly /x",
                "btrfs check --repair /x",
                "btrfs check --readonly /x"
            ]
        );
        assert_eq!(ALLOWED.verdict(&[SOUND]), Verdict::Clean);
        for repair in [SOUND, DAMAGED] {
            assert_eq!(
                ALLOWED.verdict(&[DAMAGED, repair, SOUND]),
                Verdict::Corrected
            );
            assert_eq!(
                ALLOWED.verdict(&[DAMAGED, repair, DAMAGED]),
                Verdict::ErrorsLeft
            );
        }
    }

    #[test]
    fn a_log_is_never_thrown_away() {
        let dirty = ALLOWED.dirty();
        assert_eq!(dirty.calls(), ["btrfs check --readonly /x"]);
        assert!(dirty.notes(&[DAMAGED]).contains("throw it away"));
        assert_eq!(dirty.verdict(&[SOUND]), Verdict::Clean);
        assert!(dirty.notes(&[SOUND]).contains("replays"));
    }
}
