//! What was found in the images of a disk, what is to be done about it, and what came of that.

use std::time::Duration;

use crate::cause;
use crate::check::checker::Mode;
use crate::check::image::call::{self, Answer, Counts, Remedy, Tell};
use crate::check::image::qcow2::{self, Told};
use crate::check::image::{
    CORRUPT, ImageCheck, LEAKED, SOUND, Usable, damaged, in_use, is_of_reference_counts, result,
};
use crate::check::outcome::{LayerResult, Verdict};
use crate::cmd::child;
use crate::domain::model::Format;
use crate::engine::user::daemon::is_lock_conflict;
use crate::reach::chain::Link;

/// What was found in the images of a disk.
#[derive(Debug)]
pub struct Finding<'c> {
    pub(super) top: &'c Link,
    /// `None` where the format has no check.
    pub(super) answer: Option<Answer>,
    /// What a qcow2's header tells.
    pub(super) told: Told,
    /// A log must be replayed before anything can be said.
    pub(super) has_log: bool,
    /// Of the images under it.
    pub(super) under: Vec<String>,
    pub(super) under_has_errors: bool,
    pub(super) duration: Duration,
}

impl Finding<'_> {
    pub(super) fn add_under(&mut self, link: &Link, counts: &Counts) {
        let image = link.path.display();
        if counts.corruptions > 0 {
            self.under_has_errors = true;
            self.under.push(format!(
                "the image under it, {image}, has wrong reference counts; it is never written \
                 here; when no guest uses it, qemu-img check -r all {image} repairs it"
            ));
        } else if counts.leaks > 0 {
            let leaks = clusters(counts.leaks);
            let note = format!("the image under it, {image}, has {leaks} that nothing uses");
            self.under.push(note);
        }
    }

    fn counts(&self) -> Counts {
        self.answer
            .as_ref()
            .map_or_else(Counts::default, |answer| answer.counts)
    }

    /// What is to be repaired. What QEMU itself does whenever it opens an image for writing that
    /// was not closed is not left to chance, in every mode that writes.
    pub fn remedy(&self, mode: Mode) -> Option<Remedy> {
        let Counts {
            corruptions, leaks, ..
        } = self.counts();
        let header = self.told.header;
        match mode {
            Mode::Check => None,
            Mode::Repair if header.corrupt || corruptions > 0 || leaks > 0 => Some(Remedy::All),
            _ if self.has_log => Some(Remedy::All),
            _ if header.corrupt => None,
            _ if header.dirty => Some(Remedy::All),
            _ if corruptions == 0 && leaks > 0 => Some(Remedy::Leaks),
            _ => None,
        }
    }

    /// What it comes to when nothing is repaired. `way_out` is whether another mode would.
    pub fn left_as_it_is(&self, way_out: bool) -> ImageCheck {
        let or = |hint: &'static str| if way_out { hint } else { "" };
        if self.has_log {
            let reason = format!(
                "the image {} was not closed, and QEMU cannot read it before its log is replayed{}",
                self.top.path.display(),
                or("; -p does that")
            );
            return ImageCheck::unusable(reason, None);
        }
        let Some(answer) = &self.answer else {
            return self.without_check();
        };
        let Counts {
            corruptions, leaks, ..
        } = answer.counts;
        let header = self.told.header;
        let mut notes = Vec::new();
        if header.dirty {
            notes.push(format!(
                "the image was not closed, so its reference counts may be out of date{}",
                or("; -p brings them up to date, as QEMU does when it next writes to it")
            ));
        }
        if leaks > 0 {
            let leaks = clusters(leaks);
            let hint = or("; -p gives the space back");
            notes.push(format!("{leaks} that nothing uses only waste space{hint}"));
        }
        let mut usable = Usable::Fully;
        if corruptions > 0 {
            notes.push(format!(
                "the image's reference counts are wrong, so nothing may be written to it{}",
                or("; -y makes them right")
            ));
            usable = Usable::ForReading("its image has errors, so it was only checked");
        }
        if header.corrupt {
            notes.push(format!(
                "the image bears QEMU's mark for a corrupt one, so nothing may be written to it{}",
                or("; -y takes the mark off if qemu-img check finds no other error")
            ));
            usable = Usable::ForReading("its image is marked as corrupt, so it was only checked");
        }
        let is_sound = corruptions == 0 && leaks == 0 && !header.corrupt;
        let verdict = match is_sound && !self.under_has_errors {
            true => Verdict::Clean,
            false => Verdict::ErrorsLeft,
        };
        self.told_of(answer, verdict, notes, usable)
    }

    /// Of a format without a check there is only to say what lies under it.
    fn without_check(&self) -> ImageCheck {
        let result = (!self.under.is_empty()).then(|| LayerResult {
            notes: self.under.clone(),
            ..LayerResult::without_checker(match self.under_has_errors {
                true => Verdict::ErrorsLeft,
                false => Verdict::Clean,
            })
        });
        ImageCheck {
            result,
            notes: Vec::new(),
            usable: Usable::Fully,
        }
    }

    fn told_of(
        &self,
        answer: &Answer,
        verdict: Verdict,
        mut notes: Vec<String>,
        usable: Usable,
    ) -> ImageCheck {
        let shared = answer.words.shared();
        if shared > 0 {
            notes.push(format!(
                "{} used at more than one place: what the guest finds at one of them may be wrong",
                match shared {
                    1 => "1 cluster is".to_owned(),
                    _ => format!("{shared} clusters are"),
                }
            ));
        }
        notes.extend(self.told.unsaved.iter().map(|bitmap| {
            format!(
                "the dirty bitmap {bitmap} was not saved when the image was last in use, so it is \
                 worth nothing for a backup; it was left as it is"
            )
        }));
        notes.extend(self.under.iter().cloned());
        ImageCheck {
            result: Some(LayerResult {
                output: answer.words.text(),
                notes,
                duration: self.duration.max(answer.duration),
                ..result(verdict, answer)
            }),
            notes: Vec::new(),
            usable,
        }
    }

    /// Repairs the top image: nothing the guest reads is changed. It is not stopped by a signal.
    pub async fn repair(self, remedy: Remedy, tell: Tell<'_>) -> ImageCheck {
        let image = self.top.path.display().to_string();
        let call = call::check(self.top, Some(remedy));
        let mut answer = match call::run(&call, None, tell).await {
            Ok(answer) => answer,
            Err(error) => return ImageCheck::stopped(Verdict::Failed(cause::sentence(&error))),
        };
        answer.duration = answer.duration.saturating_add(self.duration);
        match answer.status.code() {
            Some(SOUND | LEAKED) => {}
            Some(CORRUPT) if is_of_reference_counts(self.top, &answer) => {}
            Some(CORRUPT) => return ImageCheck::unusable(damaged(&image), Some(&answer)),
            _ if is_lock_conflict(&answer.words.text()) => {
                return ImageCheck::stopped(in_use(image));
            }
            code => {
                let said = match code {
                    Some(_) => answer.words.sentence(),
                    None => format!("it ended with {}", child::ending(answer.status)),
                };
                let name = remedy.name();
                let reason = format!("qemu-img check -r {name} could not repair {image}: {said}");
                return ImageCheck::unusable(reason, Some(&answer));
            }
        }
        let offset = self.top.slice.map_or(0, |slice| slice.offset.get());
        let now = match self.top.format {
            Format::Qcow2 => qcow2::read(&self.top.path, offset),
            _ => Ok(Told::default()),
        };
        match now {
            Ok(now) => self.repaired(&answer, &now),
            Err(error) => {
                let reason = format!("the header of {image}: {}", cause::sentence(&error));
                ImageCheck::unusable(reason, Some(&answer))
            }
        }
    }

    fn repaired(&self, answer: &Answer, now: &Told) -> ImageCheck {
        let counts = answer.counts;
        let before = self.told.header;
        let mut notes = Vec::new();
        if before.dirty && !now.header.dirty {
            notes.push(
                "the image was not closed; its reference counts are up to date now".to_owned(),
            );
        }
        if self.has_log {
            notes.push("the image was not closed; its log was replayed".to_owned());
        }
        if counts.leaks_fixed > 0 {
            let leaks = clusters(counts.leaks_fixed);
            notes.push(format!("{leaks} that nothing used were given back"));
        }
        // The log's replay is counted as one error that was repaired.
        if counts.corruptions_fixed > 0 && !self.has_log {
            notes.push("wrong reference counts were made right".to_owned());
        }
        let is_unmarked = before.corrupt && !now.header.corrupt;
        if is_unmarked {
            notes.push("QEMU's mark for a corrupt image was taken off".to_owned());
        }
        let has_errors = counts.corruptions > 0 || now.header.corrupt || now.header.dirty;
        let usable = match has_errors {
            true => Usable::ForReading("its image has errors, so it was only checked"),
            false => Usable::Fully,
        };
        let has_changed = counts.leaks_fixed > 0 || counts.corruptions_fixed > 0 || is_unmarked;
        let verdict = match (
            has_errors || counts.leaks > 0 || self.under_has_errors,
            has_changed,
        ) {
            (true, _) => Verdict::ErrorsLeft,
            (false, true) => Verdict::Corrected,
            (false, false) => Verdict::Clean,
        };
        self.told_of(answer, verdict, notes, usable)
    }
}

fn clusters(number: u64) -> String {
    match number {
        1 => "1 cluster".to_owned(),
        _ => format!("{number} clusters"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;
    use crate::check::image::qcow2::Header;
    use crate::check::image::words::Words;
    use crate::reach::identity::{Identity, Kind};

    fn link() -> Link {
        Link {
            path: "/i/x".into(),
            kind: Kind::File,
            identity: Identity::File {
                device: 0,
                inode: 0,
            },
            format: Format::Qcow2,
            slice: None,
            data_file: None,
            encryption: None,
        }
    }

    fn finding(top: &Link, corruptions: u64, leaks: u64, header: Header) -> Finding<'_> {
        let answer = Answer {
            status: ExitStatus::from_raw(0),
            counts: Counts {
                corruptions,
                leaks,
                ..Counts::default()
            },
            words: Words::default(),
            duration: Duration::ZERO,
            interrupted: false,
        };
        Finding {
            top,
            answer: Some(answer),
            told: Told {
                header,
                unsaved: Vec::new(),
            },
            has_log: false,
            under: Vec::new(),
            under_has_errors: false,
            duration: Duration::ZERO,
        }
    }

    #[test]
    fn what_each_mode_repairs_and_what_is_left() {
        const LEAKS: Option<Remedy> = Some(Remedy::Leaks);
        const ALL: Option<Remedy> = Some(Remedy::All);
        let top = link();
        let marked = |dirty, corrupt| Header {
            dirty,
            corrupt,
            ..Header::default()
        };
        let sound = Verdict::Clean;
        let errors = Verdict::ErrorsLeft;
        for (corruptions, leaks, header, preen, repair, verdict, is_writable) in [
            (0, 0, marked(false, false), None, None, &sound, true),
            (0, 3, marked(false, false), LEAKS, ALL, &errors, true),
            (2, 3, marked(false, false), None, ALL, &errors, false),
            (0, 0, marked(true, false), ALL, ALL, &sound, true),
            (2, 0, marked(true, false), ALL, ALL, &errors, false),
            (0, 0, marked(false, true), None, ALL, &errors, false),
            (0, 3, marked(true, true), None, ALL, &errors, false),
        ] {
            let finding = finding(&top, corruptions, leaks, header);
            assert_eq!(finding.remedy(Mode::Check), None);
            assert_eq!(finding.remedy(Mode::Preen), preen, "{finding:?}");
            assert_eq!(finding.remedy(Mode::Interactive), preen, "{finding:?}");
            assert_eq!(finding.remedy(Mode::Repair), repair, "{finding:?}");
            let left = finding.left_as_it_is(true);
            assert_eq!(&left.result.unwrap().verdict, verdict, "{finding:?}");
            assert_eq!(left.usable == Usable::Fully, is_writable, "{finding:?}");
        }
    }

    #[test]
    fn a_log_is_replayed_wherever_something_may_be_written() {
        let top = link();
        let mut finding = finding(&top, 0, 0, Header::default());
        finding.answer = None;
        finding.has_log = true;
        assert_eq!(finding.remedy(Mode::Check), None);
        assert_eq!(finding.remedy(Mode::Preen), Some(Remedy::All));
        let left = finding.left_as_it_is(true);
        assert!(matches!(left.usable, Usable::No(Verdict::Failed(why)) if why.contains("-p")));
    }
}
