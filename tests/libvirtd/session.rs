//! A user's own libvirtd, and images that only he may touch.

use crate::site::Site;

const USER: u32 = 65534;

/// What virsh is called with as the user: a libvirtd of his starts by itself.
const VIRSH: &str = "as_user() { setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=$PWD/home \
                     XDG_RUNTIME_DIR=$PWD/home/run virsh -q -c qemu:///session \"$@\"; }\n";

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn a_user_checks_his_own_guest() {
    let Some(site) = Site::new() else {
        return;
    };
    let lab = &site.lab;
    let virsh = |line: &str| lab.sh(&format!("{VIRSH}as_user {line}"));
    lab.damaged_ext4("filesystem");
    lab.sh(
        "chmod 711 .; mkdir -p home/run; chmod 700 home/run\n\
         qemu-img convert -O qcow2 filesystem home/disk.qcow2; chown -R 65534:65534 home state run",
    );
    lab.write(
        "domain.xml",
        format!(
            "<domain type='qemu'><name>mine</name><memory unit='MiB'>16</memory>\
             <os><type>hvm</type></os><features><acpi/></features><devices>\
             <disk type='file'><driver type='qcow2'/><source file='{}/home/disk.qcow2'/>\
             <target dev='vda' bus='virtio'/></disk></devices></domain>",
            site.folder()
        ),
    );
    virsh("define domain.xml");
    let socket = format!("{}/home/run/libvirt/libvirt-sock", site.folder());
    let check = |mode: &str| {
        let words = format!("-c qemu:///session?socket={socket} -d mine {mode}");
        lab.virt_fsck(&words).as_user(USER)
    };
    virsh("start --paused mine");
    check("-y")
        .changing_images()
        .is(64, &[("domain", "refused")])
        .says("domain", &["domain mine is paused"]);
    // Root asks the users' daemons too: for a bare image, and beside the system's own.
    let by_root = |words: &str| {
        let run = lab.virt_fsck(words);
        run.after("mkdir -p /run/user/65534; mount --bind home/run /run/user/65534")
            .changing_images()
    };
    by_root("-a home/disk.qcow2 -y")
        .is(64, &[("sda", "refused")])
        .says("sda", &["in use by the active domain mine (its disk vda)"]);
    let own = "type='file'|<driver type='qcow2'/><source file='@/home/disk.qcow2'/>";
    site.define("system", &[own]);
    by_root("-d system -y")
        .is(64, &[("vda", "refused")])
        .says("vda", &["in use by the active domain mine (its disk vda)"]);
    virsh("destroy mine");
    check("-y").changing_images().is(1, &[("vda", "corrected")]);
    lab.sh("qemu-img convert -O raw home/disk.qcow2 after; cmp after filesystem.repaired");
    virsh("undefine mine");
}
