//! Volume groups inside a guest that several guests use at once.

use crate::support::lab::{Lab, Loop, is_root};

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
