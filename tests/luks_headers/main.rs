//! LUKS containers as cryptsetup makes them, whole and damaged, against what cryptsetup says of them.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may panic, and says how much it has tried"
)]

mod damage;
mod lab;
mod values;

use std::process::Command;

use virt_fsck::layers::luks::Version;
use virt_fsck::units::Bytes;

use lab::{Device, Lab, read};

#[test]
fn real_containers() {
    let lab = Lab::new();
    for (options, version) in [
        ("--type luks1", Version::One),
        ("--type luks1 -c aes-cbc-essiv:sha256 -s 256", Version::One),
        (
            "--type luks1 -c serpent-xts-plain64 -s 512 -h sha512",
            Version::One,
        ),
        (
            "--type luks1 -c twofish-xts-plain64 -s 256 --offset 8192",
            Version::One,
        ),
        ("--type luks2", Version::Two),
        ("--type luks2 --sector-size 512", Version::Two),
        (
            "--type luks2 --sector-size 4096 -c serpent-xts-plain64",
            Version::Two,
        ),
        ("--type luks2 -c twofish-xts-plain64 -s 256", Version::Two),
        (
            "--type luks2 -c aes-cbc-essiv:sha256 -s 256 --sector-size 512",
            Version::Two,
        ),
        (
            "--type luks2 --luks2-metadata-size 64k --luks2-keyslots-size 1m",
            Version::Two,
        ),
        (
            "--type luks2 --luks2-metadata-size 4m --luks2-keyslots-size 512k",
            Version::Two,
        ),
        ("--type luks2 --offset 65536", Version::Two),
        (
            "--type luks2 --uuid A0B1C2D3-0000-1111-2222-333344445555",
            Version::Two,
        ),
    ] {
        let Some(device) = lab.make_if_can(options, 40) else {
            continue;
        };
        let found = read(&device).unwrap().unwrap();
        assert_eq!(found.header, lab.truth("image").unwrap(), "{options}");
        assert_eq!(found.version, version, "{options}");
        assert!(!found.is_detached && found.integrity.is_none() && found.tokens.is_empty());
        assert_eq!(found.notes, Vec::<String>::new(), "{options}");
        let uuid = Command::new("blkid")
            .args(["-p", "-s", "UUID", "-o", "value"])
            .arg(lab.path("image"))
            .output()
            .unwrap();
        let uuid = String::from_utf8(uuid.stdout).unwrap();
        assert_eq!(found.uuid.as_deref(), Some(uuid.trim()), "{options}");
        // The header's area is enough to find the key by, and nothing less is.
        let area = usize::try_from(found.header_area.get()).unwrap();
        std::fs::write(lab.path("area"), &device.0[..area]).unwrap();
        assert_eq!(lab.truth("area"), Some(found.header), "{options}");
        std::fs::write(lab.path("area"), &device.0[..area - 512]).unwrap();
        assert_eq!(lab.truth("area"), None, "{options}");
        let cut = Device(device.0[..area].to_vec(), Bytes::new(area as u64 - 512));
        assert!(read(&cut).is_err(), "{options}");
    }
}

#[test]
fn detached_headers_and_tokens() {
    let lab = Lab::new();
    for kind in ["luks1", "luks2"] {
        let _ = std::fs::remove_file(lab.path("header"));
        lab.make(&format!("--type {kind} --header header"), 8);
        let length = std::fs::metadata(lab.path("header")).unwrap().len();
        let header = lab.device("header", Bytes::new(length));
        let found = read(&header).unwrap().unwrap();
        assert!(found.is_detached);
        assert_eq!(found.header.offset, Bytes::ZERO);
        assert_eq!(Some(found.header), lab.truth("header"));
        assert!(found.header_area.get() <= length);
        let other = lab.device("image", Bytes::mib(8));
        assert!(read(&other).unwrap().is_none());
    }
    lab.make("--type luks2", 20);
    for token in [
        r#"{"type":"one","keyslots":["0"]}"#,
        r#"{"type":"clevis","keyslots":[]}"#,
    ] {
        std::fs::write(lab.path("token"), token).unwrap();
        let added = lab.cryptsetup("token import --json-file token image");
        assert!(added.status.success());
    }
    for flags in ["", "--key-slot 5"] {
        std::fs::write(lab.path("other"), flags).unwrap();
        let slot = format!(
            "luksAddKey -q --key-file key {flags} --pbkdf pbkdf2 --pbkdf-force-iterations 1000 image other"
        );
        assert!(lab.cryptsetup(&slot).status.success());
    }
    let found = read(&lab.device("image", Bytes::mib(20))).unwrap().unwrap();
    assert_eq!(found.tokens, ["one", "clevis"]);
    assert_eq!(found.header.key_sizes, [64]);
    // Without a slot no key opens it.
    for kind in ["luks1", "luks2"] {
        lab.make(&format!("--type {kind}"), 20);
        assert!(lab.cryptsetup("luksErase -q image").status.success());
        let error = read(&lab.device("image", Bytes::mib(20))).unwrap_err();
        assert!(
            error.to_string().starts_with("it has no key slot in use"),
            "{error}"
        );
        assert!(error.uuid().is_some() && error.version().is_some());
    }
}
