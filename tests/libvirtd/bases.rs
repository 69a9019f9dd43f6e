//! What other domains are made of must not be written, active or not.

use crate::site::Site;

fn qcow2(file: &str) -> String {
    format!("type='file'|<driver type='qcow2'/><source file='@/{file}'/>")
}

fn raw(file: &str) -> String {
    format!("type='file'|<driver type='raw'/><source file='@/{file}'/>")
}

/// A damaged base.qcow2, and top.qcow2 over middle.qcow2 over it.
fn site_with_a_chain() -> Option<Site> {
    let site = Site::new()?;
    site.lab.damaged_ext4("filesystem");
    site.lab
        .sh("qemu-img convert -O qcow2 filesystem base.qcow2\n\
         qemu-img create -q -f qcow2 -F qcow2 -b $PWD/base.qcow2 middle.qcow2\n\
         qemu-img create -q -f qcow2 -F qcow2 -b $PWD/middle.qcow2 top.qcow2");
    Some(site)
}

/// Looking is allowed, writing is refused because of `other`, and not one byte changes.
fn is_only_looked_at(site: &Site, words: &str, disk: &str, other: &str) {
    for mode in ["-p", "-y"] {
        site.lab
            .look(&format!("{words} {mode}"))
            .is(64, &[(disk, "refused")])
            .says(
                disk,
                &[
                    &format!("is what the disk vda of the domain {other} is made of"),
                    "check",
                    "instead",
                    "-n",
                ],
            );
    }
    let looked = site.lab.look(&format!("{words} -n"));
    looked.is(4, &[(disk, "errors-left")]);
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn a_base_of_a_domain_that_is_off_is_not_written() {
    let Some(site) = site_with_a_chain() else {
        return;
    };
    site.define("overlay", &[&qcow2("top.qcow2")]);
    site.define("base", &[&qcow2("base.qcow2")]);
    is_only_looked_at(&site, "-d base", "vda", "overlay");
    // By another name, and without libvirt.
    site.lab.sh("ln base.qcow2 other-name");
    is_only_looked_at(
        &site,
        "-a other-name --image-format qcow2",
        "sda",
        "overlay",
    );
    site.define("middle", &[&qcow2("middle.qcow2")]);
    site.lab
        .look("-d middle -y")
        .is(64, &[("vda", "refused")])
        .says(
            "vda",
            &["/middle.qcow2 is what the disk vda of the domain overlay"],
        );

    // The top may be: nothing of it reaches what lies under it.
    let under = |site: &Site| ["base.qcow2", "middle.qcow2"].map(|file| site.lab.checksum(file));
    let before = under(&site);
    site.lab
        .repair("-d overlay -y")
        .is(1, &[("vda", "corrected")]);
    assert_eq!(under(&site), before);
    site.virsh("undefine overlay");
    site.lab
        .look("-d base -y")
        .is(64, &[("vda", "refused")])
        .says("vda", &["the domain middle is made of"]);
    site.virsh("undefine middle");
    site.lab.repair("-d base -y").is(1, &[("vda", "corrected")]);
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn a_base_that_only_the_xml_names() {
    let Some(site) = Site::new() else {
        return;
    };
    site.lab.damaged_ext4("base");
    site.lab.sh("qemu-img create -q -f qcow2 top.qcow2 16M");
    let given = "<backingStore type='file'><format type='raw'/><source file='@/base'/>\
                 <backingStore/></backingStore>";
    site.define("overlay", &[&(qcow2("top.qcow2") + given)]);
    site.define("base", &[&raw("base")]);
    is_only_looked_at(&site, "-d base", "vda", "overlay");
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn a_base_shared_by_transient_disks() {
    let Some(site) = Site::new() else {
        return;
    };
    site.lab.damaged_ext4("disk");
    site.define("one", &[&(raw("disk") + "<transient shareBacking='yes'/>")]);
    site.define("two", &[&raw("disk")]);
    is_only_looked_at(&site, "-d two", "vda", "one");
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn what_a_block_job_writes_to() {
    let Some(site) = Site::new() else {
        return;
    };
    site.lab.ext4("disk");
    site.lab.ext4("copy");
    site.define("busy", &[&raw("disk")]);
    site.define("copy", &[&raw("copy")]);
    site.start_paused("busy");
    site.virsh("blockcopy busy vda $PWD/copy --reuse-external --transient-job --format raw");
    for mode in ["-n", "-y"] {
        site.lab
            .look(&format!("-d copy {mode}"))
            .is(64, &[("vda", "refused")])
            .says("vda", &["/copy is in use", "busy (its disk vda)"]);
        let busy = site.lab.look(&format!("-d busy {mode}"));
        busy.is(64, &[("domain", "refused")]);
    }
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn every_sharer_must_be_off() {
    let Some(site) = Site::new() else {
        return;
    };
    site.lab.ext4("disk");
    let shared = raw("disk") + "<shareable/>";
    for name in ["one", "two", "three"] {
        site.define(name, &[&shared]);
    }
    site.start_paused("two");
    site.start_paused("three");
    for stopped in ["two", "three"] {
        site.lab
            .look("-d one -y")
            .is(64, &[("vda", "refused")])
            .says("vda", &["/disk is in use by the active domain"]);
        site.virsh(&format!("destroy {stopped}"));
    }
    site.lab.look("-d one -n").is(0, &[("vda", "clean")]);
}
