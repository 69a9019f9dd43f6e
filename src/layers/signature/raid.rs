//! Members of arrays, pools and replicas: what lies on them is only a part, or a copy that must not
//! be changed alone.

use std::io;
use std::ops::Range;

use crate::layers::read::ReadAt;
use crate::layers::signature::field;
use crate::layers::signature::model::Signature;
use crate::layers::signature::probe::{Probe, from_end};
use crate::units::Bytes;

const MD_MAGIC: u32 = 0xa92b_4efc;
const MD_LENGTH: usize = 256;
/// Metadata 0.90 keeps the last 64 KiB-aligned 64 KiB (kernel: include/uapi/linux/raid/md_p.h).
const MD_RESERVED: u64 = 64 * 1024;
/// An array of plain MD has at most 384 members of metadata 1 (kernel: drivers/md/md.c).
const MD_MAX_DEVICES: u32 = 4096;

const DRBD_LENGTH: u64 = 4096;
const DRBD_MIN_SIZE: u64 = 64 * 1024;
/// Metadata of DRBD 8, of 8.4 not cleanly detached, and of 9 (drbd-utils: user/shared/drbdmeta.c).
const DRBD_MAGICS: [u32; 3] = [0x8374_026b, 0x8374_026c, 0x8374_026d];

/// Intel's metadata, in the last sector but one, and those of SNIA's Disk Data Format, in the last
/// (mdadm: super-intel.c, super-ddf.c): controllers' own, which the kernel does not know.
const INTEL: &[u8] = b"Intel Raid ISM Cfg Sig. ";
const DDF_MAGIC: u32 = 0xde11_de11;

/// A member whose metadata lies at the END of the device.
///
/// Its beginning looks like what the array holds: a mirror's half like a filesystem, or a disk with
/// a partition table. To check and repair one half alone would make the mirror's halves differ
/// without MD or DRBD knowing, so this is asked before anything else.
pub(in crate::layers) struct MemberAtEnd {
    /// What it is.
    pub(in crate::layers) signature: Signature,
    /// The bytes of the superblock, where a partition that reaches the end of its disk may be the
    /// member just as well as the disk; `None` if the superblock names its own place.
    pub(in crate::layers) superblock: Option<Range<u64>>,
}

/// Looks for a member by metadata at its end.
///
/// # Errors
/// If the end cannot be read.
pub(in crate::layers) fn at_end(layer: &dyn ReadAt) -> io::Result<Option<MemberAtEnd>> {
    let size = layer.size().get();
    let read = |offset: u64, length: u64| match offset.checked_add(length) {
        Some(end) if end <= size => layer
            .read_at(Bytes::new(offset), Bytes::new(length))
            .map(Some),
        _ => Ok(None),
    };
    if let Some(offset) = from_end(size, 4096, 8192)
        && let Some(block) = read(offset, MD_LENGTH as u64)?
        && let Some(signature) = md_version_1(&block, offset, "1.0")
    {
        return Ok(Some(MemberAtEnd {
            signature,
            superblock: None,
        }));
    }
    if let Some(offset) = from_end(size, MD_RESERVED, MD_RESERVED)
        && let Some(block) = read(offset, MD_LENGTH as u64)?
        && let Some(signature) = md_version_0(&block, offset)
    {
        return Ok(Some(MemberAtEnd {
            signature,
            superblock: Some(offset..offset.saturating_add(4096)),
        }));
    }
    if let Some(offset) = size.checked_sub(2 * 512)
        && let Some(block) = read(offset, 2 * 512)?
        && let Some(what) = controllers(&block)
    {
        return Ok(Some(MemberAtEnd {
            signature: Signature::Opaque {
                what: "RAID member".to_owned(),
                uuid: None,
                reason: format!("{what}, whose arrays this version cannot put together"),
            },
            superblock: Some(offset..size),
        }));
    }
    if size >= DRBD_MIN_SIZE
        && let Some(offset) = size.checked_sub(DRBD_LENGTH)
        && let Some(block) = read(offset, 512)?
        && field::be32(&block, 60).is_some_and(|magic| DRBD_MAGICS.contains(&magic))
    {
        return Ok(Some(MemberAtEnd {
            signature: Signature::Opaque {
                what: "DRBD".to_owned(),
                uuid: None,
                reason: "one copy of a replicated device; a repair of it alone would make the \
                         copies differ"
                    .to_owned(),
            },
            superblock: Some(offset..size),
        }));
    }
    Ok(None)
}

/// Metadata of a controller's firmware in the last two sectors.
fn controllers(block: &[u8]) -> Option<&'static str> {
    if field::is(block, 0, INTEL) {
        Some("member of a container of Intel's firmware RAID (IMSM)")
    } else if field::be32(block, 512) == Some(DDF_MAGIC) {
        Some("member of a container in the Disk Data Format (DDF)")
    } else {
        None
    }
}

/// A member by metadata at its beginning.
pub(super) fn at_start(probe: &Probe) -> Option<Signature> {
    md_version_1(probe.from(0), 0, "1.1")
        .or_else(|| md_version_1(probe.from(4096), 4096, "1.2"))
        .or_else(|| bcache(probe))
        .or_else(|| stratis(probe))
        .or_else(|| vdo(probe))
        .or_else(|| bluestore(probe))
}

/// Metadata 1.x (kernel: include/uapi/linux/raid/md_p.h, `struct mdp_superblock_1`).
fn md_version_1(block: &[u8], offset: u64, version: &str) -> Option<Signature> {
    if field::le32(block, 0)? != MD_MAGIC
        || field::le32(block, 4)? != 1
        || field::le64(block, 128 + 16)? != offset / 512
    {
        return None;
    }
    let level = field::le32(block, 72)?;
    let devices = field::le32(block, 92)?;
    Some(md(version, level, devices, field::uuid(block, 16)))
}

/// Metadata 0.90, in the byte order of the machine that wrote it (`struct mdp_superblock_s`).
fn md_version_0(block: &[u8], offset: u64) -> Option<Signature> {
    let little = field::le32(block, 0)? == MD_MAGIC;
    if !little && field::be32(block, 0)? != MD_MAGIC {
        return None;
    }
    let word = |index: usize| {
        let at = index.checked_mul(4)?;
        if little {
            field::le32(block, at)
        } else {
            field::be32(block, at)
        }
    };
    if word(1)? != 0 || u64::from(word(8)?) * 1024 > offset {
        return None;
    }
    let mut uuid = Vec::with_capacity(16);
    for index in [5, 13, 14, 15] {
        uuid.extend(word(index)?.to_be_bytes());
    }
    Some(md("0.90", word(7)?, word(10)?, field::uuid(&uuid, 0)))
}

fn md(version: &str, level: u32, devices: u32, uuid: Option<String>) -> Signature {
    let level = match i32::from_ne_bytes(level.to_ne_bytes()) {
        -1 => "linear".to_owned(),
        -4 => "multipath".to_owned(),
        -100 => "container".to_owned(),
        level @ 0..=10 => format!("raid{level}"),
        level => format!("level {level}"),
    };
    let devices = match devices {
        1 => ", 1 device".to_owned(),
        0 | MD_MAX_DEVICES.. => String::new(),
        devices => format!(", {devices} devices"),
    };
    Signature::Opaque {
        what: "RAID member".to_owned(),
        uuid,
        reason: format!(
            "member of a RAID array ({level}{devices}, metadata {version}), and nothing without \
             the others"
        ),
    }
}

/// bcache and bcachefs (kernel: drivers/md/bcache/bcache_ondisk.h; fs/bcachefs/bcachefs_format.h).
fn bcache(probe: &Probe) -> Option<Signature> {
    const SHARED_MAGIC: &[u8] = b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81";
    const BCACHEFS_MAGIC: &[u8] =
        b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef";
    let block = probe.from(4096);
    // bcache writes its superblock's sector right after the checksum; bcachefs has it later.
    if field::is(block, 24, SHARED_MAGIC) && field::le64(block, 8)? == 8 {
        return Some(Signature::Opaque {
            what: "bcache".to_owned(),
            uuid: field::uuid(block, 40),
            reason: "part of a bcache device, which this version cannot assemble".to_owned(),
        });
    }
    (field::is(block, 24, BCACHEFS_MAGIC) || field::is(block, 24, SHARED_MAGIC)).then(|| {
        Signature::Opaque {
            what: "bcachefs".to_owned(),
            uuid: field::uuid(block, 56),
            reason: "this version has no checker for it".to_owned(),
        }
    })
}

/// Stratis keeps two copies of its header (stratisd: src/engine/strat_engine/metadata).
fn stratis(probe: &Probe) -> Option<Signature> {
    const MAGIC: &[u8] = b"!Stra0tis\x86\xff\x02^Arh";
    let at = [512, 9 * 512]
        .into_iter()
        .find(|at| probe.is(at + 4, MAGIC))?;
    Some(Signature::Opaque {
        what: "Stratis".to_owned(),
        uuid: field::uuid_text(probe.from(at), 64, 32),
        reason: "member of a Stratis pool, which this version cannot assemble".to_owned(),
    })
}

/// VDO's geometry block, at byte 0.
fn vdo(probe: &Probe) -> Option<Signature> {
    probe.is(0, b"dmvdo001").then(|| Signature::Opaque {
        what: "VDO".to_owned(),
        uuid: None,
        reason: "a deduplicated volume, which this version cannot assemble".to_owned(),
    })
}

/// Ceph's BlueStore label, at byte 0.
fn bluestore(probe: &Probe) -> Option<Signature> {
    probe
        .is(0, b"bluestore block device")
        .then(|| Signature::Opaque {
            what: "BlueStore".to_owned(),
            uuid: None,
            reason: "Ceph keeps its objects on it; there is no filesystem to check".to_owned(),
        })
}

/// ZFS, by the uberblocks of its labels at both ends (OpenZFS: include/sys/vdev_impl.h).
///
/// # Errors
/// If an end cannot be read.
pub(super) fn zfs(probe: &Probe) -> io::Result<Option<Signature>> {
    const LABEL: u64 = 256 * 1024;
    const UBERBLOCKS: u64 = 128 * 1024;
    const UBERBLOCK_SIZE: usize = 1024;
    const MAGIC: u64 = 0x00ba_b10c;
    /// One could be chance; a pool that was written to a few times has more.
    const ENOUGH: usize = 4;
    let mut labels = vec![0, LABEL];
    labels.extend(from_end(probe.size(), LABEL, 2 * LABEL));
    labels.extend(from_end(probe.size(), LABEL, LABEL));
    labels.sort_unstable();
    labels.dedup();
    let mut found = 0;
    for label in labels {
        let Some(ring) = probe.bytes(label + UBERBLOCKS, 128 * UBERBLOCK_SIZE)? else {
            continue;
        };
        found += ring
            .chunks_exact(UBERBLOCK_SIZE)
            .filter(|block| [field::le64(block, 0), field::be64(block, 0)].contains(&Some(MAGIC)))
            .count();
    }
    Ok((found >= ENOUGH).then(|| Signature::Opaque {
        what: "ZFS".to_owned(),
        uuid: None,
        reason: "member of a ZFS pool; pools are not imported".to_owned(),
    }))
}
