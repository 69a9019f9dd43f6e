//! Guests that are not off but asleep, and filesystems that somebody is still making.

use crate::support::lab::Lab;

/// A disk with an ext4 and an NTFS; `file` becomes the NTFS's hiberfil.sys.
fn with_windows(lab: &Lab, beginning: &str) {
    lab.damaged_ext4("ext4.img");
    lab.sh(&format!(
        "truncate -s 16M ntfs.img; mkntfs -q -F ntfs.img 2>log\n\
         head -c 8192 /dev/zero >hiberfil; printf '{beginning}' | dd of=hiberfil conv=notrunc status=none\n\
         ntfscp -q ntfs.img hiberfil hiberfil.sys; rm hiberfil log\n\
         truncate -s 64M disk.img\n\
         sfdisk -q disk.img <<<$'label: gpt\\nstart=2048, size=32768\\nstart=40960, size=32768'\n\
         dd if=ext4.img of=disk.img bs=512 seek=2048 conv=notrunc status=none\n\
         dd if=ntfs.img of=disk.img bs=512 seek=40960 conv=notrunc status=none\n\
         qemu-img convert -O qcow2 disk.img disk.qcow2; rm disk.img ext4.img"
    ));
}

#[test]
fn a_hibernated_windows_is_refused_as_a_whole() {
    for beginning in ["hibr", "HIBR"] {
        let lab = Lab::new();
        with_windows(&lab, beginning);
        // ntfs-3g itself refuses to mount it.
        lab.sh("ntfs-3g.probe --readwrite ntfs.img && exit 1 || test $? = 14");
        for mode in ["-n", "-p", "-y"] {
            lab.look(&format!("{mode} -a disk.qcow2"))
                .is(64, &[("domain", "refused")])
                .says(
                    "domain",
                    &[
                        "hibernated",
                        "fast startup",
                        "hiberfil.sys of sda/p2",
                        "shutdown /s",
                    ],
                );
        }
    }
}

#[test]
fn a_windows_that_is_off_keeps_nobody_from_being_checked() {
    let lab = Lab::new();
    // What Windows leaves in it when it has woken up.
    with_windows(&lab, "wake");
    lab.sh("ntfs-3g.probe --readwrite ntfs.img");
    lab.repair("-y -a disk.qcow2").is(
        1 | 128,
        &[("sda/p1", "corrected"), ("sda/p2", "not-checked")],
    );
}

#[test]
fn a_tuxonice_image_is_refused() {
    let lab = Lab::new();
    lab.sh("truncate -s 16M swap.img; mkswap -q swap.img");
    lab.look("-n -a swap.img --image-format raw")
        .is(0, &[("sda", "nothing-to-check")]);
    lab.patch("swap.img", 0, b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c");
    lab.look("-y -a swap.img --image-format raw")
        .is(64, &[("domain", "refused")])
        .says("domain", &["hibernated", "TuxOnIce"]);
}

#[test]
fn an_xfs_that_is_still_being_made_is_refused() {
    let lab = Lab::new();
    lab.sh("truncate -s 300M xfs.img; mkfs.xfs -q -m crc=0 xfs.img");
    let look = |mode: &str| lab.look(&format!("{mode} -a xfs.img --image-format raw"));
    look("-n").is(0, &[("sda", "clean")]);
    lab.sh("xfs_db -x -c 'sb 0' -c 'write -d inprogress 1' xfs.img");
    for mode in ["-n", "-y"] {
        look(mode)
            .is(64, &[("sda", "refused")])
            .says("sda", &["still being made or copied", "xfs_copy"]);
    }
    lab.sh("xfs_db -x -c 'sb 0' -c 'write -d inprogress 0' xfs.img");
    look("-n").is(0, &[("sda", "clean")]);
}
