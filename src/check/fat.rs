//! FAT: fsck.fat(8).

use std::path::Path;

use crate::check::checker::{Judgement, Mode, Step};
use crate::check::ext::tail;
use crate::check::outcome::Verdict;
use crate::cmd::watch::Finished;

/// fsck.fat's exit status is 1 both for errors it corrected and for those it could not, so a
/// repair is always followed by a look.
pub(super) fn steps(mode: Mode, path: &Path) -> Vec<Step> {
    let look = Step::fsck_fat(["-n"], path);
    match mode {
        Mode::Check => vec![look],
        Mode::Preen | Mode::Repair => vec![
            Step::fsck_fat(["-a"], path),
            look.only("if there were errors"),
        ],
        Mode::Interactive => vec![
            Step::fsck_fat(["-r"], path).at_the_terminal(),
            look.only("if there were errors"),
        ],
    }
}

pub(super) fn judge(_mode: Mode, code: i32, done: &[Finished], steps: usize) -> Judgement {
    let output = done.last().map_or("", |last| last.output.as_str());
    match (done.len(), code) {
        (1, 0) => Judgement::done(Verdict::Clean),
        (2, 0) => Judgement::done(Verdict::Corrected),
        (1, 1) if steps > 1 => Judgement::GoOn,
        (_, 1) => Judgement::done(Verdict::ErrorsLeft),
        _ => Judgement::done(Verdict::Failed(format!(
            "fsck.fat ended with exit status {code}{}",
            tail(output)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::checker::finished;

    #[test]
    fn the_table_of_fsck_fat() {
        for (codes, verdict) in [
            (&[0][..], Verdict::Clean),
            (&[1, 0], Verdict::Corrected),
            (&[1, 1], Verdict::ErrorsLeft),
        ] {
            let done: Vec<_> = codes.iter().map(|code| finished(*code, "")).collect();
            let last = *codes.last().unwrap();
            assert_eq!(
                judge(Mode::Repair, last, &done, 2),
                Judgement::done(verdict)
            );
        }
        let done = [finished(1, "")];
        assert_eq!(judge(Mode::Repair, 1, &done, 2), Judgement::GoOn);
        assert_eq!(
            judge(Mode::Check, 1, &done, 1),
            Judgement::done(Verdict::ErrorsLeft)
        );
        let done = [finished(2, "fsck.fat: bad usage\n")];
        assert_eq!(
            judge(Mode::Check, 2, &done, 1),
            Judgement::done(Verdict::Failed(
                "fsck.fat ended with exit status 2: fsck.fat: bad usage".to_owned()
            ))
        );
    }
}
