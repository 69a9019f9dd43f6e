//! Loop devices: a file, or a part of it, as a block device (include/uapi/linux/loop.h of Linux).
//!
//! `LOOP_CONFIGURE`, of Linux 5.8, sets all at once, so that no half-configured device is ever
//! seen. Direct I/O is not asked for: the kernel agrees to it for files whose filesystem then fails
//! every read (overlayfs on tmpfs), and btrfs cannot keep its checksums right under it while pages
//! change. A loop device shows whole blocks only: what is left at the end of a file after the last
//! of them is not visible.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{Getter, Ioctl, IoctlOutput, NoArg, Opcode, Setter, ioctl};

use crate::engine::kernel::wait;
use crate::engine::user::nodes::Access;
use crate::reach::identity::Identity;
use crate::units::{Bytes, SectorSize, Sectors};

const LOOP_CLR_FD: Opcode = 0x4C01;
const LOOP_GET_STATUS64: Opcode = 0x4C05;
const LOOP_CONFIGURE: Opcode = 0x4C0A;
const LOOP_CTL_GET_FREE: Opcode = 0x4C82;

const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// The number of the driver in every device number of a loop device.
const LOOP_MAJOR: u32 = 7;

/// How long other processes may win the race for the free device, one after the other.
const RACE: Duration = Duration::from_secs(10);

/// How long others (udev) may keep a device open that we have closed.
const RELEASE: Duration = Duration::from_secs(5);

/// The length of a name in `struct loop_info64`.
const NAME_SIZE: usize = 64;

/// A loop device could not be had, or not be given back.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// A file of ours or of the kernel's did not open.
    #[error("{} cannot be opened", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The kernel did not make a loop device of it.
    #[error("{} cannot be made a loop device", file.display())]
    Attach {
        /// The file.
        file: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Every loop device that was free was taken by somebody else.
    #[error(
        "{} cannot be made a loop device: for {} s, other processes have taken or locked every \
         one that was free", file.display(), RACE.as_secs()
    )]
    Race {
        /// The file.
        file: PathBuf,
    },
    /// The file does not reach as far as it was to be shown.
    #[error("{} ends before it should: {visible} of {wanted} can be shown", file.display())]
    Short {
        /// The file.
        file: PathBuf,
        /// What was asked for.
        wanted: Bytes,
        /// What is there.
        visible: Bytes,
    },
    /// What was written to it may not have reached the file.
    #[error("what was written to {} may not be on disk", device.display())]
    Flush {
        /// The device.
        device: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The kernel did not take it back.
    #[error("{} cannot be detached", device.display())]
    Detach {
        /// The device.
        device: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Somebody else has it open; it goes when that one closes it.
    #[error(
        "{device} is still open in another process (lsof {device} names it); it is detached when \
         that one closes it", device = device.display()
    )]
    StillOpen {
        /// The device.
        device: PathBuf,
    },
}

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; NAME_SIZE],
    crypt_name: [u8; NAME_SIZE],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

impl LoopConfig {
    fn new(file: &File, offset: Bytes, size: Option<Bytes>, block: SectorSize, flags: u32) -> Self {
        Self {
            fd: file.as_raw_fd().unsigned_abs(),
            block_size: block.get(),
            info: LoopInfo {
                device: 0,
                inode: 0,
                rdevice: 0,
                offset: offset.get(),
                size_limit: size.map_or(0, Bytes::get),
                number: 0,
                encrypt_type: 0,
                encrypt_key_size: 0,
                flags,
                file_name: [0; NAME_SIZE],
                crypt_name: [0; NAME_SIZE],
                encrypt_key: [0; 32],
                init: [0; 2],
            },
            reserved: [0; 8],
        }
    }

    /// The name that tools of old read; sysfs has the whole path.
    fn named(mut self, path: &Path) -> Self {
        let room = self.info.file_name.iter_mut().take(NAME_SIZE - 1);
        for (place, byte) in room.zip(path.as_os_str().as_bytes()) {
            *place = *byte;
        }
        self
    }
}

/// `LOOP_CTL_GET_FREE`: the number of a loop device that nobody uses, perhaps made for us.
struct GetFree;

#[expect(
    unsafe_code,
    reason = "rustix has no pattern for an ioctl that answers by what it returns"
)]
// SAFETY: the kernel takes no argument for this opcode and writes no memory; what it returns is a
// number that is handed on as it is.
unsafe impl Ioctl for GetFree {
    type Output = IoctlOutput;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        LOOP_CTL_GET_FREE
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(
        returned: IoctlOutput,
        _argument: *mut std::ffi::c_void,
    ) -> rustix::io::Result<IoctlOutput> {
        Ok(returned)
    }
}

/// A file as a block device.
///
/// The kernel takes it back by itself when nobody has it open any longer, so that nothing of it
/// outlives a process that is killed. As long as it lives, it is under the lock of udev
/// (BLOCK_DEVICE_LOCKING.md of systemd): nothing that it holds is probed or activated by the host.
#[derive(Debug)]
#[must_use = "it is gone when it is dropped"]
pub struct LoopDevice {
    device: File,
    path: PathBuf,
    attachment: Attachment,
}

/// What tells this use of a loop device from the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Attachment {
    backing: Vec<u8>,
    /// Of Linux 5.15; older ones give none.
    sequence: Option<Vec<u8>>,
}

impl Attachment {
    /// That of loop device `path` at this moment, or `None` if it is free.
    fn of(path: &Path) -> Option<Self> {
        let folder = Path::new("/sys/block").join(path.file_name()?);
        Some(Self {
            backing: std::fs::read(folder.join("loop/backing_file")).ok()?,
            sequence: std::fs::read(folder.join("diskseq")).ok(),
        })
    }
}

impl LoopDevice {
    /// Shows `size` bytes of `file`, a regular file or a block device, from `offset` on; without a
    /// size, all up to its end. Without a block size it has sectors of 512 bytes. If the file's
    /// length is not a whole number of blocks, what lies after the last whole one is not visible.
    ///
    /// # Errors
    /// When we are not root or the kernel has no loop driver, when the file cannot be opened, and
    /// when it is shorter than what is to be shown.
    pub async fn attach(
        file: &Path,
        offset: Bytes,
        size: Option<Bytes>,
        block_size: Option<SectorSize>,
        access: Access,
    ) -> Result<Self, LoopError> {
        let writes = access == Access::Write;
        let backing = open(file, writes)?;
        let attach = |source: Errno| LoopError::Attach {
            file: file.to_owned(),
            source: source.into(),
        };
        let mut flags = LO_FLAGS_AUTOCLEAR;
        if !writes {
            flags |= LO_FLAGS_READ_ONLY;
        }
        let block = block_size.unwrap_or_default();
        let config = LoopConfig::new(&backing, offset, size, block, flags).named(file);
        let control = open(Path::new("/dev/loop-control"), true)?;
        let begun = std::time::Instant::now();
        while begun.elapsed() < RACE {
            if let Some((device, path)) = take_free(&control, writes).map_err(attach)? {
                match configure(&device, config) {
                    Ok(()) => return Self::attached(device, path).at_least(file, size).await,
                    Err(Errno::BUSY) => {}
                    Err(cause) => return Err(attach(cause)),
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(LoopError::Race {
            file: file.to_owned(),
        })
    }

    fn attached(device: File, path: PathBuf) -> Self {
        // It cannot be free: we have it open.
        let attachment = Attachment::of(&path).unwrap_or(Attachment {
            backing: Vec::new(),
            sequence: None,
        });
        Self {
            device,
            path,
            attachment,
        }
    }

    /// The device, if it shows as many whole sectors as were asked for: the kernel takes a size
    /// that goes past the end of the file, and shows less.
    async fn at_least(self, file: &Path, size: Option<Bytes>) -> Result<Self, LoopError> {
        let Some(wanted) = size else { return Ok(self) };
        let visible = self.size();
        if visible.get() / 512 >= wanted.get() / 512 {
            return Ok(self);
        }
        // The first error is the one to tell.
        let _later = self.close().await;
        Err(LoopError::Short {
            file: file.to_owned(),
            wanted,
            visible,
        })
    }

    /// The block device: `/dev/loopN`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How much of the file it shows.
    pub fn size(&self) -> Bytes {
        let sectors = self.sysfs("size").and_then(|text| text.parse().ok());
        Sectors::new(sectors.unwrap_or(0))
            .to_bytes(SectorSize::S512)
            .unwrap_or_default()
    }

    fn sysfs(&self, name: &str) -> Option<String> {
        let folder = Path::new("/sys/block").join(self.path.file_name()?);
        let text = std::fs::read_to_string(folder.join(name)).ok()?;
        Some(text.trim().to_owned())
    }

    /// Writes out what was written to it and gives it back.
    ///
    /// # Errors
    /// The first of: it could not be written out, the kernel did not take it back, somebody else
    /// has it still open. It is detached as far as it can be in any case.
    pub async fn close(self) -> Result<(), LoopError> {
        let Self {
            device,
            path,
            attachment,
        } = self;
        let flushed = device.sync_all();
        let cleared = clear(&device);
        // The kernel may wait with it until the last one has closed it, which must not be us.
        drop(device);
        let free = wait::until(RELEASE, || {
            Attachment::of(&path).as_ref() != Some(&attachment)
        });
        let free = free.await;
        flushed.map_err(|source| LoopError::Flush {
            device: path.clone(),
            source,
        })?;
        match cleared {
            _ if free => Ok(()),
            Err(cause) => Err(LoopError::Detach {
                device: path,
                source: cause.into(),
            }),
            Ok(()) => Err(LoopError::StillOpen { device: path }),
        }
    }
}

fn open(path: &Path, writes: bool) -> Result<File, LoopError> {
    let opened = File::options().read(true).write(writes).open(path);
    opened.map_err(|source| LoopError::Open {
        path: path.to_owned(),
        source,
    })
}

/// A device that was free a moment ago, under udev's lock; `None` when somebody else has come first,
/// or is giving it back in this moment.
fn take_free(control: &File, writes: bool) -> Result<Option<(File, PathBuf)>, Errno> {
    let path = PathBuf::from(format!("/dev/loop{}", free_number(control)?));
    let access = if writes { OFlags::RDWR } else { OFlags::RDONLY };
    let passing = [Errno::NXIO, Errno::NODEV, Errno::BUSY];
    let device = match rustix::fs::open(&path, access | OFlags::CLOEXEC, Mode::empty()) {
        Err(cause) if passing.contains(&cause) => return Ok(None),
        other => File::from(other?),
    };
    match rustix::fs::flock(&device, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some((device, path))),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(cause) => Err(cause),
    }
}

#[expect(unsafe_code, reason = "ioctl(2) is only as safe as its driver")]
fn free_number(control: &File) -> Result<IoctlOutput, Errno> {
    // SAFETY: /dev/loop-control knows this opcode, see `GetFree`.
    unsafe { ioctl(control, GetFree) }
}

#[expect(unsafe_code, reason = "ioctl(2) is only as safe as its driver")]
fn configure(device: &File, config: LoopConfig) -> Result<(), Errno> {
    if !is_loop_device(device) {
        return Err(Errno::NOTTY);
    }
    // SAFETY: it is a loop device, which reads a `struct loop_config` for this opcode, laid out as
    // `LoopConfig` is, and writes nothing.
    unsafe { ioctl(device, Setter::<LOOP_CONFIGURE, LoopConfig>::new(config)) }
}

#[expect(unsafe_code, reason = "ioctl(2) is only as safe as its driver")]
fn clear(device: &File) -> Result<(), Errno> {
    // SAFETY: only loop devices get here; this opcode has no argument.
    unsafe { ioctl(device, NoArg::<LOOP_CLR_FD>::new()) }
}

/// What lies behind a loop device, whatever its path has become since: `None` if it is free or no
/// loop device.
#[expect(unsafe_code, reason = "ioctl(2) is only as safe as its driver")]
pub fn behind(device: &File) -> Option<Identity> {
    if !is_loop_device(device) {
        return None;
    }
    // SAFETY: it is a loop device, which writes a whole `struct loop_info64` for this opcode, laid
    // out as `LoopInfo` is, in which every bit pattern is valid, and reads nothing.
    let info = unsafe { ioctl(device, Getter::<LOOP_GET_STATUS64, LoopInfo>::new()) }.ok()?;
    // The kernel's own encoding of device numbers (`huge_encode_dev`) is that of stat(2).
    Some(match info.rdevice {
        0 => Identity::File {
            device: info.device,
            inode: info.inode,
        },
        number => Identity::BlockDevice { number },
    })
}

fn is_loop_device(device: &File) -> bool {
    rustix::fs::fstat(device).is_ok_and(|stat| {
        rustix::fs::FileType::from_raw_mode(stat.st_mode).is_block_device()
            && rustix::fs::major(stat.st_rdev) == LOOP_MAJOR
    })
}

#[cfg(test)]
mod tests;
