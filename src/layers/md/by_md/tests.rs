use super::super::assemble::{AssembledArray, assemble};
use super::super::writer::MemberImage;
use super::*;

/// An array of that level and number of devices, of which these were found.
fn array(level: i32, layout: u32, devices: u32, found: &[u32]) -> Vec<MemberImage> {
    found
        .iter()
        .map(|number| MemberImage {
            layout: Some(layout),
            ..MemberImage::new(Version::V1_2, level, *number, devices)
        })
        .collect()
}

fn assembled(members: &[MemberImage]) -> AssembledArray {
    let found: Vec<FoundMember> = members
        .iter()
        .enumerate()
        .map(|(image, member)| member.found(&format!("vd{image}"), image))
        .collect();
    let mut arrays = assemble(&found);
    assert_eq!(arrays.len(), 1);
    arrays.remove(0)
}

fn plan_of(members: &[MemberImage]) -> ForMd {
    assembled(members).by_md.unwrap()
}

fn refusal(members: &[MemberImage]) -> String {
    let array = assembled(members);
    assert_eq!(array.by_md, None);
    array.layout.unwrap_err()
}

/// The kernel's own rules (`_enough` in raid10.c): near 2 pairs devices, far and offset copies lie on
/// neighbours, so that the last device's lie on the first.
#[test]
fn as_few_members_as_md_needs() {
    for (level, layout, devices, found, is_enough) in [
        (4, 0, 3, &[0, 1][..], true),
        (5, 2, 3, &[0, 2], true),
        (5, 2, 3, &[2], false),
        (6, 2, 4, &[1, 3], true),
        (6, 2, 4, &[1], false),
        // near=2
        (10, 0x102, 4, &[0, 2], true),
        (10, 0x102, 4, &[0, 1], false),
        (10, 0x102, 3, &[0, 1], true),
        (10, 0x102, 3, &[2], false),
        // far=2
        (10, 0x201, 4, &[0, 2], true),
        (10, 0x201, 4, &[1, 2], false),
        (10, 0x201, 2, &[1], true),
        // near=3
        (10, 0x103, 3, &[2], true),
    ] {
        let members = array(level, layout, devices, found);
        let context = format!("{level} {layout:x} {found:?}");
        if is_enough {
            let plan = plan_of(&members);
            assert_eq!(plan.unsound, Some(Unsound::Degraded), "{context}");
            assert_eq!(plan.members.len(), found.len(), "{context}");
        } else {
            let reason = refusal(&members);
            assert!(
                reason.ends_with("; MD cannot do without"),
                "{context}: {reason}"
            );
        }
    }
}

/// The lengths are those that mdadm --detail gives for arrays of such members.
#[test]
fn an_array_has_its_length() {
    // Chunks of 4 KiB, 512 KiB of each member.
    for (level, layout, devices, kib) in [
        (4, 0, 3, 1024),
        (5, 2, 3, 1024),
        (6, 2, 4, 1024),
        (10, 0x102, 4, 1024),
        (10, 0x102, 3, 768),
        (10, 0x201, 4, 1024),
        (10, 0x103, 3, 512),
    ] {
        let all: Vec<u32> = (0..devices).collect();
        let plan = plan_of(&array(level, layout, devices, &all));
        assert_eq!(plan.size, Bytes::kib(kib), "{level} {layout:x}");
        assert_eq!((plan.unsound, plan.members.len()), (None, all.len()));
    }
}

#[test]
fn what_was_not_stopped_cleanly_is_only_read() {
    let mut members = array(5, 2, 3, &[0, 1, 2]);
    for member in &mut members {
        member.resync_offset = 0;
    }
    assert_eq!(plan_of(&members).unsound, Some(Unsound::OutOfStep));
    members.pop();
    let reason = refusal(&members);
    assert!(reason.contains("was not stopped cleanly"), "{reason}");
    // Copies need no parity to be right.
    let mut members = array(10, 0x102, 4, &[0, 1, 2]);
    for member in &mut members {
        member.resync_offset = 0;
    }
    assert_eq!(plan_of(&members).unsound, Some(Unsound::Degraded));
}

#[test]
fn older_and_half_filled_members_stay_out() {
    let mut members = array(5, 2, 3, &[0, 1, 2]);
    members[0].events -= 2;
    let plan = plan_of(&members);
    assert_eq!(plan.members, [1, 2]);
    assert_eq!(plan.unsound, Some(Unsound::Degraded));
    let mut members = array(5, 2, 3, &[0, 1, 2]);
    // Recovery offset.
    members[1].features = 2;
    assert_eq!(plan_of(&members).members, [0, 2]);
}

/// A spare would be filled in a degraded array; in a whole one it only gets its superblock.
#[test]
fn spares_are_given_to_whole_arrays_only() {
    let with_spare = |found: &[u32]| {
        let mut members = array(5, 2, 3, found);
        let mut spare = MemberImage::new(Version::V1_2, 5, 3, 3);
        spare.layout = Some(2);
        members.push(spare);
        for member in &mut members {
            member.roles = (0..3).map(Role::Active).chain([Role::Spare]).collect();
        }
        plan_of(&members)
    };
    assert_eq!(with_spare(&[0, 1, 2]).members, [0, 1, 2, 3]);
    assert_eq!(with_spare(&[0, 1]).members, [0, 1]);
}

#[test]
fn what_is_in_motion_is_left_to_the_guest() {
    for (feature, reason) in [(4, "reshaped"), (512, "journal"), (1024, "parity log")] {
        let mut members = array(5, 2, 3, &[0, 1, 2]);
        for member in &mut members {
            member.features = feature;
        }
        let told = refusal(&members);
        assert!(told.contains(reason), "{told}");
    }
}

/// Of mirrors only whole ones are for MD: the others are read without it.
#[test]
fn mirrors_have_both_ways() {
    let members = array(1, 0, 2, &[0, 1]);
    let whole = assembled(&members);
    assert!(whole.layout.is_ok() && whole.by_md.unwrap().unsound.is_none());
    let half = assembled(&members[..1]);
    assert_eq!(half.by_md.unwrap().unsound, Some(Unsound::Degraded));
}
