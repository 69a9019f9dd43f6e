//! Storage that other hosts may share: network and cluster filesystems, and shared volume groups of
//! LVM. What this host can be asked says nothing of them.

use std::path::{Path, PathBuf};

use crate::allow::Allowance;
use crate::guard::devices::Devices;
use crate::guard::family::{Family, Place};
use crate::guard::sysfs::DeviceKind;
use crate::reach::chain::Chain;
use crate::reach::identity;
use crate::reach::mounts::{self, MountPoint};
use crate::reach::volumes;

/// Types of filesystems that several hosts can have mounted at once, as mountinfo names them.
///
/// 9p and virtiofs are not among them: a hypervisor shows a folder of its own by them, to guests
/// that cannot tell whether it shows it to others. FUSE is, by the names of those that reach over
/// the network.
const NETWORK: [&str; 31] = [
    "acfs",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "fuse.ceph",
    "fuse.ceph-fuse",
    "fuse.cephfs",
    "fuse.glusterfs",
    "fuse.juicefs",
    "fuse.lizardfs",
    "fuse.mfs",
    "fuse.moosefs",
    "fuse.quobyte",
    "fuse.rclone",
    "fuse.s3fs",
    "fuse.seaweedfs",
    "fuse.sshfs",
    "fuse.vstorage",
    "gfs",
    "gfs2",
    "gpfs",
    "lustre",
    "nfs",
    "nfs4",
    "ocfs2",
    "orangefs",
    "panfs",
    "pvfs2",
    "smb3",
    "smbfs",
];

/// Where a lock on a file is seen by the other hosts too: the kernel's own documentation of each.
/// OCFS2 has such locks only with some cluster stacks, and cannot be told.
const LOCKS_EVERYWHERE: [&str; 8] = [
    "ceph",
    "cifs",
    "fuse.glusterfs",
    "gfs2",
    "gpfs",
    "nfs",
    "nfs4",
    "smb3",
];

/// The options by which such a filesystem keeps locks to itself.
const LOCKS_HERE_ONLY: [&str; 5] = [
    "nolock",
    "local_lock=all",
    "local_lock=posix",
    "nobrl",
    "localflocks",
];

/// Storage that other hosts may share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// The image on it.
    pub image: PathBuf,
    /// What it is.
    pub storage: Storage,
    /// Whether the image is one that the guest writes.
    pub is_written: bool,
}

/// What other hosts may share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// A filesystem.
    Filesystem {
        /// Its type.
        kind: String,
        /// Where it is mounted.
        mounted_at: PathBuf,
    },
    /// A volume group.
    VolumeGroup {
        /// Its name.
        name: String,
        /// By what the hosts agree on it.
        by: &'static str,
    },
    /// A volume group of which LVM does not tell.
    PerhapsVolumeGroup {
        /// Its name.
        name: String,
        /// LVM's words.
        why: String,
    },
}

impl Storage {
    /// What it is called by to allow it.
    pub const fn allowance(&self) -> Allowance {
        match self {
            Self::Filesystem { .. } => Allowance::SharedNfs,
            Self::VolumeGroup { .. } | Self::PerhapsVolumeGroup { .. } => Allowance::SharedLvm,
        }
    }
}

impl std::fmt::Display for Shared {
    /// A clause with the image as its subject.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let image = self.image.display();
        match &self.storage {
            Storage::Filesystem { kind, mounted_at } => {
                write!(f, "{image} lies on {kind} ({})", mounted_at.display())
            }
            Storage::VolumeGroup { name, by } => {
                write!(
                    f,
                    "{image} lies in the volume group {name}, which is shared with other hosts \
                     ({by})"
                )
            }
            Storage::PerhapsVolumeGroup { name, why } => write!(
                f,
                "{image} lies in the volume group {name}, and LVM does not tell whether that is \
                 shared with other hosts ({why})"
            ),
        }
    }
}

/// What of a disk lies on storage that other hosts may share.
pub async fn of(chain: &Chain, devices: &Devices) -> Vec<Shared> {
    let mut all = Vec::new();
    let links = std::iter::once((&chain.top, true));
    for (link, is_written) in links.chain(chain.under.iter().map(|link| (link, false))) {
        for (image, identity) in link.files() {
            let family = Family::of(identity, devices);
            let mut storages = filesystems(image, &family);
            if let Some(group) = group_of(&family) {
                storages.extend(volume_group(group).await);
            }
            all.extend(storages.into_iter().map(|storage| Shared {
                image: image.to_owned(),
                storage,
                is_written,
            }));
        }
    }
    all
}

/// The network filesystems that the image, or a file under it, lies on.
fn filesystems(image: &Path, family: &Family) -> Vec<Storage> {
    let files = family.members().filter_map(|member| match member.place {
        Place::Itself if member.device.is_none() => Some(image),
        Place::Below => {
            // Whoever attached the loop device may have seen another file by that path.
            let path = Path::new(member.path()?);
            let found = identity::identify(path).ok()?;
            (found.0 == member.identity).then_some(path)
        }
        _ => None,
    });
    let found = files.filter_map(|file| {
        let mount = mounts::of_file(file).ok().flatten()?;
        is_network(&mount).then_some(Storage::Filesystem {
            kind: mount.filesystem,
            mounted_at: mount.target,
        })
    });
    found.collect()
}

fn is_network(mount: &MountPoint) -> bool {
    NETWORK.contains(&mount.filesystem.as_str())
}

/// Whether other hosts see a lock on this file.
pub fn locks_reach_other_hosts(file: &Path) -> bool {
    let mount = mounts::of_file(file).ok().flatten();
    mount.is_some_and(|mount| locks_everywhere(&mount))
}

fn locks_everywhere(mount: &MountPoint) -> bool {
    let mut kept_here = LOCKS_HERE_ONLY.iter();
    LOCKS_EVERYWHERE.contains(&mount.filesystem.as_str())
        && !kept_here.any(|option| mount.has_option(option))
}

/// The volume group of the volume that the image is, or lies on.
fn group_of(family: &Family) -> Option<String> {
    let mut relatives = family.members().filter(|member| {
        let is_under = matches!(member.place, Place::Itself | Place::Below);
        is_under && member.device.as_ref().is_some_and(|one| one.is_of_lvm())
    });
    match &relatives.next()?.device.as_ref()?.kind {
        DeviceKind::Mapped { name, .. } => volumes::of_dm_name(name).map(|(group, _)| group),
        _ => None,
    }
}

async fn volume_group(name: String) -> Option<Storage> {
    match volumes::group_sharing(&name).await {
        Ok(sharing) => sharing.map(|by| Storage::VolumeGroup { name, by }),
        Err(error) => Some(Storage::PerhapsVolumeGroup {
            name,
            why: error.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, options: &str) -> MountPoint {
        let text = format!("36 22 0:44 / /images rw - {kind} server:/x {options}\n");
        mounts::parse(&text).remove(0)
    }

    #[test]
    fn filesystems_that_other_hosts_may_have() {
        for kind in ["nfs", "nfs4", "cifs", "ceph", "fuse.glusterfs", "ocfs2"] {
            assert!(is_network(&mount(kind, "rw")), "{kind}");
        }
        for kind in [
            "ext4", "xfs", "btrfs", "zfs", "fuse", "fuseblk", "overlay", "9p",
        ] {
            assert!(!is_network(&mount(kind, "rw")), "{kind}");
        }
    }

    #[test]
    fn locks_that_reach_other_hosts() {
        for (kind, options, reach) in [
            ("nfs4", "rw,vers=4.2,local_lock=none,addr=1.2.3.4", true),
            ("nfs", "rw,vers=3,nolock,local_lock=all", false),
            ("nfs", "rw,vers=3,local_lock=posix", false),
            ("cifs", "rw,vers=3.0,nobrl", false),
            ("gfs2", "rw,localflocks", false),
            ("gfs2", "rw", true),
            ("ocfs2", "rw", false),
            ("ext4", "rw", false),
        ] {
            let mount = mount(kind, options);
            assert_eq!(locks_everywhere(&mount), reach, "{kind} {options}");
        }
    }

    #[test]
    fn the_list_is_in_order() {
        assert!(NETWORK.is_sorted() && LOCKS_EVERYWHERE.is_sorted());
    }
}
