//! Filesystems that need no checker, ISO 9660 and squashfs; and those without one, which are only
//! named.

use crate::layers::filesystem::{CheckRecord, Filesystem, FilesystemKind};
use crate::layers::signature::field;
use crate::layers::signature::model::Signature;
use crate::layers::signature::probe::Probe;
use crate::units::Bytes;

/// ISO 9660's primary volume descriptor, at 32 KiB (ECMA-119, 8.4).
pub(super) fn iso9660(probe: &Probe) -> Option<Filesystem> {
    let block = probe.from(32 * 1024).get(..2048)?;
    if !field::is(block, 0, b"\x01CD001") {
        return None;
    }
    let block_size = u64::from(field::le16(block, 128)?);
    Some(Filesystem {
        kind: FilesystemKind::Iso9660,
        uuid: iso9660_date(block, 830).or_else(|| iso9660_date(block, 813)),
        label: field::text(block, 40, 32),
        size: u64::from(field::le32(block, 80)?)
            .checked_mul(block_size)
            .and_then(positive),
        record: CheckRecord::default(),
    })
}

/// blkid makes the volume's date of change, or else of creation, its UUID.
fn iso9660_date(block: &[u8], at: usize) -> Option<String> {
    let digits = block.get(at..at.checked_add(16)?)?;
    if !digits.iter().all(u8::is_ascii_digit) || digits.iter().all(|digit| *digit == b'0') {
        return None;
    }
    let part = |from, to| digits.get(from..to).map(String::from_utf8_lossy);
    Some(format!(
        "{}-{}-{}-{}-{}-{}-{}",
        part(0, 4)?,
        part(4, 6)?,
        part(6, 8)?,
        part(8, 10)?,
        part(10, 12)?,
        part(12, 14)?,
        part(14, 16)?
    ))
}

/// squashfs's superblock, at byte 0 (kernel: fs/squashfs/squashfs_fs.h).
pub(super) fn squashfs(probe: &Probe) -> Option<Filesystem> {
    let block = probe.from(0).get(..96)?;
    if !field::is(block, 0, b"hsqs") {
        return None;
    }
    Some(Filesystem {
        kind: FilesystemKind::Squashfs,
        uuid: None,
        label: None,
        size: positive(field::le64(block, 40)?),
        record: CheckRecord::default(),
    })
}

fn positive(size: u64) -> Option<Bytes> {
    (size != 0).then_some(Bytes::new(size))
}

/// A filesystem that is only named: its magic at a byte of the layer, and where its UUID lies.
struct Named {
    what: &'static str,
    at: usize,
    magic: &'static [u8],
    uuid: Option<usize>,
}

const fn named(what: &'static str, at: usize, magic: &'static [u8], uuid: Option<usize>) -> Named {
    Named {
        what,
        at,
        magic,
        uuid,
    }
}

/// Magics as in each filesystem's kernel header, or in util-linux where the kernel has none.
const NAMED: &[Named] = &[
    named("ReiserFS", 0x10034, b"ReIsErFs", None),
    named("ReiserFS", 0x10034, b"ReIsEr2Fs", Some(0x10054)),
    named("ReiserFS", 0x10034, b"ReIsEr3Fs", Some(0x10054)),
    named("ReiserFS", 0x2034, b"ReIsErFs", None),
    named("Reiser4", 0x10000, b"ReIsEr4", Some(0x10014)),
    named("JFS", 0x8000, b"JFS1", Some(0x8088)),
    named(
        "NILFS2",
        0x400,
        &[2, 0, 0, 0, 0, 0, 0x34, 0x34],
        Some(0x498),
    ),
    named("APFS", 32, b"NXSB", Some(72)),
    named("ReFS", 0, b"\0\0\0ReFS\0", None),
    named("HFS+", 0x400, b"H+\0\x04", None),
    named("HFS+", 0x400, b"HX\0\x05", None),
    named("UFS", 0x255c, &[0x54, 0x19, 0x01, 0x00], None),
    named("UFS2", 0x1055c, &[0x19, 0x01, 0x54, 0x19], None),
    named("EROFS", 0x400, &[0xe2, 0xe1, 0xf5, 0xe0], Some(0x430)),
    named("cramfs", 0, &[0x45, 0x3d, 0xcd, 0x28], None),
    named("GFS2", 0x10000, &[0x01, 0x16, 0x19, 0x70], None),
    named("OCFS2", 0x400, b"OCFSV2", None),
    named("OCFS2", 0x800, b"OCFSV2", None),
    named("OCFS2", 0x1000, b"OCFSV2", None),
    named("OCFS2", 0x2000, b"OCFSV2", None),
    named("UDF", 0x8001, b"BEA01", None),
    named("BeFS", 0x220, b"1SFB", None),
    named("VxFS", 0x400, &[0xf5, 0xfc, 0x01, 0xa5], None),
];

/// A filesystem that virt-fsck knows by name only.
pub(super) fn unchecked(probe: &Probe) -> Option<Signature> {
    NAMED
        .iter()
        .find(|named| probe.is(named.at, named.magic))
        .map(|named| Signature::Opaque {
            what: named.what.to_owned(),
            uuid: named.uuid.and_then(|at| field::uuid(probe.from(at), 0)),
            reason: "this version has no checker for it".to_owned(),
        })
}
