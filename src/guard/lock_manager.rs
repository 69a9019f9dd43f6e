//! libvirt's lock manager: by which locks running domains keep each other, on this host and others,
//! off their disks (docs/kbase/locking.rst of libvirt).

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The system's configuration of libvirt's QEMU driver.
const SYSTEM: &str = "/etc/libvirt";

/// Which lock manager libvirt uses, by qemu.conf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockManager {
    /// None: the default.
    Nothing,
    /// virtlockd.
    Lockd(Lockspaces),
    /// sanlock, whose leases only its own daemon can take.
    Sanlock,
    /// One that this version does not know.
    Other(String),
}

/// Where virtlockd keeps its locks, by qemu-lockd.conf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lockspaces {
    /// Whether every disk is locked, and not only what the domain's XML says (`auto_disk_leases`).
    pub is_automatic: bool,
    /// `file_lockspace_dir`.
    pub files: Option<PathBuf>,
    /// `lvm_lockspace_dir`.
    pub volumes: Option<PathBuf>,
    /// `scsi_lockspace_dir`.
    pub scsi: Option<PathBuf>,
}

impl LockManager {
    /// The one of the libvirt that the user who runs this has.
    ///
    /// # Errors
    /// When a file is there and cannot be read; the file's path comes with it.
    pub fn configured() -> Result<Self, (PathBuf, io::Error)> {
        let Some(folder) = folder() else {
            return Ok(Self::Nothing);
        };
        Self::within(&folder)
    }

    fn within(folder: &Path) -> Result<Self, (PathBuf, io::Error)> {
        let read = |name: &str| {
            let path = folder.join(name);
            match std::fs::read(&path) {
                Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
                // What this user may not read, his libvirt does not either.
                Err(error) if is_none(error.kind()) => Ok(String::new()),
                Err(error) => Err((path, error)),
            }
        };
        Ok(match setting(&read("qemu.conf")?, "lock_manager") {
            None | Some("" | "nop") => Self::Nothing,
            Some("lockd") => Self::Lockd(Lockspaces::told(&read("qemu-lockd.conf")?)),
            Some("sanlock") => Self::Sanlock,
            Some(other) => Self::Other(other.to_owned()),
        })
    }
}

const fn is_none(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied
    )
}

/// The system's for root, else the user's own.
fn folder() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from(SYSTEM));
    }
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let configuration = variable("XDG_CONFIG_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| variable("HOME").map(|home| home.join(".config")))?;
    Some(configuration.join("libvirt"))
}

impl Lockspaces {
    fn told(text: &str) -> Self {
        let folder = |name| setting(text, name).map(PathBuf::from);
        Self {
            is_automatic: setting(text, "auto_disk_leases") != Some("0"),
            files: folder("file_lockspace_dir"),
            volumes: folder("lvm_lockspace_dir"),
            scsi: folder("scsi_lockspace_dir"),
        }
    }

    /// The lock of a disk by the name that the domain's XML gives it, if it is not locked by what it
    /// holds. virtlockd hashes that name as it is, whatever it leads to
    /// (`virLockManagerLockDaemonAddResource` in src/locking/lock_driver_lockd.c of libvirt).
    pub fn by_name(&self, name: &Path) -> LockPlace {
        use std::os::unix::ffi::OsStrExt;
        match &self.files {
            None => LockPlace::Image(name.to_owned()),
            Some(folder) => {
                let hash = Sha256::digest(name.as_os_str().as_bytes());
                let hexadecimal: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
                LockPlace::File(folder.join(hexadecimal))
            }
        }
    }
}

/// What is locked for a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockPlace {
    /// The image itself.
    Image(PathBuf),
    /// A file that is made for it.
    File(PathBuf),
}

/// A setting of libvirt's configuration files: `name = "text"` or `name = 1`, the first that is there
/// (src/util/virconf.c of libvirt). Lists are none.
fn setting<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        if key.trim() != name {
            return None;
        }
        let value = value.trim();
        match value.chars().next()? {
            quote @ ('"' | '\'') => value.get(1..)?.split(quote).next(),
            _ => value.split([' ', '\t', '#']).next(),
        }
    })
}

/// The UUID of a logical volume as LVM writes it, of that of its device-mapper device:
/// `LVM-`, and the UUIDs of group and volume, 32 letters each.
pub fn volume_uuid(dm_uuid: &str) -> Option<String> {
    let both = dm_uuid.strip_prefix("LVM-")?;
    let volume = both.get(32..64)?;
    let mut groups = Vec::new();
    let mut rest = volume;
    for length in [6, 4, 4, 4, 4, 4, 6] {
        groups.push(rest.get(..length)?);
        rest = rest.get(length..)?;
    }
    Some(groups.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings() {
        let text = "# lock_manager = \"no\"\n#lock_manager = \"no\"\n\nother = [ \"a\" ]\n\
                    lock_manager = \"lockd\" # why\nlock_manager = \"later\"\n\
                    single = 'a \"b\" c'\n  number=0 # x\nbare =\n";
        assert_eq!(setting(text, "lock_manager"), Some("lockd"));
        assert_eq!(setting(text, "single"), Some("a \"b\" c"));
        assert_eq!(setting(text, "number"), Some("0"));
        assert_eq!(setting(text, "bare"), None);
        assert_eq!(setting(text, "missing"), None);
    }

    #[test]
    fn managers() {
        let folder = tempfile::tempdir().unwrap();
        let configured = |qemu: &str, lockd: &str| {
            std::fs::write(folder.path().join("qemu.conf"), qemu).unwrap();
            std::fs::write(folder.path().join("qemu-lockd.conf"), lockd).unwrap();
            LockManager::within(folder.path()).unwrap()
        };
        assert_eq!(configured("user = \"root\"\n", ""), LockManager::Nothing);
        assert_eq!(
            configured("lock_manager = \"sanlock\"\n", ""),
            LockManager::Sanlock
        );
        assert_eq!(
            configured("lock_manager = \"dlm\"\n", ""),
            LockManager::Other("dlm".to_owned())
        );
        let lockd = configured(
            "lock_manager = \"lockd\"\n",
            "auto_disk_leases = 0\nlvm_lockspace_dir = \"/l\"\n",
        );
        let wanted = Lockspaces {
            is_automatic: false,
            files: None,
            volumes: Some("/l".into()),
            scsi: None,
        };
        assert_eq!(lockd, LockManager::Lockd(wanted));
        std::fs::remove_file(folder.path().join("qemu.conf")).unwrap();
        let none = LockManager::within(folder.path()).unwrap();
        assert_eq!(none, LockManager::Nothing);
    }

    /// The hash is that of `printf %s /images/vm1.img | sha256sum`.
    #[test]
    fn locks_by_name() {
        let mut spaces = Lockspaces::told("");
        let image = Path::new("/images/vm1.img");
        assert_eq!(spaces.by_name(image), LockPlace::Image(image.into()));
        spaces.files = Some("/space".into());
        assert_eq!(
            spaces.by_name(image),
            LockPlace::File(
                "/space/9ed5c44561a32aa0277830354337fa1f5d4c4086230aa8132900ee36cb5c8aa8".into()
            )
        );
    }

    #[test]
    fn uuids_of_volumes() {
        let dm = "LVM-0123456789abcdefghijklmnopqrstuv06UgP52rhbw3Bo3mdRWeoLpytOSAa2ky";
        let uuid = volume_uuid(dm).unwrap();
        assert_eq!(uuid, "06UgP5-2rhb-w3Bo-3mdR-WeoL-pytO-SAa2ky");
        assert_eq!(volume_uuid("CRYPT-LUKS2-x"), None);
        assert_eq!(volume_uuid("LVM-short"), None);
    }
}
