//! The file that the kernel asks for its bytes: one, the root of its own filesystem.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, INodeNo, KernelConfig,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyOpen, ReplyWrite, Request,
    TimeOrNow, WriteFlags,
};
use rustix::io::Errno;

use super::images::Connections;
use super::volume::{Images, Space, Volume};
use crate::units::Bytes;

/// The most bytes of one request; each thread has a buffer of that size.
pub const LARGEST_REQUEST: usize = 1024 * 1024;

/// The kernel may believe for this long what it was told of the file: nothing of it changes.
const VALID: Duration = Duration::from_secs(24 * 60 * 60);

/// What a thread needs to serve a request.
#[derive(Debug)]
struct Worker {
    images: Connections,
    buffer: Vec<u8>,
}

/// The workers that no thread has now; `None` once nothing is served any more.
type Idle = Option<Vec<Worker>>;

/// A layer, and what serves its bytes.
#[derive(Debug)]
pub struct ServedLayer {
    volume: Volume,
    idle: Mutex<Idle>,
}

impl ServedLayer {
    /// A layer that is served over `connections`, a thread each.
    pub fn new(volume: Volume, connections: Vec<Connections>) -> Self {
        let workers = connections.into_iter().map(|images| Worker {
            images,
            buffer: Vec::new(),
        });
        Self {
            volume,
            idle: Mutex::new(Some(workers.collect())),
        }
    }

    /// Serves nothing any more; all that was written is on the images' storage afterwards.
    ///
    /// # Errors
    /// What an image says.
    pub fn end(&self) -> Result<(), Errno> {
        let idle = self.idle().take();
        let mut workers = idle.into_iter().flatten();
        // The images are the same for all of them.
        workers.next().map_or(Ok(()), |mut one| one.images.flush())
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There are as many workers as threads, so one is there unless the end has come.
    fn with_worker<T>(
        &self,
        action: impl FnOnce(&Volume, &mut Worker) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let worker = self.idle().as_mut().and_then(Vec::pop);
        let mut worker = worker.ok_or(Errno::NODEV)?;
        let done = action(&self.volume, &mut worker);
        if let Some(idle) = self.idle().as_mut() {
            idle.push(worker);
        }
        done
    }
}

/// The answers to the kernel.
#[derive(Debug)]
pub struct ComposedFile {
    served: Arc<ServedLayer>,
    made: SystemTime,
}

impl ComposedFile {
    /// The layer as a file.
    pub fn new(served: Arc<ServedLayer>) -> Self {
        Self {
            served,
            made: SystemTime::now(),
        }
    }

    /// A file of the layer's size that is its owner's alone.
    fn attributes(&self) -> FileAttr {
        let size = self.served.volume.size().get();
        FileAttr {
            ino: INodeNo::ROOT,
            size,
            blocks: size.div_ceil(512),
            atime: self.made,
            mtime: self.made,
            ctime: self.made,
            crtime: self.made,
            kind: FileType::RegularFile,
            perm: 0o600,
            nlink: 1,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    fn fallocate_as(&self, offset: u64, length: u64, mode: i32) -> Result<(), Errno> {
        let space = if mode & libc::FALLOC_FL_PUNCH_HOLE != 0 {
            Space::GivenBack
        } else if mode & libc::FALLOC_FL_ZERO_RANGE != 0 {
            Space::Kept
        } else {
            // The space is the disk's; there is none to be set aside.
            return Err(Errno::OPNOTSUPP);
        };
        let (offset, length) = (Bytes::new(offset), Bytes::new(length));
        self.served
            .with_worker(|volume, worker| volume.zero(&mut worker.images, offset, length, space))
    }
}

fn told(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.raw_os_error())
}

fn answer(reply: ReplyEmpty, outcome: Result<(), Errno>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(told(errno)),
    }
}

impl Filesystem for ComposedFile {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let largest = u32::try_from(LARGEST_REQUEST).map_err(std::io::Error::other)?;
        match config.set_max_write(largest) {
            Ok(_) => Ok(()),
            Err(_) => Err(std::io::ErrorKind::InvalidInput.into()),
        }
    }

    fn getattr(
        &self,
        _request: &Request,
        _file: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        reply.attr(&VALID, &self.attributes());
    }

    /// Times may be set and are not kept; all else stays as it is, above all the size.
    fn setattr(
        &self,
        _request: &Request,
        _file: INodeNo,
        mode: Option<u32>,
        owner: Option<u32>,
        group: Option<u32>,
        size: Option<u64>,
        _read: Option<TimeOrNow>,
        _written: Option<TimeOrNow>,
        _changed: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _made: Option<SystemTime>,
        _flagged: Option<SystemTime>,
        _backed_up: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let attributes = self.attributes();
        let is_resized = size.is_some_and(|size| size != attributes.size);
        if is_resized || mode.is_some() || owner.is_some() || group.is_some() {
            reply.error(fuser::Errno::EPERM);
        } else {
            reply.attr(&VALID, &attributes);
        }
    }

    fn open(&self, _request: &Request, _file: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // Nobody but the users of this file writes the bytes under it while it is there.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _request: &Request,
        _file: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let left = self.served.volume.size().get().saturating_sub(offset);
        let length = left.min(u64::from(size)).min(LARGEST_REQUEST as u64);
        let length = usize::try_from(length).unwrap_or(LARGEST_REQUEST);
        let mut reply = Some(reply);
        let done = self.served.with_worker(|volume, worker| {
            if worker.buffer.len() < length {
                worker.buffer.resize(length, 0);
            }
            let buffer = worker.buffer.get_mut(..length).ok_or(Errno::INVAL)?;
            volume.read(&mut worker.images, Bytes::new(offset), buffer)?;
            if let Some(reply) = reply.take() {
                reply.data(buffer);
            }
            Ok(())
        });
        if let (Err(errno), Some(reply)) = (done, reply) {
            reply.error(told(errno));
        }
    }

    fn write(
        &self,
        _request: &Request,
        _file: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let done = self.served.with_worker(|volume, worker| {
            volume.write(&mut worker.images, Bytes::new(offset), data)?;
            u32::try_from(data.len()).map_err(|_| Errno::INVAL)
        });
        match done {
            Ok(written) => reply.written(written),
            Err(errno) => reply.error(told(errno)),
        }
    }

    fn flush(
        &self,
        _request: &Request,
        _file: INodeNo,
        _handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // close(2): nothing is kept here.
        reply.ok();
    }

    fn fsync(
        &self,
        _request: &Request,
        _file: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        let flushed = self.served.with_worker(|_, worker| worker.images.flush());
        answer(reply, flushed);
    }

    fn fallocate(
        &self,
        _request: &Request,
        _file: INodeNo,
        _handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        answer(reply, self.fallocate_as(offset, length, mode));
    }
}
