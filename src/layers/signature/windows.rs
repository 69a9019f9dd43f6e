//! NTFS, exFAT and BitLocker.

use std::io;

use crate::layers::filesystem::{CheckRecord, Filesystem, FilesystemKind};
use crate::layers::signature::field;
use crate::layers::signature::model::Signature;
use crate::layers::signature::probe::Probe;
use crate::units::Bytes;

/// Where a boot sector names what wrote it.
const NAME: usize = 3;
const NTFS: &[u8] = b"NTFS    ";
const EXFAT: &[u8] = b"EXFAT   ";
const BITLOCKER: &[u8] = b"-FVE-FS-";
/// BitLocker To Go looks like FAT32; its header's GUID tells it (libbde: BitLocker Drive Encryption
/// format, "volume header").
const BITLOCKER_TO_GO: &[u8] = b"MSWIN4.1";
const BITLOCKER_GUID: [u8; 16] = [
    0x3b, 0xd6, 0x67, 0x49, 0x29, 0x2e, 0xd8, 0x4a, 0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0, 0x01,
];
const BITLOCKER_TO_GO_GUID_AT: usize = 424;

/// The file record that describes the volume, and as much of it as is looked at: the first sector,
/// less the two bytes at its end that NTFS swaps out.
const NTFS_VOLUME_RECORD: u64 = 3;
const NTFS_RECORD_LENGTH: usize = 510;
const NTFS_VOLUME_NAME: u32 = 0x60;
const NTFS_VOLUME_INFORMATION: u32 = 0x70;
const NTFS_DIRTY: u16 = 0x1;
/// A record has a dozen attributes; more do not fit.
const NTFS_MAX_ATTRIBUTES: usize = 32;

/// mkfs and Windows put the label first; in 16 entries it is found, and they fit in any cluster.
const EXFAT_ENTRIES: usize = 16;
const EXFAT_ENTRY_LENGTH: usize = 32;
const EXFAT_LABEL: u8 = 0x83;
/// "VolumeDirty" (Microsoft: exFAT specification, 3.1.13).
const EXFAT_DIRTY: u16 = 0x2;

/// Whether a sector is the boot sector of one of these, and therefore no master boot record.
pub(in crate::layers) fn is_boot_sector(sector: &[u8]) -> bool {
    [NTFS, EXFAT, BITLOCKER, b"ReFS\0\0\0\0"]
        .iter()
        .any(|name| field::is(sector, NAME, name))
}

/// BitLocker's header, at byte 0.
pub(super) fn bitlocker(probe: &Probe) -> Option<Signature> {
    let to_go =
        probe.is(NAME, BITLOCKER_TO_GO) && probe.is(BITLOCKER_TO_GO_GUID_AT, &BITLOCKER_GUID);
    (to_go || probe.is(NAME, BITLOCKER)).then(|| Signature::encrypted("BitLocker", None))
}

/// NTFS's boot sector, at byte 0 (kernel: fs/ntfs3/ntfs.h, `struct NTFS_BOOT`).
pub(super) fn ntfs(probe: &Probe) -> io::Result<Option<Filesystem>> {
    let Some(boot) = NtfsBoot::parse(probe.from(0)) else {
        return Ok(None);
    };
    let volume = match boot.volume_record() {
        Some(offset) => probe.bytes(offset, NTFS_RECORD_LENGTH)?,
        None => None,
    };
    let volume = volume.as_deref().unwrap_or_default();
    let information = ntfs_attribute(volume, NTFS_VOLUME_INFORMATION);
    let name = ntfs_attribute(volume, NTFS_VOLUME_NAME);
    Ok(Some(Filesystem {
        kind: FilesystemKind::Ntfs,
        uuid: Some(format!("{:016X}", boot.serial)),
        label: name.and_then(|name| field::utf16(name, 0, name.len())),
        size: boot.size,
        record: CheckRecord {
            dirty: information
                .and_then(|value| field::le16(value, 10))
                .map(|flags| flags & NTFS_DIRTY != 0),
            ..CheckRecord::default()
        },
    }))
}

struct NtfsBoot {
    sector_size: u64,
    sectors_per_cluster: u64,
    size: Option<Bytes>,
    table_cluster: u64,
    /// Clusters if positive, else the negative logarithm of bytes.
    record_size: i8,
    serial: u64,
}

impl NtfsBoot {
    fn parse(sector: &[u8]) -> Option<Self> {
        let sector_size = u64::from(field::le16(sector, 0x0b)?);
        let sectors_per_cluster = u64::from(field::u8(sector, 0x0d)?);
        if !field::is(sector, NAME, NTFS)
            || !(256..=4096).contains(&sector_size)
            || !sector_size.is_power_of_two()
            || sectors_per_cluster == 0
        {
            return None;
        }
        // The last sector of the partition, the boot sector's copy, is not counted.
        let size = field::le64(sector, 0x28)?.checked_mul(sector_size);
        Some(Self {
            sector_size,
            sectors_per_cluster,
            size: size.filter(|size| *size != 0).map(Bytes::new),
            table_cluster: field::le64(sector, 0x30)?,
            record_size: i8::from_ne_bytes([field::u8(sector, 0x40)?]),
            serial: field::le64(sector, 0x48)?,
        })
    }

    fn volume_record(&self) -> Option<u64> {
        let cluster = self.sector_size.checked_mul(self.sectors_per_cluster)?;
        let record = match u64::try_from(self.record_size) {
            Ok(clusters) => cluster.checked_mul(clusters)?,
            Err(_) => 1_u64.checked_shl(self.record_size.unsigned_abs().into())?,
        };
        self.table_cluster
            .checked_mul(cluster)?
            .checked_add(record.checked_mul(NTFS_VOLUME_RECORD)?)
    }
}

/// The value of a file record's first resident attribute of that type.
fn ntfs_attribute(record: &[u8], wanted: u32) -> Option<&[u8]> {
    if !field::is(record, 0, b"FILE") {
        return None;
    }
    let mut at = usize::from(field::le16(record, 20)?);
    for _ in 0..NTFS_MAX_ATTRIBUTES {
        let attribute = record.get(at..)?;
        let length = usize::try_from(field::le32(attribute, 4)?).ok()?;
        if field::le32(attribute, 0)? == wanted && field::u8(attribute, 8)? == 0 {
            let value = usize::from(field::le16(attribute, 20)?);
            let value_length = usize::try_from(field::le32(attribute, 16)?).ok()?;
            return attribute.get(value..)?.get(..value_length);
        }
        at = at.checked_add(length)?;
    }
    None
}

/// exFAT's main boot sector, at byte 0, and the label from the root directory's first entries.
pub(super) fn exfat(probe: &Probe) -> io::Result<Option<Filesystem>> {
    let Some((mut found, root)) = exfat_boot(probe.from(0)) else {
        return Ok(None);
    };
    if let Some(root) = root
        && let Some(entries) = probe.bytes(root, EXFAT_ENTRY_LENGTH * EXFAT_ENTRIES)?
    {
        found.label = entries
            .chunks_exact(EXFAT_ENTRY_LENGTH)
            .find(|entry| field::u8(entry, 0) == Some(EXFAT_LABEL))
            .and_then(|entry| {
                let units = usize::from(field::u8(entry, 1)?).min(11);
                field::utf16(entry, 2, units * 2)
            });
    }
    Ok(Some(found))
}

/// The filesystem without its label, and the root directory's first byte.
fn exfat_boot(sector: &[u8]) -> Option<(Filesystem, Option<u64>)> {
    let sector_shift = u32::from(field::u8(sector, 108)?);
    let cluster_shift = u32::from(field::u8(sector, 109)?);
    if !field::is(sector, NAME, EXFAT) || !(9..=12).contains(&sector_shift) {
        return None;
    }
    let [a, b, c, d] = field::le32(sector, 100)?.to_be_bytes();
    let size = field::le64(sector, 72)?.checked_mul(1 << sector_shift);
    let heap = u64::from(field::le32(sector, 88)?);
    let root = u64::from(field::le32(sector, 96)?)
        .checked_sub(2)
        .zip(1_u64.checked_shl(cluster_shift))
        .and_then(|(cluster, sectors)| cluster.checked_mul(sectors)?.checked_add(heap))
        .and_then(|first| first.checked_mul(1 << sector_shift));
    let found = Filesystem {
        kind: FilesystemKind::Exfat,
        uuid: Some(format!("{a:02X}{b:02X}-{c:02X}{d:02X}")),
        label: None,
        size: size.filter(|size| *size != 0).map(Bytes::new),
        record: CheckRecord {
            dirty: Some(field::le16(sector, 106)? & EXFAT_DIRTY != 0),
            ..CheckRecord::default()
        },
    };
    Some((found, root))
}
