//! Signatures, against blkid and each filesystem's own tools.

use virt_fsck::layers::filesystem::{Elsewhere, FilesystemKind, JournalKind, Timestamp};
use virt_fsck::layers::read::ReadAt;
use virt_fsck::layers::signature::{self, Signature};
use virt_fsck::units::Bytes;

use crate::image::{Image, MIB, write_md};

#[test]
fn filesystems_are_what_blkid_says() {
    use FilesystemKind::{Btrfs, Exfat, Ext2, Ext3, Ext4, F2fs, Ntfs, Vfat, Xfs};
    for (size, kind, command) in [
        (16, Ext2, "mkfs.ext2 -qF -L two IMAGE"),
        (16, Ext2, "mkfs.ext2 -qF -r 0 -O none -b 1024 IMAGE"),
        (16, Ext3, "mkfs.ext3 -qF -L three~x IMAGE"),
        (16, Ext4, "mkfs.ext4 -qF -L sixteen-letters- IMAGE"),
        (16, Ext4, "mkfs.ext4 -qF -O ^has_journal IMAGE"),
        (
            16,
            Ext4,
            "mkfs.ext4 -qF -b 4096 -O 64bit,metadata_csum IMAGE",
        ),
        (64, Ext4, "mkfs.ext4 -qF -b 2048 -O bigalloc,extent IMAGE"),
        (16, Ext4, "mkfs.ext3 -qF -O extent IMAGE"),
        (320, Xfs, "mkfs.xfs -q -L data IMAGE"),
        (320, Xfs, "mkfs.xfs -q -m crc=0 IMAGE"),
        (320, Xfs, "mkfs.xfs -q -s size=4096 IMAGE"),
        (1, Vfat, "mkfs.vfat -F 12 -n TWELVE IMAGE"),
        (64, Vfat, "mkfs.vfat -F 16 -n SIXTEEN IMAGE"),
        (64, Vfat, "mkfs.vfat -F 16 IMAGE"),
        (64, Vfat, "mkfs.vfat --mbr=yes IMAGE"),
        (64, Vfat, "mkfs.vfat -F 32 -n THIRTYTWO IMAGE"),
        (64, Vfat, "mkfs.vfat -F 32 -S 4096 IMAGE"),
        (128, Btrfs, "mkfs.btrfs -q -L tree IMAGE"),
        (
            128,
            Btrfs,
            "mkfs.btrfs -q -m single -n 4096 --csum xxhash IMAGE",
        ),
        (128, Btrfs, "mkfs.btrfs -q --mixed IMAGE"),
        (16, Exfat, "mkfs.exfat -L eleven-long IMAGE"),
        (16, Exfat, "mkfs.exfat -c 32K IMAGE"),
        (64, F2fs, "mkfs.f2fs -q -l flash IMAGE"),
        (
            64,
            F2fs,
            "mkfs.f2fs -q -O extra_attr,inode_checksum,sb_checksum IMAGE",
        ),
        (16, Ntfs, "mkntfs -q -F -L windows IMAGE"),
        (16, Ntfs, "mkntfs -q -F -c 512 -s 512 IMAGE"),
        (64, Ntfs, "mkntfs -q -F -c 65536 IMAGE"),
    ] {
        let image = Image::made(size * MIB, &[command]);
        let found = image.filesystem();
        let truth = image.blkid();
        assert_eq!(found.kind, kind, "{command}");
        assert_eq!(truth.get("TYPE").map(String::as_str), Some(kind.name()));
        assert_eq!(found.uuid.as_ref(), truth.get("UUID"), "{command}");
        assert_eq!(found.label.as_ref(), truth.get("LABEL"), "{command}");
        let size = found.size.unwrap().get();
        assert!(size <= image.size().get() && size > image.size().get() / 2);
        assert_ne!(found.record.dirty, Some(true), "{command}");
        assert!(!found.record.primary_damaged);
        assert!(image.has_no_table(), "{command}");
        assert!(!signature::is_blank(&image).unwrap());
    }
}

#[test]
fn ext_remembers_its_checks() {
    let image = Image::made(16 * MIB, &["mkfs.ext4 -qF IMAGE"]);
    let fresh = image.filesystem().record;
    assert_eq!(fresh.max_mount_count, None);
    assert_eq!(fresh.next_check, None);
    assert_eq!(fresh.mount_count, Some(0));
    assert_eq!((fresh.dirty, fresh.has_errors), (Some(false), Some(false)));

    image.run("tune2fs -c 30 -C 7 -i 10d -T 20260102030405 IMAGE", "");
    let tuned = image.filesystem().record;
    assert_eq!(tuned.mount_count, Some(7));
    assert_eq!(tuned.max_mount_count, Some(30));
    assert_eq!(tuned.last_check, Some(Timestamp(1_767_323_045)));
    assert_eq!(
        tuned.next_check,
        Some(Timestamp(1_767_323_045 + 10 * 24 * 3600))
    );

    // 2040-01-01: past 32 bits signed, and with the high byte past 32 bits unsigned.
    image.run("debugfs -w -R ssv~lastcheck~20400101000000 IMAGE", "");
    image.write(1024 + 0x277, &[1]);
    assert_eq!(
        image.filesystem().record.last_check,
        Some(Timestamp(2_208_988_800 + (1 << 32)))
    );

    image.run("debugfs -w -R ssv~state~0 IMAGE", "");
    assert_eq!(image.filesystem().record.dirty, Some(true));
    image.run("debugfs -w -R ssv~state~3 IMAGE", "");
    let errors = image.filesystem().record;
    assert_eq!((errors.dirty, errors.has_errors), (Some(false), Some(true)));
    image.run("debugfs -w -R feature~needs_recovery IMAGE", "");
    assert_eq!(image.filesystem().record.dirty, Some(true));
    assert_eq!(image.filesystem().kind, FilesystemKind::Ext4);
}

#[test]
fn ext_is_found_by_its_backup_superblock() {
    for (size, block) in [(16, 1024), (64, 2048), (160, 4096)] {
        let image = Image::made(
            size * MIB,
            &[&format!("mkfs.ext4 -qF -L b -b {block} IMAGE")],
        );
        let before = image.filesystem();
        image.wipe(0, 4096);
        let after = image.filesystem();
        assert!(after.record.primary_damaged);
        assert_eq!(after.kind, FilesystemKind::Ext4);
        assert_eq!((after.uuid, after.label), (before.uuid, before.label));
        assert_eq!(after.size, before.size);
    }
}

#[test]
fn a_stale_ext_backup_yields_to_whatever_lives() {
    let stale = || Image::made(400 * MIB, &["mkfs.ext4 -qF -b 4096 IMAGE"]);
    let image = stale();
    image.wipe(0, 4096);
    image.run("mkfs.xfs -qf IMAGE", "");
    assert_eq!(image.filesystem().kind, FilesystemKind::Xfs);

    // Cut short, the filesystem cannot be whole, and something else may have taken its place.
    let image = stale();
    image.wipe(0, 4096);
    image.file.set_len(200 * MIB).unwrap();
    assert_eq!(image.recognise(), None);

    // A second filesystem inside, at a place where no backup belongs.
    let image = stale();
    let mut block = vec![0; 1024];
    image
        .read_exact_at(Bytes::new(128 * MIB), &mut block)
        .unwrap();
    image.wipe(0, 4096);
    image.wipe(128 * MIB, 4096);
    image.write(8193 * 1024, &block);
    assert_eq!(image.recognise(), None);
}

#[test]
fn two_live_filesystems_are_not_guessed_at() {
    let image = Image::made(64 * MIB, &["mkfs.ext4 -qF IMAGE"]);
    image.write(0x8001, b"CD001");
    image.write(0x8000, &[1]);
    let (what, _, reason) = image.opaque();
    assert_eq!(what, "iso9660 or ext4");
    assert!(reason.contains("wipefs"), "{reason}");
}

#[test]
fn journals_are_told_by_the_uuid_that_ties_them_to_their_filesystem() {
    for block in [1024, 4096] {
        let journal = Image::made(
            16 * MIB,
            &[&format!("mke2fs -qF -b {block} -O journal_dev IMAGE")],
        );
        let uuid = journal.blkid().remove("UUID");
        assert!(uuid.is_some());
        let kind = JournalKind::Ext;
        assert_eq!(journal.recognise(), Some(Signature::Journal { kind, uuid }));
    }

    let log = Image::new(80 * MIB);
    let xfs = Image::new(320 * MIB);
    let log_path = log.path.display();
    xfs.run(
        &format!("mkfs.xfs -q -f -l logdev={log_path},size=70M IMAGE"),
        "",
    );
    let uuid = xfs.blkid().remove("UUID");
    assert_eq!(xfs.filesystem().record.elsewhere, Elsewhere::Log);
    let kind = JournalKind::Xfs;
    let expected = Some(Signature::Journal { kind, uuid });
    assert_eq!(log.recognise(), expected);
    assert_eq!(
        log.blkid().get("TYPE").map(String::as_str),
        Some("xfs_external_log")
    );
    // Once round: the first record begins later.
    let mut record = vec![0; 512];
    log.read_exact_at(Bytes::ZERO, &mut record).unwrap();
    log.wipe(0, 512);
    assert_eq!(log.recognise(), None);
    log.write(100 * 512, &record);
    assert_eq!(log.recognise(), expected);
}

#[test]
fn a_btrfs_says_how_many_devices_it_spans() {
    let other = Image::new(128 * MIB);
    let image = Image::new(192 * MIB);
    let other_path = other.path.display();
    image.run(&format!("mkfs.btrfs -q -L both IMAGE {other_path}"), "");
    for (own, image, size) in [(1, &image, 192), (2, &other, 128)] {
        let found = image.filesystem();
        assert_eq!(found.uuid.as_ref(), image.blkid().get("UUID"));
        assert_eq!(found.size.unwrap().get(), size * MIB);
        assert_eq!(found.record.devices, Some(2));
        assert_eq!(found.record.elsewhere, Elsewhere::Devices { own });
    }
}

#[test]
fn fat_and_xfs_say_that_they_need_a_check() {
    for (bits, state) in [(16, 0x25), (32, 0x41)] {
        let image = Image::made(64 * MIB, &[&format!("mkfs.vfat -F {bits} IMAGE")]);
        assert_eq!(image.filesystem().record.dirty, Some(false));
        image.write(state, &[1]);
        assert_eq!(image.filesystem().record.dirty, Some(true));
    }
    let image = Image::made(320 * MIB, &["mkfs.xfs -q IMAGE"]);
    assert_eq!(image.filesystem().record.has_errors, Some(false));
    let features = image.run("xfs_db -c sb~0 -c print~features_incompat IMAGE", "");
    let features = u32::from_str_radix(features.trim().rsplit("0x").next().unwrap(), 16).unwrap();
    let needs_repair = features | 0x10;
    image.run(
        &format!("xfs_db -x -c sb~0 -c write~features_incompat~{needs_repair:#x} IMAGE"),
        "",
    );
    let said = image.run("xfs_db -c version IMAGE", "");
    assert!(said.contains("NEEDSREPAIR"), "{said}");
    assert_eq!(image.filesystem().record.has_errors, Some(true));
}

#[test]
fn swap_is_what_blkid_says_and_hibernation_is_seen() {
    for page in [4096, 8192, 65536] {
        let image = Image::made(4 * MIB, &[&format!("mkswap -q -L sw -p {page} IMAGE")]);
        let truth = image.blkid();
        let uuid = truth.get("UUID").cloned();
        let label = truth.get("LABEL").cloned();
        assert!(uuid.is_some() && label.is_some());
        let swap = |hibernated: Option<&str>| {
            Some(Signature::Swap {
                uuid: uuid.clone(),
                label: label.clone(),
                hibernated: hibernated.map(str::to_owned),
            })
        };
        assert_eq!(image.recognise(), swap(None));
        for name in ["S1SUSPEND", "S2SUSPEND", "ULSUSPEND", "LINHIB0001"] {
            let mut field = name.as_bytes().to_vec();
            field.resize(10, 0);
            image.write(page - 10, &field);
            assert_eq!(image.recognise(), swap(Some(name)));
            let truth = image.blkid();
            assert_eq!(truth.get("TYPE").map(String::as_str), Some("swsuspend"));
        }
    }
    // mkfs.ext4 writes over the header and leaves the signature.
    let image = Image::made(16 * MIB, &["mkswap -q IMAGE", "mkfs.ext4 -qF IMAGE"]);
    image.write(4086, b"S1SUSPEND\0");
    assert_eq!(image.filesystem().kind, FilesystemKind::Ext4);
}

#[test]
fn luks_is_opaque_by_either_header() {
    for version in [1, 2] {
        let image = Image::new(32 * MIB);
        image.run(
            &format!(
                "cryptsetup luksFormat -q --type luks{version} --pbkdf pbkdf2 \
                 --pbkdf-force-iterations 1000 IMAGE -"
            ),
            "key",
        );
        let uuid = image.run("cryptsetup luksUUID IMAGE", "").trim().to_owned();
        let (what, found, reason) = image.opaque();
        assert_eq!(what, format!("LUKS{version}"));
        assert_eq!(found.as_ref(), Some(&uuid));
        assert!(reason.starts_with("encrypted"));
        assert!(image.has_no_table());
        image.wipe(0, 4096);
        if version == 2 {
            let (what, found, reason) = image.opaque();
            assert_eq!((what.as_str(), found), ("LUKS2", Some(uuid)));
            assert!(reason.contains("damaged"));
        } else {
            assert_eq!(image.recognise(), None);
        }
    }
}

#[test]
fn half_a_mirror_is_not_the_filesystem_it_looks_like() {
    for version in ["1.0", "0.90"] {
        let image = Image::made(64 * MIB, &["mkfs.ext4 -qF IMAGE 60M"]);
        assert_eq!(image.filesystem().kind, FilesystemKind::Ext4);
        write_md(&image, version);
        let truth = image.blkid();
        assert_eq!(
            truth.get("TYPE").map(String::as_str),
            Some("linux_raid_member")
        );
        let (what, uuid, reason) = image.opaque();
        assert_eq!(what, "RAID member");
        assert_eq!(uuid.as_ref(), truth.get("UUID"));
        assert!(reason.contains(&format!("raid1, 2 devices, metadata {version}")));
        let member = signature::array_member(&image).unwrap();
        assert_eq!(member, image.recognise());
    }
}
