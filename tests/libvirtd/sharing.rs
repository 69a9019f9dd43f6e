//! What another active domain uses must not be touched, by whatever name.

use crate::site::Site;

const RAW: &str = "type='file'|<driver type='raw'/>";

fn raw(file: &str) -> String {
    format!("{RAW}<source file='{file}'/>")
}

fn qcow2(file: &str) -> String {
    format!("type='file'|<driver type='qcow2'/><source file='@/{file}'/>")
}

fn block(device: &str) -> String {
    format!("type='block'|<driver type='raw'/><source dev='{device}'/>")
}

/// The disk vda of `off` is refused because of `other`; not one byte changes.
fn is_refused(site: &Site, off: &str, disk: &str, other: &str) {
    for mode in ["-n", "-y"] {
        site.lab
            .look(&format!("-d {off} {mode}"))
            .is(64, &[("vda", "refused")])
            .says(
                "vda",
                &[
                    disk,
                    &format!("in use by the active domain {other} (its disk vda)"),
                    &format!("virsh shutdown {other}"),
                ],
            );
    }
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn one_file_by_many_names() {
    let Some(site) = Site::new() else {
        return;
    };
    site.lab.ext4("disk");
    site.lab.sh(
        "ln -s disk symlink; ln disk hardlink; touch bound; mount --bind disk bound\n\
         mkdir deep; ln -s .. deep/up",
    );
    site.define("holder", &[&raw("@/disk")]);
    site.start_paused("holder");
    let names = ["disk", "symlink", "hardlink", "bound", "deep/up/disk"];
    for (index, name) in names.iter().enumerate() {
        let domain = format!("wants{index}");
        site.define(&domain, &[&raw(&format!("@/{name}"))]);
        is_refused(&site, &domain, &format!("/{name} is in use"), "holder");
    }
    site.virsh("destroy holder");
    for index in 0..names.len() {
        site.lab
            .look(&format!("-d wants{index} -n"))
            .is(0, &[("vda", "clean")]);
    }
    site.lab.sh("umount bound");
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn only_the_shared_disk_is_refused() {
    let Some(site) = Site::new() else {
        return;
    };
    site.lab.ext4("shared");
    site.lab.ext4("own");
    site.define("holder", &[&raw("@/shared")]);
    site.start_paused("holder");
    site.define("both", &[&raw("@/shared"), &raw("@/own")]);
    let shared = site.lab.checksum("shared");
    site.lab
        .repair("-d both -y")
        .is(64, &[("vda", "refused"), ("vdb", "clean")])
        .says("vda", &["in use by the active domain holder"]);
    assert_eq!(site.lab.checksum("shared"), shared);
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn the_base_of_an_active_overlay() {
    let Some(site) = Site::new() else {
        return;
    };
    site.lab.ext4("filesystem");
    site.lab
        .sh("qemu-img convert -O qcow2 filesystem base.qcow2\n\
         qemu-img create -q -f qcow2 -F qcow2 -b $PWD/base.qcow2 middle.qcow2\n\
         qemu-img create -q -f qcow2 -F qcow2 -b $PWD/middle.qcow2 top.qcow2");
    site.define("overlay", &[&qcow2("top.qcow2")]);
    site.start_paused("overlay");
    site.define("base", &[&qcow2("base.qcow2")]);
    is_refused(&site, "base", "/base.qcow2 is in use", "overlay");
    site.define("middle", &[&qcow2("middle.qcow2")]);
    is_refused(&site, "middle", "/middle.qcow2 is in use", "overlay");
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn an_overlay_whose_base_is_active() {
    let Some(site) = Site::new() else {
        return;
    };
    site.lab.ext4("filesystem");
    site.lab
        .sh("qemu-img convert -O qcow2 filesystem base.qcow2\n\
         qemu-img create -q -f qcow2 -F qcow2 -b $PWD/base.qcow2 top.qcow2");
    site.define("base", &[&qcow2("base.qcow2")]);
    site.start_paused("base");
    site.define("overlay", &[&qcow2("top.qcow2")]);
    is_refused(&site, "overlay", "/top.qcow2 is in use", "base");
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn linked_clones_only_read_what_they_share() {
    let Some(site) = Site::new() else {
        return;
    };
    site.lab.damaged_ext4("filesystem");
    site.lab.sh(
        "qemu-img convert -O qcow2 filesystem base.qcow2\n\
         for n in 1 2; do qemu-img create -q -f qcow2 -F qcow2 -b $PWD/base.qcow2 clone$n.qcow2; done",
    );
    site.define("clone1", &[&qcow2("clone1.qcow2")]);
    site.start_paused("clone1");
    site.define("clone2", &[&qcow2("clone2.qcow2")]);
    let base = site.lab.checksum("base.qcow2");
    site.lab
        .look("-d clone2 -n")
        .is(4, &[("vda", "errors-left")]);
    site.lab
        .repair("-d clone2 -y")
        .is(1, &[("vda", "corrected")]);
    assert_eq!(site.lab.checksum("base.qcow2"), base);
    site.lab
        .sh("qemu-img convert -O raw clone2.qcow2 after; cmp after filesystem.repaired");
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn two_readers_do_not_harm_each_other() {
    let Some(site) = Site::new() else {
        return;
    };
    site.lab.ext4("disk");
    let read_only = format!("{}<readonly/>", raw("@/disk"));
    site.define("reader1", &[&read_only]);
    site.start_paused("reader1");
    site.define("reader2", &[&read_only]);
    site.lab.look("-d reader2 -y").is(0, &[("vda", "clean")]);
    site.define("writer", &[&raw("@/disk")]);
    is_refused(&site, "writer", "/disk is in use", "reader1");
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn one_block_device_by_many_nodes() {
    let Some(site) = Site::new() else {
        return;
    };
    site.lab.ext4("disk");
    let (device, _held) = site.loop_device("disk");
    site.lab.sh(&format!(
        "ln -s {device} symlink; mknod node b $(stat -c '0x%t 0x%T' {device})"
    ));
    site.define("holder", &[&block(&device)]);
    site.start_paused("holder");
    site.define("same", &[&block(&device)]);
    is_refused(&site, "same", &format!("{device} is in use"), "holder");
    site.define("symlink", &[&block("@/symlink")]);
    is_refused(&site, "symlink", "/symlink is in use", "holder");
    site.define("node", &[&block("@/node")]);
    is_refused(&site, "node", "/node is in use", "holder");
    // Another way round: the guest has the node of its own.
    site.virsh("destroy holder");
    site.start_paused("node");
    is_refused(&site, "same", &format!("{device} is in use"), "node");
    site.virsh("destroy node");
    for domain in ["same", "symlink", "node"] {
        let outcome = site.lab.look(&format!("-d {domain} -n"));
        outcome.is(0, &[("vda", "clean")]);
    }
}
