use serde_json::{Value, json};

use super::*;
use crate::report::samples::{checked, domain, everyday, hostile, not_opened, results};

fn parsed(reports: &[DomainReport], listed: bool) -> Value {
    let exit = ExitStatus::of_all(reports);
    let text = render(reports, exit, listed).unwrap();
    assert!(text.ends_with("}\n"));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_whole_document_of_a_refused_domain() {
    let mut report = domain(
        "vm2",
        vec![not_opened(
            "vda",
            None,
            Verdict::NotChecked("no".to_owned()),
        )],
        results(vec![(
            "vdz",
            checked(Verdict::ErrorsLeft, 4, 1_234, "said"),
        )]),
    );
    report.plan = vec!["umount /run/x".to_owned()];
    report.uuid = Some(uuid::Uuid::from_u128(0x1234));
    report.verdict = Some(Verdict::Refused("running".to_owned()));
    assert_eq!(
        parsed(&[report], false),
        json!({
            "virt_fsck": env!("CARGO_PKG_VERSION"),
            "schema": 1,
            "mode": "check",
            "exit_status": 196,
            "domains": [{
                "name": "vm2",
                "uuid": "00000000-0000-0000-0000-000000001234",
                "origin": "qemu:///system",
                "verdict": "refused",
                "reason": "running",
                "seconds": 6.32,
                "notes": [],
                "disks": [{
                    "target": "vda",
                    "source": null,
                    "format": "raw",
                    "size_bytes": null,
                    "verdict": "not-checked",
                    "reason": "no",
                    "notes": [],
                    "image_check": null,
                    "layer": null,
                }],
                "plan": ["umount /run/x"],
                "unplaced": [{
                    "path": "vdz",
                    "result": {
                        "verdict": "errors-left",
                        "reason": null,
                        "checker": "e2fsck",
                        "exit_code": 4,
                        "seconds": 1.234,
                        "output": "said",
                        "notes": [],
                    },
                }],
            }],
        })
    );
    assert_eq!(
        parsed(&[], true),
        json!({
            "virt_fsck": env!("CARGO_PKG_VERSION"),
            "schema": 1,
            "mode": "list",
            "exit_status": 0,
            "domains": [],
        })
    );
}

#[test]
fn every_key_of_a_layer() {
    let document = parsed(&[everyday()], false);
    let mut layer = document
        .pointer("/domains/0/disks/0/layer/children/2/children/1")
        .unwrap()
        .clone();
    assert_eq!(layer["result"]["verdict"], "corrected");
    layer["result"] = Value::Null;
    assert_eq!(
        layer,
        json!({
            "path": "vda/p3/lvg1/lvhome",
            "type": "filesystem",
            "kind": "ext4",
            "uuid": "0f3e9a52-7c1d-4b8e-9f60-1a2b3c4d5e6f",
            "label": "home",
            "offset_bytes": null,
            "size_bytes": 11_271_143_424_u64,
            "extents": [
                {"disk": "vda", "offset_bytes": 3_760_193_536_u64, "length_bytes": 6_976_176_128_u64},
                {"disk": "vdb", "offset_bytes": 1_048_576, "length_bytes": 4_294_967_296_u64},
            ],
            "partition": null,
            "volume_group": null,
            "cipher": null,
            "array": null,
            "sector_bytes": null,
            "filesystem_size_bytes": null,
            "record": {
                "last_check": "2026-11-20T14:03:07Z",
                "mount_count": 1,
                "max_mount_count": null,
                "next_check": null,
                "dirty": null,
                "has_errors": null,
                "primary_damaged": false,
                "devices": null,
            },
            "hibernated": null,
            "reason": null,
            "notes": [],
            "result": null,
            "children": [],
        })
    );
    let root = document.pointer("/domains/0/disks/0/layer").unwrap();
    assert_eq!(root["type"], "partition-table");
    assert_eq!(root["kind"], "gpt");
    assert_eq!(root["sector_bytes"], 512);
    assert_eq!(root["offset_bytes"], 0);
    let esp = json!({"type": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "type_name": "EFI System", "name": "esp"});
    assert_eq!(root["children"][0]["partition"], esp);
    assert_eq!(root["children"][2]["type"], "lvm-physical-volume");
    assert_eq!(root["children"][2]["volume_group"], "lvg1");
    assert_eq!(
        root["children"][1]["result"]["reason"],
        "swap space holds no filesystem"
    );
}

#[test]
fn texts_are_kept_as_they_were_found() {
    let report = hostile();
    let text = render(std::slice::from_ref(&report), ExitStatus::CLEAN, false).unwrap();
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'));
    assert!(text.contains(r#""\u001b[2J\u202ex\" clean""#) && text.contains(r"name \u009b2J"));
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["domains"][0]["name"], report.domain);
    assert_eq!(
        document["domains"][0]["disks"][0]["layer"]["children"][0]["label"],
        "\u{1b}[2J\u{202e}x\" clean"
    );
}

#[test]
fn the_names_are_those_of_the_verdicts_themselves() {
    let words = String::new;
    for verdict in [
        Verdict::Clean,
        Verdict::Corrected,
        Verdict::ErrorsLeft,
        Verdict::NotChecked(words()),
        Verdict::Failed(words()),
        Verdict::NothingToCheck(words()),
        Verdict::Refused(words()),
        Verdict::Interrupted,
    ] {
        let derived = serde_json::to_value(&verdict).unwrap();
        assert_eq!(derived["verdict"], verdict_name(&verdict));
    }
}
