use super::*;
use crate::layers::lvm::copies::{Log, RaidCopy};
use crate::layers::lvm::writer::{part, raid1};

fn copies(logical: &str) -> Option<Copies> {
    let group = two(logical);
    let volume = group.logical_volumes.iter().find(|lv| lv.name == "lv");
    let volume = volume.unwrap();
    assert!(matches!(volume.layout, Err(NoLayout::ForLvm(_))));
    volume.copies.clone()
}

fn raid_copies(logical: &str) -> Vec<RaidCopy> {
    match copies(logical) {
        Some(Copies::Raid(copies)) => copies,
        other => panic!("{other:?}"),
    }
}

/// Extents of a physical volume, which lies as `found` has it.
fn extents(image: usize, first: u64, count: u64) -> ExtentMap {
    let place = found(image, 'x', None).extents;
    let (start, length) = (Bytes::mib(1 + 4 * first), Bytes::mib(4 * count));
    place.slice(start, length).unwrap()
}

#[test]
fn a_raid1_volume_has_copies_with_superblocks() {
    let copies = raid_copies(&raid1("lv", 'l', 3));
    let expected: Vec<RaidCopy> = (0..2)
        .map(|leg| RaidCopy {
            name: format!("lv_rimage_{leg}"),
            data: extents(leg, 1, 3),
            metadata: extents(leg, 0, 1),
            to_be_filled: false,
            write_mostly: false,
        })
        .collect();
    assert_eq!(copies, expected);
}

/// With another word in the status of the first data volume.
fn with_flag(flag: &str) -> String {
    let text = raid1("lv", 'l', 3);
    let (before, after) = text.split_once("lv_rimage_0 {").unwrap();
    let after = after.replacen("\"READ\"", &format!("\"READ\", \"{flag}\""), 1);
    format!("{before}lv_rimage_0 {{{after}")
}

#[test]
fn flags_of_a_copy_are_known() {
    let copies = raid_copies(&with_flag("REBUILD"));
    assert!(copies[0].to_be_filled && !copies[1].to_be_filled);
    let copies = raid_copies(&with_flag("WRITEMOSTLY"));
    assert!(copies[0].write_mostly && !copies[1].write_mostly);
    assert_eq!(self::copies(&with_flag("NEW_FLAG")), None);
}

#[test]
fn what_is_more_than_a_mirror_has_no_copies() {
    let good = raid1("lv", 'l', 3);
    let snapshot = volume(
        "snapshot0",
        's',
        &[(
            0,
            3,
            "type=\"snapshot\" chunk_size=8 origin=\"lv\" cow_store=\"cow\"",
        )],
    ) + &part("cow", 'c', 1, "pv0", 9);
    let reshaping = good.replacen("\"READ\"", "\"READ\", \"RESHAPE\"", 1);
    let shorter = good.replacen("extent_count = 3", "extent_count = 2", 1);
    let nowhere = good.replace("lv_rmeta_1 {", "other {");
    let with_checksums = good.replacen(
        "type = \"striped\"",
        "type = \"integrity\"\norigin = \"x\"",
        2,
    );
    for text in [
        good.clone() + &snapshot,
        reshaping,
        shorter,
        nowhere,
        with_checksums,
        good.replace("pv1\", 1]", "pv0\", 1]"),
    ] {
        assert_eq!(copies(&text), None, "{text}");
    }
    let text = group_text("vg", 'g', 5, &[('a', 15), ('b', 15)], &good);
    let without_b = assemble(&[found(0, 'a', Some(&text))]);
    assert_eq!(without_b[0].logical_volumes[0].copies, None);
}

fn mirror(more: &str) -> String {
    let rest = format!(
        "type = \"mirror\"\nmirror_count = 2\nregion_size = 1024\n{more}\
         mirrors = [\"lv_mimage_0\", 0, \"lv_mimage_1\", 0]"
    );
    volume("lv", 'l', &[(0, 3, &rest)])
        + &part("lv_mimage_0", '1', 3, "pv0", 1)
        + &part("lv_mimage_1", '2', 3, "pv1", 2)
        + &part("lv_mlog", '3', 1, "pv0", 0)
}

#[test]
fn a_mirror_has_copies_and_perhaps_a_log() {
    let legs = vec![extents(0, 1, 3), extents(1, 2, 3)];
    let on_disk = Copies::Mirror {
        legs: legs.clone(),
        log: Log::Disk {
            extents: extents(0, 0, 1),
            regions: 24,
        },
    };
    assert_eq!(copies(&mirror("mirror_log = \"lv_mlog\"\n")), Some(on_disk));
    let in_memory = Copies::Mirror {
        legs,
        log: Log::Memory,
    };
    assert_eq!(copies(&mirror("")), Some(in_memory));
    assert_eq!(copies(&mirror("mirror_log = \"nowhere\"\n")), None);
    let no_regions = mirror("mirror_log = \"lv_mlog\"\n").replace("= 1024", "= 0");
    assert_eq!(copies(&no_regions), None);
}
