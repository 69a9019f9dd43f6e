//! A guest that comes with its memory: libvirt's calls in its order, and not one byte of the disk changes.

use crate::place::{PREPARE, Place, STARTED};

const MIGRATE: [&str; 4] = ["vm1", "migrate", "begin", "-"];
const RESTORE: [&str; 4] = ["vm1", "restore", "begin", "-"];
const START: [&str; 4] = ["vm1", "start", "begin", "-"];
const STOPPED: [&str; 4] = ["vm1", "stopped", "end", "-"];
const RELEASE: [&str; 4] = ["vm1", "release", "end", "-"];

fn place() -> Option<Place> {
    let place = Place::new("check-before-start = \"always\"\n")?;
    place.damaged();
    Some(place)
}

/// The same guest, when it boots from its disk, is checked.
fn is_checked_when_it_boots(place: &Place) {
    assert!(!place.is_sound());
    place.call(&PREPARE).passes();
    assert!(place.is_sound());
}

#[test]
fn a_migrated_guest_is_not_touched() {
    let Some(place) = place() else { return };
    for call in [MIGRATE, PREPARE, START, STARTED] {
        place.leaves(&call);
    }
    for call in [STOPPED, RELEASE] {
        place.leaves(&call);
    }
    is_checked_when_it_boots(&place);
}

#[test]
fn a_restored_guest_is_not_touched() {
    let Some(place) = place() else { return };
    for call in [RESTORE, PREPARE, START, STARTED] {
        place.leaves(&call);
    }
    assert_eq!(place.lab.sh("find run -type f"), "");
    is_checked_when_it_boots(&place);
}

#[test]
fn a_guest_whose_migration_or_restore_fails_is_not_touched() {
    let Some(place) = place() else { return };
    for call in [
        MIGRATE, PREPARE, STOPPED, RELEASE, RESTORE, PREPARE, RELEASE,
    ] {
        place.leaves(&call);
    }
    is_checked_when_it_boots(&place);
}

#[test]
fn a_migration_that_is_given_up_at_once_costs_one_check() {
    let Some(place) = place() else { return };
    for call in [MIGRATE, PREPARE, START, STARTED, RELEASE] {
        place.leaves(&call);
    }
    is_checked_when_it_boots(&place);
}

#[test]
fn one_guest_s_memory_says_nothing_of_another() {
    let Some(place) = place() else { return };
    place.leaves(&["vm2", "migrate", "begin", "-"]);
    is_checked_when_it_boots(&place);
}

#[test]
fn an_xml_that_cannot_be_read_is_noted_all_the_same() {
    let Some(place) = place() else { return };
    let xml = std::fs::read_to_string(place.lab.file("vm1.xml")).unwrap();
    place.lab.write("vm1.xml", "<domain><devices><disk/>");
    place.leaves(&MIGRATE);
    place.lab.write("vm1.xml", xml);
    place.leaves(&PREPARE);
    place.leaves(&RELEASE);
    is_checked_when_it_boots(&place);
}

/// Without the note the next call would look like that of a guest that boots.
#[test]
fn what_cannot_be_noted_must_not_come() {
    let Some(place) = place() else { return };
    place.lab.write("run/virt-fsck.incoming", "");
    for call in [MIGRATE, RESTORE] {
        place
            .call(&call)
            .refuses(&["virt-fsck.incoming/", "cannot be written"]);
    }
    place.lab.write("etc/virt-fsck.toml", "");
    for call in [MIGRATE, RESTORE] {
        place.leaves(&call);
    }
}
