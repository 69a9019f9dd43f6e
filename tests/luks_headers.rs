//! LUKS containers as cryptsetup makes them, whole and damaged, against what cryptsetup says of them.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may panic, and says how much it has tried"
)]

use std::io;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use sha2::{Digest, Sha256};
use virt_fsck::layers::luks::{self, Container, Header, LuksError, Version};
use virt_fsck::layers::read::ReadAt;
use virt_fsck::units::{Bytes, SectorSize};

/// A device: the bytes at its beginning, and zeros to its end.
struct Device(Vec<u8>, Bytes);

impl ReadAt for Device {
    fn size(&self) -> Bytes {
        self.1
    }

    fn read_exact_at(&self, offset: Bytes, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(Bytes::new(buffer.len() as u64));
        if end.is_none_or(|end| end > self.1) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let start = usize::try_from(offset.get()).unwrap();
        let bytes = self.0.iter().skip(start).chain(std::iter::repeat(&0));
        buffer
            .iter_mut()
            .zip(bytes)
            .for_each(|(to, from)| *to = *from);
        Ok(())
    }
}

struct Lab(tempfile::TempDir);

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "secret").unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn cryptsetup(&self, arguments: &str) -> Output {
        // A header may ask for hours of key derivation, in which cryptsetup hears no SIGTERM.
        Command::new("timeout")
            .args(["-s", "KILL", "2", "cryptsetup"])
            .args(arguments.split_whitespace())
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }

    /// A container in the file `image`, of so many MiB.
    fn make(&self, options: &str, mib: u64) -> Device {
        self.make_if_can(options, mib).unwrap()
    }

    /// Nothing, if this system lacks the cipher.
    fn make_if_can(&self, options: &str, mib: u64) -> Option<Device> {
        let size = Bytes::mib(mib);
        let image = std::fs::File::create(self.path("image")).unwrap();
        image.set_len(size.get()).unwrap();
        let made = self.cryptsetup(&format!(
            "luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 {options} image key"
        ));
        let said = String::from_utf8_lossy(&made.stderr);
        if said.contains("device-mapper") {
            println!("SKIPPED: cryptsetup cannot make {options} here");
            return None;
        }
        assert!(made.status.success(), "{options}: {said}");
        Some(self.device("image", size))
    }

    fn device(&self, name: &str, size: Bytes) -> Device {
        Device(std::fs::read(self.path(name)).unwrap(), size)
    }

    /// What cryptsetup says of a header, if it finds the volume key by it.
    fn truth(&self, name: &str) -> Option<Header> {
        let dump = format!("luksDump -q --dump-volume-key --key-file key {name}");
        let said = self.cryptsetup(&dump);
        if !said.status.success() {
            return None;
        }
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let field = |label: &str| {
            let line = said.lines().find(|line| line.starts_with(label));
            line.unwrap()[label.len()..].trim().to_owned()
        };
        // It prints them with a sign.
        let sectors: i64 = field("Payload offset:").parse().unwrap();
        let sectors = u64::from(u32::try_from(sectors & 0xffff_ffff).unwrap());
        let bits: usize = field("MK bits:").parse().unwrap();
        let mut header = Header {
            encryption: format!("{}-{}", field("Cipher name:"), field("Cipher mode:")),
            key_sizes: vec![bits / 8],
            offset: Bytes::new(sectors * 512),
            size: None,
            iv_tweak: 0,
            sector_size: SectorSize::S512,
            discards: false,
        };
        if let Some(metadata) = self.metadata(name) {
            let segment = &metadata["segments"]["0"];
            let text = |name: &str| segment[name].as_str().unwrap();
            let flags = metadata["config"]["flags"].as_array();
            // Where no mode is named, it prints the kernel's.
            header.encryption = text("encryption").to_owned();
            header.size = text("size").parse().ok().map(Bytes::new);
            header.iv_tweak = text("iv_tweak").parse().unwrap();
            let sector_size = segment["sector_size"].as_u64().unwrap();
            header.sector_size = SectorSize::new(u32::try_from(sector_size).unwrap())?;
            header.discards = flags.is_some_and(|flags| flags.contains(&"allow-discards".into()));
        }
        Some(header)
    }

    fn metadata(&self, name: &str) -> Option<Value> {
        let said = self.cryptsetup(&format!("luksDump --dump-json-metadata {name}"));
        serde_json::from_slice(&said.stdout).ok()
    }
}

fn read(device: &Device) -> Result<Option<Container>, LuksError> {
    luks::read(device)
}

/// How often who refused a header.
#[derive(Debug, Default)]
struct Count {
    both_read_it: u32,
    both_refuse_it: u32,
    only_the_key_step_refuses: u32,
    only_virt_fsck_refuses: u32,
    sentences: std::collections::BTreeSet<String>,
}

impl Count {
    fn compare(
        &mut self,
        what: &str,
        ours: Result<Option<Container>, LuksError>,
        truth: Option<Header>,
    ) {
        let ours = match ours {
            Ok(found) => found.map(|container| container.header),
            Err(LuksError::Read(error)) => panic!("{what}: {error}"),
            Err(error) => {
                self.sentences.insert(error.to_string());
                None
            }
        };
        match (ours, truth) {
            (Some(ours), Some(truth)) => {
                assert_eq!(ours, truth, "{what}");
                self.both_read_it += 1;
            }
            (None, None) => self.both_refuse_it += 1,
            (Some(_), None) => self.only_the_key_step_refuses += 1,
            (None, Some(_)) => {
                self.only_virt_fsck_refuses += 1;
            }
        }
    }

    fn show(&self, what: &str) {
        println!("{what}: {self:#?}");
    }
}

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

/// Both copies with this text in them.
fn with_metadata(sound: &Device, text: &[u8]) -> Device {
    let size = u64::from_be_bytes(sound.0[8..16].try_into().unwrap());
    let size = usize::try_from(size).unwrap();
    let mut made = sound.0.clone();
    for copy in made[..2 * size].chunks_mut(size) {
        copy[4096..].fill(0);
        copy[4096..][..text.len()].copy_from_slice(text);
        copy[448..512].fill(0);
        let sum = Sha256::digest(&*copy);
        copy[448..480].copy_from_slice(&sum);
    }
    Device(made, sound.1)
}

/// The places of all values in a text.
fn places(value: &Value, place: &str, found: &mut Vec<String>) {
    found.push(place.to_owned());
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                places(value, &format!("{place}/{name}"), found);
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                places(value, &format!("{place}/{index}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn some_values_of_luks2() {
    values_of_luks2(17);
}

#[test]
#[ignore = "takes minutes"]
fn every_value_of_luks2() {
    values_of_luks2(1);
}

/// Each `step`th of all changes.
fn values_of_luks2(step: usize) {
    let lab = Lab::new();
    let sound = lab.make("--type luks2 -s 256 --luks2-keyslots-size 512k", 4);
    let second =
        "luksAddKey -q --key-file key --pbkdf pbkdf2 --pbkdf-force-iterations 1000 image key";
    assert!(lab.cryptsetup(second).status.success());
    std::fs::write(lab.path("token"), r#"{"type":"clevis","keyslots":["1"]}"#).unwrap();
    assert!(
        lab.cryptsetup("token import --json-file token image")
            .status
            .success()
    );
    let metadata = lab.metadata("image").unwrap();
    let sound = Device(lab.device("image", sound.1).0[..1 << 20].to_vec(), sound.1);
    let mut all = Vec::new();
    places(&metadata, "", &mut all);
    let long = format!("\"{}\"", "9".repeat(2000));
    let values = [
        "null",
        "-1",
        "0",
        "7",
        "4096",
        "4294967295",
        "4294967296",
        "18446744073709551616",
        "1.5",
        "\"\"",
        "\"1\"",
        "\"-1\"",
        "\"512\"",
        "\"00\"",
        "\"163840\"",
        "\"1048576\"",
        "\"18446744073709551104\"",
        "\"18446744073709551616\"",
        "\"dynamic\"",
        "\"reencrypt\"",
        "\"a\\u0000b\"",
        "\"\\u001b[2J\"",
        "[]",
        "[\"0\"]",
        "[7]",
        "{}",
        r#"{"0":{}}"#,
        long.as_str(),
    ];
    let mut texts: Vec<(String, String)> = Vec::new();
    for place in &all {
        for value in values {
            let mut changed = metadata.clone();
            let marked = changed.pointer_mut(place).unwrap();
            *marked = Value::from("<here>");
            let text = changed.to_string().replace("\"<here>\"", value);
            texts.push((format!("{place} {value}"), text));
        }
        // Gone, under another name, and twice.
        if let Some((parent, name)) = place.rsplit_once('/')
            && let Some(members) = metadata.pointer(parent).unwrap().as_object()
        {
            let mut changed = metadata.clone();
            let left = changed
                .pointer_mut(parent)
                .unwrap()
                .as_object_mut()
                .unwrap();
            let value = left.remove(name).unwrap();
            texts.push((format!("{place} gone"), changed.to_string()));
            let left = changed
                .pointer_mut(parent)
                .unwrap()
                .as_object_mut()
                .unwrap();
            left.insert("31".to_owned(), value);
            texts.push((format!("{place} renamed"), changed.to_string()));
            let object = metadata.pointer(parent).unwrap().to_string();
            for twice in ["\"16384\"", "8", "{}"] {
                for (before, after) in [
                    (
                        object.clone(),
                        format!("{},\"{name}\":{twice}}}", &object[..object.len() - 1]),
                    ),
                    (
                        object.clone(),
                        format!("{{\"{name}\":{twice},{}", &object[1..]),
                    ),
                ] {
                    texts.push((
                        format!("{place} twice"),
                        metadata.to_string().replacen(&before, &after, 1),
                    ));
                }
            }
            assert!(!members.is_empty());
        }
    }
    let whole = metadata.to_string();
    for (what, text) in [
        ("opening", whole[1..].to_owned()),
        ("blank before", format!(" {whole}")),
        ("blank behind", format!("{whole} ")),
        ("more behind", format!("{whole}\0x")),
        ("comment", whole.replacen('{', "{/* */", 1)),
        ("comma", whole.replace("]}", "],}")),
        (
            "deep",
            whole.replacen(
                '{',
                &format!("{{\"x\":{}{},", "[".repeat(40), "]".repeat(40)),
                1,
            ),
        ),
        (
            "deeper",
            whole.replacen(
                '{',
                &format!("{{\"x\":{}{},", "[".repeat(4000), "]".repeat(4000)),
                1,
            ),
        ),
        (
            "flags",
            whole.replacen(
                "\"json_size\"",
                "\"flags\":[\"allow-discards\",\"x\"],\"json_size\"",
                1,
            ),
        ),
        (
            "re-encryption",
            whole.replacen(
                "\"json_size\"",
                "\"requirements\":{\"mandatory\":[\"online-reencrypt-v2\"]},\"json_size\"",
                1,
            ),
        ),
        (
            "tweak",
            whole.replacen("\"iv_tweak\":\"0\"", "\"iv_tweak\":\"8\"", 1),
        ),
        ("size", whole.replacen("\"dynamic\"", "\"1048576\"", 1)),
        (
            "integrity",
            whole.replacen("\"iv_tweak\"", "\"integrity\":{},\"iv_tweak\"", 1),
        ),
    ] {
        texts.push((what.to_owned(), text));
    }
    let mut count = Count::default();
    for (what, text) in texts.iter().rev().step_by(step) {
        if text.len() >= 12288 {
            continue;
        }
        let odd = with_metadata(&sound, text.as_bytes());
        std::fs::write(lab.path("odd"), &odd.0).unwrap();
        count.compare(what, read(&odd), lab.truth("odd"));
    }
    count.show("LUKS2's metadata");
    assert!(count.both_refuse_it > 50 && count.both_read_it > 5);
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

#[test]
fn the_longest_metadata() {
    let lab = Lab::new();
    let sound = lab.make(
        "--type luks2 --luks2-metadata-size 4m --luks2-keyslots-size 256k",
        10,
    );
    let text = lab.metadata("image").unwrap().to_string();
    let room = (4 << 20) - 4096 - 1 - text.len() - 100;
    for filling in [
        format!("\"{}\"", "x".repeat(room)),
        format!("[{}1]", "1,".repeat(room / 2)),
        format!("[{}[]]", "[],".repeat(room / 3)),
        format!("{}{}", "[".repeat(room / 2), "]".repeat(room / 2)),
        "{\"a\":".repeat(room / 5),
        "[".repeat(room),
    ] {
        let full = text.replacen('{', &format!("{{\"x\":{filling},"), 1);
        let made = with_metadata(&sound, full.as_bytes());
        // Nobody makes as many parts.
        let is_text = filling.starts_with('"');
        let started = std::time::Instant::now();
        assert_eq!(read(&made).is_ok(), is_text);
        println!("{} bytes: {:?}", full.len(), started.elapsed());
    }
    let slots: String = (1..40_000).map(|id| format!(r#""{id}":{{"type":"x","key_size":1,"area":{{"type":"x","offset":"9","size":"9"}}}},"#)).collect();
    let many = text.replacen("\"keyslots\":{", &format!("\"keyslots\":{{{slots}"), 1);
    assert!(read(&with_metadata(&sound, many.as_bytes())).is_err());
}
