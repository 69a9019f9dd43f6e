//! LUKS2 tokens: what else than a passphrase opens a container.

use crate::containers::{KEY, SECRET};
use crate::support::lab::{Lab, is_root};

fn lab() -> Lab {
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    lab.encrypt("bad.img", "disk.img", "");
    lab
}

const RUN: &str = "--engine user -a disk.img --image-format raw";

/// A token that cryptsetup itself knows: the passphrase is in the kernel's keyring of the session.
#[test]
fn a_token_of_cryptsetup() {
    if !is_root() {
        return;
    }
    let lab = lab();
    lab.sh("cryptsetup token add --key-description e2e:test disk.img");
    let without = lab.look(&format!("-n {RUN}"));
    without.is(128, &[("sda", "not-checked")]);
    without.says(
        "sda",
        &[
            "its header has tokens (luks2-keyring)",
            "--key sda:clevis only",
        ],
    );
    let keyring = format!(
        "keyctl new_session >/dev/null 2>&1\n\
         keyctl add user e2e:test '{SECRET}' @s >/dev/null"
    );
    let header = lab.sh("head -c 16M disk.img | sha256sum");
    // What a guest has written is not acted upon unasked.
    lab.virt_fsck(&format!("-n {RUN}"))
        .after(&keyring)
        .changing_nothing()
        .is(128, &[("sda", "not-checked")]);
    lab.virt_fsck(&format!("-n --key sda:clevis {RUN}"))
        .after(&keyring)
        .changing_nothing()
        .is(4, &[("sda/luks", "errors-left")]);
    lab.virt_fsck(&format!("-y --key all:clevis {RUN}"))
        .after(&keyring)
        .changing_images()
        .is(1, &[("sda/luks", "corrected")]);
    // The slot that was added for the token's sake was added to a copy.
    assert_eq!(lab.sh("head -c 16M disk.img | sha256sum"), header);
}

/// Clevis tells the passphrase. Its pin `null` needs nobody else.
#[test]
fn a_token_of_clevis() {
    let lab = lab();
    lab.sh(&format!(
        "clevis luks bind -y -k {KEY} -d disk.img null '{{}}'"
    ));
    lab.look(&format!("-n {RUN}"))
        .is(128, &[("sda", "not-checked")]);
    lab.look(&format!("-n --key sda:clevis {RUN}"))
        .is(4, &[("sda/luks", "errors-left")]);
    lab.repair(&format!("-y --key sda:clevis {RUN}"))
        .is(1, &[("sda/luks", "corrected")]);
}
