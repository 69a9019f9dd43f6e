use super::*;
use crate::layers::extent::Striped;

/// A segment of `count` extents, the first ones of the volume.
fn striped(count: u32, stripe_size: u64, places: &[(&str, u32)]) -> AssembledGroup {
    let places: Vec<String> = places
        .iter()
        .map(|(volume, extent)| format!("\"{volume}\", {extent}"))
        .collect();
    let rest = format!(
        "type = \"striped\"\nstripe_count = {}\nstripe_size = {stripe_size}\nstripes = [{}]",
        places.len(),
        places.join(", ")
    );
    let tail = r#"type="striped" stripe_count=1 stripes=["pv1",14]"#;
    two(&volume("st", 's', &[(0, count, &rest), (count, 1, tail)]))
}

#[test]
fn striped_segments_share_their_extents() {
    let group = striped(6, 128, &[("pv1", 3), ("pv0", 0), ("pv1", 10)]);
    assert_eq!(group.logical_volumes[0].first, Some(1));
    assert_eq!(group.logical_volumes[0].size, Bytes::mib(28));
    let extent = |image, offset: u64, length: u64| Extent {
        image: ImageIndex(image),
        offset: Bytes::new(offset * MIB),
        length: Bytes::mib(length),
    };
    let columns = [extent(1, 45, 8), extent(0, 33, 8), extent(1, 9, 8)];
    let mut expected = ExtentMap::default();
    expected.push_striped(Striped::new(&columns, Bytes::kib(64)).unwrap());
    expected.push(extent(1, 25, 4));
    assert_eq!(layout(&group, "st"), Ok(expected));
    // The greatest stripe size, and the smallest.
    for stripe_size in [8192, 1] {
        assert!(layout(&striped(2, stripe_size, &[("pv0", 0), ("pv1", 0)]), "st").is_ok());
    }
}

#[test]
fn stripes_that_lvm_does_not_make_are_refused() {
    let both = &[("pv0", 0), ("pv1", 0)][..];
    let many: Vec<_> = (0..129).map(|extent| ("pv0", extent)).collect();
    for (count, stripe_size, places, expected) in [
        (
            5,
            128,
            both,
            "the segment at extent 0 has 5 extents, which 2 stripes cannot share",
        ),
        (
            2,
            0,
            both,
            "the segment at extent 0 has a stripe size of 0 bytes, which is no power of two up to the extent size",
        ),
        (
            2,
            129,
            both,
            "the segment at extent 0 has a stripe size of 66048 bytes, which is no power of two up to the extent size",
        ),
        (
            2,
            16384,
            both,
            "the segment at extent 0 has a stripe size of 8388608 bytes, which is no power of two up to the extent size",
        ),
        (
            4,
            128,
            &[("pv0", 0), ("pv1", 15)],
            "a segment reaches past the end of physical volume bbbbbb-bbbb-bbbb-bbbb-bbbb-bbbb-bbbbbb",
        ),
        (
            4,
            128,
            &[("pv0", 0), ("pv0", 1)],
            "two of its segments use the same physical extents",
        ),
        (
            4,
            128,
            &[("pv0", 6), ("pv1", 0)],
            "a stripe lies in 2 separate pieces, as its physical volume pv0 does",
        ),
        (
            129,
            128,
            &many,
            "the segment at extent 0 has 129 stripes, more than LVM makes",
        ),
    ] {
        let group = striped(count, stripe_size, places);
        assert_eq!(reason(&group, "st"), expected);
    }

    // Extents of three sectors do not end with a stripe.
    let rest = r#"type="striped" stripe_count=2 stripe_size=2 stripes=["pv0",0,"pv1",0]"#;
    let text = group_text(
        "vg",
        'g',
        5,
        &[('a', 15), ('b', 15)],
        &volume("st", 's', &[(0, 2, rest)]),
    );
    let group = one_group(&text.replace("extent_size = 8192", "extent_size = 3"));
    assert_eq!(
        reason(&group, "st"),
        "the segment at extent 0 has a stripe size of 1024 bytes, which does not divide 1536 bytes"
    );
}
