//! What a member's superblock says, in whatever version of the metadata.

use std::fmt;

use crate::units::{Bytes, SectorSize};

/// MD counts in sectors of 512 bytes, whatever those of the devices are.
pub(super) const SECTOR: u64 = 512;

/// The magic number of all versions (`MD_SB_MAGIC`).
pub(super) const MAGIC: u32 = 0xa92b_4efc;

/// A superblock takes up at most so many bytes, in all versions.
pub(super) const SUPERBLOCK: Bytes = Bytes::kib(4);

/// The most devices that a superblock of 4 KiB has room for: (4096 - 256) / 2 roles.
pub(super) const MAX_DEVICES: u32 = 1920;

/// Where a superblock lies, and how it is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// In the last 64 KiB that begin at a multiple of 64 KiB.
    V0_90,
    /// 8 to 12 KiB before the end.
    V1_0,
    /// At the beginning.
    V1_1,
    /// 4 KiB after the beginning.
    V1_2,
}

impl Version {
    /// As mdadm(8) has it: `1.2`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V0_90 => "0.90",
            Self::V1_0 => "1.0",
            Self::V1_1 => "1.1",
            Self::V1_2 => "1.2",
        }
    }

    /// Where the superblock of a member of that size begins; `None` if it is too small for one.
    pub fn superblock_at(self, size: Bytes) -> Option<Bytes> {
        let from_end = |unit: u64, back: u64| {
            let whole = size.get() & !unit.checked_sub(1)?;
            whole.checked_sub(back).map(Bytes::new)
        };
        let at = match self {
            Self::V0_90 => from_end(64 * 1024, 64 * 1024)?,
            Self::V1_0 => from_end(4096, 8192)?,
            Self::V1_1 => Bytes::ZERO,
            Self::V1_2 => Bytes::kib(4),
        };
        (at.checked_add(SUPERBLOCK)? <= size).then_some(at)
    }
}

/// An array's UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArrayId(pub [u8; 16]);

/// As blkid(8) writes it, with hyphens.
impl fmt::Display for ArrayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for ArrayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArrayId({self})")
    }
}

/// How an array distributes its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(pub i32);

impl Level {
    /// One member after the other.
    pub const LINEAR: Self = Self(-1);
    /// In turns over the members.
    pub const RAID0: Self = Self(0);
    /// On each of the members.
    pub const RAID1: Self = Self(1);
    /// Striped, with parity on a member of its own.
    pub const RAID4: Self = Self(4);
    /// Striped, with parity on all members in turn.
    pub const RAID5: Self = Self(5);
    /// The same with two parities.
    pub const RAID6: Self = Self(6);
    /// Striped, with several copies of each chunk.
    pub const RAID10: Self = Self(10);
}

/// As people say it: `RAID 5`, `linear RAID`.
impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            -1 => f.write_str("linear RAID"),
            -4 => f.write_str("multipath RAID"),
            -5 => f.write_str("faulty RAID"),
            -100 => f.write_str("RAID container"),
            level @ 0.. => write!(f, "RAID {level}"),
            level => write!(f, "RAID of the unknown level {level}"),
        }
    }
}

/// What a device is in its array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It holds this part of the array, counted from 0.
    Active(u32),
    /// It waits for another one to fail.
    Spare,
    /// It failed.
    Faulty,
    /// It holds the journal of a RAID 4, 5 or 6.
    Journal,
}

/// Why an array, or a member's part in it, is not what its level alone says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// Its level, layout or number of devices is being changed.
    #[error("it is being reshaped")]
    Reshape,
    /// Data may be in a journal first.
    #[error("it has a journal")]
    Journal,
    /// Parity may be in a log first.
    #[error("it has a partial parity log")]
    PartialParityLog,
    /// Several machines use it at once.
    #[error("it belongs to a cluster")]
    Cluster,
    /// Some blocks of the member are listed as bad.
    #[error("its list of bad blocks has entries")]
    BadBlocks,
}

/// A member's superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Which metadata it is.
    pub version: Version,
    /// The array's UUID.
    pub array: ArrayId,
    /// The array's name, as in `/dev`; see [`Superblock::array_name`].
    pub name: Option<String>,
    /// When the array was made, in seconds since 1970.
    pub created: u64,
    /// When the superblock was last written, in seconds since 1970.
    pub updated: u64,
    /// The array's level.
    pub level: Level,
    /// How the level is laid out. `None` where the metadata do not say: RAID 0 of older kernels.
    pub layout: Option<u32>,
    /// How many bytes one member has before it is the next one's turn; zero where none take turns.
    pub chunk: Bytes,
    /// How many devices a whole array has.
    pub devices: u32,
    /// How much of each member the array uses; zero for linear RAID and RAID 0, which use all.
    pub component: Bytes,
    /// The sectors of the array, where the superblock keeps them.
    pub logical_block: Option<SectorSize>,
    /// The number of this device, which is not its role.
    pub number: u32,
    /// What each device is, by its number.
    pub roles: Vec<Role>,
    /// The device's own UUID; `None` in metadata 0.90.
    pub device: Option<[u8; 16]>,
    /// Where the data begin.
    pub data_offset: Bytes,
    /// How many bytes there are for data; all of them lie on the member.
    pub data_size: Bytes,
    /// How often the superblock was changed: of members that differ the higher number is right.
    pub events: u64,
    /// The members are in step, as far as the array itself knows.
    pub in_step: bool,
    /// This member is complete: it is not being filled from the others.
    pub recovered: bool,
    /// It is to be read only if no other can be.
    pub write_mostly: bool,
    /// Changes are noted in a bitmap first.
    pub bitmap: bool,
    /// What stands in the way of laying it out.
    pub obstacles: Vec<Obstacle>,
}

impl Superblock {
    /// What this device is, by its own words. A number outside the table makes it a spare, as MD
    /// sees it.
    pub fn role(&self) -> Role {
        self.role_of(self.number)
    }

    /// What the device of that number is.
    pub fn role_of(&self, number: u32) -> Role {
        usize::try_from(number)
            .ok()
            .and_then(|number| self.roles.get(number))
            .copied()
            .unwrap_or(Role::Spare)
    }

    /// What the array is called below `/dev`: `md0`, `md/data`; by its UUID if it has no name.
    pub fn array_name(&self) -> String {
        match &self.name {
            Some(name) => name.clone(),
            None => format!("md/{}", self.array),
        }
    }

    /// Whether both describe the same array: what MD compares, and what never changes apart.
    pub fn agrees_with(&self, other: &Self) -> bool {
        let version_1 = |version| version != Version::V0_90;
        version_1(self.version) == version_1(other.version)
            && self.created == other.created
            && self.name == other.name
            && self.level == other.level
            && self.layout == other.layout
            && self.chunk == other.chunk
            && self.devices == other.devices
            && self.component == other.component
    }
}

/// Sectors as bytes.
pub(super) fn bytes(sectors: u64) -> Option<Bytes> {
    Bytes::new(sectors).checked_mul(SECTOR)
}

/// A name for a path: what a guest may have put into it that is not of a file's name becomes `_`.
/// A bare number is that of the device, as mdadm(8) takes it.
pub(super) fn path_name(name: &str) -> Option<String> {
    let name: String = name
        .chars()
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '-' | '+' => c,
            _ => '_',
        })
        .collect();
    if name.is_empty() || name.chars().all(|c| c == '.') {
        None
    } else if name.chars().all(|c| c.is_ascii_digit()) {
        Some(format!("md{name}"))
    } else {
        Some(format!("md/{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn superblocks_lie_where_md_puts_them() {
        let mib = 1 << 20;
        for (version, size, at) in [
            (Version::V0_90, 65535, None),
            (Version::V0_90, 65536, Some(0)),
            (Version::V0_90, mib + 65535, Some(mib - 65536)),
            (Version::V1_0, 8191, None),
            (Version::V1_0, 8192, Some(0)),
            (Version::V1_0, mib + 4095, Some(mib - 8192)),
            (Version::V1_1, 4095, None),
            (Version::V1_1, 4096, Some(0)),
            (Version::V1_2, 8191, None),
            (Version::V1_2, mib, Some(4096)),
        ] {
            let found = version.superblock_at(Bytes::new(size)).map(Bytes::get);
            assert_eq!(found, at, "{version:?} {size}");
        }
    }

    #[test]
    fn names_are_those_of_device_nodes() {
        for (name, expected) in [
            ("", None),
            ("..", None),
            ("0", Some("md0")),
            ("127", Some("md127")),
            ("data", Some("md/data")),
            ("md127", Some("md/md127")),
            ("a/../b c\u{1b}", Some("md/a_.._b_c_")),
        ] {
            assert_eq!(path_name(name).as_deref(), expected, "{name}");
        }
    }
}
