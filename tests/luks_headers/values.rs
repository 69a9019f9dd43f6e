//! LUKS2's metadata with each value replaced by what may harm.

use serde_json::Value;

use crate::lab::{Count, Device, Lab, read, with_metadata};

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
