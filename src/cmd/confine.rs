//! A tool that looks for devices by itself, and finds only those it is meant to.
//!
//! libblkid, which such tools ask, knows the devices of its cache file and those of `/sys/block`
//! (`/proc/partitions` in old versions), and looks into each. So the tool gets a mount namespace of its
//! own, in which there are no devices in these places and the cache file names the ones it may find;
//! plain files will do. All of it is gone with the tool.

use std::ffi::CStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use tokio::process::Command;

/// Where libblkid lists block devices.
const DEVICES: &CStr = c"/sys/block";
/// Its cache file, in what takes the place of that.
const CACHE: &str = "/sys/block/blkid.tab";
const CACHE_FILE: &CStr = c"/sys/block/blkid.tab";

/// Whether tools can be confined here at all.
pub fn is_possible() -> bool {
    rustix::process::geteuid().is_root()
}

/// The command finds these devices, and no others.
///
/// # Errors
/// Where a path cannot be written into the cache file.
#[expect(
    unsafe_code,
    reason = "code between fork and exec has no safe interface"
)]
pub(super) fn finding_only(command: &mut Command, devices: &[PathBuf]) -> io::Result<()> {
    let cache = cache(devices)?;
    command.env("BLKID_FILE", CACHE);
    // SAFETY: the closure makes system calls only and allocates nothing, so it may run between fork
    // and exec; the new process has one thread.
    unsafe { command.pre_exec(move || hide_all_but(&cache)) };
    Ok(())
}

/// The text of the cache file (libblkid/src/read.c). What it says of a device is old, and so libblkid
/// looks into it.
fn cache(devices: &[PathBuf]) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for device in devices {
        let path = device.as_os_str().as_bytes();
        if path
            .iter()
            .any(|byte| byte.is_ascii_whitespace() || b"<>".contains(byte))
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the path {} has blanks in it", device.display()),
            ));
        }
        text.extend(b"<device DEVNO=\"0x0000\" TIME=\"0.0\" TYPE=\"btrfs\">");
        text.extend(path);
        text.extend(b"</device>\n");
    }
    Ok(text)
}

#[expect(
    unsafe_code,
    reason = "unshare(2) can close descriptors under other threads"
)]
fn hide_all_but(cache: &[u8]) -> io::Result<()> {
    // SAFETY: only CLONE_NEWNS is asked for, which touches no descriptor, and no other thread runs.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    // Whatever may come of it, the host's own mounts stay as they are.
    for above in [c"/sys", c"/proc"] {
        mount_change(above, MountPropagationFlags::PRIVATE)?;
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(
        c"virt-fsck",
        DEVICES,
        c"tmpfs",
        flags,
        Some(c"mode=700,size=1m"),
    )?;
    mount_bind(c"/dev/null", c"/proc/partitions")?;
    let file = rustix::fs::open(
        CACHE_FILE,
        OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::RUSR | Mode::WUSR,
    )?;
    let mut rest = cache;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::{Invocation, Tool};

    #[test]
    fn a_cache_names_each_device_in_a_line() {
        let devices = ["/run/1-vda", "/dev/dm-7"].map(PathBuf::from);
        let text = String::from_utf8(cache(&devices).unwrap()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].ends_with(">/run/1-vda</device>"));
        assert!(lines[1].ends_with(">/dev/dm-7</device>"));
        for path in ["/a b", "/a\nb", "/a<b"] {
            assert!(cache(&[PathBuf::from(path)]).is_err(), "{path}");
        }
    }

    #[tokio::test]
    async fn the_tool_alone_sees_nothing_else() {
        if !is_possible() {
            return;
        }
        const SH: Tool = Tool {
            name: "sh",
            package: "dash",
        };
        let look = "ls /sys/block; cat /proc/partitions \"$BLKID_FILE\"";
        let mut call = Invocation::new(SH, ["-c", look]);
        call.devices = vec![PathBuf::from("/dev/dm-7")];
        let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let said = call.capture().await.unwrap().stdout;
        let said = String::from_utf8(said).unwrap();
        assert_eq!(said.lines().count(), 2, "{said}");
        assert!(said.starts_with("blkid.tab\n<device "), "{said}");
        let after = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert_eq!(before, after);
    }
}
