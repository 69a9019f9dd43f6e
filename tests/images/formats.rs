//! The same damaged filesystem in every format of an image.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::support::lab::{Lab, Loop, is_root};

/// Errors found and nothing changed; repaired; sound. Afterwards the image holds what e2fsck alone
/// makes of the same bytes. `back` is the command that turns the image into `back.img` again.
fn found_repaired_sound(lab: &Lab, target: &str, arguments: &str, back: &str) {
    let found = lab.look(&format!("-n {arguments}"));
    found.is(4, &[(target, "errors-left")]);
    assert!(
        found.layer(target)["result"]["output"]
            .as_str()
            .unwrap()
            .contains("'f7'")
    );
    let checksum = lab.checksum("bad.img.repaired");
    lab.repair(&format!("-y {arguments}"))
        .is(1, &[(target, "corrected")]);
    lab.sh(back);
    assert_eq!(lab.checksum("back.img"), checksum, "{arguments}");
    lab.look(&format!("-n {arguments}"))
        .is(0, &[(target, "clean")]);
}

fn lab() -> Lab {
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    lab
}

#[test]
fn every_format_that_qemu_can_write() {
    let lab = lab();
    for format in ["raw", "qcow2", "vmdk", "vdi", "vhdx", "vpc", "qed"] {
        lab.sh(&format!(
            "qemu-img convert -f raw -O {format} bad.img image.{format}"
        ));
        found_repaired_sound(
            &lab,
            "sda",
            &format!("-a image.{format} --image-format {format}"),
            // A VHD's size is rounded up to whole cylinders.
            &format!(
                "qemu-img convert -f {format} -O raw image.{format} back.img; truncate -s 16M back.img"
            ),
        );
    }
}

#[test]
fn what_qemu_finds_is_taken_where_it_cannot_mislead() {
    let lab = lab();
    for format in ["raw", "qcow2", "vmdk", "vdi", "vhdx"] {
        lab.sh(&format!(
            "qemu-img convert -f raw -O {format} bad.img image"
        ));
        lab.look("-n -a image").is(4, &[("sda", "errors-left")]);
        lab.sh("rm image");
    }
    lab.sh("qemu-img create -q -f qcow2 -b bad.img -F raw image");
    lab.look("-n -a image")
        .complains(&["image", "names another file", "--image-format qcow2"]);
}

#[test]
fn a_chain_is_repaired_at_its_top_only() {
    for base_format in ["raw", "qcow2"] {
        let lab = lab();
        lab.sh(&format!(
            "qemu-img convert -f raw -O {base_format} bad.img base\n\
             qemu-img create -q -f qcow2 -b base -F {base_format} middle\n\
             qemu-img create -q -f qcow2 -b $PWD/middle -F qcow2 top"
        ));
        lab.domain(&["type='file'|<driver name='qemu' type='qcow2'/><source file='@/top'/>"]);
        let before = [lab.checksum("base"), lab.checksum("middle")];
        found_repaired_sound(
            &lab,
            "vda",
            "--xml vm1.xml",
            "qemu-img convert -f qcow2 -O raw top back.img",
        );
        assert_eq!(before, [lab.checksum("base"), lab.checksum("middle")]);
    }
}

#[test]
fn a_chain_that_the_xml_gives() {
    let lab = lab();
    lab.sh(
        "cp bad.img base; qemu-img create -q -f qcow2 -b base -F raw top\n\
         qemu-img rebase -q -u -f qcow2 -F raw -b /no/such/file top",
    );
    lab.domain(&[
        "type='file'|<driver name='qemu' type='qcow2'/><source file='@/top'/>\
         <backingStore type='file'><format type='raw'/><source file='@/base'/><backingStore/>\
         </backingStore>",
    ]);
    let before = lab.checksum("base");
    lab.look("-n --xml vm1.xml")
        .is(4, &[("vda", "errors-left")]);
    lab.repair("-y --xml vm1.xml")
        .is(1, &[("vda", "corrected")]);
    assert_eq!(before, lab.checksum("base"));
}

#[test]
fn an_external_data_file() {
    let lab = lab();
    lab.sh("mkdir deep; cd deep\n\
         qemu-img convert -f raw -O qcow2 -o data_file=data,data_file_raw=on ../bad.img image");
    found_repaired_sound(
        &lab,
        "sda",
        "-a deep/image --image-format qcow2",
        "cp deep/data back.img",
    );
}

#[test]
fn a_block_device() {
    if !is_root() {
        return;
    }
    let lab = lab();
    lab.sh("cp bad.img back.img");
    let disk = Loop::attach(&lab, "", "back.img");
    lab.domain(&[&format!(
        "type='block'|<driver name='qemu' type='raw'/><source dev='{}'/>",
        disk.device
    )]);
    let flush = format!("blockdev --flushbufs {}", disk.device);
    found_repaired_sound(&lab, "vda", "--xml vm1.xml", &flush);
    let device = &disk.device;
    let by_name = lab.look(&format!("-n -a {device}"));
    by_name.is(0, &[("sda", "clean")]);
    assert_eq!(by_name.disks().next().unwrap()["format"], "raw");
}

#[test]
fn a_slice_of_a_file() {
    let lab = lab();
    lab.sh("qemu-img convert -f raw -O qcow2 bad.img inner.qcow2");
    for (name, inner, driver) in [
        ("raw.img", "bad.img", "raw"),
        ("qcow2.img", "inner.qcow2", "qcow2"),
    ] {
        lab.sh(&format!(
            "head -c 1048576 /dev/urandom >{name}; cat {inner} >>{name}; truncate -s 24M {name}\n\
             head -c 1048576 /dev/urandom >>{name}"
        ));
        // The guest's writes may make a qcow2 longer; it stays in its slice.
        let size = match driver {
            "raw" => 16 << 20,
            _ => 23 << 20,
        };
        lab.domain(&[&format!(
            "type='file'|<driver name='qemu' type='{driver}'/><source file='@/{name}'><slices>\
             <slice type='storage' offset='1048576' size='{size}'/></slices></source>"
        )]);
        let outside = "{ head -c 1M $N; tail -c 1M $N; } | sha256sum";
        let outside = outside.replace("$N", name);
        let before = lab.sh(&outside);
        found_repaired_sound(
            &lab,
            "vda",
            "--xml vm1.xml",
            &format!(
                "dd if={name} of=slice bs=1M skip=1 count={} status=none\n\
                 qemu-img convert -f {driver} -O raw slice back.img",
                size >> 20
            ),
        );
        assert_eq!(before, lab.sh(&outside));
    }
}

#[test]
fn sectors_of_4096_bytes() {
    if !is_root() {
        return;
    }
    let lab = lab();
    lab.sh("truncate -s 32M disk.img");
    {
        let disk = Loop::attach(&lab, "--sector-size 4096", "disk.img");
        lab.sh(&format!(
            "printf 'label: gpt\\nstart=256, size=4096\\n' | sfdisk -q --no-reread --no-tell-kernel {}",
            disk.device
        ));
    }
    lab.put("bad.img", "disk.img", 256 * 8);
    let disk = "type='file'|<driver name='qemu' type='raw'/><source file='@/disk.img'/>";
    lab.domain(&[&format!("{disk}<blockio logical_block_size='4096'/>")]);
    let listed = lab.look("--list --xml vm1.xml");
    assert_eq!(listed.layer("vda")["sector_bytes"], 4096, "{listed}");
    assert_eq!(listed.layer("vda/p1")["offset_bytes"], 1 << 20);
    found_repaired_sound(
        &lab,
        "vda/p1",
        "--xml vm1.xml",
        "dd if=disk.img of=back.img bs=1M skip=1 count=16 status=none",
    );
    lab.domain(&[disk]);
    let wrong = lab.look("-n --xml vm1.xml");
    assert_ne!(wrong.status, Some(0), "{wrong}");
}

#[test]
fn names_that_mean_something_to_somebody() {
    let lab = lab();
    for name in [
        "a,b=c",
        "nbd:localhost:10809",
        "json:{}",
        "two words",
        "it's \"quoted\"",
        "new\nline",
        "caf\u{e9}\u{202e}",
        "$HOME;`x`",
        "-n",
        "%s%n",
    ] {
        // qcow2 is opened by qemu-img too, which has ideas of its own of a file's name.
        for format in ["raw", "qcow2"] {
            let path = lab.path().join(name);
            let made = lab
                .command("qemu-img")
                .args(["convert", "-f", "raw", "-O", format, "bad.img", "plain"])
                .status();
            assert!(made.unwrap().success());
            std::fs::rename(lab.file("plain"), &path).unwrap();
            let given = match name.starts_with('-') {
                true => path.as_os_str(),
                false => OsStr::new(name),
            };
            let run = |mode: &str| lab.virt_fsck(mode).argument(given);
            run("-n -a")
                .changing_nothing()
                .is(4, &[("sda", "errors-left")]);
            run(&format!("--image-format {format} -y -a"))
                .changing_images()
                .is(1, &[("sda", "corrected")]);
            std::fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn a_name_that_is_not_utf_8_is_opened_or_refused_but_never_mistaken() {
    let lab = lab();
    let path = lab.path().join(OsStr::from_bytes(b"caf\xe9"));
    std::fs::rename(lab.file("bad.img"), &path).unwrap();
    // What its name would be taken for.
    lab.write("caf\u{fffd}", "another file");
    let outcome = lab
        .virt_fsck("-n --image-format raw -a")
        .argument(&path)
        .changing_nothing();
    match outcome.status {
        Some(4) => outcome.is(4, &[("sda", "errors-left")]),
        _ => outcome.is(8, &[("sda", "failed")]).says("sda", &["UTF-8"]),
    };
}

#[test]
fn a_size_that_is_no_whole_number_of_sectors() {
    let lab = lab();
    lab.sh("cp bad.img odd.img; truncate -s +100 odd.img");
    lab.look("-n -a odd.img").is(4, &[("sda", "errors-left")]);
    lab.repair("-y -a odd.img").is(1, &[("sda", "corrected")]);
    lab.cut("odd.img", 0, 16 << 20, "back.img");
    assert_eq!(lab.checksum("back.img"), lab.checksum("bad.img.repaired"));
}

#[test]
fn several_images_are_one_guest() {
    let lab = lab();
    lab.ext4("good.img");
    let outcome = lab.look("-n -a good.img -a bad.img --image-format raw");
    outcome.is(4, &[("sda", "clean"), ("sdb", "errors-left")]);
    let one = lab.look("-n -a good.img -a bad.img --image-format raw --disk sda");
    one.is(0, &[("sda", "clean")]);
    assert!(
        one.find("sdb")
            .is_none_or(|layer| layer["result"].is_null()),
        "{one}"
    );
}

#[test]
fn what_the_guest_may_not_write_is_only_checked() {
    let lab = lab();
    lab.sh("cp bad.img back.img");
    lab.domain(&[
        "type='file'|<driver name='qemu' type='raw'/><source file='@/back.img'/><readonly/>",
    ]);
    let outcome = lab.look("-y --xml vm1.xml");
    outcome.is(4, &[("vda", "errors-left")]);
    assert!(outcome.notes("vda").contains("read-only"), "{outcome}");
}
