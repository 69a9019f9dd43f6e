use super::super::text;
use super::super::writer;
use super::*;

fn read(text: &str) -> Result<VolumeGroup, GroupFault> {
    VolumeGroup::from_text(&text::parse(text.as_bytes()).unwrap())
}

fn good() -> String {
    let volumes = [
        writer::linear("root", 'r', &[(0, 3, "pv0", 0), (3, 2, "pv0", 5)]),
        writer::volume(
            "st",
            's',
            &[(
                0,
                2,
                r#"type="striped" stripe_count=2 stripe_size=128 stripes=["pv0",8,"pv1",0]"#,
            )],
        ),
        writer::volume(
            "snapshot0",
            'n',
            &[(
                0,
                3,
                r#"type="snapshot" chunk_size=16 origin="root" cow_store="cow""#,
            )],
        ),
        writer::volume(
            "r1",
            'x',
            &[(
                0,
                3,
                r#"type="raid1" device_count=2 raids=["r1_rmeta_0","r1_rimage_0"]"#,
            )],
        ),
    ]
    .concat();
    writer::group_text("vg1", 'g', 7, &[('a', 15), ('b', 15)], &volumes)
}

#[test]
fn a_group_is_read_as_it_is_written() {
    let group = read(&good()).unwrap();
    assert_eq!(group.name, "vg1");
    assert_eq!(group.sequence, 7);
    assert_eq!(group.extent_size, Bytes::mib(4));
    assert!(group.has_status("RESIZEABLE"));
    assert_eq!(group.physical_volumes.len(), 2);
    let first = &group.physical_volumes[0];
    assert_eq!((first.key.as_str(), first.extent_count), ("pv0", 15));
    assert_eq!(first.uuid, writer::uuid('a'));
    assert_eq!(first.start, Bytes::mib(1));
    assert!(!first.missing);
    let place = |volume: &str, extent| Place {
        volume: volume.to_owned(),
        extent,
    };
    let kinds: Vec<_> = group
        .logical_volumes
        .iter()
        .map(|volume| volume.segments.last().unwrap().kind.clone())
        .collect();
    let legs = vec![RaidLeg {
        metadata: "r1_rmeta_0".to_owned(),
        data: "r1_rimage_0".to_owned(),
    }];
    assert_eq!(
        kinds,
        [
            SegmentKind::Linear(place("pv0", 5)),
            SegmentKind::Striped {
                places: vec![place("pv0", 8), place("pv1", 0)],
                stripe_size: Bytes::kib(64),
            },
            SegmentKind::Snapshot {
                origin: "root".to_owned(),
                store: "cow".to_owned()
            },
            SegmentKind::Raid1(legs),
        ]
    );
}

#[test]
fn what_lvm_would_refuse_is_refused() {
    for (from, to, expected) in [
        (
            "Text Format",
            "Other",
            "not volume group metadata of version 1",
        ),
        (
            "version = 1",
            "version = 2",
            "not volume group metadata of version 1",
        ),
        (
            "version = 1",
            "version = 1 x { }",
            "2 volume groups where there must be one",
        ),
        ("vg1 {", "-vg {", "invalid name -vg"),
        ("vg1 {", ".. {", "invalid name .."),
        ("root {", "-r {", "invalid name -r"),
        (
            "seqno = 7",
            "",
            "section vg1: seqno is missing or has no valid value",
        ),
        (
            "seqno = 7",
            "seqno = -1",
            "section vg1: seqno is missing or has no valid value",
        ),
        (
            "format = \"lvm2\"",
            "format = \"lvm3\"",
            "section vg1: format is missing or has no valid value",
        ),
        (
            "extent_size = 8192",
            "extent_size = 0",
            "section vg1: extent_size is missing or has no valid value",
        ),
        (
            "extent_size = 8192",
            "extent_size = 4294967296",
            "section vg1: extent_size is missing or has no valid value",
        ),
        (
            "pe_start = 2048",
            "pe_start = 9223372036854775807",
            "section pv0: pe_start is missing or has no valid value",
        ),
        (
            "pe_count = 15",
            "pe_count = \"15\"",
            "section pv0: pe_count is missing or has no valid value",
        ),
        (
            "status = [\"ALLOCATABLE\"]",
            "status = [1]",
            "section pv0: status is missing or has no valid value",
        ),
        (
            "physical_volumes {",
            "volumes {",
            "section vg1: physical_volumes is missing or has no valid value",
        ),
        (
            "physical_volumes {",
            "physical_volumes { x = 1",
            "section physical_volumes: x is not a section",
        ),
        (
            "extent_count = 3\n",
            "extent_count = 9223372036854775807\n",
            "section segment1: extent_count is missing or has no valid value",
        ),
        (
            "segment_count = 2",
            "segment_count = 3",
            "section root: segment_count does not match the segments",
        ),
        (
            "stripe_count = 1",
            "stripe_count = 0",
            "section segment1: stripes is missing or has no valid value",
        ),
        (
            "[\"pv0\", 0]",
            "[\"pv0\"]",
            "section segment1: stripes is missing or has no valid value",
        ),
        (
            "[\"pv0\", 0]",
            "[]",
            "section segment1: stripes is missing or has no valid value",
        ),
        (
            "[\"pv0\", 0]",
            "[\"pv0\", -1]",
            "section segment1: stripes is missing or has no valid value",
        ),
        (
            "stripe_size=128",
            "",
            "section segment1: stripe_size is missing or has no valid value",
        ),
        (
            "type = \"striped\"",
            "",
            "section segment1: type is missing or has no valid value",
        ),
    ] {
        let text = good();
        assert!(text.contains(from), "{from}");
        let fault = read(&text.replacen(from, to, 1)).unwrap_err();
        assert_eq!(fault.to_string(), expected, "{from} -> {to}");
    }
    let twice = writer::group_text("vg", 'g', 1, &[('a', 1), ('a', 1)], "");
    assert!(matches!(read(&twice), Err(GroupFault::DuplicateUuid(_))));
}

#[test]
fn segments_are_bounded() {
    let segments: Vec<_> = (0..=4096).map(|at| (at, 1, "pv0", at)).collect();
    let volume = writer::linear("root", 'r', &segments);
    let text = writer::group_text("vg", 'g', 1, &[('a', 9999)], &volume);
    assert_eq!(
        read(&text),
        Err(GroupFault::TooManySegments("root".to_owned()))
    );
}

#[test]
fn a_volume_marked_missing_is_known() {
    let text = good().replacen("flags = [\"PV\"]", "flags = [\"MISSING\"]", 1);
    assert!(read(&text).unwrap().physical_volumes[0].missing);
}
