use super::*;

/// A header as `cryptsetup luksFormat --type luks1` writes it, without what is not read.
fn luks1_header() -> Vec<u8> {
    let mut header = vec![0; LUKS1_LENGTH];
    header[..6].copy_from_slice(MAGIC);
    header[7] = 1;
    header[8..11].copy_from_slice(b"aes");
    header[40..51].copy_from_slice(b"xts-plain64");
    header[104..108].copy_from_slice(&4096_u32.to_be_bytes());
    header[72..78].copy_from_slice(b"sha256");
    header[108..112].copy_from_slice(&64_u32.to_be_bytes());
    header[168..172].copy_from_slice(b"0a1b");
    for (slot, offset) in (0..8).zip((8_u32..).step_by(504)) {
        let active: u32 = if slot == 3 { 0x00ac_71f3 } else { 0xdead };
        let at = 208 + 48 * slot;
        header[at..at + 4].copy_from_slice(&active.to_be_bytes());
        header[at + 40..at + 44].copy_from_slice(&offset.to_be_bytes());
        header[at + 44..at + 48].copy_from_slice(&4000_u32.to_be_bytes());
    }
    header
}

#[test]
fn a_luks1_header() {
    let header = luks1_header();
    assert_eq!(uuid(&header).as_deref(), Some("0a1b"));
    let expected = Header {
        encryption: "aes-xts-plain64".to_owned(),
        key_sizes: vec![64],
        offset: Bytes::mib(2),
        size: None,
        iv_tweak: 0,
        sector_size: SectorSize::S512,
        discards: false,
    };
    assert_eq!(luks1(&header, false), Ok(expected));
    let mut detached = header;
    detached[104..108].fill(0);
    assert_eq!(luks1(&detached, true).unwrap().offset, Bytes::ZERO);
    // The last byte of a field is not read, as cryptsetup has it.
    detached[8..40].fill(b'x');
    let encryption = luks1(&detached, true).unwrap().encryption;
    assert_eq!(encryption, format!("{}-xts-plain64", "x".repeat(31)));
}

#[test]
fn a_damaged_luks1_header() {
    for (what, range, bytes) in [
        ("version", 0..1, &b"X"[..]),
        ("version", 6..8, &[1, 0]),
        ("cipher", 8..9, b"\0"),
        ("cipher", 8..9, b" "),
        ("cipher", 9..10, b"\n"),
        ("cipher", 9..10, b"\\"),
        ("cipher", 9..10, b"\xff"),
        ("cipher mode", 40..41, b"\0"),
        ("cipher", 42..43, b"\t"),
        ("cipher mode", 42..43, b"\x80"),
        ("payload offset", 104..108, &[0; 4]),
        ("key size", 108..112, &[0; 4]),
        ("key size", 108..112, &513_u32.to_be_bytes()),
        ("key size", 108..112, &[0xff; 4]),
    ] {
        let mut header = luks1_header();
        header[range].copy_from_slice(bytes);
        let error = luks1(&header, false).unwrap_err().to_string();
        assert_eq!(error, format!("its LUKS header is damaged (its {what})"));
    }
    for (what, at, value) in [
        ("key slot 0 lies in the encrypted data", 104, 1),
        ("key slot 7 lies in the encrypted data", 104, 4035),
        (
            "key slot 7 lies in the encrypted data",
            208 + 7 * 48 + 40,
            4000,
        ),
        ("key slot 0 lies in the header", 208 + 40, 0),
        ("key slot 0 lies in the header", 208 + 40, 1),
        ("key slot 0 overlaps another one", 208 + 40, 13),
        ("key slot 0 overlaps another one", 208 + 40, 512),
        (
            "key slot 2 has another number of stripes than 4000",
            208 + 2 * 48 + 44,
            3999,
        ),
        ("a key slot lies too far behind", 208 + 7 * 48 + 40, 400_000),
    ] {
        let mut header = luks1_header();
        header[at..at + 4].copy_from_slice(&u32::to_be_bytes(value));
        let is_detached = value == 400_000;
        if is_detached {
            header[104..108].fill(0);
        }
        let error = luks1(&header, is_detached).unwrap_err().to_string();
        assert_eq!(error, format!("its LUKS header is damaged ({what})"));
    }
    let mut free = luks1_header();
    free[208 + 3 * 48] = 1;
    let error = luks1(&free, false).unwrap_err().to_string();
    assert!(error.starts_with("it has no key slot in use"), "{error}");
    let header = luks1_header();
    for length in 0..LUKS1_LENGTH {
        assert!(luks1(&header[..length], false).is_err(), "{length}");
    }
    let mut unencrypted = luks1_header();
    unencrypted[8..19].copy_from_slice(b"cipher_null");
    let error = luks1(&unencrypted, false).unwrap_err().to_string();
    assert!(error.starts_with("it is not encrypted"), "{error}");
    let mut far = luks1_header();
    far[104..108].fill(0xff);
    let far = luks1(&far, false).unwrap();
    assert_eq!(far.offset.get(), 512 * u64::from(u32::MAX));
    assert!(far.length(Bytes::mib(64)).is_err());
}

/// As `cryptsetup luksFormat --type luks2` writes it.
const LUKS2: &str = r#"{
  "keyslots":{
    "0":{"type":"luks2","key_size":64,
      "af":{"type":"luks1","stripes":4000,"hash":"sha256"},
      "area":{"type":"raw","offset":"32768","size":"258048","encryption":"aes-xts-plain64","key_size":32},
      "kdf":{"type":"argon2id","time":4,"memory":1024,"cpus":1,"salt":"a="}},
    "3":{"type":"luks2","key_size":48,"priority":2,
      "af":{"type":"luks1","stripes":4000,"hash":"sha256"},
      "area":{"type":"raw","offset":"290816","size":"192512","encryption":"aes-xts-plain64","key_size":32},
      "kdf":{"type":"pbkdf2","hash":"sha256","iterations":1000,"salt":"a="}}
  },
  "tokens":{},
  "segments":{
    "0":{
      "type":"crypt",
      "offset":"16777216",
      "size":"dynamic",
      "iv_tweak":"7",
      "encryption":"aes-xts-plain64",
      "sector_size":4096
    }
  },
  "digests":{
    "0":{"type":"pbkdf2","keyslots":["0"],"segments":["0"],"salt":"a="},
    "1":{"type":"pbkdf2","keyslots":["3"],"segments":[]}
  },
  "config":{"json_size":"12288","keyslots_size":"16744448","flags":["no-read-workqueue"]}
}"#;

#[test]
fn luks2_metadata() {
    let header = luks2(LUKS2.as_bytes(), false).unwrap();
    let expected = Header {
        encryption: "aes-xts-plain64".to_owned(),
        // The key of slot 3 is not that of the segment.
        key_sizes: vec![64],
        offset: Bytes::mib(16),
        size: None,
        iv_tweak: 7,
        sector_size: SectorSize::S4096,
        discards: false,
    };
    assert_eq!(header, expected);
    let changed = LUKS2
        .replace("no-read-workqueue", "allow-discards")
        .replace("dynamic", "1048576");
    let header = luks2(changed.as_bytes(), false).unwrap();
    assert_eq!((header.discards, header.size), (true, Some(Bytes::mib(1))));
    let detached = LUKS2.replace("16777216", "0");
    let header = luks2(detached.as_bytes(), true).unwrap();
    assert_eq!(header.offset, Bytes::ZERO);
}

#[test]
fn odd_luks2_metadata() {
    let damaged = |what: &str| format!("its LUKS header is damaged (its {what})");
    let wrong = |what: &str| format!("its LUKS header is damaged ({what})");
    let beyond = |what: &str| format!("it {what}, which virt-fsck does not open");
    let huge = "9".repeat(1000);
    for (from, to, error) in [
        ("16777216", "0", damaged("offset")),
        (
            "16777216",
            "16777217",
            wrong("segment 0 has a wrong offset"),
        ),
        ("16777216", "-512", wrong("segment 0 has a wrong offset")),
        ("16777216", "+512", wrong("segment 0 has a wrong offset")),
        ("16777216", "", wrong("segment 0 has a wrong offset")),
        (
            "16777216",
            huge.as_str(),
            wrong("segment 0 has a wrong offset"),
        ),
        (
            "16777216",
            "16776704",
            wrong("the encrypted data begin in the key slots' area"),
        ),
        ("dynamic", "0", wrong("segment 0 has a wrong size")),
        ("dynamic", "all", wrong("segment 0 has a wrong size")),
        (
            "dynamic",
            "18446744073709551616",
            wrong("segment 0 has a wrong size"),
        ),
        ("\"7\"", "\"-1\"", wrong("segment 0 has a wrong iv_tweak")),
        ("\"iv_tweak\"", "\"iv\"", wrong("segment 0 has no iv_tweak")),
        ("aes-xts-plain64", "aes xts", damaged("cipher")),
        (
            "n\":\"aes-xts-plain64\",\n",
            "n\":\"\",\n",
            wrong("segment 0 has a wrong encryption"),
        ),
        ("aes-xts-plain64", huge.as_str(), damaged("cipher")),
        (
            "aes-xts-plain64",
            "cipher_null-ecb",
            beyond("is not encrypted (cipher_null-ecb)"),
        ),
        ("_size\":4096", "_size\":8192", damaged("sector size")),
        (
            "_size\":4096",
            "_size\":0",
            wrong("segment 0 has a wrong sector_size"),
        ),
        (
            "_size\":4096",
            "_size\":1000",
            wrong("segment 0 has a wrong sector_size"),
        ),
        (
            "_size\":4096",
            "_size\":-1",
            wrong("segment 0 has a wrong sector_size"),
        ),
        (
            "_size\":4096",
            "_size\":5000000000",
            wrong("segment 0 has a wrong sector_size"),
        ),
        (":64", ":0", damaged("key size")),
        (
            ":64",
            ":18446744073709551615",
            wrong("key slot 0 has a wrong key_size"),
        ),
        (
            "\"segments\":[\"0\"]",
            "\"segments\":[\"1\"]",
            wrong("digest 0 is for what is not there"),
        ),
        (
            "\"keyslots\":[\"0\"]",
            "\"keyslots\":[\"9\"]",
            wrong("digest 0 is for what is not there"),
        ),
        (
            "\"type\":\"crypt\"",
            "\"type\":\"hw-opal\\n\"",
            beyond("is encrypted by the disk itself (hw-opal?)"),
        ),
        (
            "\"type\":\"crypt\"",
            "\"type\":\"crypt\",\"integrity\":{\"type\":\"hmac(sha256)\",\"journal_encryption\":\"none\",\"journal_integrity\":\"none\"}",
            beyond("has checksums (dm-integrity)"),
        ),
        (
            "\"type\":\"crypt\"",
            "\"type\":\"crypt\",\"flags\":[\"in-reencryption\"]",
            beyond("has the flag in-reencryption"),
        ),
        (
            "\"json_size\"",
            "\"requirements\":{\"mandatory\":[\"online-reencrypt-v2\"]},\"json_size\"",
            beyond("is being re-encrypted (online-reencrypt-v2)"),
        ),
        (
            "\"json_size\"",
            "\"requirements\":{\"mandatory\":[\"opal\"]},\"json_size\"",
            beyond("is encrypted by the disk itself (opal)"),
        ),
        (
            "\"json_size\"",
            "\"requirements\":7,\"json_size\"",
            wrong("the config of its metadata has a wrong requirements"),
        ),
        ("\"segments\":{", "\"segments\":[", damaged("metadata")),
        (
            "\"segments\":{\n",
            "\"segments\":7,\"x\":{\n",
            wrong("its metadata has a wrong segments"),
        ),
        ("\"config\"", "\"con\"", wrong("its metadata has no config")),
        ("{", "[", damaged("metadata")),
    ] {
        let odd = LUKS2.replace(from, to);
        assert_ne!(odd, LUKS2, "{from}");
        assert_eq!(
            luks2(odd.as_bytes(), false).unwrap_err().to_string(),
            error,
            "{to}"
        );
    }
    let segment = r#""1":{"type":"linear","offset":"8388608","size":"512"},"0":{"#;
    let two = LUKS2.replace(
        "\"segments\":{\n    \"0\":{",
        &format!("\"segments\":{{{segment}"),
    );
    let two = two.replace("16744448", "8355840");
    let error = luks2(two.as_bytes(), false).unwrap_err().to_string();
    assert_eq!(error, beyond("has 2 segments"));
    for length in 0..LUKS2.len() {
        assert!(luks2(&LUKS2.as_bytes()[..length], false).is_err());
    }
    assert!(luks2("[".repeat(1 << 20).as_bytes(), false).is_err());
    assert!(luks2(&vec![b' '; (64 << 20) + 1], false).is_err());
}

#[test]
fn the_length_of_a_device() {
    let dynamic = luks2(LUKS2.as_bytes(), false).unwrap();
    let fixed = Header {
        size: Some(Bytes::mib(2)),
        ..dynamic.clone()
    };
    for (header, device, length) in [
        (&dynamic, Bytes::mib(20), Some(Bytes::mib(4))),
        (&dynamic, Bytes::mib(16), None),
        (&dynamic, Bytes::ZERO, None),
        (&dynamic, Bytes::new((20 << 20) + 512), None),
        (&fixed, Bytes::new((20 << 20) + 512), Some(Bytes::mib(2))),
        (&fixed, Bytes::mib(18), Some(Bytes::mib(2))),
        (&fixed, Bytes::mib(17), None),
    ] {
        assert_eq!(header.length(device).ok(), length, "{device}");
    }
}
