//! Two at a time: a guest that starts while it is checked, and a check while somebody else has the image.

use crate::site::Site;
use crate::support::run::Helper;

const QCOW2: &str = "type='file'|<driver type='qcow2'/><source file='@/disk.qcow2'/>";

fn site_with_a_disk() -> Option<Site> {
    let site = Site::new()?;
    site.lab.ext4("filesystem");
    site.lab
        .sh("qemu-img convert -O qcow2 filesystem disk.qcow2");
    site.define("vm", &[QCOW2]);
    Some(site)
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn a_guest_cannot_start_while_it_is_checked() {
    let Some(site) = site_with_a_disk() else {
        return;
    };
    site.has_an_e2fsck_that_waits();
    for mode in ["-n", "-y"] {
        let run = site.lab.virt_fsck(&format!("-d vm {mode}"));
        let mut running = run.tools_in("tools").start();
        running.wait_for("begun.log");
        let words = site.virsh_fails("start --paused vm");
        assert!(words.contains("Failed to get"), "{words}");
        assert!(words.contains("lock"), "{words}");
        site.lab.write("go-on.log", "");
        running.finish().is(0, &[("vda", "clean")]);
        site.lab.sh("rm begun.log go-on.log");
        site.start_paused("vm");
        site.virsh("destroy vm");
    }
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn a_qemu_that_libvirt_does_not_know_is_refused_by_its_lock() {
    let Some(site) = site_with_a_disk() else {
        return;
    };
    let mut guest = site.lab.command("qemu-system-x86_64");
    guest.args(["-S", "-display", "none", "-nodefaults", "-m", "16"]);
    guest.args(["-drive", "file=disk.qcow2,format=qcow2,if=virtio"]);
    guest.args(["-pidfile", "guest.log"]);
    let guest = Helper::start(&mut guest);
    guest.wait_for(&site.lab, "guest.log");
    for mode in ["-n", "-y"] {
        site.lab
            .look(&format!("-d vm {mode}"))
            .is(64, &[("vda", "refused")])
            .says("vda", &["/disk.qcow2 is in use"]);
    }
    drop(guest);
    site.lab.look("-d vm -n").is(0, &[("vda", "clean")]);
}
