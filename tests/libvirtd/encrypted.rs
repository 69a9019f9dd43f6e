//! Disks that libvirt has QEMU encrypt, with the passphrase in a secret.

use crate::secrets::define;
use crate::site::Site;

/// "open sesame", as libvirt takes it.
const VALUE: &str = "b3BlbiBzZXNhbWU=";

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn an_encrypted_disk_is_opened_by_its_secret() {
    let Some(site) = Site::new() else {
        return;
    };
    let lab = &site.lab;
    lab.damaged_ext4("bad.img");
    lab.write("passphrase", "open sesame");
    lab.sh(
        "qemu-img convert --object secret,id=key,file=passphrase -O luks \
         -o key-secret=key,iter-time=10 bad.img disk.luks; cp disk.luks other.luks; rm passphrase",
    );
    let open = define(&site, "/open", "no", Some(VALUE));
    let private = define(&site, "/private", "yes", Some(VALUE));
    let disk = |file: &str, secret: &str| {
        format!(
            "type='file'|<driver type='raw'/><source file='@/{file}'><encryption format='luks'>\
             <secret type='passphrase' {secret}/></encryption></source>"
        )
    };
    let disks = [
        disk("disk.luks", &format!("uuid='{open}'")),
        disk("other.luks", "usage='/private'"),
    ];
    site.define("vm1", &disks.each_ref().map(String::as_str));
    let found = lab.repair("-c qemu:///system -d vm1 -y");
    found.is(129, &[("vda", "corrected"), ("vdb", "not-checked")]);
    found.says(
        "vdb",
        &[
            "the image",
            "other.luks",
            "reveals a private secret to nobody",
            "--key",
        ],
    );
    lab.write("passphrase", "open sesame");
    lab.sh(
        "qemu-img convert --object secret,id=key,file=passphrase -O raw --image-opts \
         driver=luks,file.filename=disk.luks,key-secret=key back.img",
    );
    assert_eq!(lab.checksum("back.img"), lab.checksum("bad.img.repaired"));
    // The ways out that the sentence names.
    lab.repair("-c qemu:///system -d vm1 -y --key vdb:file:passphrase")
        .is(1, &[("vda", "clean"), ("vdb", "corrected")]);
    site.virsh("undefine vm1");
    for name in [open, private] {
        site.virsh(&format!("secret-undefine {name}"));
    }
}
