//! A guest that starts all the same: QEMU's locks on block devices are seen by nobody, so its start is
//! not kept off, and the checker must go at once.

use std::fs::File;

use crate::site::Site;
use crate::support::run::Running;

/// A checker that has the device open for writing and never ends by itself, not even when asked to.
const STUBBORN: &str = "exec 9<>\"${@: -1}\"; trap '' TERM; touch FOLDER/begun.log\n\
                        while [[ -e FOLDER/begun.log ]]; do sleep 0.05; done\n";

/// A disk of a domain that is a sound ext4 on a loop device, which goes with what is held.
fn ext4_on_a_device(site: &Site) -> (String, String, File) {
    site.lab.ext4("disk");
    let (device, held) = site.loop_device("disk");
    let disk = format!("type='block'|<driver type='raw'/><source dev='{device}'/>");
    (disk, device, held)
}

/// The check of a domain when e2fsck has begun.
fn begun<'a>(site: &'a Site, words: &str) -> Running<'a> {
    let folder = site.folder();
    let script = STUBBORN.replace("FOLDER", &folder);
    site.lab.script("tools/e2fsck", &script);
    let mut running = site.lab.virt_fsck(words).tools_in("tools").start();
    running.wait_for("begun.log");
    running
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn the_domain_itself() {
    let Some(site) = Site::new() else {
        return;
    };
    let (block, _device, _held) = ext4_on_a_device(&site);
    site.define("vm", &[&block]);
    for mode in ["-n", "-y"] {
        let running = begun(&site, &format!("-d vm {mode}"));
        site.start_paused("vm");
        let outcome = running.finish();
        outcome
            .is(64 | 8, &[("domain", "refused"), ("vda", "failed")])
            .says("domain", &["while it was checked", "domain vm is paused"])
            .says("vda", &["stopped in the middle", "virsh shutdown vm"]);
        site.lab.sh("rm begun.log");
        site.virsh("destroy vm");
    }
    site.lab.look("-d vm -n").is(0, &[("vda", "clean")]);
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn another_one_with_the_same_disk() {
    let Some(site) = Site::new() else {
        return;
    };
    let (block, _device, _held) = ext4_on_a_device(&site);
    site.lab.ext4("own");
    let own = "type='file'|<driver type='raw'/><source file='@/own'/>";
    site.define("vm", &[&block]);
    site.define("other", &[own, &block]);
    let running = begun(&site, "-d vm -y");
    site.start_paused("other");
    running
        .finish()
        .is(64 | 8, &[("domain", "refused"), ("vda", "failed")])
        .says(
            "domain",
            &[
                "while it was checked",
                "in use by the active domain other (its disk vdb)",
            ],
        );
    site.lab.sh("rm begun.log");
    site.virsh("destroy other");

    // One that shares nothing disturbs nobody.
    site.define("stranger", &[own]);
    let running = begun(&site, "-d vm -n");
    site.start_paused("stranger");
    std::thread::sleep(std::time::Duration::from_millis(500));
    site.lab.sh("rm begun.log");
    let outcome = running.finish();
    assert!(outcome.find("vda").is_some(), "{outcome}");
    outcome.is(0, &[("vda", "clean")]);
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn a_second_run_names_the_first() {
    let Some(site) = Site::new() else {
        return;
    };
    let (block, device, _held) = ext4_on_a_device(&site);
    site.define("vm", &[&block]);
    site.define("other", &[&block]);
    let running = begun(&site, "-d vm -y");
    let first = format!(
        "is being checked by another virt-fsck (process {})",
        running.child.id()
    );
    for mode in ["-n", "-y", "--list"] {
        let second = site.lab.virt_fsck(&format!("-d vm {mode}"));
        let outcome = second.start().finish_beside_another();
        outcome
            .is(64, &[("domain", "refused")])
            .says("domain", &["domain vm", &first, "wait until"]);
        let by_disk = site.lab.virt_fsck(&format!("-d other {mode}"));
        by_disk
            .start()
            .finish_beside_another()
            .is(64, &[("vda", "refused")])
            .says("vda", &[&device, &first]);
    }
    site.lab.sh("rm begun.log");
    running.finish().is(0, &[("vda", "clean")]);
    site.lab.look("-d other -n").is(0, &[("vda", "clean")]);
}
