//! What partition types are called: `sfdisk --list-types` in fewer words.

use crate::layers::tree::PartitionRole;

const BIOS_BOOT: &str = "21686148-6449-6E6F-744E-656564454649";
const PREP: &str = "9E1A2D38-C612-4316-AA26-8B49521E5A8B";
const FREEBSD_BOOT: &str = "83BD6B9D-7F41-11DC-BE0B-001560B84F0F";
const MBR_PREP: u8 = 0x41;

/// Types whose partitions hold more than one filesystem, or one without a signature.
pub(super) const FREEBSD_DATA: &str = "516E7CB4-6ECF-11D6-8FF8-00022D09712B";
pub(super) const FREEBSD_SWAP: &str = "516E7CB5-6ECF-11D6-8FF8-00022D09712B";
pub(super) const NETBSD_SWAP: &str = "49F48D32-B10E-11DC-B99B-0019D1879648";
pub(super) const OPENBSD_DATA: &str = "824CC7A0-36A8-11E3-890A-952519AD3F61";
pub(super) const LDM_METADATA: &str = "5808C8AA-7E8F-42E0-85D2-E1E90434CFB3";
pub(super) const LDM_DATA: &str = "AF9B60A0-1431-4F62-BC68-3311714A69AD";
/// How a BSD label calls swap space.
pub(super) const BSD_SWAP: u8 = 1;

/// GUIDs and names as util-linux has them (include/pt-gpt-partnames.h).
pub(super) const GPT_TYPES: &[(&str, &str)] = &[
    ("C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "EFI System"),
    (BIOS_BOOT, "BIOS boot"),
    (PREP, "PowerPC PReP boot"),
    ("E3C9E316-0B5C-4DB8-817D-F92DF00215AE", "Microsoft reserved"),
    (
        "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7",
        "Microsoft basic data",
    ),
    (LDM_METADATA, "Microsoft LDM metadata"),
    (LDM_DATA, "Microsoft LDM data"),
    (
        "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC",
        "Windows recovery environment",
    ),
    (
        "E75CAF8F-F680-4CEE-AFA3-B001E56EFC2D",
        "Microsoft Storage Spaces",
    ),
    ("0FC63DAF-8483-4772-8E79-3D69D8477DE4", "Linux filesystem"),
    ("0657FD6D-A4AB-43C4-84E5-0933C84B4F4F", "Linux swap"),
    ("E6D6D379-F507-44C2-A23C-238F2A3DF928", "Linux LVM"),
    ("A19D880F-05FC-4D3B-A006-743F0F84911E", "Linux RAID"),
    (
        "BC13C2FF-59E6-4262-A352-B275FD6F7172",
        "Linux extended boot",
    ),
    ("44479540-F297-41B2-9AF7-D131D5F0458A", "Linux root (x86)"),
    (
        "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
        "Linux root (x86-64)",
    ),
    (
        "B921B045-1DF0-41C3-AF44-4C6F280D3FAE",
        "Linux root (ARM-64)",
    ),
    (
        "8484680C-9521-48C6-9C11-B0720656F69E",
        "Linux /usr (x86-64)",
    ),
    ("933AC7E1-2EB4-4F13-B844-0E14E2AEF915", "Linux home"),
    ("3B8F8425-20E0-4F3B-907F-1A25A76F98E8", "Linux server data"),
    (
        "4D21B016-B534-45C2-A9FB-5C16E091FD2D",
        "Linux variable data",
    ),
    ("8DA63339-0007-60C0-C436-083AC8230908", "Linux reserved"),
    (FREEBSD_BOOT, "FreeBSD boot"),
    (FREEBSD_DATA, "FreeBSD data"),
    (FREEBSD_SWAP, "FreeBSD swap"),
    ("516E7CB6-6ECF-11D6-8FF8-00022D09712B", "FreeBSD UFS"),
    ("516E7CBA-6ECF-11D6-8FF8-00022D09712B", "FreeBSD ZFS"),
    (NETBSD_SWAP, "NetBSD swap"),
    ("49F48D5A-B10E-11DC-B99B-0019D1879648", "NetBSD FFS"),
    (OPENBSD_DATA, "OpenBSD data"),
    ("48465300-0000-11AA-AA11-00306543ECAC", "Apple HFS/HFS+"),
    ("7C3457EF-0000-11AA-AA11-00306543ECAC", "Apple APFS"),
];

/// Type bytes and names as util-linux has them (include/pt-mbr-partnames.h).
pub(super) const MBR_TYPES: &[(u8, &str)] = &[
    (0x00, "Empty"),
    (0x01, "FAT12"),
    (0x04, "FAT16 <32M"),
    (0x06, "FAT16"),
    (0x07, "HPFS/NTFS/exFAT"),
    (0x0b, "W95 FAT32"),
    (0x0c, "W95 FAT32 (LBA)"),
    (0x0e, "W95 FAT16 (LBA)"),
    (0x11, "Hidden FAT12"),
    (0x12, "Compaq diagnostics"),
    (0x27, "Hidden NTFS WinRE"),
    (MBR_PREP, "PPC PReP Boot"),
    (0x42, "SFS"),
    (0x63, "GNU HURD or SysV"),
    (0x81, "Minix / old Linux"),
    (0x82, "Linux swap / Solaris"),
    (0x83, "Linux"),
    (0x88, "Linux plaintext"),
    (0x8e, "Linux LVM"),
    (0xa5, "FreeBSD"),
    (0xa6, "OpenBSD"),
    (0xa9, "NetBSD"),
    (0xaf, "HFS / HFS+"),
    (0xbf, "Solaris"),
    (0xea, "Linux extended boot"),
    (0xef, "EFI (FAT-12/16/32)"),
    (0xfd, "Linux raid autodetect"),
];

/// Types of a BSD label's partitions as util-linux has them (include/pt-bsd.h).
pub(super) const BSD_TYPES: &[(u8, &str)] = &[
    (BSD_SWAP, "swap"),
    (0x07, "4.2BSD"),
    (0x08, "MS-DOS"),
    (0x09, "4.4LFS"),
    (0x0c, "ISO-9660"),
    (0x0d, "boot"),
    (0x0f, "HFS"),
];

/// The role of a GPT partition; the GUID as `sfdisk --json` prints it.
pub(super) fn gpt_role(type_guid: [u8; 16], name: Option<String>) -> PartitionRole {
    let type_code = uuid::Uuid::from_bytes_le(type_guid)
        .hyphenated()
        .to_string()
        .to_uppercase();
    let holds_boot_code = [BIOS_BOOT, PREP, FREEBSD_BOOT].contains(&type_code.as_str());
    PartitionRole {
        type_name: GPT_TYPES
            .iter()
            .find(|(guid, _)| *guid == type_code)
            .map(|(_, name)| *name),
        type_code,
        name,
        holds_boot_code,
    }
}

/// The role of an MBR partition.
pub(super) fn mbr_role(type_byte: u8) -> PartitionRole {
    let mut role = byte_role(type_byte, MBR_TYPES);
    role.holds_boot_code = type_byte == MBR_PREP;
    role
}

/// The role of a partition of a BSD label.
pub(super) fn bsd_role(type_byte: u8) -> PartitionRole {
    byte_role(type_byte, BSD_TYPES)
}

fn byte_role(type_byte: u8, names: &[(u8, &'static str)]) -> PartitionRole {
    PartitionRole {
        type_code: format!("0x{type_byte:02x}"),
        type_name: names
            .iter()
            .find(|(byte, _)| *byte == type_byte)
            .map(|(_, name)| *name),
        name: None,
        holds_boot_code: false,
    }
}
