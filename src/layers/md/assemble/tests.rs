use proptest::prelude::*;

use super::super::superblock::{Role, Version};
use super::super::writer::{Images, MemberImage};
use super::*;
use crate::layers::extent::{Extent, ImageIndex, Piece};
use crate::layers::read::{LayerReader, ReadAt};
use crate::units::Bytes;

const SECTOR: usize = 512;

/// Members of one array as vda, vdb and so on.
fn found(members: &[MemberImage]) -> Vec<FoundMember> {
    let letters = ["vda", "vdb", "vdc", "vdd", "vde"];
    let members = members.iter().zip(letters).enumerate();
    members
        .map(|(image, (member, path))| member.found(path, image))
        .collect()
}

fn one(members: &[MemberImage]) -> AssembledArray {
    let mut arrays = assemble(&found(members));
    assert_eq!(arrays.len(), 1);
    arrays.remove(0)
}

fn reason(members: &[MemberImage]) -> String {
    one(members).layout.unwrap_err()
}

fn devices(version: Version, level: i32, count: u32) -> Vec<MemberImage> {
    (0..count)
        .map(|number| MemberImage::new(version, level, number, count))
        .collect()
}

fn extent(image: usize, sector: u64, sectors: u64) -> Extent {
    Extent {
        image: ImageIndex(image),
        offset: Bytes::new(sector * 512),
        length: Bytes::new(sectors * 512),
    }
}

fn places(array: &AssembledArray) -> Vec<Extent> {
    array.layout.as_ref().unwrap().places().collect()
}

#[test]
fn linear_is_one_after_the_other() {
    let mut members = devices(Version::V1_2, -1, 2);
    members[0] = members[0].clone().sized(2051);
    // In whatever order they are found.
    members.reverse();
    let array = one(&members);
    assert_eq!(places(&array), [extent(1, 256, 1792), extent(0, 256, 1792)]);
    assert!(array.complete && !array.is_mirror);
    assert_eq!((array.name.as_str(), array.first), ("md/data", 0));
    for member in &mut members {
        member.chunk = 0;
    }
    assert_eq!(places(&one(&members))[0], extent(1, 256, 1795));
}

#[test]
fn a_mirror_has_each_byte_on_all_members() {
    for version in [Version::V0_90, Version::V1_0, Version::V1_1, Version::V1_2] {
        let members = devices(version, 1, 2);
        let array = one(&members);
        let start = members[0].data_offset;
        let map = array.layout.as_ref().unwrap();
        let [Piece::Mirrored(mirrored)] = map.pieces() else {
            panic!("{map:?}");
        };
        assert_eq!(
            mirrored.legs(),
            [extent(0, start, 1024), extent(1, start, 1024)]
        );
        assert!(array.is_mirror && array.complete && array.notes.is_empty());
    }
}

#[test]
fn a_degraded_mirror_is_read_from_what_is_left() {
    let members = devices(Version::V1_2, 1, 2);
    let array = one(&members[1..]);
    assert_eq!(places(&array), [extent(0, 256, 1024)]);
    assert!(array.is_mirror && !array.complete);
    assert_eq!(
        array.notes,
        ["the mirror is degraded: of its 2 devices, counted from 0, these are missing: 0"]
    );
}

#[test]
fn a_stale_member_is_left_out_and_named() {
    let mut members = devices(Version::V1_2, 1, 2);
    // One event behind is what MD lets pass.
    members[0].events = 9;
    assert_eq!(places(&one(&members)).len(), 2);
    members[0].events = 8;
    let array = one(&members);
    assert_eq!(places(&array), [extent(1, 256, 1024)]);
    assert_eq!(array.first, 1);
    assert_eq!(
        array.notes[0],
        "vda is left out: its data are older (event 8, the newest is 10)"
    );
}

#[test]
fn the_newer_half_says_who_is_in() {
    let mut members = devices(Version::V1_2, 1, 2);
    members[1].roles[0] = Role::Faulty;
    members[1].events = 11;
    let array = one(&members);
    assert_eq!(places(&array), [extent(1, 256, 1024)]);
    assert_eq!(
        array.notes[0],
        "vda is left out: by vdb, which is newer, it is no longer a part of the array"
    );
    // Each went its own way, and neither is newer.
    members[0].roles[1] = Role::Faulty;
    members[0].events = 11;
    assert_eq!(
        reason(&members),
        "RAID 1: vdb and vda were each used without the other, and which is newer cannot be told"
    );
}

#[test]
fn members_that_are_being_filled_are_not_read() {
    let mut members = devices(Version::V1_2, 1, 2);
    members[0].features = 2;
    let array = one(&members);
    assert_eq!(places(&array), [extent(1, 256, 1024)]);
    assert_eq!(
        array.notes,
        ["vda is left out: it is being filled from the other members"]
    );
    members[1].features = 2;
    assert_eq!(
        reason(&members),
        "RAID 1: no member that is in step was found"
    );
}

#[test]
fn a_mirror_that_was_not_stopped_is_told() {
    let mut members = devices(Version::V0_90, 1, 2);
    for member in &mut members {
        member.resync_offset = 0;
    }
    let array = one(&members);
    assert!(
        array.notes[0].contains("not stopped cleanly"),
        "{:?}",
        array.notes
    );
    assert_eq!(places(&array).len(), 2);
}

#[test]
fn copies_of_a_member_are_refused() {
    for level in [-1, 0, 1] {
        let mut members = devices(Version::V1_2, level, 2);
        members.push(members[1].clone());
        assert!(
            reason(&members).ends_with("vdb and vdc both claim to be device 1"),
            "{}",
            reason(&members)
        );
    }
}

#[test]
fn members_that_disagree_are_refused() {
    let mut members = devices(Version::V1_2, 0, 2);
    members[1].chunk = 16;
    assert_eq!(
        reason(&members),
        "RAID 0: vdb and vda describe the array differently"
    );
}

#[test]
fn no_part_may_be_missing_where_there_is_no_copy() {
    for level in [-1, 0] {
        let members = devices(Version::V1_2, level, 3);
        assert!(
            reason(&members[1..2])
                .ends_with("of its 3 devices, counted from 0, these are missing: 0, 2")
        );
    }
}

#[test]
fn what_only_md_puts_together_has_a_reason() {
    for (level, expected) in [
        (4, "RAID 4: only MD itself can put it together"),
        (5, "RAID 5: only MD itself can put it together"),
        (10, "RAID 10: only MD itself can put it together"),
        (-4, "multipath RAID: only MD itself can put it together"),
    ] {
        assert_eq!(reason(&devices(Version::V1_2, level, 3)), expected);
    }
    let mut members = devices(Version::V1_2, 1, 2);
    members[1].features = 4;
    assert_eq!(reason(&members), "RAID 1: it is being reshaped");
}

#[test]
fn spares_hold_nothing() {
    let mut members = devices(Version::V1_2, 1, 3);
    for member in &mut members {
        member.devices = 2;
        member.roles[2] = Role::Spare;
    }
    members[2].events = 0;
    let array = one(&members);
    assert_eq!(places(&array).len(), 2);
    assert_eq!(array.members, [0, 1, 2]);
    assert_eq!(
        array.notes,
        ["vdc holds nothing of the array: it is a spare"]
    );
}

#[test]
fn arrays_are_told_apart_by_their_uuids() {
    let mut members = devices(Version::V1_2, -1, 1);
    members.extend(devices(Version::V0_90, -1, 1));
    members[1].uuid = 0x22;
    let arrays = assemble(&found(&members));
    let names: Vec<_> = arrays.iter().map(|array| array.name.as_str()).collect();
    assert_eq!(names, ["md/data", "md3"]);
}

#[test]
fn zones_of_unknown_order_are_refused() {
    let mut members = devices(Version::V1_2, 0, 3);
    members[0] = members[0].clone().sized(1024);
    assert!(reason(&members).contains("of different sizes"));
    // With only one member left over there is one order.
    assert!(one(&members[..]).layout.is_err());
    members[1] = members[1].clone().sized(1024);
    assert!(one(&members).layout.is_ok());
    // Metadata 0.90 never says it.
    let mut members = devices(Version::V0_90, 0, 3);
    members[0] = members[0].clone().sized(1024);
    members[2].layout = Some(2);
    assert!(reason(&members).contains("of different sizes"));
}

#[test]
fn a_striped_member_in_pieces_is_refused() {
    let members = devices(Version::V1_2, 0, 2);
    let mut found = found(&members);
    let mut apart = ExtentMap::default();
    apart.push(extent(1, 0, 1000));
    apart.push(extent(1, 1100, 1048));
    found[1].extents = apart;
    let array = assemble(&found).remove(0);
    assert_eq!(
        array.layout.unwrap_err(),
        "RAID 0: its member vdb lies in separate pieces itself"
    );
    // A mirror comes apart where its members do.
    let members = devices(Version::V1_2, 1, 2);
    let mut found = self::found(&members);
    let mut apart = ExtentMap::default();
    apart.push(extent(1, 0, 1000));
    apart.push(extent(1, 1100, 1048));
    found[1].extents = apart;
    let array = assemble(&found).remove(0);
    let expected = [
        extent(0, 256, 744),
        extent(1, 256, 744),
        extent(0, 1000, 280),
        extent(1, 1100, 280),
    ];
    assert_eq!(places(&array), expected);
}

/// Which sector of which member a sector of a RAID 0 is, as `find_zone` and `map_sector` work it out
/// for one request (drivers/md/raid0.c).
fn by_the_kernel(sizes: &[u64], chunk: u64, layout: u32, sector: u64) -> (usize, u64) {
    let sizes: Vec<u64> = sizes.iter().map(|size| size / chunk * chunk).collect();
    let mut start = 0;
    let mut zone_start = 0;
    loop {
        let sharing: Vec<usize> = (0..sizes.len()).filter(|at| sizes[*at] > start).collect();
        let end = sharing.iter().map(|at| sizes[*at]).min().unwrap();
        let count = sharing.len() as u64;
        let zone_end = zone_start + (end - start) * count;
        if sector < zone_end {
            let in_zone = sector - zone_start;
            let turn = if layout == 1 { sector } else { in_zone } / chunk;
            let row = in_zone / (chunk * count);
            let member = sharing[usize::try_from(turn % count).unwrap()];
            return (member, start + row * chunk + sector % chunk);
        }
        start = end;
        zone_start = zone_end;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn raid_0_is_read_as_the_kernel_reads_it(
        sizes in proptest::collection::vec(300_u64..420, 1..5),
        chunk in 0_u32..4,
        layout in 1_u32..3,
        version in 1_usize..3,
    ) {
        let chunk = 8 << chunk;
        let version = [Version::V1_0, Version::V1_1, Version::V1_2][version];
        let count = u32::try_from(sizes.len()).unwrap();
        let members: Vec<MemberImage> = devices(version, 0, count)
            .into_iter()
            .zip(&sizes)
            .map(|(member, size)| {
                let sectors = member.sectors - member.data_size + size;
                MemberImage { layout: Some(layout), chunk, ..member }.sized(sectors)
            })
            .collect();
        // Each sector says where it lies.
        let images: Vec<Vec<u8>> = members
            .iter()
            .enumerate()
            .map(|(number, member)| {
                let mut bytes = member.build();
                let from = usize::try_from(member.data_offset).unwrap();
                for sector in 0..usize::try_from(member.data_size).unwrap() {
                    let at = (from + sector) * SECTOR;
                    bytes[at] = u8::try_from(number).unwrap();
                    bytes[at + 1..at + 3].copy_from_slice(&u16::try_from(sector).unwrap().to_le_bytes());
                }
                bytes
            })
            .collect();
        let array = one(&members);
        let map = array.layout.as_ref().unwrap();
        let whole: u64 = sizes.iter().map(|size| size / u64::from(chunk) * u64::from(chunk)).sum();
        prop_assert_eq!(map.size(), Bytes::new(whole * 512));
        let images = Images(images);
        let reader = LayerReader::new(&images, map);
        let bytes = reader.read_at(Bytes::ZERO, map.size()).unwrap();
        for sector in 0..whole {
            let at = usize::try_from(sector).unwrap() * SECTOR;
            let lies = (usize::from(bytes[at]), u64::from(u16::from_le_bytes([bytes[at + 1], bytes[at + 2]])));
            prop_assert_eq!(lies, by_the_kernel(&sizes, chunk.into(), layout, sector), "sector {}", sector);
        }
    }

    #[test]
    fn whatever_members_say_there_is_no_panic(
        levels in proptest::collection::vec((-5_i32..11, 0_u32..4, 0_u64..3, 0_u64..2000), 1..6),
        devices in 1_u32..5,
        chunk in 0_u32..20,
    ) {
        let members: Vec<MemberImage> = levels
            .into_iter()
            .map(|(level, number, events, component)| MemberImage {
                events,
                component,
                chunk,
                ..MemberImage::new(Version::V1_2, level, number, devices)
            })
            .collect();
        let _ = assemble(&found(&members));
    }
}
