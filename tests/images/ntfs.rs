//! NTFS: what can be seen of it from Linux, and never "clean".

use std::os::unix::fs::FileExt;

use crate::support::lab::Lab;

/// Where things lie in a volume that mkntfs has made, in bytes.
struct Places {
    table: u64,
    mirror: u64,
    bitmap: u64,
}

const CLUSTER: u64 = 4096;
const RECORD: u64 = 1024;
const VOLUME: u64 = 3;
const BITMAP: u64 = 6;
const VOLUME_INFORMATION: u32 = 0x70;
const DATA: u32 = 0x80;

fn made(lab: &Lab) -> Places {
    lab.sh("truncate -s 16M ntfs.img; mkntfs -q -F -L data ntfs.img 2>log; head -c 100000 /dev/urandom >big\n\
            ntfscp -q ntfs.img big big; rm big log; ntfsfix -n ntfs.img");
    let boot = read(lab, 0, 512);
    let table = u64::from_le_bytes(boot[0x30..0x38].try_into().unwrap()) * CLUSTER;
    let mirror = u64::from_le_bytes(boot[0x38..0x40].try_into().unwrap()) * CLUSTER;
    // The bitmap's data is one run: a byte with the lengths of its two numbers, then these.
    let data = attribute(lab, table + BITMAP * RECORD, DATA);
    let run = read(lab, data + 64, 8);
    let bytes = usize::from(run[0] >> 4);
    let begin = 1 + usize::from(run[0] & 0xf);
    let mut cluster = [0; 8];
    cluster[..bytes].copy_from_slice(&run[begin..begin + bytes]);
    let bitmap = u64::from_le_bytes(cluster) * CLUSTER;
    Places {
        table,
        mirror,
        bitmap,
    }
}

fn read(lab: &Lab, at: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let file = std::fs::File::open(lab.file("ntfs.img")).unwrap();
    file.read_exact_at(&mut bytes, at).unwrap();
    bytes
}

/// Where the attribute of that type lies.
fn attribute(lab: &Lab, record: u64, wanted: u32) -> u64 {
    let bytes = read(lab, record, 1024);
    let mut at = usize::from(u16::from_le_bytes(bytes[20..22].try_into().unwrap()));
    loop {
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        if number(at) == wanted {
            return record + at as u64;
        }
        at += number(at + 4) as usize;
    }
}

#[test]
fn a_sound_ntfs_is_looked_at_and_not_called_clean() {
    let lab = Lab::new();
    made(&lab);
    for mode in ["-n", "-p", "-y"] {
        let outcome = lab.look(&format!("{mode} -a ntfs.img --image-format raw"));
        outcome.is(128, &[("sda", "not-checked")]).says(
            "sda",
            &["chkdsk", "clusters in use", "journal were not looked at"],
        );
        assert_eq!(outcome.layer("sda")["label"], "data");
    }
}

#[test]
fn what_ntfsfix_sees_is_an_error() {
    let lab = Lab::new();
    let places = made(&lab);
    let damages: [(u64, &[u8]); 3] = [
        (places.mirror + 100, &[0xff]),
        // The boot sector's copy, in the last sector; the first cluster of the file table.
        ((16 << 20) - 512, &[0; 512]),
        (0x30, &[0xff; 3]),
    ];
    for (at, bytes) in damages {
        made(&lab);
        lab.patch("ntfs.img", at, bytes);
        lab.sh("ntfsfix -n ntfs.img && exit 1 || test $? = 1");
        for mode in ["-n", "-y"] {
            let outcome = lab.look(&format!("{mode} -a ntfs.img --image-format raw"));
            outcome.is(4, &[("sda", "errors-left")]);
            assert!(outcome.notes("sda").contains("chkdsk"), "{outcome}");
        }
    }
}

#[test]
fn clusters_that_do_not_add_up_are_an_error() {
    let lab = Lab::new();
    let places = made(&lab);
    // Clusters that nothing uses, in a part of the bitmap that is zero.
    let bitmap = read(&lab, places.bitmap, 500);
    let zero = bitmap.iter().rposition(|byte| *byte == 0).unwrap();
    lab.patch("ntfs.img", places.bitmap + zero as u64, &[0xff]);
    lab.sh("ntfsfix -n ntfs.img; ntfsresize -i -f -P ntfs.img && exit 1 || test $? = 1");
    let outcome = lab.look("-n -a ntfs.img --image-format raw");
    outcome.is(4, &[("sda", "errors-left")]);
    let output = &outcome.layer("sda")["result"]["output"];
    assert!(
        output
            .as_str()
            .unwrap()
            .contains("Cluster accounting failed"),
        "{outcome}"
    );
}

#[test]
fn a_volume_marked_dirty_is_left_so() {
    let lab = Lab::new();
    let places = made(&lab);
    for table in [places.table, places.mirror] {
        let information = attribute(&lab, table + VOLUME * RECORD, VOLUME_INFORMATION);
        lab.patch("ntfs.img", information + 24 + 10, &[1]);
    }
    // ntfsfix says nothing of it.
    lab.sh("ntfsfix -n ntfs.img; ntfsinfo -f -m ntfs.img | grep DIRTY");
    for mode in ["-n", "-p", "-y"] {
        let outcome = lab.look(&format!("{mode} -a ntfs.img --image-format raw"));
        outcome.is(4, &[("sda", "errors-left")]);
        assert!(outcome.notes("sda").contains("marked dirty"), "{outcome}");
    }
}
