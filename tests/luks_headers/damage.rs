//! Headers with one byte damaged, and copies of different age.

use sha2::{Digest, Sha256};
use virt_fsck::layers::luks::Version;

use crate::lab::{Count, Device, Lab, read, with_metadata};

/// What is damaged stands in a file of the header's area alone.
fn compare_damage(lab: &Lab, sound: &Device, at: &[usize], changes: &[u8]) -> Count {
    let area = read(sound).unwrap().unwrap().header_area;
    let area = usize::try_from(area.get()).unwrap();
    let mut damaged = Device(sound.0[..area].to_vec(), sound.1);
    let mut count = Count::default();
    for at in at {
        for change in changes {
            damaged.0[*at] ^= change;
            // cryptsetup writes a damaged copy anew.
            std::fs::write(lab.path("damaged"), &damaged.0).unwrap();
            count.compare(&format!("byte {at}"), read(&damaged), lab.truth("damaged"));
            damaged.0[*at] ^= change;
        }
    }
    count
}

#[test]
fn every_byte_of_luks1() {
    let lab = Lab::new();
    let sound = lab.make("--type luks1 -s 256", 4);
    let at: Vec<usize> = (0..592).collect();
    let count = compare_damage(&lab, &sound, &at, &[0x01]);
    count.show("LUKS1");
    // Two for encrypted bytes behind the end, which are not looked at for a dump.
    assert_eq!(count.only_virt_fsck_refuses, 2);
    assert!(count.both_refuse_it > 50 && count.both_read_it > 100);
}

#[test]
fn every_byte_of_luks2() {
    let lab = Lab::new();
    let sound = lab.make("--type luks2 -s 256 --luks2-keyslots-size 256k", 4);
    let copies = [0, 16384].map(|copy| (copy..copy + 512).chain([copy + 600, copy + 4095]));
    let at: Vec<usize> = copies.into_iter().flatten().collect();
    let count = compare_damage(&lab, &sound, &at, &[0x01]);
    count.show("LUKS2");
    // Without the first magic it is no LUKS header for virt-fsck; a name of another checksum may be
    // right, and a version that is not known is left alone.
    assert_eq!(count.only_the_key_step_refuses, 0);
    assert!(count.both_refuse_it < 3 && count.only_virt_fsck_refuses < 20);
}

#[test]
fn the_newer_copy_counts() {
    let lab = Lab::new();
    let sound = lab.make("--type luks2 -s 256 --luks2-keyslots-size 256k", 4);
    let text = lab.metadata("image").unwrap().to_string();
    let text = text.replacen("\"iv_tweak\":\"0\"", "\"iv_tweak\":\"8\"", 1);
    let other = with_metadata(&sound, text.as_bytes());
    let mix = |age: [u8; 2], other_is: usize| {
        let mut made = with_metadata(&sound, text.as_bytes()).0;
        let from = if other_is == 0 {
            16384..32768
        } else {
            0..16384
        };
        made[from.clone()].copy_from_slice(&sound.0[from]);
        assert_eq!(other.0.len(), made.len());
        for (copy, age) in made[..32768].chunks_mut(16384).zip(age) {
            copy[23] = age;
            copy[448..512].fill(0);
            let sum = Sha256::digest(&*copy);
            copy[448..480].copy_from_slice(&sum);
        }
        Device(made, sound.1)
    };
    for (age, other_is, note) in [
        (
            [7, 7],
            0,
            "the copies of its metadata differ; the first was used",
        ),
        (
            [7, 7],
            1,
            "the copies of its metadata differ; the first was used",
        ),
        (
            [7, 8],
            1,
            "the first copy of its metadata is older; the second was used",
        ),
        (
            [8, 7],
            1,
            "the second copy of its metadata is older; the first was used",
        ),
        (
            [7, 8],
            0,
            "the first copy of its metadata is older; the second was used",
        ),
    ] {
        let device = mix(age, other_is);
        std::fs::write(lab.path("mixed"), &device.0).unwrap();
        let found = read(&device).unwrap().unwrap();
        assert_eq!(found.notes, [note]);
        assert_eq!(
            found.header,
            lab.truth("mixed").unwrap(),
            "{age:?} {other_is}"
        );
    }
    for (at, note) in [
        (
            600,
            "the first copy of its metadata is damaged; the second was used",
        ),
        (
            17000,
            "the second copy of its metadata is damaged; the first was used",
        ),
    ] {
        let mut damaged = sound.0.clone();
        damaged[at] ^= 1;
        let found = read(&Device(damaged, sound.1)).unwrap().unwrap();
        assert_eq!(found.notes, [note]);
    }
    let mut damaged = sound.0.clone();
    damaged[600] ^= 1;
    damaged[17000] ^= 1;
    let error = read(&Device(damaged, sound.1)).unwrap_err();
    assert!(error.to_string().contains("both copies"), "{error}");
    assert_eq!(
        (error.version(), error.uuid().is_some()),
        (Some(Version::Two), true)
    );
}
