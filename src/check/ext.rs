//! ext2, ext3, ext4: e2fsck(8), always a full check (`-f`).

use std::path::Path;

use crate::check::checker::{Judgement, Mode, Step};
use crate::check::outcome::Verdict;
use crate::check::patterns;
use crate::cmd::watch::Finished;
use crate::layers::filesystem::Filesystem;

/// e2fsck's exit status is a sum of these (e2fsck(8), EXIT CODE).
mod bits {
    pub const CORRECTED: i32 = 1;
    pub const REBOOT: i32 = 2;
    pub const UNCORRECTED: i32 = 4;
    pub const CANCELED: i32 = 32;
}

/// A journal is replayed first when nothing may change: on the overlay, so that the read-only
/// check that follows sees what a mount would see, and reports no errors that are not there.
pub(super) fn steps(filesystem: &Filesystem, mode: Mode, path: &Path) -> Vec<Step> {
    match mode {
        Mode::Check if filesystem.record.dirty == Some(true) => vec![
            Step::e2fsck(["-p", "-E", "journal_only"], path),
            Step::e2fsck(["-f", "-n"], path),
        ],
        Mode::Check => vec![Step::e2fsck(["-f", "-n"], path)],
        Mode::Preen => vec![Step::e2fsck(["-f", "-p"], path)],
        Mode::Repair => vec![Step::e2fsck(["-f", "-y"], path)],
        Mode::Interactive => vec![Step::e2fsck(["-f"], path).at_the_terminal()],
    }
}

pub(super) fn judge(mode: Mode, code: i32, done: &[Finished], steps: usize) -> Judgement {
    let output = done.last().map_or("", |last| last.output.as_str());
    let replayed = match done {
        [first, ..] if steps == 2 => Some(first.status.code().unwrap_or(i32::MAX)),
        _ => None,
    };
    if done.len() < steps {
        return Judgement::GoOn;
    }
    let verdict = verdict(code, output);
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
    if verdict == Verdict::ErrorsLeft && mode == Mode::Preen {
        return Judgement::noted(
            verdict,
            "what is left needs more than safe repairs: run again with -y to repair everything, \
             or with -r to decide yourself",
        );
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
            false => format!("e2fsck ended with exit status {code}{}", tail(output)),
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

/// The checker's last words, for an error.
pub(super) fn tail(output: &str) -> String {
    match output.lines().map(str::trim).rfind(|line| !line.is_empty()) {
        Some(line) => format!(": {line}"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::checker::finished;

    fn judged(mode: Mode, code: i32, output: &str) -> Verdict {
        match judge(mode, code, &[finished(code, output)], 1) {
            Judgement::Done { verdict, .. } => verdict,
            Judgement::GoOn => panic!("the only step was not the last"),
        }
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
            assert_eq!(judged(Mode::Repair, code, ""), verdict, "{code}");
        }
        for code in [8, 9, 16, 128] {
            assert!(
                matches!(judged(Mode::Repair, code, "x\n"), Verdict::Failed(why) if why.ends_with(": x"))
            );
        }
    }

    #[test]
    fn a_feature_from_the_future_is_not_an_error() {
        let output = "/x/1-vda has unsupported feature(s): FEATURE_C12\ne2fsck: Get a newer version of e2fsck!\n";
        let Verdict::NotChecked(reason) = judged(Mode::Repair, 8, output) else {
            panic!("not checked was expected");
        };
        assert!(reason.contains("(FEATURE_C12)"), "{reason}");
    }

    #[test]
    fn a_journal_that_cannot_be_replayed_is_never_clean() {
        let both = [finished(4, ""), finished(0, "")];
        assert_eq!(judge(Mode::Check, 4, &both[..1], 2), Judgement::GoOn);
        assert_eq!(
            judge(Mode::Check, 0, &both, 2),
            Judgement::noted(Verdict::ErrorsLeft, "the journal could not be replayed")
        );
        let both = [finished(0, ""), finished(0, "")];
        assert_eq!(
            judge(Mode::Check, 0, &both, 2),
            Judgement::noted(
                Verdict::Clean,
                "the journal was replayed on the throw-away overlay"
            )
        );
    }
}
