//! What backups rely on: dirty bitmaps that an image keeps, and reference counts that are written late.

use serde_json::Value;

use crate::support::lab::Lab;

const GRANULARITY: usize = 64 * 1024;

/// `disk.qcow2` with a damaged ext4 and the bitmaps b0, enabled, and b1, disabled; `before.img` is what
/// the guest sees of it.
fn lab(options: &str) -> Lab {
    let lab = Lab::new();
    lab.damaged_ext4("before.img");
    lab.sh(&format!(
        "qemu-img convert -f raw -O qcow2 -o {options} before.img disk.qcow2\n\
         qemu-img bitmap -f qcow2 --add --enable -g {GRANULARITY} disk.qcow2 b0\n\
         qemu-img bitmap -f qcow2 --add --disable -g {GRANULARITY} disk.qcow2 b1"
    ));
    lab
}

/// The flags of each bitmap, as the image has them.
fn flags(lab: &Lab) -> Vec<(String, String)> {
    let info = lab.sh("qemu-img info --output=json disk.qcow2");
    let info: Value = serde_json::from_str(&info).unwrap();
    let bitmaps = info["format-specific"]["data"]["bitmaps"]
        .as_array()
        .unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let flags = |bitmap: &Value| {
        let flags = bitmap["flags"].as_array().unwrap();
        flags.iter().map(text).collect::<Vec<_>>().join(",")
    };
    let all = bitmaps
        .iter()
        .map(|bitmap| (text(&bitmap["name"]), flags(bitmap)));
    all.collect()
}

/// The clusters that a bitmap marks, as a backup over NBD sees them.
fn marked(lab: &Lab, bitmap: &str) -> Vec<usize> {
    // The server ends with its first client. What is dirty is shown as if it held no data.
    let map = lab.sh(&format!(
        "qemu-nbd --fork -r -f qcow2 -B {bitmap} -k $PWD/socket disk.qcow2\n\
         qemu-img map --output=json --image-opts driver=nbd,server.type=unix,server.path=socket,\
         x-dirty-bitmap=qemu:dirty-bitmap:{bitmap}\n\
         while [[ -e socket ]]; do sleep 0.01; done"
    ));
    let runs: Vec<Value> = serde_json::from_str(&map).unwrap();
    let number = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
    runs.iter()
        .filter(|run| run["data"] == false)
        .flat_map(|run| {
            let begin = number(&run["start"]);
            let end = begin + number(&run["length"]);
            begin / GRANULARITY..end.div_ceil(GRANULARITY)
        })
        .collect()
}

fn raw(lab: &Lab) -> Vec<u8> {
    lab.sh("qemu-img convert -f qcow2 -O raw disk.qcow2 after.img");
    std::fs::read(lab.file("after.img")).unwrap()
}

#[test]
fn a_bitmap_knows_every_repair() {
    for options in ["compat=1.1", "lazy_refcounts=on"] {
        let lab = lab(options);
        let as_made = [
            ("b0".to_owned(), "auto".to_owned()),
            ("b1".to_owned(), String::new()),
        ];
        lab.look("-n -a disk.qcow2")
            .is(4, &[("sda", "errors-left")]);
        assert_eq!(marked(&lab, "b0"), Vec::<usize>::new());

        lab.repair("-y -a disk.qcow2")
            .is(1, &[("sda", "corrected")]);
        assert_eq!(flags(&lab), as_made);
        lab.sh("qemu-img check -f qcow2 disk.qcow2; qemu-img compare -f raw -F qcow2 before.img.repaired disk.qcow2");
        let before = std::fs::read(lab.file("before.img")).unwrap();
        let after = raw(&lab);
        let changed: Vec<usize> = before
            .chunks(GRANULARITY)
            .zip(after.chunks(GRANULARITY))
            .enumerate()
            .filter_map(|(cluster, (before, after))| (before != after).then_some(cluster))
            .collect();
        let marked_now = marked(&lab, "b0");
        assert!(!changed.is_empty());
        assert!(
            marked_now.len() < before.len() / GRANULARITY,
            "{marked_now:?}"
        );
        for cluster in &changed {
            assert!(marked_now.contains(cluster), "{changed:?} {marked_now:?}");
        }
        assert_eq!(marked(&lab, "b1"), Vec::<usize>::new());
        // What an incremental backup would copy makes the last full one what the disk is now.
        let mut restored = before;
        for cluster in marked_now {
            let at = cluster * GRANULARITY..((cluster + 1) * GRANULARITY).min(after.len());
            restored[at.clone()].copy_from_slice(&after[at]);
        }
        assert!(restored == after);

        let again = lab.checksum("disk.qcow2");
        lab.look("-n -a disk.qcow2").is(0, &[("sda", "clean")]);
        assert_eq!(again, lab.checksum("disk.qcow2"));
    }
}

#[test]
fn a_repair_of_the_image_itself_keeps_them() {
    let lab = lab("compat=1.1");
    // The last cluster of the file is a bitmap's own.
    lab.sh("qemu-io -f qcow2 -c 'write -P 7 8M 64k' disk.qcow2 >/dev/null");
    let before = marked(&lab, "b0");
    assert_eq!(before, [128]);
    lab.sh("qemu-img convert -f qcow2 -O raw disk.qcow2 seen.img");
    let size = std::fs::metadata(lab.file("disk.qcow2")).unwrap().len();
    let cluster = size.div_ceil(65536);
    lab.sh(&format!("truncate -s {} disk.qcow2", (cluster + 1) * 65536));
    let table: Vec<u8> = std::fs::read(lab.file("disk.qcow2")).unwrap();
    let at = |offset: usize| u64::from_be_bytes(table[offset..offset + 8].try_into().unwrap());
    let counts = at(usize::try_from(at(48)).unwrap());
    lab.patch("disk.qcow2", counts + 2 * cluster, &[0, 1]);
    let outcome = lab.repair("-p -a disk.qcow2");
    let image = &outcome.disks().next().unwrap()["image_check"];
    assert_eq!(image["verdict"], "corrected", "{outcome}");
    lab.sh("qemu-img check -f qcow2 disk.qcow2; qemu-img compare -f raw -F qcow2 seen.img disk.qcow2 || :");
    assert!(
        flags(&lab)
            .iter()
            .all(|(_, flags)| !flags.contains("in-use"))
    );
    assert!(marked(&lab, "b0").contains(&128));
}

#[test]
fn a_bitmap_that_a_crash_left_is_told_and_left() {
    let lab = lab("compat=1.1");
    lab.sh("qemu-io -f qcow2 -c 'write -P 7 15M 64k' -c abort disk.qcow2 >/dev/null 2>&1 || :");
    let in_use = flags(&lab);
    assert!(in_use.iter().all(|(_, flags)| flags.contains("in-use")));
    for mode in ["-n", "-y"] {
        let outcome = lab.repair(&format!("{mode} -a disk.qcow2"));
        let image = &outcome.disks().next().unwrap()["image_check"];
        let notes = image["notes"].to_string();
        for bitmap in ["b0", "b1"] {
            let told = format!("the dirty bitmap {bitmap} was not saved");
            assert!(notes.contains(&told), "{outcome}");
        }
        assert_eq!(flags(&lab), in_use);
    }
}
