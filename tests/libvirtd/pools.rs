//! Disks that are volumes of storage pools.

use crate::site::Site;

fn volume(pool: &str, volume: &str) -> String {
    format!("type='volume'|<driver type='qcow2'/><source pool='{pool}' volume='{volume}'/>")
}

fn site_with_a_pool() -> Option<Site> {
    let site = Site::new()?;
    site.lab.ext4("filesystem");
    site.lab
        .sh("mkdir volumes; qemu-img convert -O qcow2 filesystem volumes/disk.qcow2");
    site.define_pool("pool", "volumes");
    Some(site)
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn a_volume_is_found_through_its_pool() {
    let Some(site) = site_with_a_pool() else {
        return;
    };
    site.define("vm", &[&volume("pool", "disk.qcow2")]);
    site.lab.look("-d vm -n").is(0, &[("vda", "clean")]);

    site.define("other", &[&volume("pool", "missing.qcow2")]);
    site.lab
        .look("-d other -n")
        .is(8, &[("vda", "failed")])
        .says("vda", &["volume missing.qcow2 of pool pool"]);

    site.define("third", &[&volume("nowhere", "disk.qcow2")]);
    site.lab
        .look("-d third -n")
        .is(8, &[("vda", "failed")])
        .says("vda", &["volume disk.qcow2 of pool nowhere"]);

    site.virsh("pool-destroy pool");
    site.lab.look("-d vm -n").is(8, &[("vda", "failed")]).says(
        "vda",
        &["storage pool pool is not active", "virsh pool-start pool"],
    );
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn a_volume_of_an_active_domain_is_in_use_by_its_path_too() {
    let Some(site) = site_with_a_pool() else {
        return;
    };
    site.define("holder", &[&volume("pool", "disk.qcow2")]);
    site.start_paused("holder");
    site.define(
        "path",
        &["type='file'|<driver type='qcow2'/><source file='@/volumes/disk.qcow2'/>"],
    );
    site.lab
        .look("-d path -y")
        .is(64, &[("vda", "refused")])
        .says("vda", &["in use by the active domain holder"]);

    // Where the volume lies can no longer be asked, so nobody knows what it is.
    site.virsh("pool-destroy pool");
    let outcome = site.lab.look("-d path -y");
    outcome
        .is(8, &[("domain", "failed")])
        .says("domain", &["active domain holder", "virsh pool-start pool"]);
}
