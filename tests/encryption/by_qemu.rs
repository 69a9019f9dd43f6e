//! Images that QEMU itself encrypts, as libvirt has it do: `<encryption format='luks'>`.

use crate::containers::{KEY, SECRET};
use crate::support::lab::Lab;

const OBJECT: &str = "--object secret,id=key,file=secret.key";

fn lab() -> Lab {
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    lab.write(KEY, SECRET);
    lab.sh(&format!(
        "qemu-img convert {OBJECT} -O luks -o key-secret=key,iter-time=10 bad.img raw.luks\n\
         qemu-img create -q {OBJECT} -f qcow2 \
         -o encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10 disk.qcow2 16M\n\
         qemu-img convert {OBJECT} -n bad.img --target-image-opts \
         driver=qcow2,file.filename=disk.qcow2,encrypt.key-secret=key"
    ));
    lab
}

const RAW: &str = "type='file'|<driver name='qemu' type='raw'/><source file='@/raw.luks'>\
                   <encryption format='luks'><secret type='passphrase' usage='x'/></encryption></source>";
const QCOW2: &str = "type='file'|<driver name='qemu' type='qcow2'/><source file='@/disk.qcow2'/>\
                     <encryption format='luks'><secret type='passphrase' usage='y'/></encryption>";

#[test]
fn raw_and_qcow2_are_repaired() {
    let lab = lab();
    lab.domain(&[RAW, QCOW2]);
    let words = format!("--engine user --key all:file:{KEY} --xml vm1.xml");
    let errors = [("vda", "errors-left"), ("vdb", "errors-left")];
    lab.look(&format!("-n {words}")).is(4, &errors);
    lab.repair(&format!("-y {words}"))
        .is(1, &[("vda", "corrected"), ("vdb", "corrected")]);
    lab.sh(&format!(
        "qemu-img convert {OBJECT} -O raw --image-opts driver=luks,file.filename=raw.luks,key-secret=key raw.back\n\
         qemu-img convert {OBJECT} -O raw --image-opts \
         driver=qcow2,file.filename=disk.qcow2,encrypt.key-secret=key qcow2.back"
    ));
    for back in ["raw.back", "qcow2.back"] {
        assert_eq!(
            lab.checksum(back),
            lab.checksum("bad.img.repaired"),
            "{back}"
        );
    }
    lab.look(&format!("-n {words}"))
        .is(0, &[("vda", "clean"), ("vdb", "clean")]);
}

#[test]
fn an_overlay_over_an_encrypted_image() {
    let lab = lab();
    lab.sh(&format!(
        "qemu-img create -q {OBJECT} -f qcow2 -F qcow2 -b 'json:{{\"driver\":\"qcow2\",\"file\":{{\"driver\":\"file\",\
         \"filename\":\"disk.qcow2\"}},\"encrypt.key-secret\":\"key\"}}' top.qcow2 16M || \
         qemu-img create -q -u -f qcow2 -F qcow2 -b \"$PWD/disk.qcow2\" top.qcow2 16M"
    ));
    lab.sh("qemu-img rebase -u -F qcow2 -b \"$PWD/disk.qcow2\" top.qcow2");
    lab.domain(&["type='file'|<driver name='qemu' type='qcow2'/><source file='@/top.qcow2'/>"]);
    let words = format!("--engine user --key all:file:{KEY} --xml vm1.xml");
    lab.look(&format!("-n {words}"))
        .is(4, &[("vda", "errors-left")]);
    let base = lab.checksum("disk.qcow2");
    lab.repair(&format!("-y {words}"))
        .is(1, &[("vda", "corrected")]);
    assert_eq!(
        lab.checksum("disk.qcow2"),
        base,
        "only the overlay is written"
    );
    lab.look(&format!("-n {words}")).is(0, &[("vda", "clean")]);
}

#[test]
fn without_its_key_an_image_is_named() {
    let lab = lab();
    lab.domain(&[RAW, QCOW2]);
    let found = lab.look("-n --key vda:key:wrong --xml vm1.xml");
    found.is(128, &[("vda", "not-checked"), ("vdb", "not-checked")]);
    found.says(
        "vda",
        &[
            "no key opens the image",
            "raw.luks",
            "vda of vm1",
            "--key vda",
        ],
    );
    found.says("vdb", &["there is no key for the image", "disk.qcow2"]);
    // One of the two is enough for its own disk.
    let found = lab.look(&format!("-n --key vdb:file:{KEY} --xml vm1.xml"));
    found.is(132, &[("vda", "not-checked"), ("vdb", "errors-left")]);
}

/// What QEMU decrypts does not lie in plain text in an overlay.
#[test]
fn the_first_versions_of_qcow2_had_aes() {
    let lab = lab();
    let (status, said) = lab.sh_status(&format!(
        "qemu-img create -q {OBJECT} -f qcow2 -o encrypt.format=aes,encrypt.key-secret=key old.qcow2 16M\n\
         qemu-img convert {OBJECT} -n bad.img --target-image-opts \
         driver=qcow2,file.filename=old.qcow2,encrypt.key-secret=key"
    ));
    assert_eq!(status, Some(0), "{said}");
    lab.domain(&[
        "type='file'|<driver name='qemu' type='qcow2'/><source file='@/old.qcow2'>\
         <encryption format='qcow'/></source>",
    ]);
    let words = format!("--engine user --key all:file:{KEY} --xml vm1.xml");
    lab.look(&format!("-n {words}"))
        .is(4, &[("vda", "errors-left")]);
}
