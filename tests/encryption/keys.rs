//! Which key is tried for which container.

use crate::containers::{KEY, SECRET};
use crate::support::lab::Lab;

fn lab() -> Lab {
    let lab = Lab::new();
    lab.ext4("good.img");
    lab.encrypt("good.img", "disk.img", "");
    lab
}

#[test]
fn a_container_is_called_by_its_uuid_its_path_or_its_name_in_the_guest() {
    let lab = lab();
    let uuid = lab.sh("cryptsetup luksUUID disk.img");
    for id in [uuid.trim(), "sda", "/dev/sda", "all"] {
        lab.look(&format!(
            "-n --engine user --key {id}:file:{KEY} -a disk.img"
        ))
        .is(0, &[("sda/luks", "clean")]);
    }
    let found = lab.look(&format!("-n --key sdb:file:{KEY} -a disk.img"));
    found.is(128, &[("sda", "not-checked")]);
    found.says(
        "sda",
        &[
            "there is no key for sda",
            uuid.trim(),
            "--key sda:file:FILE",
        ],
    );
}

#[test]
fn a_wrong_key_is_no_key_and_the_next_one_is_tried() {
    let lab = lab();
    lab.look(&format!(
        "-n --engine user --key sda:key:wrong --key all:file:{KEY} -a disk.img"
    ))
    .is(0, &[("sda/luks", "clean")]);
    let found = lab.look("-n --key sda:key:wrong --key all:key:wrong-too -a disk.img");
    found.is(128, &[("sda", "not-checked")]);
    found.says("sda", &["no key opens sda"]);
    assert!(!found.to_string().contains(SECRET));
    assert!(!found.to_string().contains("wrong-too"), "{found}");
}
