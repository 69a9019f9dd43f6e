//! Every disk of a domain is answered for, whatever it is.

use crate::site::Site;

/// A disk of the domain: its target, the verdict, words of the reason, and the XML, in which `@` is the folder.
const DISKS: &[(&str, &str, &str, &str)] = &[
    (
        "vda",
        "clean",
        "",
        "<disk type='file'><driver type='qcow2'/><source file='@/disk.qcow2'/>
         <target dev='vda' bus='virtio'/></disk>",
    ),
    (
        "vdb",
        "clean",
        "",
        "<disk type='block'><driver type='raw'/><source dev='@/device'/><target dev='vdb' bus='virtio'/></disk>",
    ),
    (
        "vdc",
        "not-checked",
        "a network disk (rbd)",
        "<disk type='network'><driver type='raw'/><source protocol='rbd' name='pool/image'><host name='ceph'/></source>
         <target dev='vdc' bus='virtio'/></disk>",
    ),
    (
        "vdd",
        "not-checked",
        "a network disk (https)",
        "<disk type='network'><driver type='raw'/><source protocol='https' name='image'><host name='h' port='443'/>
         </source><target dev='vdd' bus='virtio'/></disk>",
    ),
    (
        "vde",
        "not-checked",
        "NVMe",
        "<disk type='nvme'><driver type='raw'/><source type='pci' managed='yes' namespace='1'>
         <address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></source>
         <target dev='vde' bus='virtio'/></disk>",
    ),
    (
        "vdf",
        "not-checked",
        "vhost-user",
        "<disk type='vhostuser'><driver type='raw'/><source type='unix' path='@/socket'/>
         <target dev='vdf' bus='virtio'/></disk>",
    ),
    (
        "vdg",
        "not-checked",
        "FAT disk",
        "<disk type='dir'><driver type='fat'/><source dir='@/folder'/><target dev='vdg' bus='virtio'/><readonly/></disk>",
    ),
    (
        "vdh",
        "failed",
        "does not exist",
        "<disk type='file'><driver type='raw'/><source file='@/gone'/><target dev='vdh' bus='virtio'/></disk>",
    ),
    (
        "vdi",
        "not-checked",
        "libvirt has no secret",
        "<disk type='file'><driver type='raw'/><source file='@/raw'><encryption format='luks'>
         <secret type='passphrase' uuid='9364d2fa-78f3-42bc-8e2a-6a8c0dcb8a3b'/></encryption></source>
         <target dev='vdi' bus='virtio'/></disk>",
    ),
    (
        "sda",
        "nothing-to-check",
        "no medium",
        "<disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>",
    ),
    (
        "sdb",
        "nothing-to-check",
        "a CD drive",
        "<disk type='file' device='cdrom'><driver type='raw'/><source file='@/raw'/>
         <target dev='sdb' bus='sata'/><readonly/></disk>",
    ),
    (
        "sdc",
        "nothing-to-check",
        "does not exist, which the XML allows",
        "<disk type='file'><driver type='raw'/><source file='@/gone' startupPolicy='optional'/>
         <target dev='sdc' bus='sata'/></disk>",
    ),
    (
        "fda",
        "nothing-to-check",
        "no medium",
        "<disk type='file' device='floppy'><target dev='fda' bus='fdc'/></disk>",
    ),
];

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn no_disk_is_dropped() {
    let Some(site) = Site::new() else {
        return;
    };
    site.lab.ext4("raw");
    site.lab
        .sh("cp raw looped; qemu-img convert -O qcow2 raw disk.qcow2; mkdir folder");
    let (device, _held) = site.loop_device("looped");
    site.lab.sh(&format!("ln -s {device} device"));
    let devices: String = DISKS.iter().map(|(.., xml)| *xml).collect();
    let devices = devices.replace('@', &site.folder());
    // A vhost-user disk wants memory that the other process may share.
    site.define_sharing_memory("all", &devices);
    let outcome = site.lab.look("-d all -n");
    assert_eq!(outcome.status, Some(128 | 8), "{outcome}");
    let mut told: Vec<&str> = outcome
        .disks()
        .map(|disk| disk["target"].as_str().unwrap())
        .collect();
    let mut wanted: Vec<&str> = DISKS.iter().map(|(target, ..)| *target).collect();
    told.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(told, wanted, "{outcome}");
    for (target, verdict, words, _) in DISKS {
        outcome.is(136, &[(target, verdict)]);
        if !words.is_empty() {
            outcome.says(target, &[words]);
        }
    }
}
