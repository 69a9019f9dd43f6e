//! Reports made by hand, for the tests of this folder.

use std::time::Duration;

use crate::check::outcome::{LayerResult, Results, Verdict};
use crate::layers::extent::{Extent, ExtentMap, ImageIndex};
use crate::layers::filesystem::{CheckRecord, Filesystem, FilesystemKind, Timestamp};
use crate::layers::tree::{Content, Layer, LayerPath, PartitionRole, PartitionScheme};
use crate::report::model::{DiskContent, DiskReport, DomainReport};
use crate::units::{Bytes, SectorSize};

/// 2026-11-20 14:03:07 UTC.
pub const CHECKED: Timestamp = Timestamp(1_795_183_387);
/// Half a year later.
pub const DUE: Timestamp = Timestamp(CHECKED.0 + 180 * 86_400);

pub fn path(text: &str) -> LayerPath {
    let (disk, rest) = text.split_once('/').unwrap_or((text, ""));
    let path = LayerPath::disk(disk);
    if rest.is_empty() {
        path
    } else {
        path.join(rest)
    }
}

/// Pieces as (image, MiB of its begin, MiB of its length).
pub fn layer(at: &str, pieces: &[(usize, u64, u64)], content: Content) -> Layer {
    let mut extents = ExtentMap::default();
    for &(image, offset, length) in pieces {
        extents.push(Extent {
            image: ImageIndex(image),
            offset: Bytes::mib(offset),
            length: Bytes::mib(length),
        });
    }
    Layer {
        path: path(at),
        extents,
        role: None,
        read_only: None,
        content,
        notes: vec![],
        children: vec![],
    }
}

pub fn with(mut layer: Layer, children: Vec<Layer>) -> Layer {
    layer.children = children;
    layer
}

pub fn fs(kind: FilesystemKind, label: &str) -> Content {
    Content::Filesystem(Filesystem {
        kind,
        uuid: Some("0f3e9a52-7c1d-4b8e-9f60-1a2b3c4d5e6f".to_owned()),
        label: (!label.is_empty()).then(|| label.to_owned()),
        size: None,
        record: CheckRecord::default(),
    })
}

pub fn ext4(label: &str, record: CheckRecord) -> Content {
    match fs(FilesystemKind::Ext4, label) {
        Content::Filesystem(filesystem) => Content::Filesystem(Filesystem {
            record,
            ..filesystem
        }),
        other => other,
    }
}

pub fn gpt() -> Content {
    Content::PartitionTable {
        scheme: PartitionScheme::Gpt,
        sector_size: SectorSize::S512,
        incomplete: false,
    }
}

pub fn swap() -> Content {
    Content::Swap {
        uuid: None,
        label: None,
        hibernated: None,
    }
}

pub fn pv(group: &str) -> Content {
    Content::PhysicalVolume {
        uuid: "AbCdEf-0123-4567-89ab-cdef-0123-456789".to_owned(),
        volume_group: Some(group.to_owned()),
        shared: None,
    }
}

pub fn disk(target: &str, root: Layer) -> DiskReport {
    DiskReport {
        target: target.to_owned(),
        source: Some(format!("/var/lib/libvirt/images/{target}.qcow2")),
        format: "qcow2".to_owned(),
        size: Some(root.size()),
        notes: vec![],
        image: None,
        content: DiskContent::Opened(root),
    }
}

pub fn not_opened(target: &str, source: Option<&str>, verdict: Verdict) -> DiskReport {
    DiskReport {
        target: target.to_owned(),
        source: source.map(str::to_owned),
        format: "raw".to_owned(),
        size: None,
        notes: vec![],
        image: None,
        content: DiskContent::NotOpened(verdict),
    }
}

pub fn domain(name: &str, disks: Vec<DiskReport>, results: Results) -> DomainReport {
    DomainReport {
        domain: name.to_owned(),
        uuid: None,
        origin: "qemu:///system".to_owned(),
        verdict: None,
        disks,
        opened: Vec::new(),
        results,
        notes: vec![],
        plan: vec![],
        duration: Duration::from_millis(6_320),
    }
}

pub fn checked(verdict: Verdict, exit_code: i32, millis: u64, output: &str) -> LayerResult {
    LayerResult {
        checker: Some("e2fsck"),
        exit_code: Some(exit_code),
        duration: Duration::from_millis(millis),
        output: output.to_owned(),
        ..LayerResult::without_checker(verdict)
    }
}

pub fn results(results: Vec<(&str, LayerResult)>) -> Results {
    results
        .into_iter()
        .map(|(at, result)| (path(at), result))
        .collect()
}

/// A guest as there are many: EFI, swap, and a volume group over two disks.
pub fn everyday() -> DomainReport {
    let mut esp = layer("vda/p1", &[(0, 1, 512)], fs(FilesystemKind::Vfat, "EFI"));
    esp.role = Some(PartitionRole {
        type_code: "C12A7328-F81F-11D2-BA4B-00A0C93EC93B".to_owned(),
        type_name: Some("EFI System"),
        name: Some("esp".to_owned()),
        holds_boot_code: false,
    });
    let root = CheckRecord {
        last_check: Some(CHECKED),
        mount_count: Some(12),
        max_mount_count: Some(30),
        next_check: Some(DUE),
        dirty: Some(true),
        has_errors: Some(true),
        ..CheckRecord::default()
    };
    let home = CheckRecord {
        last_check: Some(CHECKED),
        mount_count: Some(1),
        ..CheckRecord::default()
    };
    let vda = with(
        layer("vda", &[(0, 0, 10_240)], gpt()),
        vec![
            esp,
            layer("vda/p2", &[(0, 513, 1024)], swap()),
            with(
                layer("vda/p3", &[(0, 1537, 8702)], pv("lvg1")),
                vec![
                    layer("vda/p3/lvg1/lvroot", &[(0, 1538, 2048)], ext4("root", root)),
                    layer(
                        "vda/p3/lvg1/lvhome",
                        &[(0, 3586, 6653), (1, 1, 4096)],
                        ext4("home", home),
                    ),
                ],
            ),
        ],
    );
    let vdb = layer("vdb", &[(1, 0, 20_480)], pv("lvg1"));
    let mut home = checked(
        Verdict::Corrected,
        1,
        4_870,
        "Inode 12, i_blocks is 16, should be 8.  Fix? yes\n\nhome: ***** FILE SYSTEM WAS MODIFIED *****\n",
    );
    home.notes
        .push("undo: virt-fsck undo 20261120-140307-vm1".to_owned());
    let nothing = Verdict::NothingToCheck("swap space holds no filesystem".to_owned());
    domain(
        "vm1",
        vec![
            disk("vda", vda),
            disk("vdb", vdb),
            not_opened(
                "sda",
                None,
                Verdict::NothingToCheck("no medium in the drive".to_owned()),
            ),
        ],
        results(vec![
            ("vda/p1", checked(Verdict::Clean, 0, 140, "")),
            ("vda/p2", LayerResult::without_checker(nothing)),
            (
                "vda/p3/lvg1/lvroot",
                checked(Verdict::Clean, 0, 1_240, "Pass 1: ...\n"),
            ),
            ("vda/p3/lvg1/lvhome", home),
        ]),
    )
}

/// A guest that lies to whoever looks at it.
pub fn hostile() -> DomainReport {
    let mut root = with(
        layer("vda", &[(0, 0, 1024)], gpt()),
        vec![
            layer(
                "vda/p1",
                &[(0, 1, 10)],
                fs(FilesystemKind::Ext4, "\u{1b}[2J\u{202e}x\" clean"),
            ),
            layer(
                "vda/p2/\u{1b}vg/lv\n",
                &[(0, 11, 10)],
                fs(FilesystemKind::Btrfs, "数据"),
            ),
        ],
    );
    root.notes.push("partition named \u{7}bell".to_owned());
    let mut report = domain(
        "vm\u{1b}]0;x\u{7}",
        vec![disk("vda", root)],
        results(vec![
            (
                "vda/p1",
                checked(
                    Verdict::ErrorsLeft,
                    4,
                    10,
                    "bad\u{1b}[1A\n\tname \u{9b}2J\r\nend",
                ),
            ),
            (
                "vda/p2/\u{1b}vg/lv\n",
                LayerResult::without_checker(Verdict::NotChecked("no\u{8} checker".to_owned())),
            ),
        ]),
    );
    report.disks[0].source = Some("/images/\u{1b}c.qcow2".to_owned());
    report
}
