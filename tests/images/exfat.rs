//! exFAT: sound, dirty, damaged.

use std::io::Read;
use std::os::unix::fs::FileExt;

use crate::support::lab::Lab;

/// Where things lie in a volume that mkfs.exfat has made, in bytes.
struct Places {
    cluster: u64,
    heap: u64,
    root: u64,
}

/// Where the volume's flags lie, and the one for "dirty".
const FLAGS: u64 = 106;
const DIRTY: u8 = 2;

/// A volume with one file in it, `F1`: its entries are written by hand, because no tool puts a
/// file into an image.
fn made(lab: &Lab) -> Places {
    lab.sh("truncate -s 16M exfat.img; mkfs.exfat -L data exfat.img");
    let mut boot = [0; 512];
    let mut file = std::fs::File::open(lab.file("exfat.img")).unwrap();
    file.read_exact(&mut boot).unwrap();
    let field = |at: usize| u64::from(u32::from_le_bytes(boot[at..at + 4].try_into().unwrap()));
    let sector = 1 << boot[108];
    let cluster = sector << boot[109];
    let heap = field(88) * sector;
    let root = heap + (field(96) - 2) * cluster;
    // The first cluster that the allocation bitmap, at the beginning of the heap, has as free.
    let mut bitmap = [0; 8];
    file.read_exact_at(&mut bitmap, heap).unwrap();
    let free = (!u64::from_le_bytes(bitmap)).trailing_zeros();
    lab.patch(
        "exfat.img",
        heap,
        &(u64::from_le_bytes(bitmap) | 1 << free).to_le_bytes(),
    );
    lab.patch("exfat.img", root + 96, &entries(free + 2));
    lab.sh("fsck.exfat -n exfat.img | grep 'files 1$'");
    Places {
        cluster,
        heap,
        root,
    }
}

/// A file, its stream and its name (Microsoft: exFAT specification, 7.4, 7.6, 7.7).
fn entries(cluster: u32) -> [u8; 96] {
    let mut set = [0; 96];
    set[..2].copy_from_slice(&[0x85, 2]);
    set[4] = 0x20;
    set[32..36].copy_from_slice(&[0xc0, 3, 0, 2]);
    let name = b"F\x001\0";
    let hash = |sum: u16, byte: u8| sum.rotate_right(1).wrapping_add(byte.into());
    let name_hash = name.iter().fold(0, |sum, byte| hash(sum, *byte));
    set[36..38].copy_from_slice(&name_hash.to_le_bytes());
    set[40..48].copy_from_slice(&5_u64.to_le_bytes());
    set[52..56].copy_from_slice(&cluster.to_le_bytes());
    set[56..64].copy_from_slice(&5_u64.to_le_bytes());
    set[64] = 0xc1;
    set[66..70].copy_from_slice(name);
    let summed = set
        .iter()
        .enumerate()
        .filter(|(at, _)| !(2..4).contains(at));
    let checksum = summed.fold(0, |sum, (_, byte)| hash(sum, *byte));
    set[2..4].copy_from_slice(&checksum.to_le_bytes());
    set
}

#[test]
fn a_sound_exfat_is_clean_and_stays_as_it_is() {
    let lab = Lab::new();
    made(&lab);
    for mode in ["-n", "-p", "-y"] {
        let outcome = lab.look(&format!("{mode} -a exfat.img --image-format raw"));
        outcome.is(0, &[("sda", "clean")]);
        assert_eq!(outcome.layer("sda")["label"], "data");
        assert_eq!(outcome.notes("sda"), "");
    }
}

#[test]
fn what_is_safe_is_repaired() {
    let lab = Lab::new();
    let places = made(&lab);
    // The file's cluster is marked as free; its entries' checksum is wrong.
    let damages: [(u64, &[u8]); 2] = [(places.heap, &[0; 8]), (places.root + 98, &[0, 0])];
    for (at, bytes) in damages {
        made(&lab);
        lab.patch("exfat.img", at, bytes);
        lab.sh("cp exfat.img truth.img; fsck.exfat -n truth.img && exit 1 || test $? = 4");
        lab.look("-n -a exfat.img --image-format raw")
            .is(4, &[("sda", "errors-left")]);
        lab.sh("fsck.exfat -p truth.img && exit 1 || test $? = 1; fsck.exfat -n truth.img");
        lab.repair("-p -a exfat.img --image-format raw")
            .is(1, &[("sda", "corrected")]);
        assert_eq!(lab.checksum("exfat.img"), lab.checksum("truth.img"));
    }
}

#[test]
fn a_boot_region_is_restored_only_with_y() {
    let lab = Lab::new();
    made(&lab);
    lab.patch("exfat.img", 100, &[0xff; 4]);
    lab.sh("fsck.exfat -p exfat.img && exit 1 || test $? = 4");
    for mode in ["-n", "-p"] {
        lab.look(&format!("{mode} -a exfat.img --image-format raw"))
            .is(4, &[("sda", "errors-left")]);
    }
    let left = lab.look("-p -a exfat.img --image-format raw");
    assert!(left.notes("sda").contains("-y"), "{left}");
    lab.sh("cp exfat.img truth.img; fsck.exfat -y truth.img && exit 1 || test $? = 1");
    lab.repair("-y -a exfat.img --image-format raw")
        .is(1, &[("sda", "corrected")]);
    assert_eq!(lab.checksum("exfat.img"), lab.checksum("truth.img"));
}

#[test]
fn what_cannot_be_repaired_is_left() {
    let lab = Lab::new();
    let places = made(&lab);
    // The table of capital letters, after the bitmap's one cluster.
    lab.patch("exfat.img", places.heap + places.cluster + 10, &[0xff]);
    lab.sh("cp exfat.img truth.img; fsck.exfat -y truth.img && exit 1 || test $? = 4");
    lab.look("-n -a exfat.img --image-format raw")
        .is(4, &[("sda", "errors-left")]);
    lab.repair("-y -a exfat.img --image-format raw")
        .is(4, &[("sda", "errors-left")]);
}

#[test]
fn a_volume_that_was_in_use_is_told_of() {
    let lab = Lab::new();
    made(&lab);
    lab.sh("cp exfat.img truth.img");
    lab.patch("exfat.img", FLAGS, &[DIRTY]);
    // fsck.exfat itself says nothing of it.
    lab.sh("fsck.exfat -n exfat.img");
    let looked = lab.look("-n -a exfat.img --image-format raw");
    looked.is(0, &[("sda", "clean")]);
    assert!(
        looked.notes("sda").contains("not cleanly unmounted"),
        "{looked}"
    );
    let cleared = lab.repair("-p -a exfat.img --image-format raw");
    cleared.is(0, &[("sda", "clean")]);
    assert!(
        cleared.notes("sda").contains("cleared the mark"),
        "{cleared}"
    );
    assert_eq!(lab.checksum("exfat.img"), lab.checksum("truth.img"));
}
