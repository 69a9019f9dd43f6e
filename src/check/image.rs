//! The image format itself: `qemu-img check`.
//!
//! QEMU reads zeros where an image file ends too early, and a damaged table maps one guest sector
//! to another's place: no answer about what lies inside is worth anything then, and no repair is
//! safe. Nothing is opened in that case, and `-r all` is not let at it either: it would give the
//! clusters back that a damaged table has lost.
//!
//! Reference counts are another matter. They say which clusters are free, nothing is read through
//! them, and they can be made again from the tables. While they are wrong, a write may land where
//! other data is; so nothing is written then.

use std::time::Duration;

use crate::cause;
use crate::check::image::call::{Answer, Tell};
use crate::check::image::qcow2::Told;
use crate::check::outcome::{LayerResult, Verdict};
use crate::cmd::child;
use crate::domain::model::Format;
use crate::engine::user::daemon::{DaemonError, is_lock_conflict};
use crate::interrupt::Interrupt;
use crate::reach::chain::{Chain, Link};

mod call;
mod end;
mod finding;
pub mod qcow2;
mod words;

pub use call::Remedy;
pub use finding::Finding;

/// qemu-img's exit statuses (docs/tools/qemu-img.rst of QEMU): errors; only leaked clusters; the
/// format has no check.
const SOUND: i32 = 0;
const CORRUPT: i32 = 2;
const LEAKED: i32 = 3;
const NO_CHECK_FOR_THE_FORMAT: i32 = 63;

/// QEMU's words for a VHDX that was not closed (block/vhdx-log.c, `vhdx_parse_log`).
const LOG_TO_REPLAY: &str = "contains a log that needs to be replayed";

const CHECKER: &str = "qemu-img";

/// What came of the check of a disk's images.
#[derive(Clone, Debug)]
pub struct ImageCheck {
    /// For the report; `None` where the format has no check.
    pub result: Option<LayerResult>,
    /// What a reader should know of the disk, where there is no result.
    pub notes: Vec<String>,
    /// What may be done with the disk now.
    pub usable: Usable,
}

/// What may be done with a disk after its images were looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Usable {
    /// All.
    Fully,
    /// Nothing may be written to it, and why.
    ForReading(&'static str),
    /// Nothing: the verdict.
    No(Verdict),
}

impl ImageCheck {
    /// It was not checked: refused, interrupted, or there is no qemu-img.
    pub const fn stopped(verdict: Verdict) -> Self {
        Self {
            result: None,
            notes: Vec::new(),
            usable: Usable::No(verdict),
        }
    }

    /// For those who only want to see what there is: errors of the image are remarks then.
    #[must_use]
    pub fn only_told(self) -> Self {
        Self {
            notes: self.result.map_or_else(Vec::new, |result| result.notes),
            result: None,
            usable: self.usable,
        }
    }

    /// It is damaged, or cannot be checked.
    fn unusable(reason: String, answer: Option<&Answer>) -> Self {
        let verdict = Verdict::Failed(reason);
        let result = answer.map(|answer| LayerResult {
            output: answer.words.text(),
            ..result(verdict.clone(), answer)
        });
        Self {
            result: Some(result.unwrap_or_else(|| LayerResult::without_checker(verdict.clone()))),
            notes: Vec::new(),
            usable: Usable::No(verdict),
        }
    }
}

fn result(verdict: Verdict, answer: &Answer) -> LayerResult {
    LayerResult {
        verdict,
        checker: Some(CHECKER),
        exit_code: answer.status.code(),
        duration: answer.duration,
        output: String::new(),
        notes: Vec::new(),
    }
}

/// Whether one of a disk's images has a format that could be checked.
pub fn has_format(chain: &Chain) -> bool {
    chain.links().any(|link| link.format != Format::Raw)
}

/// The calls that look, and the one that repairs, for those who only want to see them.
pub fn calls(chain: &Chain, remedy: Option<Remedy>) -> Vec<String> {
    let with_format = chain.links().filter(|link| link.format != Format::Raw);
    let looks = with_format.map(|link| call::check(link, None).to_string());
    let repair = remedy.map(|remedy| call::check(&chain.top, Some(remedy)).to_string());
    looks.chain(repair).collect()
}

/// Looks at every image of a chain that has a format of its own. Changes nothing.
///
/// # Errors
/// What came of it where the disk cannot be used.
pub async fn look<'c>(
    chain: &'c Chain,
    interrupt: &mut Interrupt,
    mut tell: Tell<'_>,
) -> Result<Finding<'c>, ImageCheck> {
    let mut finding = Finding {
        top: &chain.top,
        answer: None,
        told: Told::default(),
        has_log: false,
        under: Vec::new(),
        under_has_errors: false,
        duration: Duration::ZERO,
    };
    for (depth, link) in chain.links().enumerate() {
        if link.format == Format::Raw {
            continue;
        }
        let tell: Tell<'_> = match &mut tell {
            Some(tell) => Some(&mut **tell),
            None => None,
        };
        let looked = look_at(link, interrupt, tell).await?;
        finding.duration = finding.duration.saturating_add(looked.duration());
        match (depth, looked) {
            (_, Looked::NoCheck(_)) => {}
            (0, Looked::HasLog(_)) => finding.has_log = true,
            (_, Looked::HasLog(answer)) => {
                return Err(ImageCheck::unusable(
                    unreadable(link, &answer),
                    Some(&answer),
                ));
            }
            (0, Looked::Checked(answer)) => finding.answer = Some(answer),
            (_, Looked::Checked(answer)) => finding.add_under(link, &answer.counts),
        }
    }
    if chain.top.format == Format::Qcow2 {
        let offset = chain.top.slice.map_or(0, |slice| slice.offset.get());
        finding.told = qcow2::read(&chain.top.path, offset).map_err(|error| {
            let image = chain.top.path.display();
            let reason = format!("the header of {image}: {}", cause::sentence(&error));
            ImageCheck::unusable(reason, None)
        })?;
    }
    Ok(finding)
}

enum Looked {
    Checked(Answer),
    NoCheck(Duration),
    HasLog(Answer),
}

impl Looked {
    const fn duration(&self) -> Duration {
        match self {
            Self::Checked(answer) | Self::HasLog(answer) => answer.duration,
            Self::NoCheck(duration) => *duration,
        }
    }
}

async fn look_at(
    link: &Link,
    interrupt: &mut Interrupt,
    tell: Tell<'_>,
) -> Result<Looked, ImageCheck> {
    let image = link.path.display().to_string();
    let call = call::check(link, None);
    let answer = call::run(&call, Some(interrupt), tell).await;
    let answer =
        answer.map_err(|error| ImageCheck::stopped(Verdict::Failed(cause::sentence(&error))))?;
    if answer.interrupted {
        return Err(ImageCheck::stopped(Verdict::Interrupted));
    }
    let looked = match answer.status.code() {
        Some(NO_CHECK_FOR_THE_FORMAT) => Looked::NoCheck(answer.duration),
        Some(SOUND | LEAKED) => Looked::Checked(answer),
        Some(CORRUPT) if is_of_reference_counts(link, &answer) => Looked::Checked(answer),
        Some(CORRUPT) => return Err(ImageCheck::unusable(damaged(&image), Some(&answer))),
        _ if is_lock_conflict(&answer.words.text()) => {
            return Err(ImageCheck::stopped(in_use(image)));
        }
        _ if answer.words.text().contains(LOG_TO_REPLAY) => return Ok(Looked::HasLog(answer)),
        _ => {
            return Err(ImageCheck::unusable(
                unreadable(link, &answer),
                Some(&answer),
            ));
        }
    };
    match end::is_cut_off(link).await {
        Ok(false) => Ok(looked),
        Ok(true) => Err(ImageCheck::unusable(damaged(&image), None)),
        Err(reason) => Err(ImageCheck::unusable(reason, None)),
    }
}

/// Only what QEMU says of a qcow2 is known well enough.
fn is_of_reference_counts(link: &Link, answer: &Answer) -> bool {
    link.format == Format::Qcow2 && answer.words.are_of_reference_counts()
}

fn in_use(image: String) -> Verdict {
    Verdict::Refused(DaemonError::InUse(image).to_string())
}

fn damaged(image: &str) -> String {
    format!(
        "the image {image} is damaged or cut off, so what lies in it was not touched; see \
         qemu-img check {image}, and restore it, or repair a copy of it with qemu-img check \
         -r all"
    )
}

fn unreadable(link: &Link, answer: &Answer) -> String {
    let image = link.path.display();
    match answer.status.code() {
        Some(_) => format!(
            "the image {image} cannot be checked: {}",
            answer.words.sentence()
        ),
        None => format!(
            "the image {image} cannot be checked: qemu-img ended with {}",
            child::ending(answer.status)
        ),
    }
}
