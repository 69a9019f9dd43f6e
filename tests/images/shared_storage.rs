//! Images where other hosts may use them too. The mount is FUSE's, with the type that GlusterFS has.

use crate::support::lab::{Lab, Loop, is_root};

/// A folder that ends with the test.
struct Mounted<'a>(&'a Lab);

impl<'a> Mounted<'a> {
    fn new(lab: &'a Lab) -> Self {
        lab.sh("mkdir -p real shared; bindfs -o subtype=glusterfs real shared");
        Self(lab)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        self.0.sh("umount shared");
    }
}

#[test]
fn it_is_written_only_where_that_is_allowed() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    let _mounted = Mounted::new(&lab);
    lab.damaged_ext4("filesystem");
    lab.sh("qemu-img convert -O qcow2 filesystem real/disk.qcow2");
    let note = "other hosts were not asked whether they use it";
    for mode in ["-p", "-y", "-y --allow shared-lvm"] {
        lab.look(&format!("{mode} -a shared/disk.qcow2"))
            .is(64, &[("sda", "refused")])
            .says(
                "sda",
                &[
                    "/shared/disk.qcow2 lies on",
                    "fuse.glusterfs",
                    "--allow shared-nfs",
                ],
            );
    }
    let looked = lab.look("-n -a shared/disk.qcow2");
    looked.is(4, &[("sda", "errors-left")]);
    let notes = |outcome: &crate::support::outcome::Outcome| {
        outcome.json["domains"][0]["disks"][0]["notes"].to_string()
    };
    assert!(notes(&looked).contains(note), "{looked}");
    let repaired = lab.repair("-y --allow shared-nfs -a shared/disk.qcow2");
    repaired.is(1, &[("sda", "corrected")]);
    assert!(notes(&repaired).contains(note), "{repaired}");
    let local = lab.look("-n -a real/disk.qcow2");
    assert_eq!(notes(local.is(0, &[("sda", "clean")])), "[]");
}

#[test]
fn its_base_there_is_enough() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    let _mounted = Mounted::new(&lab);
    lab.damaged_ext4("filesystem");
    lab.sh("qemu-img convert -O qcow2 filesystem real/base.qcow2\n\
            qemu-img create -q -f qcow2 -F qcow2 -b $PWD/shared/base.qcow2 top.qcow2");
    lab.look("-y -a top.qcow2 --image-format qcow2")
        .is(64, &[("sda", "refused")])
        .says("sda", &["--allow shared-nfs"]);
}

#[test]
fn a_shared_volume_group_inside_the_guest() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    lab.damaged_ext4("filesystem");
    lab.sh("truncate -s 24M pv.img");
    {
        let device = Loop::attach(&lab, "", "pv.img");
        lab.lvm(
            &[&device],
            &[
                "pvcreate -q @0",
                "vgcreate -q -s 1m data @0",
                "lvcreate -q -an -Zn -Wn -n lv -l 16 data",
                "vgcfgbackup -q -f backup data",
            ],
        );
        // What lvmlockd has LVM write; it does not run here.
        lab.sh("sed -i -e '/max_lv =/i lock_type = \"sanlock\"' \
             -e '/max_lv =/i lock_args = \"1.0.0:lvmlock\"' backup; grep -q lock_type backup");
        lab.lvm(&[&device], &["vgcfgrestore -q -f backup data"]);
    }
    lab.put("filesystem", "pv.img", 2048);
    let look = |mode: &str| lab.look(&format!("{mode} -a pv.img --image-format raw"));
    for mode in ["-p", "-y", "-y --allow shared-nfs"] {
        look(mode).is(64, &[("domain", "refused")]).says(
            "domain",
            &[
                "the volume group data on sda",
                "lock type sanlock",
                "--allow shared-lvm",
            ],
        );
    }
    look("-n").is(4, &[("sda/data/lv", "errors-left")]);
    lab.repair("-y --allow shared-lvm -a pv.img --image-format raw")
        .is(1, &[("sda/data/lv", "corrected")]);
}
