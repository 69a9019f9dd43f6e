//! What libvirt says when it calls the hook.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// How many words libvirt calls a hook with.
const WORDS: usize = 4;

/// One call of the hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The guest's name, which may be any text.
    pub guest: OsString,
    /// What happens to it.
    pub event: Event,
}

/// What happens to a guest (docs/hooks.rst of libvirt, "/etc/libvirt/hooks/qemu").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `prepare begin`: it is about to start, and may be kept from it.
    Prepare,
    /// `started begin`: its QEMU runs.
    Started,
    /// `release end`: it has stopped, and nothing holds its disks any more.
    Released(Ended),
    /// `migrate begin`: it is about to come from another host.
    Migrate,
    /// `restore begin`: it is about to go on with memory that was saved.
    Restore,
    /// All else: the other operations of today and those of tomorrow.
    Other,
}

/// Why a guest has stopped (`virDomainShutoffReason` in include/libvirt/libvirt-domain.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// libvirt does not tell; so do all before 10.5.
    NotTold,
    /// It was shut down.
    Shutdown,
    /// It was ended from outside.
    Destroyed,
    /// It crashed.
    Crashed,
    /// It went to another host.
    Migrated,
    /// Its memory was saved.
    Saved,
    /// It could not be started, or could not come from another host.
    Failed,
    /// A snapshot of it being off was restored.
    FromSnapshot,
    /// The daemon ended it when it found it again.
    Daemon,
    /// For a reason that libvirt does not know, or this version does not.
    Unknown,
}

impl Call {
    /// The call, if these are its arguments and not those of a person: libvirt's four words, of
    /// which the first may look like an option, or anything that does not begin like one.
    pub fn of_arguments(arguments: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let mut words = arguments.into_iter().skip(1);
        if words.next()? != "hook" {
            return None;
        }
        let words: Vec<OsString> = words.collect();
        let words = match words.as_slice() {
            [dashes, words @ ..] if dashes == "--" && words.len() == WORDS => words,
            words => words,
        };
        let first = words.first()?;
        let is_option = first.as_bytes().starts_with(b"-");
        (words.len() >= WORDS || !is_option).then(|| Self {
            guest: first.clone(),
            event: Event::of(words),
        })
    }
}

impl Event {
    fn of(words: &[OsString]) -> Self {
        let [_, operation, suboperation, extra] = words else {
            return Self::Other;
        };
        match (operation.to_str(), suboperation.to_str()) {
            (Some("prepare"), Some("begin")) => Self::Prepare,
            (Some("started"), Some("begin")) => Self::Started,
            (Some("release"), Some("end")) => Self::Released(Ended::of(extra)),
            (Some("migrate"), Some("begin")) => Self::Migrate,
            (Some("restore"), Some("begin")) => Self::Restore,
            _ => Self::Other,
        }
    }
}

impl Ended {
    fn of(reason: &OsStr) -> Self {
        match reason.to_str() {
            Some("-") => Self::NotTold,
            Some("shutdown") => Self::Shutdown,
            Some("destroyed") => Self::Destroyed,
            Some("crashed") => Self::Crashed,
            Some("migrated") => Self::Migrated,
            Some("saved") => Self::Saved,
            Some("failed") => Self::Failed,
            Some("from snapshot") => Self::FromSnapshot,
            Some("daemon") => Self::Daemon,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(words: &[&str]) -> Option<Call> {
        let program = ["virt-fsck", "hook"];
        Call::of_arguments(program.iter().chain(words).map(OsString::from))
    }

    fn event(words: &[&str]) -> Event {
        call(words).unwrap().event
    }

    #[test]
    fn what_libvirt_says() {
        for (operation, suboperation, extra, wanted) in [
            ("prepare", "begin", "-", Event::Prepare),
            ("start", "begin", "-", Event::Other),
            ("started", "begin", "-", Event::Started),
            ("stopped", "end", "shutdown", Event::Other),
            ("migrate", "begin", "-", Event::Migrate),
            ("restore", "begin", "-", Event::Restore),
            ("reconnect", "begin", "-", Event::Other),
            ("attach", "begin", "-", Event::Other),
            ("release", "end", "-", Event::Released(Ended::NotTold)),
            ("release", "end", "unknown", Event::Released(Ended::Unknown)),
            (
                "release",
                "end",
                "shutdown",
                Event::Released(Ended::Shutdown),
            ),
            (
                "release",
                "end",
                "destroyed",
                Event::Released(Ended::Destroyed),
            ),
            ("release", "end", "crashed", Event::Released(Ended::Crashed)),
            (
                "release",
                "end",
                "migrated",
                Event::Released(Ended::Migrated),
            ),
            ("release", "end", "saved", Event::Released(Ended::Saved)),
            ("release", "end", "failed", Event::Released(Ended::Failed)),
            (
                "release",
                "end",
                "from snapshot",
                Event::Released(Ended::FromSnapshot),
            ),
            ("release", "end", "daemon", Event::Released(Ended::Daemon)),
            (
                "release",
                "end",
                "tomorrow",
                Event::Released(Ended::Unknown),
            ),
            ("release", "begin", "shutdown", Event::Other),
            ("prepare", "end", "-", Event::Other),
            ("Prepare", "begin", "-", Event::Other),
            ("", "", "", Event::Other),
        ] {
            assert_eq!(
                event(&["vm1", operation, suboperation, extra]),
                wanted,
                "{operation} {suboperation} {extra}"
            );
        }
    }

    #[test]
    fn a_guest_may_be_called_like_an_option() {
        for guest in ["--help", "-n", "--install", "--", "-", ""] {
            let call = call(&[guest, "prepare", "begin", "-"]).unwrap();
            assert_eq!(
                (call.guest.to_str(), call.event),
                (Some(guest), Event::Prepare)
            );
            let after_dashes = super::Call::of_arguments(
                ["virt-fsck", "hook", "--", guest, "prepare", "begin", "-"].map(OsString::from),
            );
            assert_eq!(after_dashes, Some(call));
        }
    }

    #[test]
    fn too_few_or_too_many_words_are_an_unknown_call() {
        for words in [
            &["a"][..],
            &["a", "prepare", "begin"],
            &["a", "b", "c", "d", "e", "f"],
        ] {
            assert_eq!(event(words), Event::Other, "{words:?}");
        }
        assert_eq!(event(&["-a", "prepare", "begin", "-", "-"]), Event::Other);
    }

    #[test]
    fn what_a_person_says_is_no_call() {
        for words in [
            &[][..],
            &["--install"],
            &["--uninstall"],
            &["--help"],
            &["--install", "--hooks-folder", "/etc/libvirt/hooks/qemu.d"],
        ] {
            assert_eq!(call(words), None, "{words:?}");
        }
        let other = ["virt-fsck", "-d", "hook", "prepare", "begin", "-"];
        assert_eq!(Call::of_arguments(other.map(OsString::from)), None);
        assert_eq!(Call::of_arguments([]), None);
    }
}
