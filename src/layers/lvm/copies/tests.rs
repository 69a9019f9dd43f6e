use super::*;
use crate::layers::extent::{Extent, ImageIndex};
use crate::layers::md::writer::Images;
use crate::units::Bytes;

/// An `rmeta` volume, as dm-raid writes it.
#[derive(Clone, Debug)]
pub(in crate::layers) struct RaidMeta {
    pub position: u32,
    pub devices: u32,
    pub events: u64,
    pub failed: u64,
    pub recovery: u64,
    pub resync: u64,
    pub dirty: u8,
}

impl RaidMeta {
    /// One of a volume of 8 MiB, which is sound.
    pub(in crate::layers) fn new(position: u32, devices: u32) -> Self {
        Self {
            position,
            devices,
            events: 7,
            failed: 0,
            recovery: u64::MAX,
            resync: u64::MAX,
            dirty: 0,
        }
    }

    pub(in crate::layers) fn build(&self) -> Vec<u8> {
        let mut bytes = b"DmRd\x01\0\0\0".to_vec();
        bytes.extend(self.devices.to_le_bytes());
        bytes.extend(self.position.to_le_bytes());
        for number in [self.events, self.failed, self.recovery, self.resync] {
            bytes.extend(number.to_le_bytes());
        }
        // Level, layout, stripes, flags.
        for number in [1_u32, 0, 0, 0] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(u64::MAX.to_le_bytes());
        for number in [1_u32, 0, 0, 0] {
            bytes.extend(number.to_le_bytes());
        }
        for number in [16384_u64, 0, 0, 16384, 0, 0, 0, 0] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.resize(4096, 0);
        bytes.extend(b"bitm\x04\0\0\0");
        bytes.resize(4096 + 40, 0);
        bytes.extend(16384_u64.to_le_bytes());
        for number in [0_u32, 512 * 1024, 5] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.resize(4096 + 256, 0);
        bytes.push(self.dirty);
        bytes.resize(8192, 0);
        bytes
    }
}

/// Where it lies: 8 MiB on an image of its own.
fn place(image: usize) -> ExtentMap {
    ExtentMap::whole(ImageIndex(image), Bytes::mib(8))
}

fn data(image: usize) -> Extent {
    Extent {
        image: ImageIndex(image),
        offset: Bytes::ZERO,
        length: Bytes::mib(8),
    }
}

/// A volume whose superblocks lie on images 0, 1, ..., and the data on images 10, 11, ...
fn raid(metas: &[RaidMeta], change: impl Fn(&mut [RaidCopy])) -> Result<Readable, String> {
    let mut copies: Vec<RaidCopy> = (0..metas.len())
        .map(|index| RaidCopy {
            name: format!("root_rimage_{index}"),
            data: place(10 + index),
            metadata: place(index),
            to_be_filled: false,
            write_mostly: false,
        })
        .collect();
    change(&mut copies);
    let images = Images(metas.iter().map(RaidMeta::build).collect());
    Copies::Raid(copies).readable(&images)
}

fn two() -> [RaidMeta; 2] {
    [RaidMeta::new(0, 2), RaidMeta::new(1, 2)]
}

/// The images that hold the copies, the one that is read first, and the notes as one text.
fn shown_by(readable: Result<Readable, String>) -> (Vec<usize>, String) {
    let readable = readable.unwrap();
    let places: Vec<Extent> = readable.extents.places().collect();
    let images: Vec<usize> = places.iter().map(|place| place.image.0).collect();
    let expected: Vec<Extent> = images.iter().map(|image| data(*image)).collect();
    assert_eq!(places, expected);
    (images, readable.notes.join("; "))
}

#[test]
fn copies_in_step_are_all_there() {
    let (images, notes) = shown_by(raid(&two(), |_| {}));
    assert_eq!((images, notes.as_str()), (vec![10, 11], ""));
}

#[test]
fn what_is_out_of_step_is_left_out() {
    for (change, why) in [
        (
            (|meta| meta[1].failed = 1) as fn(&mut [RaidMeta; 2]),
            "it has failed",
        ),
        (|meta| meta[0].events = 6, "it is older than the other"),
        (|meta| meta[0].recovery = 4096, "it is being filled"),
    ] {
        let mut metas = two();
        change(&mut metas);
        let (images, notes) = shown_by(raid(&metas, |_| {}));
        assert_eq!(images, [11]);
        assert!(notes.contains("root_rimage_0 is left out: "), "{notes}");
        assert!(notes.contains(why), "{notes}");
    }
    let (images, notes) = shown_by(raid(&two(), |copies| copies[0].to_be_filled = true));
    assert_eq!(images, [11]);
    assert!(notes.contains("to be filled"), "{notes}");
}

#[test]
fn an_older_superblock_does_not_say_who_has_failed() {
    let mut metas = two();
    metas[0].events = 6;
    metas[0].failed = 2;
    let (images, _) = shown_by(raid(&metas, |_| {}));
    assert_eq!(images, [11]);
}

#[test]
fn copies_that_may_differ_are_told() {
    for change in [
        (|meta| meta[0].resync = 0) as fn(&mut [RaidMeta; 2]),
        |meta| meta[1].dirty = 1,
    ] {
        let mut metas = two();
        change(&mut metas);
        let (images, notes) = shown_by(raid(&metas, |_| {}));
        assert_eq!(images, [10, 11]);
        assert!(notes.contains("may differ"), "{notes}");
    }
}

#[test]
fn a_slow_copy_comes_last() {
    let (images, _) = shown_by(raid(&two(), |copies| copies[0].write_mostly = true));
    assert_eq!(images, [11, 10]);
}

#[test]
fn nothing_is_read_where_no_copy_can_be_trusted() {
    let said = |metas: &[RaidMeta]| raid(metas, |_| {}).unwrap_err();
    let of_three = [RaidMeta::new(0, 3), RaidMeta::new(1, 3)];
    assert!(said(&of_three).contains("3 copies, and the volume group says 2"));
    let same = [RaidMeta::new(1, 2), RaidMeta::new(1, 2)];
    assert!(said(&same).contains("number 1"));
    let mut both_failed = two();
    both_failed[0].failed = 3;
    assert!(said(&both_failed).contains("none of its copies"));
    let never_active = raid(&two(), |copies| copies[1].metadata = place(7));
    assert!(never_active.unwrap_err().contains("root_rimage_1: "));
}

/// A mirror of two legs, with such a log.
fn mirror(log: Option<Vec<u8>>) -> Result<Readable, String> {
    let copies = Copies::Mirror {
        legs: vec![place(10), place(11)],
        log: match &log {
            None => Log::Memory,
            Some(_) => Log::Disk {
                extents: place(0),
                regions: 16,
            },
        },
    };
    copies.readable(&Images(log.into_iter().collect()))
}

#[test]
fn a_mirror_is_read_where_its_log_is_in_sync() {
    let log = |bits: [u8; 2]| {
        let mut log = b"rRiM\x02\0\0\0\x10\0\0\0\0\0\0\0".to_vec();
        log.resize(1024, 0);
        log.extend(bits);
        log
    };
    let (images, notes) = shown_by(mirror(Some(log([0xff, 0xff]))));
    assert_eq!((images, notes.as_str()), (vec![10, 11], ""));
    let said = mirror(Some(log([0xff, 0x3f]))).unwrap_err();
    assert!(said.contains("2 of the volume's regions"), "{said}");
    let (images, notes) = shown_by(mirror(None));
    assert_eq!(images, [10, 11]);
    assert!(notes.contains("the first is read"), "{notes}");
}
