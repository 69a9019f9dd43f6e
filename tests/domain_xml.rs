//! Each oddity of `xml-fixtures/` and the disks, or the sentence, that comes out of it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use virt_fsck::domain::model::{Backing, Disk, Image};
use virt_fsck::domain::xml::parse;

/// (fixture, one line a disk).
const READ: &[(&str, &[&str])] = &[
    (
        "driver-type-missing",
        &["vda Disk 512: Raw File /var/lib/libvirt/images/vm1.qcow2 <- as recorded"],
    ),
    (
        "driver-missing",
        &["vda Disk 512: Raw Block /dev/vg0/vm1 <- as recorded"],
    ),
    (
        "type-missing",
        &["hda Disk 512: Qcow2 File /images/vm1.qcow2 <- as recorded"],
    ),
    (
        "block-cached",
        &["vda Disk 512: Raw Block /dev/mapper/lvg2-lvhd0 <- as recorded"],
    ),
    (
        "encryption-under-disk",
        &[
            "vda Disk 512: Qcow2 File /images/secret.qcow2 luks (secret 0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f) <- as recorded",
        ],
    ),
    (
        "encryption-under-source",
        &[
            "vda Disk 512: Raw Network rbd:pool/secret luks2/librbd (secret for the volume secret) <- as recorded",
        ],
    ),
    (
        "cdrom-without-medium",
        &[
            "sda Cdrom 512 read-only: Raw nothing <- as recorded",
            "fda Floppy 512: Raw nothing <- as recorded",
            "sdb Cdrom 512 read-only may-be-missing: Raw nothing <- as recorded",
        ],
    ),
    (
        "cdrom-not-marked-readonly",
        &["sda Cdrom 512 read-only: Raw File /images/installer.iso <- as recorded"],
    ),
    (
        "readonly-shareable-transient",
        &[
            "vda Disk 512 read-only: Raw File /images/a.img <- as recorded",
            "vdb Disk 512 shareable: Raw File /images/b.img <- as recorded",
            "vdc Disk 512 transient shared-backing: Raw File /images/c.img <- as recorded",
        ],
    ),
    (
        "lun-passthrough",
        &["sda Lun 512: Raw Block /dev/disk/by-id/scsi-36001405 <- as recorded"],
    ),
    (
        "backing-store-empty",
        &["vda Disk 512: Qcow2 File /images/vm1.qcow2 <- none"],
    ),
    (
        "backing-store-chain",
        &[
            "vda Disk 512: Qcow2 File /images/vm1.snap2 <- Qcow2 File /images/vm1.snap1 \
           <- Raw Block /dev/vg0/vm1 luks <- none",
        ],
    ),
    (
        "backing-store-open-end",
        &["vda Disk 512: Qcow2 File /images/top.qcow2 \
           <- Qcow2 Volume volume base.qcow2 of pool default <- as recorded"],
    ),
    (
        "slices-raw",
        &[
            "vda Disk 512: Raw File /images/container.bin from 1048576 for 18446744073709551615 <- as recorded",
        ],
    ),
    (
        "volume-from-pool",
        &["vda Disk 512: Raw Volume volume vm1 of pool vg-guests <- as recorded"],
    ),
    (
        "network-rbd",
        &[
            "vda Disk 512: Raw Network rbd:guests/vm1 <- as recorded",
            "vdb Disk 512: Raw Network nbd: <- as recorded",
        ],
    ),
    (
        "nvme",
        &["vda Disk 512: Raw Nvme nvme 0000:3d:1f.7 namespace 1 <- as recorded"],
    ),
    (
        "vhostuser",
        &["vda Disk 512: Raw VhostUser /run/vhost-blk.sock <- as recorded"],
    ),
    (
        "vhostvdpa",
        &["vda Disk 512: Raw VhostVdpa /dev/vhost-vdpa-0 <- as recorded"],
    ),
    (
        "dir-fat",
        &["vdb Disk 512 read-only: Other(\"fat\") Directory /srv/drivers <- as recorded"],
    ),
    (
        "type-of-the-future",
        &[
            "vda Disk 512: Raw Other source of unknown type ublk <- as recorded",
            "vdb Disk 512: Raw Other source of unknown type ublk <- as recorded",
        ],
    ),
    (
        "format-unusual",
        &[
            "vda Disk 512: Raw File /images/raw <- as recorded",
            "vdb Disk 512: Qcow2 File /images/qcow2 <- as recorded",
            "vdc Disk 512: Qcow File /images/qcow <- as recorded",
            "vdd Disk 512: Qed File /images/qed <- as recorded",
            "vde Disk 512: Vmdk File /images/vmdk <- as recorded",
            "vdf Disk 512: Vdi File /images/vdi <- as recorded",
            "vdg Disk 512: Vhdx File /images/vhdx <- as recorded",
            "vdh Disk 512: Vpc File /images/vpc <- as recorded",
            "vdi Disk 512: Other(\"parallels\") File /images/parallels <- as recorded",
            "xvda Disk 512: Raw File /images/xen.img <- as recorded",
        ],
    ),
    (
        "mirror-active",
        &["vda Disk 512 mirror: Qcow2 File /images/vm1.qcow2 <- none"],
    ),
    (
        "startup-policy",
        &[
            "sda Cdrom 512 read-only: Raw File /media/mandatory.iso <- as recorded",
            "sdb Cdrom 512 read-only: Raw File /media/requisite.iso <- as recorded",
            "sdc Cdrom 512 read-only may-be-missing: Raw File /media/optional.iso <- as recorded",
        ],
    ),
    (
        "blockio-4096",
        &[
            "vda Disk 4096: Raw File /images/4k.img <- as recorded",
            "vdb Disk 512: Raw File /images/auto.img <- as recorded",
            "vdc Disk 512: Raw File /images/physical.img <- as recorded",
        ],
    ),
    (
        "path-with-entities",
        &[
            "vda Disk 512: Raw File /images/a&b <c> \"d\" 'e' fg <- as recorded",
            "vdb Disk 512: Raw File /images/  two  blanks 'and' quotes  <- as recorded",
            "vdc Disk 512: Raw File /images/new\nline <- as recorded",
            "vdd Disk 512: Raw File /images/größe-снимок-磁盘.img <- as recorded",
            "vde Disk 512: Raw File /images/\"quoted\".img <- as recorded",
        ],
    ),
    (
        "interleaved-devices",
        &[
            "vdb Disk 512: Raw File /images/first.img <- as recorded",
            "vda Disk 512: Raw File /images/second.img <- as recorded",
            "sda Disk 512: Raw File /images/third.img <- as recorded",
        ],
    ),
    (
        "namespaced-metadata",
        &["vda Disk 512: Raw File /images/vm1.img <- as recorded"],
    ),
    (
        "unknown-elements",
        &["vda Disk 512: Qcow2 File /images/vm1.qcow2 <- as recorded"],
    ),
    (
        "fdgroup",
        &["vda Disk 512: Qcow2 File /not/on/this/host.qcow2 <- as recorded"],
    ),
    (
        "targets-repeated-and-missing",
        &[
            "vda Disk 512: Raw File /images/a <- as recorded",
            "vda#2 Disk 512: Raw File /images/b <- as recorded",
            "disk2 Disk 512: Raw File /images/c <- as recorded",
            "disk3 Disk 512: Raw File /images/d <- as recorded",
            "vda#3 Disk 512: Raw File /images/e <- as recorded",
        ],
    ),
    ("uuid-without-dashes", &[]),
    ("uuid-missing", &[]),
    ("name-twice", &[]),
];

/// (fixture, the sentence).
const REFUSED: &[(&str, &str)] = &[
    (
        "encryption-twice",
        "disk vda (line 5): it has an <encryption> of its own and another under its source",
    ),
    (
        "encryption-secret-of-two-names",
        "disk vda (line 5): the secret of its encryption has both a UUID and a usage",
    ),
    (
        "backing-store-without-format",
        "disk vda (line 5): a backing store in its chain names no format",
    ),
    (
        "slice-offset-negative",
        "disk vda (line 5): its slice offset '-1' is not a number of bytes",
    ),
    (
        "volume-without-pool",
        "disk vda (line 5): its source of type 'volume' has no pool",
    ),
    (
        "device-unknown",
        "disk st0 (line 5): its device 'tape' is unknown",
    ),
    (
        "blockio-520",
        "disk vda (line 5): its logical_block_size '520' is not a power of two from 512 to 32768",
    ),
    (
        "source-twice",
        "disk number 1 (line 5): duplicate field `source`",
    ),
    (
        "uuid-malformed",
        "the domain's UUID '7f1c2f0e-52f2-4d38-9d5b' is not one",
    ),
    ("name-missing", "the domain has no <name>"),
    (
        "malformed-unclosed",
        "malformed XML at line 6, column 1: expected </disk>, found the end of the text",
    ),
    (
        "malformed-crossed",
        "malformed XML at line 5, column 3: expected `</disk>`, but `</devices>` was found",
    ),
    (
        "malformed-attribute",
        "malformed XML at line 4, column 23: in <disk>: the attribute stands here a second time",
    ),
    (
        "malformed-trailing",
        "malformed XML at line 4, column 1: expected the end of the text after its root element, found <domain>",
    ),
    (
        "empty",
        "malformed XML at line 2, column 1: expected <domain>, found the end of the text",
    ),
    (
        "not-xml",
        "malformed XML at line 1, column 1: expected <domain>, found other text",
    ),
    (
        "entity-undefined",
        "malformed XML at line 5, column 7: in <source>: the entity &vm; is not defined",
    ),
    (
        "entity-billion-laughs",
        "the XML has a <!DOCTYPE> at line 2, column 1, which the XML of a domain never has; remove it",
    ),
    (
        "domstatus-running",
        "this is the status file of a running domain, not its definition; give the output of `virsh dumpxml --inactive`",
    ),
    (
        "domainsnapshot",
        "this is a snapshot, not a domain; give the output of `virsh dumpxml --inactive` of its domain",
    ),
    (
        "domaincheckpoint",
        "this is a checkpoint, not a domain; give the output of `virsh dumpxml --inactive` of its domain",
    ),
    (
        "domainbackup",
        "this is a backup job, not a domain; give the output of `virsh dumpxml --inactive` of its domain",
    ),
    (
        "network-definition",
        "the root element is <network>, not <domain>; give the output of `virsh dumpxml --inactive`",
    ),
];

#[test]
fn disks_are_read() {
    for (name, expected) in READ {
        let domain = parse(&fixture(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let found: Vec<_> = domain.disks.iter().map(told).collect();
        assert_eq!(&found, expected, "{name}");
    }
}

#[test]
fn refusals_say_what_and_where() {
    for (name, expected) in REFUSED {
        match parse(&fixture(name)) {
            Ok(domain) => panic!("{name}: read as {domain:?}"),
            Err(error) => assert_eq!(&error.to_string(), expected, "{name}"),
        }
    }
}

#[test]
fn names_and_uuids_are_read() {
    const UUID: Option<&str> = Some("7f1c2f0e-52f2-4d38-9d5b-0c4b9a1de001");
    for (name, domain_name, uuid) in [
        ("driver-missing", "vm1", UUID),
        ("uuid-without-dashes", "vm1", UUID),
        ("uuid-missing", "vm1", None),
        ("name-twice", "vm1", None),
        ("namespaced-metadata", "vm1", None),
        ("path-with-entities", "tom & jerry", UUID),
    ] {
        let domain = parse(&fixture(name)).unwrap();
        let found = domain.uuid.map(|uuid| uuid.to_string());
        assert_eq!(
            (domain.name.as_str(), found.as_deref()),
            (domain_name, uuid),
            "{name}"
        );
    }
}

#[test]
fn every_fixture_is_expected() {
    let files: BTreeSet<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected: BTreeSet<_> = READ
        .iter()
        .map(|(name, _)| name)
        .chain(REFUSED.iter().map(|(name, _)| name))
        .map(|name| format!("{name}.xml"))
        .collect();
    assert_eq!(files, expected);
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("xml-fixtures")
}

fn fixture(name: &str) -> String {
    let path = folder().join(format!("{name}.xml"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A disk on one line.
fn told(disk: &Disk) -> String {
    let Disk {
        target,
        device,
        image,
        backing,
        sector_size,
        read_only,
        shareable,
        transient,
        shares_backing,
        mirror,
        may_be_missing,
    } = disk;
    let mut line = format!("{target} {device:?} {}", sector_size.get());
    for (flag, word) in [
        (read_only, " read-only"),
        (shareable, " shareable"),
        (transient, " transient"),
        (shares_backing, " shared-backing"),
        (&mirror.is_some(), " mirror"),
        (may_be_missing, " may-be-missing"),
    ] {
        if *flag {
            line += word;
        }
    }
    line += ": ";
    line += &told_image(image);
    let mut next = backing;
    loop {
        match next {
            Backing::AsRecorded => return line + " <- as recorded",
            Backing::None => return line + " <- none",
            Backing::Given(under) => {
                line += " <- ";
                line += &told_image(&under.image);
                next = &under.backing;
            }
        }
    }
}

fn told_image(image: &Image) -> String {
    let mut text = format!("{:?} ", image.format);
    match &image.source {
        None => text += "nothing",
        Some(source) => {
            let debug = format!("{source:?}");
            let variant = debug.split([' ', '(']).next().unwrap_or_default();
            text += &format!("{variant} {source}");
        }
    }
    if let Some(slice) = image.slice {
        text += &format!(" from {} for {}", slice.offset.get(), slice.size.get());
    }
    if let Some(encryption) = &image.encryption {
        text += &format!(" {}", encryption.format);
        if let Some(engine) = &encryption.engine {
            text += &format!("/{engine}");
        }
        if let Some(secret) = &encryption.secret {
            text += &format!(" (secret {secret})");
        }
    }
    text
}
