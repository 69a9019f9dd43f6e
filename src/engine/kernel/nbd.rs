//! Images of any format as block devices: qemu-nbd serves them to the kernel's nbd driver
//! (drivers/block/nbd.c of Linux, qemu-nbd.c of QEMU).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::ioctl::{NoArg, Opcode, ioctl};

use crate::engine::kernel::nbd::server::{CLOSING, Refusal, Server};
use crate::engine::kernel::{partitions, wait};

pub use crate::engine::kernel::nbd::error::NbdError;
pub use crate::engine::kernel::nbd::server::{Image, serving};

mod error;
mod leftover;
mod server;

/// include/uapi/linux/nbd.h of Linux.
const NBD_CLEAR_SOCK: Opcode = 0xAB04;
const NBD_DISCONNECT: Opcode = 0xAB08;

/// The number of the driver in every device number of an nbd device (`NBD_MAJOR`).
const NBD_MAJOR: u32 = 43;

/// How long others may look at all devices that are free.
const RACE: Duration = Duration::from_secs(10);

/// How long the kernel may take to let a device go that nobody serves any longer.
const RELEASE: Duration = Duration::from_secs(10);

/// How often in succession there must be no partition, before it is believed that none appears.
const QUIET_LOOKS: u32 = 3;

/// How often at most is looked for partitions.
const LOOKS: u32 = 100;

/// A free device, under udev's lock (BLOCK_DEVICE_LOCKING.md of systemd): what it will hold is not
/// probed or activated by the host, and other runs of virt-fsck pass it over. qemu-nbd inherits the
/// lock, so that it outlives a run that is killed for as long as the image is shown.
#[derive(Debug)]
struct Reserved {
    path: PathBuf,
    /// Open for reading only: udev looks at what was open for writing when it is closed.
    file: File,
}

/// What came of an attempt to reserve a device.
enum Attempt {
    Reserved(Reserved),
    /// Somebody else has connected it.
    InUse,
    /// Somebody else looks at it or is about to connect it, as udev and other runs do.
    Passing,
}

impl Reserved {
    fn reserve(path: PathBuf) -> Result<Attempt, NbdError> {
        let folder = sysfs(&path);
        if !is_free(&folder) {
            return Ok(Attempt::InUse);
        }
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if is_passing(&error) => return Ok(Attempt::Passing),
            Err(source) => return Err(NbdError::device(&path, source)),
        };
        if !is_nbd_device(&file) {
            return Err(NbdError::device(&path, Errno::NOTTY));
        }
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            // Somebody may have connected it before it was locked.
            Ok(()) if is_free(&folder) => Ok(Attempt::Reserved(Self { path, file })),
            Ok(()) => Ok(Attempt::InUse),
            Err(Errno::WOULDBLOCK) => Ok(Attempt::Passing),
            Err(cause) => Err(NbdError::device(&path, cause)),
        }
    }
}

/// Whether it is coming up or going down in this moment.
fn is_passing(error: &std::io::Error) -> bool {
    [Errno::NXIO, Errno::NOENT, Errno::BUSY, Errno::NODEV]
        .iter()
        .any(|passing| error.raw_os_error() == Some(passing.raw_os_error()))
}

fn is_nbd_device(file: &File) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| {
        rustix::fs::FileType::from_raw_mode(stat.st_mode).is_block_device()
            && rustix::fs::major(stat.st_rdev) == NBD_MAJOR
    })
}

/// An image that qemu-nbd shows as a block device.
///
/// qemu-nbd is a child that ends, and closes the image well, when virt-fsck does, however that
/// ends. What stands in the kernel's memory at that moment and was not synced is then lost, as when
/// power fails.
#[derive(Debug)]
#[must_use = "the image is closed when it is dropped, without a word on whether that went well"]
pub struct Nbd {
    /// First, so that it is told to close before the lock goes.
    server: Server,
    reserved: Reserved,
}

impl Nbd {
    /// Shows an image as a block device.
    ///
    /// `pid_file` is where qemu-nbd writes its process number, in a folder that only we can write
    /// to; its socket lies beside it. By the name of that file a qemu-nbd is known as ours, see
    /// [`release_leftover`]. Before a device is tried, `about_to` is told which.
    ///
    /// # Errors
    /// [`NbdError::InUse`] when a lock of QEMU's stands against it; when no device is free, when
    /// qemu-nbd cannot open the image, and whatever `about_to` returns.
    pub async fn connect<E: From<NbdError>>(
        image: Image<'_>,
        pid_file: &Path,
        mut about_to: impl FnMut(&Path) -> Result<(), E>,
    ) -> Result<Self, E> {
        let begun = Instant::now();
        loop {
            let devices = devices();
            let count = devices.len();
            let mut is_final = true;
            for path in devices {
                let reserved = match Reserved::reserve(path)? {
                    Attempt::Reserved(reserved) => reserved,
                    Attempt::InUse => continue,
                    Attempt::Passing => {
                        is_final = false;
                        continue;
                    }
                };
                about_to(&reserved.path)?;
                if let Some(connected) = Self::serve(reserved, image, pid_file).await? {
                    return Ok(connected);
                }
            }
            if is_final || begun.elapsed() > RACE {
                return Err(NbdError::NoneFree(count).into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// `None` when somebody else has connected the device meanwhile.
    async fn serve(
        reserved: Reserved,
        image: Image<'_>,
        pid_file: &Path,
    ) -> Result<Option<Self>, NbdError> {
        let server = match Server::start(&reserved.path, &reserved.file, image, pid_file).await {
            Ok(server) => server,
            Err(Refusal::DeviceBusy) => return Ok(None),
            Err(Refusal::Final(error)) => return Err(error),
        };
        let nbd = Self { server, reserved };
        match nbd.forget_partitions().await {
            Ok(()) => Ok(Some(nbd)),
            Err(error) => {
                // The first error is the one to tell.
                let _later = nbd.disconnect().await;
                Err(error)
            }
        }
    }

    /// The block device: `/dev/nbdN`.
    pub fn path(&self) -> &Path {
        &self.reserved.path
    }

    /// Takes away the partitions that the kernel makes if the module was loaded with `max_part`.
    ///
    /// It looks for them when the device is opened the next time after it was connected, and the
    /// mark for that is set a moment after the size; so we open it ourselves until it stays quiet.
    /// Under our lock nobody else has looked at them.
    async fn forget_partitions(&self) -> Result<(), NbdError> {
        let device = &self.reserved.path;
        let folder = sysfs(device);
        let mut quiet = 0;
        let mut failed = None;
        for _ in 0..LOOKS {
            let opened = File::open(device).map_err(|source| NbdError::device(device, source))?;
            drop(opened);
            let numbers = partitions::of(&folder);
            quiet = if numbers.is_empty() { quiet + 1 } else { 0 };
            if quiet == QUIET_LOOKS {
                return Ok(());
            }
            failed = None;
            for number in numbers {
                if let Err(error) = partitions::forget(&self.reserved.file, number) {
                    failed = Some((number, error));
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(match failed {
            Some((_, source)) if source.kind() != std::io::ErrorKind::ResourceBusy => {
                NbdError::device(device, source)
            }
            other => NbdError::PartitionInUse {
                device: device.clone(),
                number: other.map_or(0, |(number, _)| number),
            },
        })
    }

    /// Writes out what was written to the device, closes the image, and gives the device back.
    /// Whatever lies on it must be closed before.
    ///
    /// # Errors
    /// The first of: it could not be written out, qemu-nbd did not end well, somebody else has the
    /// device open. It goes as far as it can in any case.
    pub async fn disconnect(self) -> Result<(), NbdError> {
        let Self { server, reserved } = self;
        let Reserved { path: device, file } = reserved;
        let flushed = file.sync_all();
        let task = connected_task(&device);
        // It answers all that is under way, and closes the image as it does at a normal end.
        let asked = request::<NBD_DISCONNECT>(&file);
        let ended = server.end(asked.is_ok()).await;
        let forgotten = forget_stale(&device, &file);
        // The kernel lets it go when the last one has closed it: the process number and the size go
        // only then.
        drop(file);
        let released = wait::until(RELEASE, || is_released(&device, task)).await;
        flushed.map_err(|source| NbdError::Flush {
            device: device.clone(),
            source,
        })?;
        ended.map_err(|source| NbdError::Close {
            device: device.clone(),
            source,
        })?;
        forgotten?;
        if released {
            Ok(())
        } else {
            Err(NbdError::StillOpen { device })
        }
    }
}

/// Takes away the partitions that udev may have made of a device while nobody had it locked, and
/// that a module with `max_part=0` keeps when it is no longer connected.
fn forget_stale(device: &Path, file: &File) -> Result<(), NbdError> {
    for number in partitions::of(&sysfs(device)) {
        partitions::forget(file, number).map_err(|source| match source.kind() {
            std::io::ErrorKind::ResourceBusy => NbdError::PartitionInUse {
                device: device.to_owned(),
                number,
            },
            _ => NbdError::device(device, source),
        })?;
    }
    Ok(())
}

/// All nbd devices, in order of their numbers.
fn devices() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut numbers: Vec<u32> = names
        .filter_map(|name| name.strip_prefix("nbd").and_then(|text| text.parse().ok()))
        .collect();
    numbers.sort_unstable();
    let paths = numbers.iter().map(|number| format!("/dev/nbd{number}"));
    paths.map(PathBuf::from).collect()
}

/// The folder of a block device in sysfs.
fn sysfs(device: &Path) -> PathBuf {
    Path::new("/sys/block").join(device.file_name().unwrap_or_default())
}

/// In sectors of 512 bytes.
fn size(folder: &Path) -> u64 {
    let text = std::fs::read_to_string(folder.join("size")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Whether nobody has connected it: neither a process nor a size is there.
fn is_free(folder: &Path) -> bool {
    folder.is_dir() && !folder.join("pid").exists() && size(folder) == 0
}

/// The thread that serves a device, by the number that the kernel gives.
fn connected_task(device: &Path) -> Option<i32> {
    let text = std::fs::read_to_string(sysfs(device).join("pid")).ok()?;
    text.trim().parse().ok()
}

/// Whether the use by `task` is over: nobody uses it, or already somebody else.
fn is_released(device: &Path, task: Option<i32>) -> bool {
    match connected_task(device) {
        None => size(&sysfs(device)) == 0,
        other => other != task,
    }
}

#[expect(unsafe_code, reason = "ioctl(2) is only as safe as its driver")]
fn request<const OPCODE: Opcode>(device: &File) -> Result<(), Errno> {
    if !is_nbd_device(device) {
        return Err(Errno::NOTTY);
    }
    // SAFETY: it is an nbd device; the opcodes of this file have no argument.
    unsafe { ioctl(device, NoArg::<OPCODE>::new()) }
}

/// Ends a qemu-nbd that a killed run has left at `device`, and gives the device back. It is known as
/// that run's by the name of its pid file. Somebody else's is left alone; nothing there is success.
///
/// # Errors
/// When it does not end, or somebody else has the device open.
pub async fn release_leftover(device: &Path, pid_file: &Path) -> Result<(), NbdError> {
    let task = connected_task(device);
    let mut was_ours = false;
    for process in leftover::servers(pid_file) {
        was_ours |= task.is_some_and(|task| process.has_thread(task));
        if !process.end(CLOSING).await {
            return Err(NbdError::Leftover { pid: process.pid() });
        }
    }
    for file in [pid_file, &server::socket(pid_file)] {
        // They lie in the folder of the run, which goes as a whole.
        let _gone = std::fs::remove_file(file);
    }
    if !was_ours {
        return Ok(());
    }
    let open = || File::open(device).map_err(|source| NbdError::device(device, source));
    if !wait::until(RELEASE, || is_released(device, task)).await {
        // As qemu-nbd -d does. Nobody serves it any longer, so nothing is lost that was not before.
        let file = open()?;
        for asked in [
            request::<NBD_DISCONNECT>(&file),
            request::<NBD_CLEAR_SOCK>(&file),
        ] {
            asked.map_err(|cause| NbdError::device(device, cause))?;
        }
        drop(file);
        if !wait::until(RELEASE, || is_released(device, task)).await {
            return Err(NbdError::StillOpen {
                device: device.to_owned(),
            });
        }
    }
    // Already somebody else's, perhaps.
    if is_free(&sysfs(device)) {
        forget_stale(device, &open()?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
