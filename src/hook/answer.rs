//! The answer to a call: what is known is gathered, decided upon, and done.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;

use crate::cause;
use crate::config::Config;
use crate::domain::model::{Domain, Source};
use crate::domain::xml;
use crate::engine::user::nodes::Access;
use crate::folders;
use crate::guard::claim::{Claim, Claimed, Holder};
use crate::hook::call::{Call, Event};
use crate::hook::check;
use crate::hook::decision::{Action, Facts, decide};
use crate::hook::incoming::Incoming;
use crate::hook::memory;
use crate::hook::queue;
use crate::names;
use crate::reach::identity;
use crate::report::text::Charset;

/// The exit status that keeps libvirt from what it was about to do.
const NO: u8 = 1;

/// The largest XML that is read, in bytes; the parser takes no more either.
const LARGEST_XML: u64 = 4 * 1024 * 1024;

/// Answers a call: 0, or 1 and one sentence on standard error. Whatever goes wrong is no reason to
/// keep a guest from starting.
pub fn answer(call: &Call) -> ExitCode {
    say_nothing();
    let answer = catch_unwind(AssertUnwindSafe(|| objection(call)));
    match answer.ok().flatten() {
        None => ExitCode::SUCCESS,
        Some(objection) => {
            // The status tells it too.
            let _unheard = writeln!(io::stderr().lock(), "virt-fsck: {objection}");
            ExitCode::from(NO)
        }
    }
}

/// Nothing that is run from here on can write to standard output, and a panic is silent.
fn say_nothing() {
    if let Ok(nowhere) = std::fs::File::options().write(true).open("/dev/null") {
        let _as_it_was = rustix::stdio::dup2_stdout(nowhere);
    }
    std::panic::set_hook(Box::new(|_| {}));
}

/// Why libvirt must not go on; `None` if it may.
fn objection(call: &Call) -> Option<String> {
    if call.event == Event::Other {
        return None;
    }
    let base = folders::run_base();
    let note = names::incoming(&base, &call.guest);
    let domain = described();
    let facts = facts(call, &base, &note, domain.as_ref());
    match decide(call.event, &facts) {
        Action::Pass => None,
        Action::Refuse(holder) => Some(claimed(&call.guest, holder)),
        Action::Check(settings) => {
            let domain = domain?;
            let reports = check::before_start(&domain, &settings).ok()?;
            // One that came in between has the domain now.
            let holder = holder(&base, Some(&domain));
            let claimed = holder.map(|holder| claimed(&call.guest, holder));
            claimed.or_else(|| check::refusal(&domain, &reports))
        }
        Action::Note {
            incoming,
            is_needed,
        } => match incoming.note(&note) {
            Err(error) if is_needed => Some(format!(
                "refused: {} cannot be written ({}), and without it the disks would be checked \
                 while the guest is not off",
                note.display(),
                cause::sentence(&error)
            )),
            _ => None,
        },
        Action::Forget => {
            Incoming::forget(&note);
            None
        }
        Action::Release { forgets, checks } => {
            if forgets {
                Incoming::forget(&note);
            }
            if checks && let Some(domain) = &domain {
                // libvirt does not listen any more; a check can be made at any other time.
                let _unqueued = queue::check_soon(domain);
            }
            None
        }
    }
}

fn claimed(guest: &OsStr, holder: Holder) -> String {
    let guest = guest.to_string_lossy();
    format!(
        "start refused: {holder} works on the disks of {}; start it when that has ended",
        Charset::Unicode.clean(&guest)
    )
}

/// The guest, from its XML on standard input.
fn described() -> Option<Domain> {
    let mut text = String::new();
    let input = io::stdin().lock().take(LARGEST_XML);
    let read = { input }.read_to_string(&mut text);
    read.ok()?;
    xml::parse(&text).ok()
}

fn facts(call: &Call, base: &Path, note: &Path, domain: Option<&Domain>) -> Facts {
    let starts = call.event == Event::Prepare;
    let may_go_on = || {
        let libvirt = memory::libvirt_folder();
        libvirt.is_none_or(|libvirt| memory::is_kept(&libvirt, &call.guest))
    };
    Facts {
        is_described: domain.is_some(),
        holder: starts.then(|| holder(base, domain)).flatten(),
        settings: Config::at_its_place().ok().map(|config| config.hook),
        incoming: Incoming::noted(note),
        has_kept_memory: starts && may_go_on(),
    }
}

/// Who works on the guest, or, under another domain's name, on an image that it will use: a run of
/// this user's, or of root's.
fn holder(base: &Path, domain: Option<&Domain>) -> Option<Holder> {
    let domain = domain?;
    let held = |claimed, access| {
        let mut bases = [base, folders::run_base_of_root()].into_iter();
        bases.find_map(|base| Claim::holder(base, claimed, access).ok().flatten())
    };
    let by_name = domain.uuid.map(Claimed::Domain);
    let of_domain = by_name.and_then(|claimed| held(claimed, Access::Write));
    of_domain.or_else(|| {
        domain.disks.iter().find_map(|disk| {
            let path = disk.image.source.as_ref().and_then(Source::path)?;
            let (image, _) = identity::identify(path).ok()?;
            held(Claimed::Image(image), Access::of(!disk.read_only))
        })
    })
}
