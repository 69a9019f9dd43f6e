use super::super::text;
use super::super::writer::{self, group_text, linear, volume};
use super::*;
use crate::layers::extent::{Extent, ImageIndex};
use crate::layers::lvm::label::Area;

mod copies;
mod stripes;

const MIB: u64 = 1 << 20;

/// A volume of 64 MiB on an image of its own, found in two pieces: the second half comes first.
fn found(image: usize, letter: char, text: Option<&str>) -> FoundPhysicalVolume {
    let mut extents = ExtentMap::default();
    for offset in [32 * MIB, 0] {
        extents.push(Extent {
            image: ImageIndex(image),
            offset: Bytes::new(offset),
            length: Bytes::mib(32),
        });
    }
    FoundPhysicalVolume {
        extents,
        volume: PhysicalVolume {
            uuid: writer::uuid(letter),
            device_size: Bytes::mib(64),
            volume_group: text.map(|text| {
                VolumeGroup::from_text(&text::parse(text.as_bytes()).unwrap()).unwrap()
            }),
            metadata_areas: vec![Area {
                offset: Bytes::kib(4),
                length: Bytes::new(MIB - 4096),
            }],
            notes: Vec::new(),
        },
    }
}

/// The only group, found on two volumes with the same text.
fn two(logical: &str) -> AssembledGroup {
    one_group(&group_text("vg", 'g', 5, &[('a', 15), ('b', 15)], logical))
}

fn one_group(text: &str) -> AssembledGroup {
    let mut groups = assemble(&[found(0, 'a', Some(text)), found(1, 'b', Some(text))]);
    assert_eq!(groups.len(), 1);
    groups.remove(0)
}

fn reason(group: &AssembledGroup, name: &str) -> String {
    layout(group, name).unwrap_err()
}

fn layout(group: &AssembledGroup, name: &str) -> Result<ExtentMap, String> {
    let volume = group.logical_volumes.iter().find(|lv| lv.name == name);
    let layout = &volume.unwrap().layout;
    layout.clone().map_err(|none| none.reason().to_owned())
}

#[test]
fn segments_go_through_the_physical_volumes_own_extents() {
    let group = two(&linear(
        "root",
        'r',
        &[(3, 2, "pv1", 0), (0, 3, "pv0", 6), (5, 1, "pv1", 2)],
    ));
    assert_eq!(group.members, [0, 1]);
    assert_eq!(group.missing, []);
    assert_eq!(group.notes, Vec::<String>::new());
    let root = &group.logical_volumes[0];
    assert_eq!((root.first, root.size), (Some(0), Bytes::mib(24)));
    assert!(!root.read_only);
    let expected = [
        (0, 57 * MIB, 7 * MIB),
        (0, 0, 5 * MIB),
        (1, 33 * MIB, 12 * MIB),
    ]
    .map(|(image, offset, length)| Extent {
        image: ImageIndex(image),
        offset: Bytes::new(offset),
        length: Bytes::new(length),
    });
    let places: Vec<_> = root.layout.as_ref().unwrap().places().collect();
    assert_eq!(places, expected);
}

#[test]
fn what_is_not_linear_has_a_reason() {
    for (kind, rest, expected) in [
        (
            "mirror",
            r#"mirror_count=2 mirrors=["pv0",0,"pv1",0]"#,
            "mirror",
        ),
        ("raid5_ls", r#"raids=["m0","d0"]"#, "raid5_ls"),
        ("thin", r#"thin_pool="tp""#, "thin volume"),
        ("thin-pool", r#"pool="tp_tdata""#, "thin pool"),
        ("cache", r#"origin="c""#, "cached volume"),
        ("writecache", r#"origin="c""#, "write-cached volume"),
        ("vdo", r#"vdo_pool="v""#, "VDO volume"),
        ("integrity", r#"origin="c""#, "volume with integrity data"),
        ("zero", "", "zero"),
        ("error", "", "error"),
        ("new\u{1b}", "", "segments of the unknown kind new\\u{1b}"),
        (
            "striped+X",
            r#"stripe_count=1 stripes=["pv0",0]"#,
            "segments of the unknown kind striped+X",
        ),
        (
            "striped",
            r#"stripe_count=1 stripes=["pvmove0",0]"#,
            "an unfinished pvmove (pvmove0)",
        ),
        (
            "striped",
            r#"stripe_count=1 stripes=["pv7",0]"#,
            "a segment lies on pv7, which the volume group does not have",
        ),
        (
            "striped",
            r#"stripe_count=1 stripes=["lv",0]"#,
            "a segment lies on logical volume lv",
        ),
        (
            "striped",
            r#"stripe_count=2 stripe_size=8 stripes=["pv0",0,"pvmove0",0]"#,
            "an unfinished pvmove (pvmove0)",
        ),
        (
            "striped",
            r#"stripe_count=2 stripe_size=8 stripes=["pv0",0,"pv7",0]"#,
            "a segment lies on pv7, which the volume group does not have",
        ),
    ] {
        let rest = format!("type=\"{kind}\" {rest}");
        let hidden = linear("pvmove0", 'p', &[(0, 1, "pv0", 9)]);
        let group = two(&(volume("lv", 'l', &[(0, 2, &rest)]) + &hidden));
        assert_eq!(reason(&group, "lv"), expected);
    }
}

#[test]
fn a_volume_in_countless_pieces_is_refused() {
    let lv = linear("lv", 'l', &[(0, 9, "pv0", 0)]) + &linear("small", 's', &[(0, 6, "pv0", 9)]);
    let text = group_text("vg", 'g', 5, &[('a', 15)], &lv);
    let mut volume = found(0, 'a', Some(&text));
    volume.extents = ExtentMap::default();
    for number in (0..16_384).rev() {
        volume.extents.push(Extent {
            image: ImageIndex(0),
            offset: Bytes::kib(4 * number),
            length: Bytes::kib(4),
        });
    }
    let groups = assemble(&[volume]);
    assert_eq!(reason(&groups[0], "lv"), "it lies in more than 8192 pieces");
    let small = layout(&groups[0], "small").unwrap();
    assert_eq!(small.pieces().len(), 6144);
}

#[test]
fn segments_must_cover_the_volume_once() {
    for (segments, expected) in [
        (&[][..], "it has no segments"),
        (&[(0, 0, "pv0", 0)], "the segment at extent 0 is empty"),
        (&[(1, 1, "pv0", 0)], "no segment covers extent 0"),
        (
            &[(0, 1, "pv0", 0), (2, 1, "pv0", 1)],
            "no segment covers extent 1",
        ),
        (
            &[(0, 2, "pv0", 0), (1, 1, "pv0", 2)],
            "two segments cover extent 1",
        ),
        (
            &[(0, 2, "pv0", 0), (2, 2, "pv0", 1)],
            "two of its segments use the same physical extents",
        ),
    ] {
        let group = two(&linear("lv", 'l', segments));
        assert_eq!(reason(&group, "lv"), expected);
    }
}

#[test]
fn extents_must_exist_and_belong_to_one_volume() {
    let past_the_end =
        "a segment reaches past the end of physical volume aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa";
    for (count, extent) in [(1, 15), (16, 0), (1, u32::MAX), (u32::MAX, u32::MAX)] {
        let group = two(&linear("lv", 'l', &[(0, count, "pv0", extent)]));
        assert_eq!(reason(&group, "lv"), past_the_end);
    }
    // More extents than the bytes of the volume hold.
    let lv = linear("lv", 'l', &[(0, 1, "pv0", 15)]);
    let text = group_text("vg", 'g', 5, &[('a', u32::MAX), ('b', 1)], &lv);
    assert_eq!(reason(&one_group(&text), "lv"), past_the_end);
    let huge = text.replace("pe_start = 2048", "pe_start = 36028797018963967");
    assert_eq!(reason(&one_group(&huge), "lv"), past_the_end);

    let group = two(&[
        linear("one", '1', &[(0, 5, "pv0", 0)]),
        linear("two", '2', &[(0, 1, "pv0", 4)]),
        linear("three", '3', &[(0, 1, "pv0", 5)]),
        linear("four", '4', &[(0, 1, "pv1", 4)]),
    ]
    .concat());
    assert_eq!(
        reason(&group, "one"),
        "logical volume two uses the same physical extents"
    );
    assert_eq!(
        reason(&group, "two"),
        "logical volume one uses the same physical extents"
    );
    assert!(layout(&group, "three").is_ok());
    assert!(layout(&group, "four").is_ok());
}

#[test]
fn no_volume_may_lie_on_lvms_own_metadata() {
    let text = group_text(
        "vg",
        'g',
        5,
        &[('a', 15), ('b', 15)],
        &linear("lv", 'l', &[(0, 1, "pv0", 0)]),
    );
    for start in [0, 3, 8, 2047] {
        let text = text.replace("pe_start = 2048", &format!("pe_start = {start}"));
        assert_eq!(
            reason(&one_group(&text), "lv"),
            "a segment lies on the metadata of physical volume aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa"
        );
    }
}

#[test]
fn an_absurd_size_is_saturated() {
    let text = group_text(
        "vg",
        'g',
        5,
        &[('a', 15), ('b', 15)],
        &linear(
            "lv",
            'l',
            &[(0, u32::MAX, "pv0", 0), (u32::MAX, u32::MAX, "pv0", 0)],
        ),
    );
    let text = text.replace("extent_size = 8192", "extent_size = 4294967295");
    let group = one_group(&text);
    assert_eq!(group.logical_volumes[0].size, Bytes::new(u64::MAX));
    assert!(group.logical_volumes[0].layout.is_err());
}

#[test]
fn hidden_volumes_are_not_listed_but_snapshots_are() {
    let hidden = |text: String| text.replace(", \"VISIBLE\"", "");
    let group = two(&[
        linear("root", 'r', &[(0, 2, "pv0", 0)]),
        hidden(linear("snap", 's', &[(0, 2, "pv1", 2)])),
        volume(
            "snapshot0",
            '0',
            &[(0, 2, r#"type="snapshot" origin="root" cow_store="snap""#)],
        ),
        hidden(linear("tp_tdata", 't', &[(0, 2, "pv1", 8)])),
        volume("tp", 'p', &[(0, 2, r#"type="thin-pool" pool="tp_tdata""#)]),
        volume("thin", 'v', &[(0, 9, r#"type="thin" thin_pool="tp""#)]),
        volume("loop", 'o', &[(0, 9, r#"type="thin" thin_pool="loop""#)]),
    ]
    .concat());
    let names: Vec<_> = group
        .logical_volumes
        .iter()
        .map(|lv| (lv.name.as_str(), lv.first))
        .collect();
    assert_eq!(
        names,
        [
            ("root", Some(0)),
            ("snap", Some(1)),
            ("tp", Some(1)),
            ("thin", Some(1)),
            ("loop", None)
        ]
    );
    assert_eq!(reason(&group, "snap"), "snapshot of root");
    assert_eq!(
        reason(&group, "root"),
        "origin of the snapshot snap, which a change from outside would damage"
    );
}

#[test]
fn flags_of_a_volume_are_heeded() {
    let lv = linear("lv", 'l', &[(0, 1, "pv0", 0)]);
    let group = two(&lv.replace("\"WRITE\"", "\"FIXED_MINOR\""));
    assert!(group.logical_volumes[0].read_only);
    assert!(layout(&group, "lv").is_ok());
    let group = two(&lv.replace("\"WRITE\"", "\"WRITE\", \"NEW\""));
    assert_eq!(reason(&group, "lv"), "unknown status flag NEW");
}

#[test]
fn a_missing_volume_takes_only_what_lies_on_it() {
    let logical = linear("one", '1', &[(0, 1, "pv0", 0)])
        + &linear("both", '2', &[(0, 1, "pv0", 1), (1, 1, "pv1", 0)])
        + &linear("gone", '3', &[(0, 1, "pv1", 1)]);
    let text = group_text("vg", 'g', 5, &[('a', 15), ('b', 15)], &logical);
    let groups = assemble(&[found(0, 'a', Some(&text))]);
    let group = &groups[0];
    assert_eq!(group.missing, [writer::uuid('b')]);
    assert_eq!(group.members, [0]);
    assert!(layout(group, "one").is_ok());
    let missing =
        "a segment lies on the missing physical volume bbbbbb-bbbb-bbbb-bbbb-bbbb-bbbb-bbbbbb";
    assert_eq!(reason(group, "both"), missing);
    assert_eq!(reason(group, "gone"), missing);
    assert_eq!(group.logical_volumes[1].first, Some(0));
    assert_eq!(group.logical_volumes[2].first, None);

    // LVM's own mark counts even if the volume is back.
    let marked = text.replacen("flags = [\"PV\"]", "flags = [\"MISSING\"]", 1);
    let group = one_group(&marked);
    assert_eq!(group.missing, []);
    assert_eq!(
        reason(&group, "one"),
        "LVM marked physical volume aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa as missing, so that its data may be old"
    );
}

#[test]
fn a_volume_without_metadata_belongs_by_its_uuid() {
    let lv = linear("lv", 'l', &[(0, 1, "pv1", 0)]);
    let text = group_text("vg", 'g', 5, &[('a', 15), ('b', 15)], &lv);
    let groups = assemble(&[
        found(0, 'b', None),
        found(1, 'c', None),
        found(2, 'a', Some(&text)),
    ]);
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0].members, [0, 2]);
    assert_eq!(groups[0].logical_volumes[0].first, Some(0));
    assert!(layout(&groups[0], "lv").is_ok());
    assert_eq!(assemble(&[found(0, 'b', None)]), []);
}

#[test]
fn a_volume_found_twice_is_not_chosen_from() {
    let logical =
        linear("one", '1', &[(0, 1, "pv0", 0)]) + &linear("two", '2', &[(0, 1, "pv1", 0)]);
    let text = group_text("vg", 'g', 5, &[('a', 15), ('b', 15)], &logical);
    let twice = "physical volume aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa was found 2 times";
    let mut volumes = vec![
        found(0, 'a', Some(&text)),
        found(1, 'b', Some(&text)),
        found(2, 'a', Some(&text)),
    ];
    let groups = assemble(&volumes);
    assert_eq!(groups[0].members, [0, 1, 2]);
    assert_eq!(groups[0].notes, [twice]);
    assert_eq!(reason(&groups[0], "one"), twice);
    assert!(layout(&groups[0], "two").is_ok());

    // A copy that went another way makes all of the group uncertain.
    let newer = text.replace("seqno = 5", "seqno = 6");
    volumes[2] = found(2, 'a', Some(&newer));
    let groups = assemble(&volumes);
    assert_eq!(
        reason(&groups[0], "two"),
        format!("{twice}, with different metadata")
    );
}

#[test]
fn the_newest_metadata_of_the_group_counts() {
    let old = group_text(
        "vg",
        'g',
        4,
        &[('a', 15), ('b', 15)],
        &linear("old", 'o', &[(0, 1, "pv0", 0)]),
    );
    let new = group_text(
        "vg",
        'g',
        5,
        &[('a', 15)],
        &linear("new", 'n', &[(0, 1, "pv0", 0)]),
    );
    let groups = assemble(&[found(0, 'b', Some(&old)), found(1, 'a', Some(&new))]);
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0].logical_volumes[0].name, "new");
    assert_eq!(groups[0].members, [1]);
    assert_eq!(
        groups[0].notes,
        [
            "physical volume bbbbbb-bbbb-bbbb-bbbb-bbbb-bbbb-bbbbbb holds older metadata (sequence number 4, the newest is 5)",
            "physical volume bbbbbb-bbbb-bbbb-bbbb-bbbb-bbbb-bbbbbb holds metadata of the volume group, but is no part of it",
        ]
    );

    let other = new.replace("new {", "other {");
    let both = [('a', 15), ('b', 15)];
    let one = group_text("vg", 'g', 5, &both, &linear("lv", 'l', &[(0, 1, "pv0", 0)]));
    assert_ne!(other, one);
    let groups = assemble(&[found(0, 'a', Some(&other)), found(1, 'b', Some(&one))]);
    assert!(
        groups[0].logical_volumes.iter().all(|lv| lv
            .layout
            .as_ref()
            .is_err_and(|reason| reason.reason().contains("same sequence number 5"))),
        "{groups:?}"
    );
}

#[test]
fn groups_of_one_name_stay_apart() {
    let lv = linear("lv", 'l', &[(0, 1, "pv0", 0)]);
    let one = group_text("vg", 'g', 5, &[('a', 15)], &lv);
    let two = group_text("vg", 'h', 9, &[('b', 15)], &lv);
    let groups = assemble(&[found(0, 'a', Some(&one)), found(1, 'b', Some(&two))]);
    assert_eq!(groups.len(), 2);
    for (index, group) in groups.iter().enumerate() {
        assert_eq!(group.members, [index]);
        assert!(layout(group, "lv").is_ok());
        assert_eq!(group.notes.len(), 1);
        assert!(group.notes[0].starts_with("another volume group is named vg too"));
    }
    assert_ne!(groups[0].uuid, groups[1].uuid);
}

#[test]
fn a_volume_that_says_it_belongs_elsewhere_is_not_used() {
    let lv = linear("lv", 'l', &[(0, 1, "pv1", 0)]);
    let stale = group_text("vg", 'g', 5, &[('a', 15), ('b', 15)], &lv);
    let own = group_text("new", 'h', 1, &[('b', 15)], "");
    let groups = assemble(&[found(0, 'a', Some(&stale)), found(1, 'b', Some(&own))]);
    assert_eq!(
        reason(&groups[0], "lv"),
        "physical volume bbbbbb-bbbb-bbbb-bbbb-bbbb-bbbb-bbbbbb says that it belongs to volume group new (hhhhhh-hhhh-hhhh-hhhh-hhhh-hhhh-hhhhhh)"
    );
}

#[test]
fn flags_of_a_group_are_heeded() {
    let lv = linear("lv", 'l', &[(0, 1, "pv0", 0)]);
    let text = group_text("vg", 'g', 5, &[('a', 15), ('b', 15)], &lv);
    let status = "status = [\"RESIZEABLE\"";
    for (from, to, note, refused) in [
        (
            status,
            "status = [\"EXPORTED\"",
            None,
            Some("the volume group is exported (vgexport)"),
        ),
        (
            status,
            "status = [\"NEW\"",
            None,
            Some("the volume group has the unknown status flag NEW"),
        ),
        (
            status,
            "status = [\"PARTIAL\"",
            Some("LVM last saw the volume group with physical volumes missing"),
            None,
        ),
        (
            status,
            "status = [\"CLUSTERED\"",
            Some("the volume group is meant for shared storage (clustered)"),
            None,
        ),
        (
            "seqno",
            "lock_type = \"sanlock\" seqno",
            Some("the volume group is meant for shared storage (lock type sanlock)"),
            None,
        ),
        ("seqno", "lock_type = \"none\" seqno", None, None),
        (
            "seqno",
            "system_id = \"host\u{7}\" seqno",
            Some("the volume group is owned by the system with ID host\\u{7}"),
            None,
        ),
    ] {
        let group = one_group(&text.replacen(from, to, 1));
        assert_eq!(group.notes.first().map(String::as_str), note, "{to}");
        assert_eq!(layout(&group, "lv").err().as_deref(), refused, "{to}");
    }
}
