//! The LVM2 reader against what LVM's own tools write and say, on loop devices.
//!
//! LVM runs with a configuration of its own that sees no other device, and never activates anything.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "helpers of tests"
)]

#[path = "lvm/lab.rs"]
mod lab;

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

use lab::{Image, Lab, group_in, number};
use virt_fsck::layers::extent::{Extent, ExtentMap, ImageIndex, Striped};
use virt_fsck::layers::lvm::{AssembledGroup, assemble, read};
use virt_fsck::layers::read::ReadAt;
use virt_fsck::units::Bytes;

/// Where every linear and striped volume lies that is no snapshot and has none, as `lvs` and `pvs` tell them.
fn extents_by_lvm(lab: &Lab, extent_size: u64) -> Vec<(String, ExtentMap)> {
    let starts: Vec<(usize, u64)> = lab
        .report("pvs -o pv_name,pe_start")
        .iter()
        .map(|row| {
            let disk = lab.disk_of(row["pv_name"].as_str().unwrap());
            (disk, number(row, "pe_start"))
        })
        .collect();
    let mut volumes: Vec<(String, ExtentMap)> = Vec::new();
    for row in lab.report(
        "lvs -o lv_name,lv_attr,segtype,seg_start_pe,seg_size_pe,stripe_size,devices -O lv_name,seg_start_pe",
    ) {
        let attributes = row["lv_attr"].as_str().unwrap();
        let is_laid_out = row["segtype"] == "linear" || row["segtype"] == "striped";
        if !is_laid_out || attributes.starts_with(['o', 's']) {
            continue;
        }
        let name = row["lv_name"].as_str().unwrap();
        let devices: Vec<_> = row["devices"].as_str().unwrap().split(',').collect();
        let share = number(&row, "seg_size_pe") / devices.len() as u64;
        let places: Vec<_> = devices
            .iter()
            .map(|place| {
                let (device, extent) = place.split_once('(').unwrap();
                let disk = lab.disk_of(device);
                let extent: u64 = extent.trim_end_matches(')').parse().unwrap();
                let start = starts.iter().find(|(at, _)| *at == disk).unwrap().1;
                Extent {
                    image: ImageIndex(disk),
                    offset: Bytes::new(start + extent * extent_size),
                    length: Bytes::new(share * extent_size),
                }
            })
            .collect();
        if volumes.last().is_none_or(|(last, _)| last != name) {
            volumes.push((name.to_owned(), ExtentMap::default()));
        }
        let map = &mut volumes.last_mut().unwrap().1;
        match places.as_slice() {
            [place] => map.push(*place),
            columns => {
                let stripe_size = Bytes::new(number(&row, "stripe_size"));
                map.push_striped(Striped::new(columns, stripe_size).unwrap());
            }
        }
    }
    volumes
}

/// What is read agrees with every report LVM has of the group.
fn agree(lab: &Lab, disks: &[usize]) -> AssembledGroup {
    let group = lab.group(disks);
    let row = &lab.report("vgs -o vg_name,vg_uuid,vg_seqno,vg_extent_size")[0];
    assert_eq!(row["vg_name"], group.name.as_str());
    assert_eq!(row["vg_uuid"], group.uuid.to_string());
    assert_eq!(group.members.len(), disks.len());
    assert_eq!(group.missing, []);
    assert_eq!(group.notes, Vec::<String>::new());

    let backup = lab.file("backup");
    lab.lvm(&format!("vgcfgbackup -f {backup}"));
    let told = group_in(&backup);
    assert_eq!(u64::from(told.sequence), number(row, "vg_seqno"));
    assert_eq!(told.extent_size.get(), number(row, "vg_extent_size"));
    for disk in disks {
        let volume = lab.volume(*disk);
        assert_eq!(volume.notes, Vec::<String>::new());
        assert_eq!(volume.device_size, lab.image(*disk).size());
        let row = &lab.report(&format!("pvs -o pv_uuid,pv_mda_used_count @{disk}"))[0];
        assert_eq!(row["pv_uuid"], volume.uuid.to_string());
        if number(row, "pv_mda_used_count") == 0 {
            assert_eq!(volume.volume_group, None);
            continue;
        }
        assert_eq!(volume.volume_group.as_ref(), Some(&told));
        let dump = lab.file(&format!("dump-{disk}-{}", told.sequence));
        lab.lvm(&format!("pvck --dump metadata -f {dump} @{disk}"));
        assert_eq!(group_in(&dump), told);
    }

    let mut listed: Vec<_> = group
        .logical_volumes
        .iter()
        .map(|volume| {
            (
                volume.name.clone(),
                volume.uuid.to_string(),
                volume.size.get(),
            )
        })
        .collect();
    listed.sort();
    let by_lvm: Vec<_> = lab
        .report("lvs -o lv_name,lv_uuid,lv_size -O lv_name")
        .iter()
        .map(|row| {
            let text = |key: &str| row[key].as_str().unwrap().to_owned();
            (text("lv_name"), text("lv_uuid"), number(row, "lv_size"))
        })
        .collect();
    assert_eq!(listed, by_lvm);
    for (name, extents) in extents_by_lvm(lab, told.extent_size.get()) {
        let volume = group
            .logical_volumes
            .iter()
            .find(|volume| volume.name == name)
            .unwrap();
        let first = extents.places().next().unwrap().image.0;
        assert_eq!(volume.layout, Ok(extents), "{name}");
        assert_eq!(volume.first.map(|at| disks[at]), Some(first), "{name}");
    }
    group
}

fn reason(group: &AssembledGroup, name: &str) -> String {
    let mut volumes = group.logical_volumes.iter();
    let volume = volumes.find(|volume| volume.name == name).unwrap();
    let none = volume.layout.as_ref().unwrap_err();
    none.reason().to_owned()
}

/// Whether the text in the first metadata area goes on behind the header.
fn is_wrapped(image: &Image) -> bool {
    let header = image.read_at(Bytes::new(4096), Bytes::new(512)).unwrap();
    let at = |offset: usize| u64::from_le_bytes(header[offset..offset + 8].try_into().unwrap());
    at(40) + at(48) > at(32)
}

#[test]
fn volumes_of_many_segments_on_many_disks() {
    let Some(lab) = Lab::new(&[64, 64, 48]) else {
        return;
    };
    lab.lvm("pvcreate --metadatacopies 2 @0");
    lab.lvm("pvcreate --metadatasize 64k @1");
    lab.lvm("pvcreate --metadatacopies 0 --dataalignment 3m @2");
    assert_eq!(lab.volume(0).volume_group, None);
    assert_eq!(lab.volume(0).metadata_areas.len(), 2);
    assert_eq!(lab.volume(1).metadata_areas.len(), 1);
    assert_eq!(lab.volume(2).metadata_areas.len(), 0);
    assert_eq!(assemble(&lab.found(&[0, 1, 2])), []);

    lab.lvm("vgcreate -s 1m vg.1+x @0 @1 @2");
    agree(&lab, &[0, 1, 2]);
    for line in [
        "lvcreate -an -Zn -Wn -n root -l 10 vg.1+x @0",
        "lvcreate -an -Zn -Wn -n home-1 -l 7 vg.1+x @1",
        "lvextend -n -l +5 vg.1+x/root @2",
        "lvextend -n -l +3 vg.1+x/home-1 @0",
        "lvextend -n -l +2 vg.1+x/root @1",
        "lvextend -n -l +4 vg.1+x/root @1",
        "lvcreate -an -Zn -Wn -n st -i 2 -l 8 vg.1+x @0 @1",
        "lvcreate -an -Zn -Wn -n st3 -i 3 -I 16k -l 9 vg.1+x",
        "lvextend -n -i 2 -I 32k -l +4 vg.1+x/st3 @1 @0",
        "lvcreate -an -Zn -Wn -n last -l 100%FREE vg.1+x",
        "lvchange -pr vg.1+x/home-1",
    ] {
        lab.lvm(line);
        agree(&lab, &[0, 1, 2]);
    }
    let group = agree(&lab, &[2, 0, 1]);
    let stripes = |name: &str| {
        let volume = group.logical_volumes.iter().find(|lv| lv.name == name);
        let layout = volume.unwrap().layout.as_ref().unwrap();
        layout.places().count()
    };
    assert_eq!((stripes("st"), stripes("st3")), (2, 5));
    let read_only: Vec<_> = group
        .logical_volumes
        .iter()
        .filter(|volume| volume.read_only)
        .map(|volume| volume.name.as_str())
        .collect();
    assert_eq!(read_only, ["home-1"]);

    // One disk less: what lies on it is told, the rest stands.
    let group = lab.group(&[0, 2]);
    assert_eq!(group.missing, [lab.volume(1).uuid]);
    let missing = format!(
        "a segment lies on the missing physical volume {}",
        lab.volume(1).uuid
    );
    assert_eq!(reason(&group, "root"), missing);
    assert_eq!(reason(&group, "home-1"), missing);
    assert_eq!(reason(&group, "st"), missing);
}

#[test]
fn the_ring_of_metadata_goes_round() {
    let Some(lab) = Lab::new(&[32, 32]) else {
        return;
    };
    lab.lvm("pvcreate --metadatasize 32k --dataalignment 4k @0 @1");
    lab.lvm("vgcreate vg @0 @1");
    lab.lvm("lvcreate -an -Zn -Wn -n root -l 3 vg");
    let mut wrapped = 0;
    for round in 0..60 {
        lab.lvm(&format!("vgchange --addtag round{round} vg"));
        let image = lab.image(0);
        let group = lab.volume(0).volume_group.unwrap();
        assert_eq!(group.sequence, 3 + round);
        assert_eq!(Some(group), lab.volume(1).volume_group);
        if is_wrapped(&image) {
            wrapped += 1;
            agree(&lab, &[0, 1]);
        }
    }
    assert!(wrapped > 0, "the text never reached the end of its area");
}

#[test]
fn a_label_may_lie_in_any_of_four_sectors() {
    let Some(lab) = Lab::new(&[32, 32, 32, 32]) else {
        return;
    };
    for sector in 0..4 {
        lab.show(&[sector]);
        lab.lvm(&format!("pvcreate --labelsector {sector} @{sector}"));
        lab.lvm(&format!("vgcreate vg{sector} @{sector}"));
        let row = &lab.report("pvs -o pv_uuid,vg_uuid")[0];
        let volume = lab.volume(sector);
        assert_eq!(row["pv_uuid"], volume.uuid.to_string());
        assert_eq!(
            row["vg_uuid"],
            volume.volume_group.unwrap().uuid.to_string()
        );
    }
}

#[test]
fn areas_that_lvm_ignores_are_ignored() {
    let Some(lab) = Lab::new(&[32, 32]) else {
        return;
    };
    lab.lvm("vgcreate vg @0 @1");
    lab.lvm("pvchange --metadataignore y @0");
    lab.lvm("lvcreate -an -Zn -Wn -n root -l 3 vg @0");
    assert_eq!(lab.volume(0).volume_group, None);
    let group = agree(&lab, &[0, 1]);
    assert_eq!(group.logical_volumes[0].first, Some(0));
}

#[test]
fn a_split_group_goes_by_the_newest_metadata() {
    let Some(lab) = Lab::new(&[32, 32]) else {
        return;
    };
    lab.lvm("vgcreate vg @0 @1");
    lab.lvm("lvcreate -an -Zn -Wn -n root -l 3 vg @0");
    lab.lvm("lvcreate -an -Zn -Wn -n lost -l 3 vg @1");
    lab.show(&[0]);
    lab.lvm("vgreduce --removemissing --force vg");
    let group = lab.group(&[0, 1]);
    assert_eq!(group.members, [0]);
    assert_eq!(group.logical_volumes.len(), 1);
    assert_eq!(group.logical_volumes[0].name, "root");
    assert!(group.logical_volumes[0].layout.is_ok());
    assert_eq!(group.notes.len(), 2, "{:?}", group.notes);
    let old = lab.volume(1).uuid.to_string();
    assert!(group.notes.iter().all(|note| note.contains(&old)));
}

#[test]
fn groups_of_one_name_and_copies_of_one_disk() {
    let Some(lab) = Lab::new(&[32, 32, 32]) else {
        return;
    };
    for disk in [0, 1] {
        lab.show(&[disk]);
        lab.lvm(&format!("vgcreate same @{disk}"));
        lab.lvm("lvcreate -an -Zn -Wn -n root -l 3 same");
    }
    let groups = assemble(&lab.found(&[0, 1]));
    assert_eq!(groups.len(), 2);
    assert_ne!(groups[0].uuid, groups[1].uuid);
    for (index, group) in groups.iter().enumerate() {
        assert_eq!(
            (group.name.as_str(), &group.members[..]),
            ("same", &[index][..])
        );
        assert!(group.logical_volumes[0].layout.is_ok());
    }

    let copied = Command::new("dd")
        .arg(format!("if={}", lab.device(0)))
        .arg(format!("of={}", lab.device(2)))
        .args(["bs=1M", "conv=fsync", "status=none"])
        .status()
        .unwrap();
    assert!(copied.success());
    let group = lab.group(&[0, 2]);
    assert!(reason(&group, "root").ends_with("was found 2 times"));
    lab.show(&[2]);
    lab.lvm("vgchange --addtag changed same");
    let group = lab.group(&[0, 2]);
    assert!(reason(&group, "root").ends_with("was found 2 times, with different metadata"));
}

#[test]
fn an_exported_or_owned_group_says_so() {
    let Some(lab) = Lab::new(&[32]) else {
        return;
    };
    lab.lvm("vgcreate --config global/system_id_source=none vg @0");
    lab.lvm("lvcreate -an -Zn -Wn -n root -l 3 vg");
    agree(&lab, &[0]);
    lab.lvm("vgexport vg");
    assert_eq!(
        reason(&lab.group(&[0]), "root"),
        "the volume group is exported (vgexport)"
    );
    lab.lvm("vgimport vg");
    agree(&lab, &[0]);
    lab.lvm("vgchange --yes --systemid other.host vg");
    let group = lab.group(&[0]);
    assert_eq!(
        group.notes,
        ["the volume group is owned by the system with ID other.host"]
    );
    assert!(group.logical_volumes[0].layout.is_ok());
}

/// Volumes that need more than an extent map, as LVM itself writes them out, without their UUIDs.
const KINDS: &[(&str, &str, bool, &str)] = &[
    (
        "pool_tdata",
        "type=\"striped\" stripe_count=1 stripes=[\"pv0\",0]",
        false,
        "",
    ),
    (
        "pool_tmeta",
        "type=\"striped\" stripe_count=1 stripes=[\"pv0\",1]",
        false,
        "",
    ),
    (
        "pool",
        "type=\"thin-pool\" metadata=\"pool_tmeta\" pool=\"pool_tdata\" transaction_id=1 chunk_size=128 discards=\"passdown\" zero_new_blocks=1",
        true,
        "thin pool",
    ),
    (
        "thin",
        "type=\"thin\" thin_pool=\"pool\" transaction_id=0 device_id=1",
        true,
        "thin volume",
    ),
    (
        "r1_rmeta_0",
        "type=\"striped\" stripe_count=1 stripes=[\"pv0\",2]",
        false,
        "",
    ),
    (
        "r1_rimage_0",
        "type=\"striped\" stripe_count=1 stripes=[\"pv0\",3]",
        false,
        "",
    ),
    (
        "r1_rmeta_1",
        "type=\"striped\" stripe_count=1 stripes=[\"pv1\",0]",
        false,
        "",
    ),
    (
        "r1_rimage_1",
        "type=\"striped\" stripe_count=1 stripes=[\"pv1\",1]",
        false,
        "",
    ),
    (
        "r1",
        "type=\"raid1\" device_count=2 region_size=1024 raids=[\"r1_rmeta_0\",\"r1_rimage_0\",\"r1_rmeta_1\",\"r1_rimage_1\"]",
        true,
        "raid1",
    ),
    (
        "m_mimage_0",
        "type=\"striped\" stripe_count=1 stripes=[\"pv0\",4]",
        false,
        "",
    ),
    (
        "m_mimage_1",
        "type=\"striped\" stripe_count=1 stripes=[\"pv1\",2]",
        false,
        "",
    ),
    (
        "m",
        "type=\"mirror\" mirror_count=2 region_size=1024 mirrors=[\"m_mimage_0\",0,\"m_mimage_1\",0]",
        true,
        "mirror",
    ),
    (
        "root",
        "type=\"striped\" stripe_count=1 stripes=[\"pv1\",3]",
        true,
        "origin of the snapshot snap, which a change from outside would damage",
    ),
    (
        "snap",
        "type=\"striped\" stripe_count=1 stripes=[\"pv1\",4]",
        false,
        "snapshot of root",
    ),
    (
        "snapshot0",
        "type=\"snapshot\" chunk_size=8 origin=\"root\" cow_store=\"snap\"",
        false,
        "",
    ),
    ("hole", "type=\"error\"", true, "error"),
    ("nothing", "type=\"zero\"", true, "zero"),
    (
        "plain",
        "type=\"striped\" stripe_count=1 stripes=[\"pv1\",5]",
        true,
        "",
    ),
];

#[test]
fn every_other_kind_has_its_reason() {
    let Some(lab) = Lab::new(&[64, 64]) else {
        return;
    };
    lab.lvm("vgcreate vg @0 @1");
    let backup = lab.file("backup");
    lab.lvm(&format!("vgcfgbackup -f {backup} vg"));
    let mut volumes = String::from("logical_volumes {\n");
    for (index, (name, segment, visible, _)) in KINDS.iter().enumerate() {
        let visible = if *visible { ", \"VISIBLE\"" } else { "" };
        writeln!(
            volumes,
            "{name} {{ id = \"{index:0>32}\" status = [\"READ\", \"WRITE\"{visible}] flags = []\n\
             segment_count = 1 segment1 {{ start_extent = 0 extent_count = 1 {segment} }} }}"
        )
        .unwrap();
    }
    volumes += "}\n";
    let text = std::fs::read_to_string(&backup).unwrap();
    let end = text.rfind('}').unwrap();
    std::fs::write(
        &backup,
        format!("{}{volumes}{}", &text[..end], &text[end..]),
    )
    .unwrap();
    lab.lvm(&format!("vgcfgrestore --force --yes -f {backup} vg"));

    let group = agree(&lab, &[0, 1]);
    for (name, _, _, expected) in KINDS.iter().filter(|kind| !kind.3.is_empty()) {
        assert_eq!(reason(&group, name), *expected);
    }
    let laid_out: Vec<_> = group
        .logical_volumes
        .iter()
        .filter(|volume| volume.layout.is_ok())
        .map(|volume| volume.name.as_str())
        .collect();
    assert_eq!(laid_out, ["plain"]);
    let first = |name: &str| {
        let mut volumes = group.logical_volumes.iter();
        volumes.find(|volume| volume.name == name).unwrap().first
    };
    for (name, disk) in [("thin", 0), ("r1", 0), ("m", 0), ("snap", 1), ("root", 1)] {
        assert_eq!(first(name), Some(disk), "{name}");
    }
    assert_eq!(first("hole"), None);
}

#[test]
fn damage_is_told_and_never_panics() {
    let Some(lab) = Lab::new(&[16]) else {
        return;
    };
    lab.lvm("vgcreate vg @0");
    lab.lvm("lvcreate -an -Zn -Wn -n root -l 2 vg");
    let good = lab
        .image(0)
        .read_at(Bytes::ZERO, Bytes::new(2 << 20))
        .unwrap();
    let mut disk = File::options()
        .read(true)
        .write(true)
        .open(&lab.loops[0].image)
        .unwrap();
    let location = |at: usize| u64::from_le_bytes(good[at..at + 8].try_into().unwrap());
    let text_start = usize::try_from(4096 + location(4096 + 40)).unwrap();
    let text_length = usize::try_from(location(4096 + 48)).unwrap();
    let before = lab.volume(0);
    for (from, to) in [
        (512, 1024),
        (4096, 4608),
        (text_start, text_start + text_length),
    ] {
        for at in (from..to).step_by(7) {
            let bit = 1 << (at % 8);
            flip(&mut disk, at, good[at] ^ bit);
            let outcome = read(&Image(disk.try_clone().unwrap()));
            // Sector 1 without its magic is no label at all; any other change breaks a checksum.
            if at < 520 {
                assert!(!matches!(outcome, Ok(Some(_))), "byte {at}");
            } else {
                assert!(outcome.is_err(), "byte {at}: {outcome:?}");
            }
            flip(&mut disk, at, good[at]);
        }
    }
    assert_eq!(lab.volume(0), before);
}

fn flip(disk: &mut File, at: usize, byte: u8) {
    disk.write_all_at(&[byte], at as u64).unwrap();
}

#[test]
fn a_disk_without_a_label_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    assert!(matches!(read(&Image(File::open(path).unwrap())), Ok(None)));
}
