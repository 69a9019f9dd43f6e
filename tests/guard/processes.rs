//! Processes that have an image open.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::support::lab::{Lab, Loop, is_root};
use crate::support::run::Helper;
use crate::{is_free, is_refused};

/// This test program is none of virt-fsck's own processes.
fn by_us() -> String {
    let name = std::fs::read_to_string("/proc/self/comm").unwrap();
    format!(
        "in process {} ({}); end that first",
        std::process::id(),
        name.trim_end()
    )
}

fn opened_for_writing(file: &Path) -> File {
    File::options().read(true).write(true).open(file).unwrap()
}

#[test]
fn a_file_that_is_open_for_writing() {
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    lab.sh("ln bad.img another-name");
    let open = format!("it is open for writing {}", by_us());
    {
        let _held = opened_for_writing(&lab.file("bad.img"));
        is_refused(&lab, "bad.img", &[&open]);
        is_refused(&lab, "another-name", &[&open]);
    }
    is_free(&lab, "bad.img");
    // Who only reads does no harm, and takes none but that it reads what changes.
    let _reader = File::open(lab.file("bad.img")).unwrap();
    let repaired = lab.repair("-y -a bad.img --image-format raw");
    repaired.is(1, &[("sda", "corrected")]);
    assert_eq!(lab.checksum("bad.img"), lab.checksum("bad.img.repaired"));
}

#[test]
fn a_process_by_its_name() {
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    let script = "exec 7<>bad.img; echo $$ >ready.log; exec sleep 1000";
    let writer = Helper::start(lab.command("bash").args(["-c", script]));
    writer.wait_for(&lab, "ready.log");
    let number = lab.sh("until grep -q . ready.log; do sleep 0.01; done; cat ready.log");
    let words = format!("open for writing in process {} (sleep)", number.trim_end());
    lab.sh("until [[ $(</proc/$(<ready.log)/comm) == sleep ]]; do sleep 0.01; done");
    is_refused(&lab, "bad.img", &[&words]);
    drop(writer);
    is_free(&lab, "bad.img");
}

#[test]
#[expect(unsafe_code, reason = "a mapping is what is tested")]
fn a_file_that_is_only_mapped() {
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    let file = opened_for_writing(&lab.file("bad.img"));
    // SAFETY: nobody looks at its bytes.
    let mapped = unsafe { memmap2::MmapMut::map_mut(&file) }.unwrap();
    drop(file);
    let words = format!("it is mapped for writing {}", by_us());
    is_refused(&lab, "bad.img", &[&words]);
    drop(mapped);
    let file = File::open(lab.file("bad.img")).unwrap();
    // SAFETY: nobody looks at its bytes.
    let _read = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    is_free(&lab, "bad.img");
}

#[test]
fn the_image_under_an_overlay() {
    let lab = Lab::new();
    lab.damaged_ext4("base.img");
    lab.sh("qemu-img create -q -f qcow2 -F raw -b $PWD/base.img top.qcow2");
    let held = opened_for_writing(&lab.file("base.img"));
    for mode in ["-n", "-y"] {
        lab.look(&format!("{mode} -a top.qcow2 --image-format qcow2"))
            .is(64, &[("sda", "refused")])
            .says("sda", &["/base.img is in use by this host", &by_us()]);
    }
    drop(held);
    lab.look("-n -a top.qcow2 --image-format qcow2")
        .is(4, &[("sda", "errors-left")]);
}

/// By a node that has another name and another inode, as QEMU in libvirt's namespace has it.
#[test]
fn a_device_by_any_node() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    let looped = Loop::attach(&lab, "", "bad.img");
    let number = std::fs::metadata(&looped.device).unwrap().rdev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    lab.sh(&format!("mknod node b {major} {minor}"));
    {
        let _held = opened_for_writing(&lab.file("node"));
        let words = format!("it is open for writing {}", by_us());
        is_refused(&lab, &looped.device, &[&words]);
    }
    {
        let _held = opened_for_writing(&lab.file("bad.img"));
        let words = format!("/bad.img under it is open for writing {}", by_us());
        is_refused(&lab, &looped.device, &["the file ", &words]);
    }
    {
        let _reader = File::open(lab.file("node")).unwrap();
        is_free(&lab, &looped.device);
    }
    lab.sh("rm node");
}

/// It is asked again before each filesystem, and what is ours is not taken for somebody else's.
#[test]
fn a_writer_that_comes_meanwhile() {
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    lab.sh("truncate -s 40M disk.img; sfdisk -q disk.img <<'END'\n\
         label: gpt\nstart=2048, size=32768\nstart=34816, size=32768\nEND");
    lab.put("bad.img", "disk.img", 2048);
    lab.put("bad.img", "disk.img", 34816);
    lab.script(
        "tools/e2fsck",
        "touch started.log\nwhile [ ! -e go.log ]; do sleep 0.02; done\n\
         exec /usr/sbin/e2fsck \"$@\"\n",
    );
    let second = |lab: &Lab| {
        lab.cut("disk.img", 34816 * 512, 16 << 20, "second");
        lab.checksum("second")
    };
    let before = second(&lab);
    let mut running = lab
        .virt_fsck("-y -a disk.img --image-format raw")
        .tools_in("tools")
        .start();
    running.wait_for("started.log");
    let held = opened_for_writing(&lab.file("disk.img"));
    lab.write("go.log", "");
    let outcome = running.finish();
    outcome
        .is(65, &[("domain", "refused"), ("sda/p1", "corrected")])
        .says("domain", &["/disk.img is in use by this host", &by_us()]);
    assert_eq!(second(&lab), before);
    drop(held);
    let rest = lab.repair("-y -a disk.img --image-format raw");
    rest.is(1, &[("sda/p1", "clean"), ("sda/p2", "corrected")]);
}

/// A plain user sees his own processes, and must not fail for all others.
#[test]
fn a_plain_user_sees_his_own() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    lab.sh("chmod 755 .; chmod 1777 run state; chown 65534:65534 bad.img; touch fuse");
    let run = |words: &str| {
        lab.virt_fsck(words)
            .with_fuse_for_all()
            .as_user(65534)
            .in_a_namespace_that_stays()
    };
    let script = "exec 7<>bad.img; touch ready.log; exec sleep 1000";
    {
        let _ours = opened_for_writing(&lab.file("bad.img"));
        run("-n -a bad.img --image-format raw")
            .changing_nothing()
            .is(4, &[("sda", "errors-left")]);
    }
    lab.sh("chmod 777 .");
    let theirs = Helper::start(lab.command("setpriv").args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "bash",
        "-c",
        script,
    ]));
    theirs.wait_for(&lab, "ready.log");
    run("-n -a bad.img --image-format raw")
        .changing_nothing()
        .is(64, &[("sda", "refused")])
        .says(
            "sda",
            &["bad.img is in use by this host: it is open for writing"],
        );
}
