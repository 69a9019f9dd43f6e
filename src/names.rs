//! Every name virt-fsck gives to a file, a folder, a device or a node of the storage daemon.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::guard::claim::Claimed;
use crate::layers::extent::ImageIndex;
use crate::layers::tree::LayerPath;
use crate::reach::identity::Identity;

/// The longest a mount point's file name gets; guests name their volume groups as they please.
const LONGEST_FILE_NAME: usize = 100;

/// The name of a node or export inside the storage daemon.
///
/// QEMU wants a letter first, then letters, digits, `-`, `.`, `_`, and at most 31 characters
/// (util/id.c and include/block/block-common.h), so disks go by number, not by target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct NodeName(String);

impl NodeName {
    /// The node that shows a disk as the guest sees it.
    pub fn disk(image: ImageIndex) -> Self {
        Self(format!("disk{}", image.0))
    }

    /// The node of an image under the disk's top image; 1 is directly under it.
    pub fn backing(image: ImageIndex, depth: usize) -> Self {
        Self(format!("disk{}-under{depth}", image.0))
    }

    /// The throw-away overlay over a disk.
    pub fn overlay(image: ImageIndex) -> Self {
        Self(format!("disk{}-overlay", image.0))
    }

    /// The file that an overlay is in.
    pub fn overlay_file(image: ImageIndex) -> Self {
        Self(format!("disk{}-file", image.0))
    }

    /// The key of this node.
    pub fn key(&self) -> Self {
        Self(format!("{}-key", self.0))
    }

    /// The key of an encrypted overlay.
    pub fn overlay_key(image: ImageIndex) -> Self {
        Self::overlay(image).key()
    }

    /// A filesystem, by its number in the run.
    pub fn filesystem(number: usize) -> Self {
        Self(format!("filesystem{number}"))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The mount point file for a layer: its path with dashes, so that a checker's messages name it.
pub fn mount_point(folder: &Path, layer: &LayerPath, number: usize) -> PathBuf {
    let readable = readable(layer.as_str(), LONGEST_FILE_NAME);
    folder.join(format!("{number}-{readable}"))
}

/// A name that files and device-mapper take as it is (libdm mangles all others).
fn readable(name: &str, longest: usize) -> String {
    name.chars()
        .map(|letter| match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '+' | '-' => letter,
            _ => '-',
        })
        .take(longest)
        .collect()
}

/// The overlay's file for a disk.
pub fn overlay_file(folder: &Path, image: ImageIndex) -> PathBuf {
    folder.join(format!("disk{}.qcow2", image.0))
}

/// What everything of a run begins with, wherever it lies.
pub const PREFIX: &str = "virt-fsck-";

/// What the folder of a run begins with while it is being made, so that nobody takes it for one
/// whose run has died.
pub const UNFINISHED_PREFIX: &str = ".new-virt-fsck-";

/// The ledger in the folder of a run.
pub const LEDGER: &str = "ledger";

/// What the device-mapper UUIDs of all mappings begin with.
const UUID_PREFIX: &str = "CRYPT-SUBDEV-VIRT-FSCK-";

/// The longest role in the name of a mapping: device-mapper takes 127 bytes in all (`DM_NAME_LEN`
/// in include/uapi/linux/dm-ioctl.h), and the UUID is longer than the name.
const LONGEST_ROLE: usize = 60;

/// What tells one run from all others: the end of its folder's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(String);

impl RunId {
    /// The run whose folder this is; `None` if it is none.
    pub fn of_folder(folder: &Path) -> Option<Self> {
        let name = folder.file_name()?.to_str()?;
        let id = name.strip_prefix(PREFIX)?;
        let plain =
            !id.is_empty() && id.len() <= 32 && id.bytes().all(|b| b.is_ascii_alphanumeric());
        plain.then(|| Self(id.to_owned()))
    }

    /// The run of a plan, which is never made.
    pub fn example() -> Self {
        Self("EXAMPLE".to_owned())
    }

    /// Its folder below `base`.
    pub fn folder(&self, base: &Path) -> PathBuf {
        base.join(format!("{PREFIX}{}", self.0))
    }
}

/// A device-mapper device of ours. Its name says which run it belongs to, so that it is never taken
/// for one of the host's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MappingName(String);

impl MappingName {
    fn new(run: &RunId, role: &str) -> Self {
        Self(format!("{PREFIX}{}-{role}", run.0))
    }

    /// A mapping of the host that was closed: `name` is what the host calls it, `number` tells two
    /// such names apart that look the same here.
    pub fn host(run: &RunId, number: usize, name: &str) -> Self {
        Self::new(
            run,
            &format!("host{number}-{}", readable(name, LONGEST_ROLE)),
        )
    }

    /// The device of a role, by its number in the run.
    pub fn numbered(run: &RunId, role: MappingRole, number: usize) -> Self {
        let role = match role {
            MappingRole::Disk => "disk",
            MappingRole::Overlay => "overlay",
            MappingRole::Cipher => "cipher",
            MappingRole::Filesystem => "filesystem",
            MappingRole::PhysicalVolume => "pv",
            MappingRole::Container => "luks",
        };
        Self::new(run, &format!("{role}{number}"))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The device-mapper UUID. The host's LVM does not look at devices that call themselves a part
    /// of an encrypted one (`_is_lvm_all_but_lv_dev` and `dm_device_is_usable` in
    /// lib/activate/dev_manager.c of LVM2), so it never sees what a guest keeps on ours.
    pub fn uuid(&self) -> String {
        self.0.replacen(PREFIX, UUID_PREFIX, 1)
    }

    /// Whether a device-mapper UUID is that of a mapping of some run.
    pub fn is_uuid_of_ours(uuid: &str) -> bool {
        uuid.starts_with(UUID_PREFIX)
    }

    /// Its node.
    pub fn path(&self) -> PathBuf {
        Path::new("/dev/mapper").join(&self.0)
    }
}

/// An array of MD that is ours, as the kernel calls it; its node is `/dev/` with that name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ArrayName(String);

/// What the kernel wants a named array's name to begin with (`add_named_array` in drivers/md/md.c).
const ARRAY_PREFIX: &str = "md_virt-fsck-";

/// The kernel takes names of fewer bytes than this (`DISK_NAME_LEN`).
const ARRAY_NAME_LIMIT: usize = 32;

impl ArrayName {
    /// The array with this number in the run; `None` if the kernel would not take its name.
    pub fn numbered(run: &RunId, number: usize) -> Option<Self> {
        let name = format!("{ARRAY_PREFIX}{}-{number}", run.0);
        (name.len() < ARRAY_NAME_LIMIT).then_some(Self(name))
    }

    /// Whether the kernel's name is that of an array of some run.
    pub fn is_ours(name: &str) -> bool {
        name.starts_with(ARRAY_PREFIX)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a mapping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MappingRole {
    /// A whole disk of the guest, held for as long as it is worked on.
    Disk,
    /// A throw-away snapshot.
    Overlay,
    /// What encrypts a snapshot.
    Cipher,
    /// One filesystem.
    Filesystem,
    /// A physical volume, for LVM.
    PhysicalVolume,
    /// What is in an encrypted container.
    Container,
}

/// The file of a claim.
pub fn claim(run_base: &Path, claimed: Claimed) -> PathBuf {
    let name = match claimed {
        Claimed::Domain(uuid) => format!("domain-{uuid}"),
        Claimed::Image(Identity::File { device, inode }) => format!("file-{device}-{inode}"),
        Claimed::Image(Identity::BlockDevice { number }) => format!("block-{number}"),
    };
    claims(run_base).join(name)
}

/// The folder of claims.
pub fn claims(run_base: &Path) -> PathBuf {
    // Not the name of a run's folder, among which it may lie.
    run_base.join("virt-fsck.claims")
}

/// The note that a guest's memory is on its way to this host.
///
/// By the guest's name, which libvirt's hook is told in every call, whatever the XML says; of
/// libvirt's names not all are names of files.
pub fn incoming(run_base: &Path, guest: &OsStr) -> PathBuf {
    let digest = Sha256::digest(guest.as_bytes());
    let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    run_base.join("virt-fsck.incoming").join(name)
}

/// What a check after a guest's stop has said, where no journal takes it.
pub fn after_stop(run_base: &Path, domain: Uuid) -> PathBuf {
    run_base
        .join("virt-fsck.after-stop")
        .join(domain.to_string())
}

/// The folder of mount points of the domain with this number in the run.
pub fn mount_points(run_folder: &Path, domain: usize) -> PathBuf {
    run_folder.join(format!("domain{domain}"))
}

/// The socket of the storage daemon's NBD server.
pub fn nbd_socket(mount_points: &Path) -> PathBuf {
    mount_points.join("nbd")
}

/// The folder of an overlay; `number` counts the overlays of a run.
pub fn overlay_folder(state_base: &Path, run: &RunId, number: usize) -> PathBuf {
    state_base.join(format!("{PREFIX}{}-{number}", run.0))
}

/// The file of a throw-away snapshot, for as long as it has a name.
pub fn snapshot_file(folder: &Path) -> PathBuf {
    folder.join("snapshot")
}

/// The file in which qemu-nbd writes its process number; by it a qemu-nbd of this run is known.
pub fn nbd_pid_file(run_folder: &Path, number: usize) -> PathBuf {
    run_folder.join(format!("nbd{number}.pid"))
}

/// The folder that LVM works in instead of /etc/lvm.
pub fn lvm_folder(run_folder: &Path, number: usize) -> PathBuf {
    run_folder.join(format!("lvm{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_are_ones_qemu_takes() {
        let image = ImageIndex(usize::MAX);
        for name in [
            NodeName::disk(image),
            NodeName::overlay(image),
            NodeName::overlay_file(image),
            NodeName::backing(ImageIndex(999), 200),
            NodeName::filesystem(usize::MAX),
        ] {
            assert!(name.as_str().len() <= 32, "{name:?}");
        }
        assert!(NodeName::backing(ImageIndex(9_999), 9_999).as_str().len() <= 31);
    }

    #[test]
    fn every_guest_has_a_note_of_its_own() {
        let note = |guest: &str| incoming(Path::new("/run/virt-fsck"), OsStr::new(guest));
        // echo -n vm1 | sha256sum
        assert_eq!(
            note("vm1"),
            Path::new(
                "/run/virt-fsck/virt-fsck.incoming/\
                 7b11e3d1b4ef77af7e81aa2aba7af47f98b45dfad1db39097303d76bd8e8d2cd"
            )
        );
        assert_ne!(note("vm1"), note("vm1/.."));
        assert_eq!(RunId::of_folder(Path::new("/run/virt-fsck.incoming")), None);
    }

    #[test]
    fn mappings_are_known_by_their_run() {
        let run = RunId::of_folder(Path::new("/run/virt-fsck/virt-fsck-a1B2c3")).unwrap();
        let name = MappingName::host(&run, 1, "cr hd0/\u{202e}");
        assert_eq!(name.as_str(), "virt-fsck-a1B2c3-host1-cr-hd0--");
        assert_eq!(name.uuid(), "CRYPT-SUBDEV-VIRT-FSCK-a1B2c3-host1-cr-hd0--");
        let long = MappingName::host(&run, 1, &"x".repeat(500));
        assert!(long.uuid().len() < 127);
        for no_run in [
            "/run/virt-fsck",
            "/run/virt-fsck-",
            "/run/virt-fsck-a/b",
            "/x/virt-fsck-a-b",
        ] {
            assert_eq!(RunId::of_folder(Path::new(no_run)), None, "{no_run}");
        }
    }

    #[test]
    fn arrays_are_known_by_their_run() {
        let run = RunId::of_folder(Path::new("/run/virt-fsck/virt-fsck-a1B2c3")).unwrap();
        let name = ArrayName::numbered(&run, 12).unwrap();
        assert_eq!(name.as_str(), "md_virt-fsck-a1B2c3-12");
        assert!(ArrayName::is_ours(name.as_str()));
        for host in ["md0", "md127", "md_virt", "md_data"] {
            assert!(!ArrayName::is_ours(host), "{host}");
        }
        let longest = ArrayName::numbered(&run, 99_999_999_999).unwrap();
        assert_eq!(longest.as_str().len(), 31);
        assert_eq!(ArrayName::numbered(&run, usize::MAX), None);
    }

    #[test]
    fn a_mount_point_stays_in_its_folder() {
        let layer = LayerPath::disk("vda").join("..").join("a b\u{202e}");
        assert_eq!(
            mount_point(Path::new("/run/x"), &layer, 3),
            Path::new("/run/x/3-vda-..-a-b-")
        );
        let long = LayerPath::disk(&"v".repeat(500));
        let file = mount_point(Path::new("/r"), &long, 0);
        assert!(file.file_name().is_some_and(|name| name.len() < 255));
    }
}
