//! A host that lacks something, or whose images somebody else uses.

use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;

use crate::support::lab::{Lab, Loop, Mount, is_root};
use crate::support::run::Helper;

#[test]
fn a_missing_tool_is_named_with_its_package() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    lab.sh("qemu-img convert -f raw -O qcow2 bad.img bad.qcow2");
    for (tool, package) in [
        ("e2fsck", "e2fsprogs"),
        ("qemu-storage-daemon", "qemu-utils"),
    ] {
        let path = lab.sh(&format!("realpath $(command -v {tool})"));
        for mode in ["-n", "-y"] {
            let outcome = lab
                .virt_fsck(&format!("{mode} -a bad.img --image-format raw"))
                .after(&format!("mount --bind /dev/null {path}"))
                .changing_nothing();
            let told = outcome.to_string();
            assert_eq!(outcome.status, Some(8), "{outcome}");
            assert!(
                told.contains(&format!("{tool} is not installed")),
                "{outcome}"
            );
            assert!(told.contains(package), "{outcome}");
        }
    }
    let path = lab.sh("realpath $(command -v qemu-img)");
    let outcome = lab
        .virt_fsck("-y -a bad.qcow2")
        .after(&format!("mount --bind /dev/null {path}"))
        .changing_nothing();
    outcome.complains(&["qemu-img is not installed", "qemu-utils"]);
}

#[test]
fn no_fuse() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    for mode in ["-n", "-y"] {
        let outcome = lab
            .virt_fsck(&format!("{mode} -a bad.img --image-format raw"))
            .after("mount --bind /dev/null /dev/fuse")
            .changing_nothing();
        assert_eq!(outcome.status, Some(8), "{outcome}");
        assert!(outcome.to_string().contains("FUSE"), "{outcome}");
    }
}

/// Every 64th block, so that each lies in a cluster of its own.
fn far_apart() -> Vec<u32> {
    (30..200).map(|index| index * 64).collect()
}

#[test]
fn a_full_disk_under_the_state_folder() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    lab.ext4_with_a_full_journal("disk.img", &far_apart());
    lab.look("-n -a disk.img --image-format raw")
        .is(0, &[("sda", "clean")]);
    {
        let Some(_small) = Mount::new(&lab, "-t tmpfs -o size=2m none", "state") else {
            return;
        };
        lab.look("-n -a disk.img --image-format raw")
            .is(8, &[("sda", "failed")])
            .says("sda", &["state", "space", "--state-dir"]);
    }
    let Some(_full) = Mount::new(&lab, "-t tmpfs -o size=4k none", "state") else {
        return;
    };
    let full = lab.look("-n -a disk.img --image-format raw");
    full.is(8, &[("sda", "failed")])
        .says("sda", &["state", "--state-dir"]);
}

#[test]
fn no_state_folder_to_be_had() {
    let lab = Lab::new();
    lab.ext4("good.img");
    lab.write("file", "x");
    lab.look("-n -a good.img --image-format raw").is(0, &[]);
    lab.virt_fsck("-n -a good.img --image-format raw")
        .state_in("file/below")
        .changing_nothing()
        .is(8, &[("sda", "failed")])
        .says("sda", &["file/below"]);
    lab.virt_fsck("-n -a good.img --image-format raw")
        .state_in("made/when/needed")
        .changing_nothing()
        .is(0, &[("sda", "clean")]);
    assert_eq!(lab.sh("find made -type f"), "");
}

#[test]
fn an_image_that_another_process_writes() {
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    for format in ["raw", "qcow2"] {
        let name = format!("image.{format}");
        lab.sh(&format!(
            "qemu-img convert -f raw -O {format} bad.img {name}"
        ));
        let socket = lab.file("socket").display().to_string();
        {
            let writer = Helper::start(
                lab.command("qemu-nbd")
                    .args([
                        "--persistent",
                        "--format",
                        format,
                        "--socket",
                        &socket,
                        &name,
                    ])
                    .stdout(Stdio::null()),
            );
            writer.wait_for(&lab, "socket");
            for mode in ["-n", "-p", "-y", "--list", "--dry-run"] {
                lab.look(&format!("{mode} -a {name} --image-format {format}"))
                    .is(64, &[("sda", "refused")])
                    .says("sda", &[&name, "in use"]);
            }
        }
        lab.sh("rm -f socket");
        lab.look(&format!("-n -a {name} --image-format {format}"))
            .is(4, &[("sda", "errors-left")]);
    }
}

/// The host's own use: QEMU's locks know nothing of it.
#[test]
fn an_image_that_the_host_itself_uses() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    lab.sh("cp bad.img other.img; ln bad.img another-name");
    let looped = Loop::attach(&lab, "", "bad.img");
    for mode in ["-n", "-y", "--list"] {
        for name in ["bad.img", "another-name"] {
            lab.look(&format!("{mode} -a {name} --image-format raw"))
                .is(64, &[("sda", "refused")])
                .says("sda", &[name, "in use by this host", &looped.device]);
        }
    }
    let claimed_device = Loop::attach(&lab, "", "other.img");
    // As mount(2), swapon(2) and device-mapper do: O_EXCL.
    let claimed = std::fs::File::options()
        .read(true)
        .custom_flags(i32::try_from(rustix::fs::OFlags::EXCL.bits()).unwrap())
        .open(&claimed_device.device)
        .unwrap();
    lab.look(&format!("-y -a {}", claimed_device.device))
        .is(64, &[("sda", "refused")])
        .says("sda", &[&claimed_device.device, "lsblk"]);
    drop(claimed);
    lab.look(&format!("-n -a {}", claimed_device.device))
        .is(4, &[("sda", "errors-left")]);
}

#[test]
fn nobody_else_can_write_an_image_while_it_is_checked() {
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    lab.script(
        "tools/e2fsck",
        "touch started\nwhile [ ! -e go ]; do sleep 0.02; done\nexec /usr/sbin/e2fsck \"$@\"\n",
    );
    for format in ["raw", "qcow2"] {
        for mode in ["-n", "-y"] {
            lab.sh(&format!(
                "rm -f started go; qemu-img convert -f raw -O {format} bad.img image"
            ));
            let mut running = lab
                .virt_fsck(&format!("{mode} -a image --image-format {format}"))
                .tools_in("tools")
                .start();
            running.wait_for("started");
            let (status, said) =
                lab.sh_status(&format!("qemu-io -f {format} -c 'write 0 512' image"));
            assert_ne!(status, Some(0), "{format} {mode}: {said}");
            assert!(said.contains("lock"), "{format} {mode}: {said}");
            lab.write("go", "");
            let outcome = running.finish();
            let expected = if mode == "-n" { 4 } else { 1 };
            outcome.is(expected, &[]);
        }
    }
}

#[test]
fn two_at_once() {
    let lab = Lab::new();
    lab.damaged_ext4("image");
    lab.script(
        "tools/e2fsck",
        "touch started\nwhile [ ! -e go ]; do sleep 0.02; done\nexec /usr/sbin/e2fsck \"$@\"\n",
    );
    let mut first = lab
        .virt_fsck("-y -a image --image-format raw")
        .tools_in("tools")
        .start();
    first.wait_for("started");
    let second = lab
        .virt_fsck("-y -a image --image-format raw")
        .plain()
        .start()
        .child
        .wait_with_output()
        .unwrap();
    assert_eq!(second.status.code(), Some(64), "{second:?}");
    lab.write("go", "");
    first.finish().is(1, &[("sda", "corrected")]);
    assert_eq!(lab.checksum("image"), lab.checksum("image.repaired"));
}

#[test]
fn a_plain_user_checks_his_own_image() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    lab.sh("qemu-img convert -f raw -O qcow2 bad.img bad.qcow2\n\
         chmod 755 .; chmod 1777 run state; chown 65534:65534 bad.qcow2\n\
         touch fuse");
    let run = |words: &str| {
        lab.virt_fsck(words)
            .with_fuse_for_all()
            .as_user(65534)
            .in_a_namespace_that_stays()
    };
    run("-n -a bad.qcow2")
        .changing_nothing()
        .is(4, &[("sda", "errors-left")]);
    let repaired = run("-y -a bad.qcow2").changing_images();
    repaired.is(1, &[("sda", "corrected")]);
    assert!(!repaired.stderr.contains("fuse"), "{repaired}");
    lab.sh("qemu-img convert -f qcow2 -O raw bad.qcow2 back.img");
    assert_eq!(lab.checksum("back.img"), lab.checksum("bad.img.repaired"));
    let clean = run("-n -a bad.qcow2").changing_nothing();
    clean.is(0, &[("sda", "clean")]);
    assert_eq!(lab.sh("stat -c %u bad.qcow2").trim(), "65534");
}

#[test]
fn the_kernel_engine_says_what_it_lacks() {
    let lab = Lab::new();
    lab.ext4("good.img");
    let words = "-n -a good.img --image-format raw --engine kernel";
    if !is_root() {
        let outcome = lab.look(words);
        outcome
            .is(8, &[("domain", "failed")])
            .says("domain", &["needs root"]);
        return;
    }
    lab.sh("chmod 755 .; chmod 1777 run state; chmod 644 good.img");
    let user = lab.virt_fsck(words).as_user(65534).changing_nothing();
    user.is(8, &[("domain", "failed")])
        .says("domain", &["the kernel engine needs root"]);
    let without = lab
        .virt_fsck(words)
        .after("mkdir -p /dev/mapper; mount -t tmpfs none /dev/mapper")
        .changing_nothing();
    without
        .is(8, &[("domain", "failed")])
        .says("domain", &["needs device-mapper", "modprobe dm-mod"]);
    // What needs no device-mapper is done without it.
    lab.virt_fsck("-n -a good.img --image-format raw")
        .after("mkdir -p /dev/mapper; mount -t tmpfs none /dev/mapper")
        .changing_nothing()
        .is(0, &[("sda", "clean")]);
}
