//! What the kernel serves of this host's files and devices to other hosts: LIO (iSCSI, Fibre
//! Channel, vhost), NVMe over fabrics, USB mass storage.

use std::fs;
use std::path::{Path, PathBuf};

use crate::guard::sysfs::entries;
use crate::reach::identity::{self, Identity};

/// A file or device that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Served {
    path: PathBuf,
    /// By whom.
    server: String,
}

/// What is served, and by whom.
pub(super) fn by_the_kernel(sysfs: &Path) -> Vec<(Identity, String)> {
    let configured = sysfs.join("kernel/config");
    let mut served = by_lio(&configured.join("target/core"));
    served.extend(by_nvmet(&configured.join("nvmet/subsystems")));
    served.extend(by_usb(&configured.join("usb_gadget")));
    let found = served.into_iter().filter_map(|one| {
        let (identity, _) = identity::identify(&one.path).ok()?;
        Some((identity, one.server))
    });
    found.collect()
}

/// The storage objects of LIO: `fileio_0/NAME` and so on (Documentation/target of Linux).
fn by_lio(core: &Path) -> Vec<Served> {
    let mut served = Vec::new();
    for object in entries(core).iter().flat_map(|kind| entries(kind)) {
        let read = |name: &str| fs::read_to_string(object.join(name)).ok();
        // One that is only being set up has nothing open.
        if read("enable").is_none_or(|text| text.trim() != "1") {
            continue;
        }
        let told = read("udev_path").and_then(|text| absolute(&text));
        let path = told.or_else(|| path_in_info(&read("info")?));
        served.extend(path.map(|path| Served {
            path,
            server: format!("the storage object {} of LIO", name_of(&object)),
        }));
    }
    served
}

/// What LIO shows of a storage object (`show_configfs_dev_params` in drivers/target of Linux):
/// `File: PATH  Size: ...` or `UDEV PATH: PATH  readonly: 0`.
fn path_in_info(info: &str) -> Option<PathBuf> {
    let path = ["File: ", "UDEV PATH: "].iter().find_map(|title| {
        let (_, after) = info.split_once(title)?;
        let line = after.lines().next()?;
        line.split("  ").next()
    })?;
    absolute(path)
}

fn by_nvmet(subsystems: &Path) -> Vec<Served> {
    let mut served = Vec::new();
    for subsystem in entries(subsystems) {
        for namespace in entries(&subsystem.join("namespaces")) {
            let read = |name: &str| fs::read_to_string(namespace.join(name)).ok();
            if read("enable").is_none_or(|text| text.trim() != "1") {
                continue;
            }
            let path = read("device_path").and_then(|text| absolute(&text));
            served.extend(path.map(|path| Served {
                path,
                server: format!("the NVMe target {}", name_of(&subsystem)),
            }));
        }
    }
    served
}

/// `GADGET/functions/mass_storage.NAME/lun.N/file`.
fn by_usb(gadgets: &Path) -> Vec<Served> {
    let mut served = Vec::new();
    for gadget in entries(gadgets) {
        let functions = entries(&gadget.join("functions"));
        for unit in functions.iter().flat_map(|function| entries(function)) {
            let path = fs::read_to_string(unit.join("file")).ok();
            served.extend(path.and_then(|text| absolute(&text)).map(|path| Served {
                path,
                server: format!("the USB gadget {}", name_of(&gadget)),
            }));
        }
    }
    served
}

fn absolute(text: &str) -> Option<PathBuf> {
    let path = Path::new(text.trim_end_matches('\n'));
    path.is_absolute().then(|| path.to_owned())
}

fn name_of(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default();
    name.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lio_tells() {
        for (info, path) in [
            (
                "Status: ACTIVATED  Max Queue Depth: 128  SectorSize: 512  HwMaxSectors: 16384\n\
                 \x20       TCM FILEIO ID: 0        File: /images/a b.img  Size: 16777216  \
                 Mode: O_DSYNC Async: 0\n",
                Some("/images/a b.img"),
            ),
            (
                "Status: ACTIVATED  Max Queue Depth: 0  SectorSize: 512  HwMaxSectors: 128\n\
                 \x20       iBlock device: dm-3  UDEV PATH: /dev/vg/lv  readonly: 0\n\
                 \x20       Major: 253 Minor: 3  CLAIMED: IBLOCK\n",
                Some("/dev/vg/lv"),
            ),
            ("Status: ACTIVATED\n TCM RAMDISK: 0\n", None),
            ("File: relative", None),
            ("", None),
        ] {
            assert_eq!(path_in_info(info).as_deref(), path.map(Path::new), "{info}");
        }
    }

    #[test]
    fn what_is_served() {
        let config = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let file = config.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write("core/iblock_0/vm1/enable", "1\n");
        write("core/iblock_0/vm1/udev_path", "/dev/vg/vm1\n");
        write("core/iblock_0/off/enable", "0\n");
        write("core/iblock_0/off/udev_path", "/dev/vg/off\n");
        write("core/iblock_0/hba_info", "HBA Index: 1\n");
        write("core/fileio_1/vm2/enable", "1\n");
        write("core/fileio_1/vm2/udev_path", "\n");
        write("core/fileio_1/vm2/info", "x File: /images/vm2  Size: 1\n");
        write("nvmet/nqn.a/namespaces/1/enable", "1\n");
        write("nvmet/nqn.a/namespaces/1/device_path", "/dev/vg/vm3\n");
        write("nvmet/nqn.a/namespaces/2/enable", "0\n");
        write("nvmet/nqn.a/namespaces/2/device_path", "/dev/vg/off\n");
        write(
            "usb/g1/functions/mass_storage.0/lun.0/file",
            "/images/vm4\n",
        );
        write("usb/g1/functions/mass_storage.0/lun.1/file", "\n");
        let mut all = by_lio(&config.path().join("core"));
        all.extend(by_nvmet(&config.path().join("nvmet")));
        all.extend(by_usb(&config.path().join("usb")));
        let told: Vec<_> = all
            .iter()
            .map(|one| (one.path.to_str().unwrap(), one.server.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("/images/vm2", "the storage object vm2 of LIO"),
                ("/dev/vg/vm1", "the storage object vm1 of LIO"),
                ("/dev/vg/vm3", "the NVMe target nqn.a"),
                ("/images/vm4", "the USB gadget g1"),
            ]
        );
    }
}
