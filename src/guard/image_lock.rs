//! QEMU's locks on an image file, for as long as the kernel has it open instead of QEMU.
//!
//! The protocol is that of block/file-posix.c of QEMU (`raw_apply_lock_bytes`,
//! `raw_check_lock_bytes`): a shared lock on byte 100 + n says "I do n", one on byte 200 + n says
//! "nobody else may do n". Whoever comes to do n sees to it that nobody holds 200 + n, and whoever
//! bars n sees to it that nobody holds 100 + n. The locks belong to the open file, so they go with
//! it, however the process ends (fcntl(2), open file description locks).
//!
//! QEMU inside libvirt's namespace opens block devices by nodes of its own, on which nobody else's
//! locks are seen; these locks are for files.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::engine::user::nodes::Access;

/// Byte 100 + n: n is done.
const DONE: u8 = 100;

/// Byte 200 + n: n is barred to others.
const BARRED: u8 = 200;

/// What may be done with an image (`BLK_PERM_CONSISTENT_READ` and so on in
/// include/block/block-common.h of QEMU).
const CONSISTENT_READ: u8 = 0;
const WRITE: u8 = 1;
const RESIZE: u8 = 3;

/// An image could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else uses it.
    #[error(
        "{image} is in use: another process holds QEMU's lock on it; stop that process (lsof {image} \
         names it)", image = .0.display()
    )]
    InUse(PathBuf),
    /// It cannot be opened, or its filesystem has no locks.
    #[error("{} cannot be locked", path.display())]
    System {
        /// The image.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// QEMU's locks on an image.
#[derive(Debug)]
#[must_use = "the locks go when it is dropped"]
pub struct ImageLock {
    /// Open for as long as the locks are held.
    image: File,
}

impl Drop for ImageLock {
    /// A child that is being started has the open file too until it becomes its program, so to close
    /// ours is not enough.
    fn drop(&mut self) {
        for permission in [CONSISTENT_READ, WRITE, RESIZE] {
            for byte in [DONE + permission, BARRED + permission] {
                // There is nothing more to be done than to close it.
                let _unlocked = fcntl(&self.image, libc::F_OFD_SETLK, libc::F_UNLCK, byte);
            }
        }
    }
}

impl ImageLock {
    /// Locks the image at `path`: against other writers, and for writing against readers too that
    /// bar them. Several may read.
    ///
    /// # Errors
    /// [`LockError::InUse`] when somebody does what this bars, or bars what this does.
    pub fn take(path: &Path, access: Access) -> Result<Self, LockError> {
        let system = |source| LockError::System {
            path: path.to_owned(),
            source,
        };
        let done: &[u8] = match access {
            Access::ReadOnly => &[CONSISTENT_READ],
            Access::Write => &[CONSISTENT_READ, WRITE, RESIZE],
        };
        let barred = [WRITE, RESIZE];
        let image = File::open(path).map_err(system)?;
        let lock = Self { image };
        let refuse_if_used = || match is_used(&lock.image, done, &barred) {
            Ok(false) => Ok(()),
            Ok(true) => Err(LockError::InUse(path.to_owned())),
            Err(source) => Err(system(source)),
        };
        // Before, so that a running guest never meets a lock of ours; after, because somebody may
        // have come in between.
        refuse_if_used()?;
        let ours = done.iter().map(|n| DONE + n);
        for byte in ours.chain(barred.iter().map(|n| BARRED + n)) {
            // Locks of QEMU's are shared ones: who has it locked for itself is somebody else.
            match fcntl(&lock.image, libc::F_OFD_SETLK, libc::F_RDLCK, byte) {
                Ok(_) => {}
                Err(error) if is_conflict(&error) => {
                    return Err(LockError::InUse(path.to_owned()));
                }
                Err(source) => return Err(system(source)),
            }
        }
        refuse_if_used()?;
        Ok(lock)
    }
}

/// Whether somebody else bars what is to be done, or does what is to be barred.
fn is_used(image: &File, done: &[u8], barred: &[u8]) -> std::io::Result<bool> {
    let theirs = done.iter().map(|n| BARRED + n);
    for byte in theirs.chain(barred.iter().map(|n| DONE + n)) {
        // Could we have it for ourselves alone?
        let answer = fcntl(image, libc::F_OFD_GETLK, libc::F_WRLCK, byte)?;
        if i32::from(answer.l_type) != libc::F_UNLCK {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a lock was not had because of somebody else's.
pub(super) fn is_conflict(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES))
}

/// Asks for a lock on one byte, or about it; `request` is `F_OFD_SETLK` or `F_OFD_GETLK`.
#[expect(unsafe_code, reason = "rustix has no locks of open file descriptions")]
pub(super) fn fcntl(
    image: &File,
    request: i32,
    kind: i32,
    byte: u8,
) -> std::io::Result<libc::flock> {
    // The process must be 0 for these requests. The types of the constants are not the same on
    // every machine, and all values are small.
    #[expect(clippy::cast_possible_truncation, reason = "0, 1 and 2")]
    let mut lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte.into(),
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open as long as `image` is borrowed; both requests read a `struct
    // flock`, and the second writes one, which `lock` outlives.
    match unsafe { libc::fcntl(image.as_raw_fd(), request, &raw mut lock) } {
        -1 => Err(std::io::Error::last_os_error()),
        _ => Ok(lock),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Child, Command, Stdio};

    const RAW: &str = "raw";
    const QCOW2: &str = "qcow2";

    fn image(format: &str) -> tempfile::TempPath {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let status = Command::new("qemu-img")
            .args(["create", "-q", "-f", format])
            .arg(&path)
            .arg("1M")
            .status();
        let status = status.expect("qemu-img (of the package qemu-utils) is needed by this test");
        assert!(status.success());
        path
    }

    fn qemu_io(image: &Path, format: &str, arguments: &[&str]) -> String {
        let output = Command::new("qemu-io")
            .args(["-f", format])
            .args(arguments)
            .arg(image)
            .output();
        String::from_utf8_lossy(&output.unwrap().stderr).into_owned()
    }

    /// A qemu-io that has the image open until it is dropped.
    struct Opened(Child);

    impl Opened {
        fn new(image: &Path, format: &str, arguments: &[&str]) -> Self {
            let mut child = Command::new("qemu-io")
                .args(["-f", format])
                .args(arguments)
                .arg(image)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            writeln!(child.stdin.as_ref().unwrap(), "length").unwrap();
            let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
            assert!(lines.any(|line| line.unwrap().contains("1 MiB")));
            Self(child)
        }
    }

    impl Drop for Opened {
        fn drop(&mut self) {
            drop(self.0.stdin.take());
            self.0.wait().unwrap();
        }
    }

    fn is_in_use(image: &Path, access: Access) -> bool {
        match ImageLock::take(image, access) {
            Ok(_) => false,
            Err(LockError::InUse(path)) => {
                assert_eq!(path, image);
                true
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// Who only reads a raw image does not mind writers, so is not kept off by them; who reads
    /// metadata of the image does.
    #[test]
    fn qemu_keeps_off_what_we_hold() {
        let write = &["-c", "write 0 512"][..];
        let read = &["-r", "-c", "read 0 512"][..];
        let share = &["-r", "-U", "-c", "read 0 512"][..];
        let write_lock = Some("Failed to get \"write\" lock");
        let shared_lock = Some("Failed to get shared \"write\" lock");
        for format in [RAW, QCOW2] {
            let file = image(format);
            for (access, call, refused) in [
                (None, write, None),
                (Some(Access::ReadOnly), write, write_lock),
                (Some(Access::ReadOnly), read, None),
                (Some(Access::ReadOnly), share, None),
                (Some(Access::Write), write, write_lock),
                (
                    Some(Access::Write),
                    read,
                    shared_lock.filter(|_| format == QCOW2),
                ),
                (Some(Access::Write), share, None),
                (None, write, None),
            ] {
                let held = access.map(|access| ImageLock::take(&file, access).unwrap());
                let said = qemu_io(&file, format, call);
                match refused {
                    Some(words) => assert!(said.contains(words), "{access:?} {call:?}: {said}"),
                    None => assert_eq!(said, "", "{format} {access:?} {call:?}"),
                }
                drop(held);
            }
        }
    }

    #[test]
    fn a_child_that_is_being_started_does_not_keep_it_locked() {
        let file = image(RAW);
        let lock = ImageLock::take(&file, Access::Write).unwrap();
        let of_the_child = lock.image.try_clone().unwrap();
        drop(lock);
        let again = ImageLock::take(&file, Access::Write).unwrap();
        drop((again, of_the_child));
    }

    #[test]
    fn qemu_img_may_look_and_not_write() {
        let file = image(QCOW2);
        let _held = ImageLock::take(&file, Access::Write).unwrap();
        for (arguments, end, works) in [
            (&["info", "-U"][..], None, true),
            (&["info"], None, false),
            (&["check"], None, false),
            (&["resize", "-f", "qcow2"], Some("2M"), false),
            (&["resize", "-f", "raw"], Some("2M"), false),
        ] {
            let mut call = Command::new("qemu-img");
            let output = call.args(arguments).arg(&file).args(end).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.success(), works, "{arguments:?}: {said}");
            assert!(works || said.contains("Failed to get"), "{said}");
        }
    }

    #[test]
    fn we_keep_off_what_qemu_holds() {
        for (format, arguments, read, write) in [
            (RAW, &[][..], true, true),
            (RAW, &["-r"], false, false),
            (RAW, &["-r", "-U"], false, false),
            (QCOW2, &[], true, true),
            (QCOW2, &["-r"], false, true),
            (QCOW2, &["-r", "-U"], false, false),
        ] {
            let file = image(format);
            let case = format!("{format} {arguments:?}");
            let opened = Opened::new(&file, format, arguments);
            assert_eq!(is_in_use(&file, Access::ReadOnly), read, "{case}");
            assert_eq!(is_in_use(&file, Access::Write), write, "{case}");
            drop(opened);
            assert!(!is_in_use(&file, Access::Write), "{case} after");
        }
    }

    #[test]
    fn two_of_ours_may_read_and_not_write() {
        let file = image(RAW);
        let (read, write) = (Access::ReadOnly, Access::Write);
        for (first, second, refused) in [
            (read, read, false),
            (read, write, true),
            (write, read, true),
            (write, write, true),
        ] {
            let held = ImageLock::take(&file, first).unwrap();
            assert_eq!(is_in_use(&file, second), refused, "{first:?} {second:?}");
            drop(held);
            assert!(!is_in_use(&file, second), "{first:?} {second:?} after");
        }
    }

    #[test]
    fn a_lock_for_one_alone_is_in_use_too() {
        let file = image(RAW);
        let theirs = File::options().write(true).open(&file).unwrap();
        fcntl(&theirs, libc::F_OFD_SETLK, libc::F_WRLCK, 203).unwrap();
        assert!(is_in_use(&file, Access::ReadOnly));
    }

    #[test]
    fn errors_name_the_image() {
        let missing = Path::new("/nonexistent/image");
        let error = ImageLock::take(missing, Access::ReadOnly).unwrap_err();
        assert_eq!(error.to_string(), "/nonexistent/image cannot be locked");
        let error = LockError::InUse("/i/vm1.img".into()).to_string();
        let same = crate::engine::user::daemon::DaemonError::InUse("/i/vm1.img".to_owned());
        assert_eq!(error, same.to_string());
    }
}
