//! What the kernel does with an image: mounts, swap, devices made of it.

use std::process::Command;

use crate::support::lab::{Lab, Loop, Mount, is_root};
use crate::support::run::Helper;
use crate::{is_free, is_refused};

/// Swap of the host; taken back when dropped, also by a failing test.
struct Swap(String);

impl Swap {
    fn on(lab: &Lab, path: &str) -> Option<Self> {
        let (status, said) = lab.sh_status(&format!("mkswap -q {path} && swapon {path}"));
        if status != Some(0) {
            eprintln!("SKIPPED: {said}");
            return None;
        }
        Some(Self(path.to_owned()))
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        let off = Command::new("/usr/sbin/swapoff").arg(&self.0).status();
        if !off.is_ok_and(|status| status.success()) {
            eprintln!("{} is left as swap", self.0);
        }
    }
}

#[test]
fn a_loop_device_over_it() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    lab.sh("ln bad.img other-name; ln bad.img kept");
    let looped = Loop::attach(&lab, "", "other-name");
    let words = format!(
        "the loop device {device} lies over it; losetup -d {device} detaches it when nothing \
         uses it",
        device = looped.device
    );
    is_refused(&lab, "bad.img", &[&words]);
    // The path that the kernel knows leads nowhere any longer, or elsewhere.
    lab.sh("rm other-name");
    is_refused(&lab, "bad.img", &[&words]);
    lab.sh("echo 'another file' >other-name");
    is_refused(&lab, "bad.img", &[&words]);
    // Another loop device of the same file, and one over that.
    let second = Loop::attach(&lab, "", "bad.img");
    let beside = format!(
        "the loop device {} lies over the same storage",
        looped.device
    );
    is_refused(&lab, &second.device, &[&beside]);
    drop(looped);
    let third = Loop::attach(&lab, "", &second.device);
    let upon = format!("the loop device {} lies over it", third.device);
    is_refused(&lab, &second.device, &[&upon]);
    is_refused(&lab, "bad.img", &["the loop device "]);
    drop(third);
    is_free(&lab, &second.device);
    drop(second);
    is_free(&lab, "bad.img");
}

/// A path that exists in no mount namespace but that of whoever attached it.
#[test]
fn a_loop_device_of_another_namespace() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    let device = lab.sh(
        "mkdir hidden; unshare -m bash -c 'mount -t tmpfs none hidden; touch hidden/image; \
         mount --bind bad.img hidden/image; losetup --find --show hidden/image'",
    );
    let looped = Loop {
        device: device.trim().to_owned(),
    };
    let words = format!("the loop device {} lies over it", looped.device);
    is_refused(&lab, "bad.img", &[&words]);
    drop(looped);
    is_free(&lab, "bad.img");
}

#[test]
fn what_is_mounted() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    let looped = Loop::attach(&lab, "", "bad.img");
    let device = &looped.device;
    {
        let Some(_mount) = Mount::new(&lab, &format!("-o ro,noload {device}"), "mnt") else {
            return;
        };
        let place = "/mnt; unmount it first";
        is_refused(&lab, device, &["it is mounted at /", place]);
        let over = format!("the loop device {device} over it is mounted at /");
        is_refused(&lab, "bad.img", &[&over, place]);
    }
    is_free(&lab, device);
}

#[test]
fn what_is_mounted_where_nobody_else_sees_it() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    let looped = Loop::attach(&lab, "", "bad.img");
    let script = format!(
        "mkdir hidden; mount -o ro,noload {} hidden; touch ready.log; exec sleep 1000",
        looped.device
    );
    let mut command = lab.command("unshare");
    command.args(["--mount", "--propagation", "private", "bash", "-c", &script]);
    let holder = Helper::start(&mut command);
    holder.wait_for(&lab, "ready.log");
    lab.sh(&format!(
        "! grep -q '{} ' /proc/self/mountinfo",
        looped.device
    ));
    let words = [
        "it is mounted at /",
        "/hidden in the mount namespace of process ",
    ];
    is_refused(&lab, &looped.device, &words);
    is_refused(&lab, "bad.img", &["over it is mounted at /"]);
    drop(holder);
    is_free(&lab, &looped.device);
}

#[test]
fn swap() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    // What is mounted or swap is not compared: its bytes come when the kernel likes.
    lab.sh("truncate -s 16M image.log; truncate -s 64M disk.log; mke2fs -q -t ext4 disk.log");
    {
        let looped = Loop::attach(&lab, "", "image.log");
        let Some(_swap) = Swap::on(&lab, &looped.device) else {
            return;
        };
        let way_out = format!("swapoff {} gives it back", looped.device);
        is_refused(&lab, &looped.device, &["it is swap of this host", &way_out]);
        is_refused(
            &lab,
            "image.log",
            &["over it is swap of this host", &way_out],
        );
    }
    let Some(mount) = Mount::new(&lab, "-o loop disk.log", "mnt") else {
        return;
    };
    lab.sh("dd if=/dev/zero of=mnt/file.log bs=1M count=8 status=none; chmod 600 mnt/file.log");
    let file = mount.folder.join("file.log").display().to_string();
    let _swap = Swap::on(&lab, &file).unwrap();
    is_refused(&lab, "mnt/file.log", &["it is swap of this host"]);
}

/// With O_EXCL, as mount(2), swapon(2) and device-mapper do: whoever it is, the kernel says that
/// there is one.
#[test]
fn what_the_kernel_holds_for_somebody_unknown() {
    use std::os::unix::fs::OpenOptionsExt;
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    let looped = Loop::attach(&lab, "", "bad.img");
    let claimed = std::fs::File::options()
        .read(true)
        .custom_flags(i32::try_from(rustix::fs::OFlags::EXCL.bits()).unwrap())
        .open(&looped.device)
        .unwrap();
    is_refused(&lab, &looped.device, &["part of another device", "lsblk"]);
    drop(claimed);
    is_free(&lab, &looped.device);
}
