//! What a filesystem's superblock tells.

use std::time::Duration;

use crate::units::Bytes;

/// The type of a filesystem, as blkid(8) names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FilesystemKind {
    /// ext2: no journal.
    Ext2,
    /// ext3: a journal, no ext4 features.
    Ext3,
    /// ext4: any feature that ext3 does not have.
    Ext4,
    /// XFS.
    Xfs,
    /// FAT12, FAT16 or FAT32.
    Vfat,
    /// exFAT.
    Exfat,
    /// NTFS.
    Ntfs,
    /// btrfs.
    Btrfs,
    /// F2FS.
    F2fs,
    /// ISO 9660, as on installation media.
    Iso9660,
    /// squashfs.
    Squashfs,
}

impl FilesystemKind {
    /// The name people and blkid(8) use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Vfat => "vfat",
            Self::Exfat => "exfat",
            Self::Ntfs => "ntfs",
            Self::Btrfs => "btrfs",
            Self::F2fs => "f2fs",
            Self::Iso9660 => "iso9660",
            Self::Squashfs => "squashfs",
        }
    }
}

/// Seconds since 1970, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

/// A filesystem found by its signature.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Filesystem {
    /// Which one.
    pub kind: FilesystemKind,
    /// Its UUID or serial number, written as blkid(8) writes it; `None` if it has none.
    pub uuid: Option<String>,
    /// Its label, trimmed; `None` if empty.
    pub label: Option<String>,
    /// Its own size, as the superblock says; may differ from the layer it lies in. For one that
    /// spans several devices, its size on this one.
    pub size: Option<Bytes>,
    /// What only some filesystems keep.
    pub record: CheckRecord,
}

/// What a superblock remembers of checks and mounts (ext only, but for `dirty`).
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct CheckRecord {
    /// When it was last checked.
    pub last_check: Option<Timestamp>,
    /// Mounts since then.
    pub mount_count: Option<u32>,
    /// Mounts after which a check is due; `None` if never.
    pub max_mount_count: Option<u32>,
    /// When the next check is due by time; `None` if never.
    pub next_check: Option<Timestamp>,
    /// The filesystem itself says it was not cleanly unmounted: a journal to replay, or a dirty flag.
    pub dirty: Option<bool>,
    /// The filesystem itself says errors were found in it while mounted.
    pub has_errors: Option<bool>,
    /// XFS: its making, or a copy of it by xfs_copy(8), has not come to its end.
    pub unfinished: bool,
    /// Its primary superblock is damaged; it was recognised by a backup.
    pub primary_damaged: bool,
    /// How many devices it spans, where it may span several (btrfs, F2FS); this layer is one of
    /// them.
    pub devices: Option<u64>,
    /// What of it lies elsewhere.
    pub elsewhere: Elsewhere,
}

impl CheckRecord {
    /// After how many more mounts it is to be checked; `None` if mounts do not count.
    pub fn mounts_left(&self) -> Option<u32> {
        let mounts = self.mount_count.unwrap_or(0);
        self.max_mount_count
            .map(|maximum| maximum.saturating_sub(mounts))
    }

    /// Whether its own counters say that it is to be checked: it was mounted often enough, or was
    /// not checked for long enough (e2fsck(8) goes by that at boot).
    pub fn is_due_by_its_counters(&self, now: Timestamp) -> bool {
        let by_time = self.next_check.is_some_and(|time| time <= now);
        by_time || self.mounts_left() == Some(0)
    }

    /// Whether it is to be checked: by its counters, because it says of itself that it is not in
    /// order, or because its last check is longer ago than `max_age`. One that does not remember
    /// its last check is never too old.
    pub fn is_due(&self, now: Timestamp, max_age: Option<Duration>) -> bool {
        let is_old = |checked: Timestamp, max_age: Duration| {
            let until = checked.0.saturating_add(max_age.as_secs());
            until < now.0
        };
        let by_age = self
            .last_check
            .zip(max_age)
            .is_some_and(|(checked, max_age)| is_old(checked, max_age));
        let is_unwell =
            self.dirty == Some(true) || self.has_errors == Some(true) || self.primary_damaged;
        self.is_due_by_its_counters(now) || is_unwell || by_age
    }
}

/// What of a filesystem lies on another device.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Elsewhere {
    /// Nothing: it is whole.
    #[default]
    Nothing,
    /// ext: its journal, with a UUID of its own.
    Journal {
        /// The journal's UUID.
        uuid: String,
    },
    /// XFS: its log, which bears the filesystem's UUID.
    Log,
    /// XFS: its realtime section, which bears no mark; perhaps its log too.
    Realtime,
    /// btrfs: the rest of its devices, which bear its UUID.
    Devices {
        /// Which of them this one is: a number, unique in the filesystem.
        own: u64,
    },
    /// F2FS: the rest of its devices, by their paths in the guest.
    Paths(Vec<String>),
}

/// The kind of a journal on a device of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum JournalKind {
    /// Of ext3 or ext4.
    Ext,
    /// XFS's log.
    Xfs,
}

impl JournalKind {
    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext => "ext journal",
            Self::Xfs => "XFS log",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    #[test]
    fn when_a_check_is_due() {
        let fresh = CheckRecord {
            last_check: Some(Timestamp(999_000)),
            mount_count: Some(3),
            max_mount_count: Some(4),
            next_check: Some(Timestamp(1_000_001)),
            dirty: Some(false),
            has_errors: Some(false),
            ..CheckRecord::default()
        };
        assert!(!fresh.is_due(NOW, None));
        assert_eq!(fresh.mounts_left(), Some(1));
        let due = |change: fn(&mut CheckRecord)| {
            let mut record = fresh.clone();
            change(&mut record);
            (record.is_due_by_its_counters(NOW), record.is_due(NOW, None))
        };
        assert_eq!(due(|record| record.mount_count = Some(4)), (true, true));
        assert_eq!(due(|record| record.mount_count = Some(9)), (true, true));
        assert_eq!(due(|record| record.next_check = Some(NOW)), (true, true));
        assert_eq!(due(|record| record.dirty = Some(true)), (false, true));
        assert_eq!(due(|record| record.has_errors = Some(true)), (false, true));
        assert_eq!(due(|record| record.primary_damaged = true), (false, true));
        let never = |record: &mut CheckRecord| {
            record.max_mount_count = None;
            record.next_check = None;
            record.mount_count = Some(u32::MAX);
        };
        assert_eq!(due(never), (false, false));
    }

    #[test]
    fn only_a_check_that_is_remembered_grows_old() {
        let seconds = |count| Some(Duration::from_secs(count));
        let mut record = CheckRecord {
            last_check: Some(Timestamp(999_000)),
            ..CheckRecord::default()
        };
        assert!(!record.is_due(NOW, seconds(1000)));
        assert!(record.is_due(NOW, seconds(999)));
        assert!(!record.is_due(NOW, seconds(u64::MAX)));
        record.last_check = Some(Timestamp(0));
        assert!(record.is_due(NOW, seconds(999)), "never checked");
        record.last_check = Some(Timestamp(2_000_000));
        assert!(!record.is_due(NOW, seconds(1)), "a clock that was wrong");
        record.last_check = None;
        assert!(!record.is_due(NOW, seconds(1)));
    }
}
