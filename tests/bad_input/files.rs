//! Images that are not there, or are none.

use crate::support::lab::{Lab, is_root};

#[test]
fn no_image() {
    let lab = Lab::new();
    lab.look("-y -a missing.img")
        .complains(&["missing.img", "does not exist"]);
    lab.sh("mkdir folder; mkfifo pipe; ln -s nowhere dangling");
    lab.look("-y -a folder")
        .complains(&["folder", "a directory, not an image"]);
    lab.look("-y -a pipe").complains(&["pipe", "not an image"]);
    lab.look("-y -a dangling")
        .complains(&["dangling", "does not exist"]);
    lab.look("-y -a /dev/null")
        .complains(&["/dev/null", "a character device"]);
    lab.look("-y -a folder/none/none")
        .complains(&["folder/none/none"]);
    let no_folder = lab.look("-y -a /proc/version/x");
    no_folder.complains(&["/proc/version/x"]);
}

#[test]
fn no_image_where_the_xml_says_there_is_one() {
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    let disk = |name: &str| {
        format!("type='file'|<driver name='qemu' type='qcow2'/><source file='@/{name}'/>")
    };
    lab.sh("mkdir folder");
    lab.domain(&[
        &disk("missing"),
        &disk("folder"),
        "type='file'|<driver name='qemu' type='raw'/><source file='@/bad.img'/>",
        "type='file'|<driver name='qemu' type='raw'/><source file='@/gone' startupPolicy='optional'/>",
        "type='network'|<driver name='qemu' type='raw'/><source protocol='rbd' name='pool/vm1'/>",
    ]);
    let outcome = lab.look("-n --xml vm1.xml");
    outcome
        .is(
            140,
            &[
                ("vda", "failed"),
                ("vdb", "failed"),
                ("vdc", "errors-left"),
                ("vdd", "nothing-to-check"),
                ("vde", "not-checked"),
            ],
        )
        .says("vda", &["missing", "does not exist"])
        .says("vdb", &["folder", "directory"])
        .says("vde", &["rbd"]);
}

#[test]
fn images_cut_off_in_the_middle() {
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    for format in ["qcow2", "vmdk", "vdi", "vhdx", "vpc", "qed"] {
        lab.sh(&format!(
            "qemu-img convert -f raw -O {format} bad.img whole"
        ));
        let size = std::fs::metadata(lab.file("whole")).unwrap().len();
        // A sound qcow2 may end inside its last cluster; what is cut off there looks the same.
        let parts: &[u64] = match format {
            "qcow2" => &[10, 60],
            _ => &[10, 60, 99],
        };
        for part in parts {
            lab.cut("whole", 0, size * part / 100, "cut.img");
            for mode in ["-n", "-y", "--list"] {
                let outcome = lab.look(&format!("{mode} -a cut.img --image-format {format}"));
                outcome
                    .is(8, &[("sda", "failed")])
                    .says("sda", &["cut.img"]);
            }
        }
    }
}

#[test]
fn a_header_that_makes_no_sense() {
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    lab.sh("qemu-img convert -f raw -O qcow2 bad.img good.qcow2");
    // docs/interop/qcow2.txt: version, cluster bits, L1 table offset, incompatible features.
    for (name, offset, bytes) in [
        ("version", 4, &[0xff; 4][..]),
        ("cluster-bits", 20, &[0, 0, 0, 63]),
        ("l1-offset", 40, &[0xff; 8]),
        ("features", 72, &[0xff; 8]),
    ] {
        let file = format!("{name}.qcow2");
        std::fs::copy(lab.file("good.qcow2"), lab.file(&file)).unwrap();
        lab.patch(&file, offset, bytes);
        let outcome = lab.look(&format!("-y -a {file} --image-format qcow2"));
        outcome.is(8, &[("sda", "failed")]).says("sda", &[&file]);
    }
    lab.write("text.qcow2", "this is no image\n");
    lab.look("-y -a text.qcow2 --image-format qcow2")
        .is(8, &[("sda", "failed")])
        .says("sda", &["text.qcow2", "not in qcow2 format"]);
    lab.write("empty.qcow2", "");
    lab.look("-y -a empty.qcow2 --image-format qcow2")
        .is(8, &[("sda", "failed")])
        .says("sda", &["empty.qcow2"]);
}

#[test]
fn chains_that_lead_nowhere() {
    let lab = Lab::new();
    lab.damaged_ext4("base.img");
    lab.sh(
        "qemu-img create -q -f qcow2 -b base.img -F raw gone.qcow2\n\
         qemu-img rebase -q -u -f qcow2 -F raw -b $PWD/nowhere.img gone.qcow2\n\
         qemu-img create -q -f qcow2 -b base.img -F raw one.qcow2\n\
         qemu-img create -q -f qcow2 -b one.qcow2 -F qcow2 two.qcow2\n\
         qemu-img rebase -q -u -f qcow2 -F qcow2 -b two.qcow2 one.qcow2\n\
         qemu-img create -q -f qcow2 -b base.img -F raw nbd.qcow2\n\
         qemu-img rebase -q -u -f qcow2 -F raw -b nbd://127.0.0.1:1/x nbd.qcow2\n\
         qemu-img create -q -f qcow2 -o size=16M,data_file=data.raw ext.qcow2; rm data.raw",
    );
    for (name, words) in [
        ("gone.qcow2", "nowhere.img"),
        ("two.qcow2", "infinite loop"),
        ("ext.qcow2", "data.raw"),
    ] {
        lab.look(&format!("-y -a {name} --image-format qcow2"))
            .is(8, &[("sda", "failed")])
            .says("sda", &[words]);
    }
    let elsewhere = lab.look("-y -a nbd.qcow2 --image-format qcow2");
    assert!(
        [Some(8), Some(128)].contains(&elsewhere.status),
        "{elsewhere}"
    );
    elsewhere.says("sda", &["nbd"]);
}

#[test]
fn an_image_of_somebody_else() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    lab.sh("chmod 755 .; chmod 1777 run state; chmod 600 bad.img; mkdir -m 700 closed; cp bad.img closed");
    let run = |words: &str| lab.virt_fsck(words).as_user(65534).changing_nothing();
    run("-y -a bad.img --image-format raw")
        .is(8, &[("sda", "failed")])
        .says(
            "sda",
            &["bad.img", "read and write", "Permission denied", "as root"],
        );
    lab.sh("chmod 644 bad.img");
    run("-y -a bad.img --image-format raw")
        .is(8, &[("sda", "failed")])
        .says("sda", &["bad.img", "as root or as its owner"]);
    run("-y -a closed/bad.img --image-format raw")
        .is(8, &[("sda", "failed")])
        .says("sda", &["closed/bad.img", "Permission denied"]);
    run("-n -a closed/bad.img").complains(&["closed/bad.img", "Permission denied"]);
    run("-n -a bad.img").is(4, &[("sda", "errors-left")]);
}
