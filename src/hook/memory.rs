//! Memory that libvirt keeps of a guest: when it starts, it may go on with that instead of booting.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The largest snapshot's XML that is read, in bytes.
const LARGEST: u64 = 16 * 1024 * 1024;

/// Where libvirt's qemu driver keeps its files: `/var/lib/libvirt/qemu` for root, else below
/// `$XDG_CONFIG_HOME` (`virQEMUDriverConfigNew` in src/qemu/qemu_conf.c); `None` if that cannot be
/// told.
pub fn libvirt_folder() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/libvirt/qemu"));
    }
    let absolute = |variable: &str| {
        std::env::var_os(variable)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CONFIG_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".config")))
        .map(|config| config.join("libvirt/qemu"))
}

/// Whether libvirt may keep memory of this guest: a managed save, or a snapshot with memory, which
/// nothing tells from a boot when it is restored. When that cannot be told, it may.
pub fn is_kept(libvirt: &Path, guest: &OsStr) -> bool {
    let name = guest.as_bytes();
    if name.is_empty() || name.contains(&b'/') || name == b"." || name == b".." {
        return true;
    }
    let mut save = guest.to_owned();
    save.push(".save");
    let is_saved = match std::fs::symlink_metadata(libvirt.join("save").join(save)) {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    is_saved || has_memory_snapshots(&libvirt.join("snapshot").join(guest))
}

fn has_memory_snapshots(folder: &Path) -> bool {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return error.kind() != io::ErrorKind::NotFound,
    };
    entries.into_iter().any(|entry| match entry {
        Ok(entry) => {
            let path = entry.path();
            path.extension() == Some(OsStr::new("xml")) && has_memory(&path)
        }
        Err(_) => true,
    })
}

/// Whether a snapshot's XML has the guest's memory in it (docs/formatsnapshot.rst of libvirt,
/// `<memory snapshot=>`).
fn has_memory(path: &Path) -> bool {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST).read_to_end(&mut text));
    match (read, str::from_utf8(&text)) {
        (Ok(length), Ok(text)) => length as u64 == LARGEST || names_memory(text),
        _ => true,
    }
}

/// A `<memory>` with a `snapshot` that is not `no`; a domain's own `<memory>` has none.
fn names_memory(xml: &str) -> bool {
    let tags = xml.split("<memory").skip(1);
    let tags = tags.map(|rest| rest.split('>').next().unwrap_or(rest));
    tags.filter(|tag| tag.starts_with(char::is_whitespace))
        .filter_map(|tag| tag.split("snapshot").nth(1))
        .any(|value| {
            let value = value.trim_start().trim_start_matches('=').trim_start();
            !value.starts_with("'no'") && !value.starts_with("\"no\"")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(folder: &tempfile::TempDir) -> bool {
        is_kept(folder.path(), OsStr::new("vm1"))
    }

    fn libvirt() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("save")).unwrap();
        std::fs::create_dir_all(folder.path().join("snapshot/vm1")).unwrap();
        folder
    }

    #[test]
    fn a_managed_save() {
        let folder = libvirt();
        std::fs::write(folder.path().join("save/vm10.save"), "").unwrap();
        assert!(!kept(&folder));
        std::fs::write(folder.path().join("save/vm1.save"), "").unwrap();
        assert!(kept(&folder));
    }

    #[test]
    fn a_snapshot_with_memory() {
        let folder = libvirt();
        let snapshot = folder.path().join("snapshot/vm1/1.xml");
        let domain = "<domain><memory unit='KiB'>1</memory><memoryBacking snapshot='x'/></domain>";
        for (memory, is_kept) in [
            ("", false),
            ("<memory snapshot='no'/>", false),
            ("<memory snapshot=\"no\"/>", false),
            ("<memory snapshot='internal'/>", true),
            ("<memory snapshot=\"internal\"/>", true),
            ("<memory snapshot='external' file='/m'/>", true),
            ("<memory file='/m' snapshot='external'/>", true),
            ("<memory\n  snapshot = 'tomorrow'/>", true),
            ("<memory snapshot='internal'", true),
        ] {
            let xml = format!("<domainsnapshot>{domain}{memory}</domainsnapshot>");
            std::fs::write(&snapshot, xml).unwrap();
            assert_eq!(kept(&folder), is_kept, "{memory}");
        }
        std::fs::write(&snapshot, b"\xff").unwrap();
        assert!(kept(&folder));
        std::fs::remove_file(&snapshot).unwrap();
        assert!(!kept(&folder));
    }

    #[test]
    fn what_cannot_be_told_may_be_memory() {
        let folder = libvirt();
        for name in ["", ".", "..", "a/b"] {
            assert!(is_kept(folder.path(), OsStr::new(name)), "{name}");
        }
        assert!(!is_kept(&folder.path().join("none"), OsStr::new("vm1")));
        let file = folder.path().join("snapshot/vm2");
        std::fs::write(file, "").unwrap();
        assert!(is_kept(folder.path(), OsStr::new("vm2")));
    }
}
