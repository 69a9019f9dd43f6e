//! What is to be done at a call, from what is known. Nothing here touches the system.

use crate::config::{CheckBeforeStart, HookSettings};
use crate::guard::claim::Holder;
use crate::hook::call::{Ended, Event};
use crate::hook::incoming::Incoming;

/// What is known when libvirt calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The guest's XML could be read.
    pub is_described: bool,
    /// Who has claimed the guest.
    pub holder: Option<Holder>,
    /// What the configuration says; `None` if it cannot be read.
    pub settings: Option<HookSettings>,
    /// What was noted when its memory was announced.
    pub incoming: Option<Incoming>,
    /// libvirt keeps memory with which the guest may go on.
    pub has_kept_memory: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Pass,
    /// Keep the guest from starting: another virt-fsck works on its disks.
    Refuse(Holder),
    /// Check it, and keep it from starting if it cannot be left as it is.
    Check(HookSettings),
    /// Note that its memory is on its way.
    Note {
        /// From where.
        incoming: Incoming,
        /// Without the note a later call would touch its disks, so it must not come.
        is_needed: bool,
    },
    /// Take the note back.
    Forget,
    /// It has stopped.
    Release {
        /// Take the note back.
        forgets: bool,
        /// Have it checked after the hook has ended.
        checks: bool,
    },
}

/// What is to be done at a call.
pub fn decide(event: Event, facts: &Facts) -> Action {
    let settings = facts.settings.unwrap_or_default();
    let note = |incoming| Action::Note {
        incoming,
        is_needed: settings.check_before_start != CheckBeforeStart::Never
            || settings.check_after_stop,
    };
    match event {
        Event::Prepare => match facts.holder {
            Some(holder) => Action::Refuse(holder),
            None if boots_from_its_disks(facts)
                && settings.check_before_start != CheckBeforeStart::Never =>
            {
                Action::Check(settings)
            }
            None => Action::Pass,
        },
        Event::Migrate => note(Incoming::Migration),
        Event::Restore => note(Incoming::Restore),
        // Saved memory has been loaded by now; what is migrated has not even been sent (libvirt
        // calls this in the destination's first phase), and if it fails the guest goes on where it
        // was.
        Event::Started if facts.incoming == Some(Incoming::Restore) => Action::Forget,
        Event::Released(ended) => Action::Release {
            forgets: facts.incoming.is_some(),
            checks: settings.check_after_stop && facts.is_described && ran_here(ended, facts),
        },
        Event::Started | Event::Other => Action::Pass,
    }
}

/// Whether its disks are what it begins with. They are not when it goes on with memory, in which
/// its filesystems are mounted, and when it comes from a host where it still writes to them.
const fn boots_from_its_disks(facts: &Facts) -> bool {
    facts.is_described && facts.incoming.is_none() && !facts.has_kept_memory
}

/// Whether the guest has run on this host to its end, so that its disks are nobody's now.
const fn ran_here(ended: Ended, facts: &Facts) -> bool {
    match ended {
        // Only a guest that runs shuts itself down.
        Ended::Shutdown => true,
        // The queued run asks libvirt for the reason if it was not told here. But a migration that
        // fails looks like this too.
        Ended::NotTold
        | Ended::Destroyed
        | Ended::Crashed
        | Ended::FromSnapshot
        | Ended::Daemon => facts.incoming.is_none(),
        Ended::Migrated | Ended::Saved | Ended::Failed | Ended::Unknown => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOLDER: Holder = Holder { process: Some(42) };
    const EVERYTHING: HookSettings = HookSettings {
        check_before_start: CheckBeforeStart::Always,
        check_after_stop: true,
        time_budget: Duration::from_secs(1),
        max_age: None,
    };
    const FACTS: Facts = Facts {
        is_described: true,
        holder: None,
        settings: Some(EVERYTHING),
        incoming: None,
        has_kept_memory: false,
    };
    const ENDS: [Ended; 10] = [
        Ended::NotTold,
        Ended::Shutdown,
        Ended::Destroyed,
        Ended::Crashed,
        Ended::Migrated,
        Ended::Saved,
        Ended::Failed,
        Ended::FromSnapshot,
        Ended::Daemon,
        Ended::Unknown,
    ];
    const NOTES: [Option<Incoming>; 4] = [
        None,
        Some(Incoming::Migration),
        Some(Incoming::Restore),
        Some(Incoming::Unreadable),
    ];

    fn events() -> impl Iterator<Item = Event> {
        let released = ENDS.into_iter().map(Event::Released);
        released.chain([
            Event::Prepare,
            Event::Started,
            Event::Migrate,
            Event::Restore,
            Event::Other,
        ])
    }

    fn with(before: CheckBeforeStart, after: bool) -> Option<HookSettings> {
        Some(HookSettings {
            check_before_start: before,
            check_after_stop: after,
            ..EVERYTHING
        })
    }

    #[test]
    fn a_guest_that_boots_is_checked() {
        assert_eq!(decide(Event::Prepare, &FACTS), Action::Check(EVERYTHING));
        let due = with(CheckBeforeStart::Due, false);
        let facts = Facts {
            settings: due,
            ..FACTS
        };
        assert_eq!(decide(Event::Prepare, &facts), Action::Check(due.unwrap()));
        for settings in [with(CheckBeforeStart::Never, true), None] {
            let facts = Facts { settings, ..FACTS };
            assert_eq!(decide(Event::Prepare, &facts), Action::Pass);
        }
        let facts = Facts {
            is_described: false,
            ..FACTS
        };
        assert_eq!(decide(Event::Prepare, &facts), Action::Pass);
    }

    #[test]
    fn a_guest_that_goes_on_with_memory_is_never_touched() {
        for incoming in NOTES.into_iter().flatten() {
            let facts = Facts {
                incoming: Some(incoming),
                ..FACTS
            };
            assert_eq!(decide(Event::Prepare, &facts), Action::Pass, "{incoming:?}");
        }
        let facts = Facts {
            has_kept_memory: true,
            ..FACTS
        };
        assert_eq!(decide(Event::Prepare, &facts), Action::Pass);
    }

    #[test]
    fn a_claim_refuses_whatever_else_is_known() {
        for incoming in NOTES {
            for has_kept_memory in [false, true] {
                for settings in [None, Some(HookSettings::default()), Some(EVERYTHING)] {
                    let facts = Facts {
                        holder: Some(HOLDER),
                        incoming,
                        has_kept_memory,
                        settings,
                        ..FACTS
                    };
                    assert_eq!(decide(Event::Prepare, &facts), Action::Refuse(HOLDER));
                }
            }
        }
    }

    #[test]
    fn only_a_start_is_refused_or_checked() {
        for event in events().filter(|event| *event != Event::Prepare) {
            let facts = Facts {
                holder: Some(HOLDER),
                ..FACTS
            };
            let action = decide(event, &facts);
            assert!(
                !matches!(action, Action::Refuse(_) | Action::Check(_)),
                "{event:?}"
            );
        }
        for incoming in NOTES {
            let facts = Facts { incoming, ..FACTS };
            assert_eq!(decide(Event::Other, &facts), Action::Pass);
        }
    }

    #[test]
    fn announced_memory_is_noted() {
        let noted = |event, settings| decide(event, &Facts { settings, ..FACTS });
        for (event, incoming) in [
            (Event::Migrate, Incoming::Migration),
            (Event::Restore, Incoming::Restore),
        ] {
            for (settings, is_needed) in [
                (None, false),
                (with(CheckBeforeStart::Never, false), false),
                (with(CheckBeforeStart::Never, true), true),
                (with(CheckBeforeStart::Due, false), true),
                (with(CheckBeforeStart::Always, false), true),
            ] {
                let action = noted(event, settings);
                assert_eq!(
                    action,
                    Action::Note {
                        incoming,
                        is_needed
                    }
                );
            }
        }
    }

    #[test]
    fn a_note_of_a_migration_stays_until_the_guest_has_ended() {
        let started = |incoming| decide(Event::Started, &Facts { incoming, ..FACTS });
        assert_eq!(started(None), Action::Pass);
        assert_eq!(started(Some(Incoming::Restore)), Action::Forget);
        assert_eq!(started(Some(Incoming::Migration)), Action::Pass);
        assert_eq!(started(Some(Incoming::Unreadable)), Action::Pass);
        for ended in ENDS {
            for incoming in NOTES {
                let action = decide(Event::Released(ended), &Facts { incoming, ..FACTS });
                let Action::Release { forgets, .. } = action else {
                    panic!("{action:?}");
                };
                assert_eq!(forgets, incoming.is_some());
            }
        }
    }

    #[test]
    fn what_is_checked_after_it_has_stopped() {
        let checks = |ended, facts: Facts| match decide(Event::Released(ended), &facts) {
            Action::Release { checks, .. } => checks,
            action => panic!("{action:?}"),
        };
        for (ended, plainly, with_a_note) in [
            (Ended::NotTold, true, false),
            (Ended::Shutdown, true, true),
            (Ended::Destroyed, true, false),
            (Ended::Crashed, true, false),
            (Ended::FromSnapshot, true, false),
            (Ended::Daemon, true, false),
            (Ended::Migrated, false, false),
            (Ended::Saved, false, false),
            (Ended::Failed, false, false),
            (Ended::Unknown, false, false),
        ] {
            assert_eq!(checks(ended, FACTS), plainly, "{ended:?}");
            for incoming in NOTES.into_iter().filter(Option::is_some) {
                let facts = Facts { incoming, ..FACTS };
                assert_eq!(checks(ended, facts), with_a_note, "{ended:?}");
            }
            for settings in [None, with(CheckBeforeStart::Always, false)] {
                assert!(!checks(ended, Facts { settings, ..FACTS }), "{ended:?}");
            }
            let unknown = Facts {
                is_described: false,
                ..FACTS
            };
            assert!(!checks(ended, unknown), "{ended:?}");
        }
    }
}
