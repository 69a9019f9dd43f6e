//! FAT12, FAT16 and FAT32 (Microsoft: FAT32 File System Specification, 1.03).

use crate::layers::filesystem::{CheckRecord, Filesystem, FilesystemKind};
use crate::layers::signature::field;
use crate::layers::signature::probe::Probe;
use crate::units::Bytes;

const MAX_CLUSTERS_FAT16: u64 = 0xfff4;
const MAX_CLUSTERS_FAT32: u64 = 0x0fff_fff6;

/// The state byte's bit that the kernel and Windows set while the filesystem is mounted for
/// writing (kernel: include/uapi/linux/msdos_fs.h, `FAT_STATE_DIRTY`).
const STATE_DIRTY: u8 = 0x01;

/// Of the layouts after the common fields, FAT32's is longer.
struct Layout {
    state: usize,
    serial: usize,
    label: usize,
    magic: usize,
}

const FAT16: Layout = Layout {
    state: 0x25,
    serial: 0x27,
    label: 0x2b,
    magic: 0x36,
};
const FAT32: Layout = Layout {
    state: 0x41,
    serial: 0x43,
    label: 0x47,
    magic: 0x52,
};

/// The boot sector, at byte 0. The label is the boot sector's; the root directory's is not read.
pub(super) fn recognise(probe: &Probe) -> Option<Filesystem> {
    let sector = probe.from(0).get(..512)?;
    let (layout, size) = parameters(sector)?;
    let [a, b, c, d] = field::le32(sector, layout.serial)?.to_be_bytes();
    Some(Filesystem {
        kind: FilesystemKind::Vfat,
        uuid: Some(format!("{a:02X}{b:02X}-{c:02X}{d:02X}")),
        label: field::text(sector, layout.label, 11).filter(|label| label != "NO NAME"),
        size: Some(size),
        record: CheckRecord {
            dirty: Some(field::u8(sector, layout.state)? & STATE_DIRTY != 0),
            ..CheckRecord::default()
        },
    })
}

/// Whether these 512 bytes are the boot sector of a FAT filesystem.
pub(in crate::layers) fn is_boot_sector(sector: &[u8]) -> bool {
    parameters(sector).is_some()
}

/// FAT has no magic that must be there, so every field is held against what is possible, by the
/// same rules as blkid (util-linux: libblkid/src/superblocks/vfat.c).
fn parameters(sector: &[u8]) -> Option<(&'static Layout, Bytes)> {
    if !is_called_fat(sector) && !is_bootable(sector) {
        return None;
    }
    let sector_size = u64::from(field::le16(sector, 0x0b)?);
    let cluster_size = u64::from(field::u8(sector, 0x0d)?);
    let reserved = u64::from(field::le16(sector, 0x0e)?);
    let fats = u64::from(field::u8(sector, 0x10)?);
    let root_entries = u64::from(field::le16(sector, 0x11)?);
    let media = field::u8(sector, 0x15)?;
    if !(512..=4096).contains(&sector_size)
        || !sector_size.is_power_of_two()
        || !cluster_size.is_power_of_two()
        || reserved == 0
        || fats == 0
        || !(media >= 0xf8 || media == 0xf0)
    {
        return None;
    }
    let sectors = match field::le16(sector, 0x13)? {
        0 => u64::from(field::le32(sector, 0x20)?),
        small => u64::from(small),
    };
    let (layout, fat_length, max_clusters) = match field::le16(sector, 0x16)? {
        0 => (&FAT32, field::le32(sector, 0x24)?, MAX_CLUSTERS_FAT32),
        length => (&FAT16, u32::from(length), MAX_CLUSTERS_FAT16),
    };
    if fat_length == 0 {
        return None;
    }
    let root_sectors = (root_entries * 32).div_ceil(sector_size);
    let around = reserved + u64::from(fat_length) * fats + root_sectors;
    let clusters = sectors.checked_sub(around)? / cluster_size;
    (clusters <= max_clusters).then(|| (layout, Bytes::new(sectors * sector_size)))
}

fn is_called_fat(sector: &[u8]) -> bool {
    [&b"MSDOS"[..], b"FAT16   ", b"FAT12   ", b"FAT     "]
        .iter()
        .any(|name| field::is(sector, FAT16.magic, name))
        || [&b"MSWIN"[..], b"FAT32   "]
            .iter()
            .any(|name| field::is(sector, FAT32.magic, name))
}

/// JFS and HPFS volumes of OS/2 begin with a sector that looks like FAT's but for its name.
fn is_bootable(sector: &[u8]) -> bool {
    field::is(sector, 510, &[0x55, 0xaa])
        && ![b"JFS     ", b"HPFS    "]
            .iter()
            .any(|name| field::is(sector, FAT16.magic, *name))
}
