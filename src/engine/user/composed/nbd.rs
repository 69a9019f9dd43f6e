//! One connection to an export of the storage daemon's NBD server: fixed newstyle negotiation and
//! simple replies (doc/proto.md of the NetworkBlockDevice project).

use std::io::{self, IoSlice, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

use crate::units::Bytes;

const GREETING: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;

const FIXED_NEWSTYLE: u16 = 1 << 0;
const NO_ZEROES: u16 = 1 << 1;
const OPTION_GO: u32 = 7;
const REPLY_ACKNOWLEDGED: u32 = 1;
const REPLY_INFORMATION: u32 = 3;
const INFORMATION_EXPORT: u16 = 0;
const REPLY_IS_ERROR: u32 = 1 << 31;

const CAN_FLUSH: u16 = 1 << 2;
const CAN_WRITE_ZEROES: u16 = 1 << 6;
const CAN_FAST_ZERO: u16 = 1 << 11;

const NO_HOLE: u16 = 1 << 1;
const FAST_ZERO: u16 = 1 << 4;

/// The longest answer to an option that is read.
const LONGEST_ANSWER: u32 = 4096;

/// How long the daemon may take for the negotiation.
const NEGOTIATION: Duration = Duration::from_secs(30);

/// The daemon's export cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The talk broke off.
    #[error("talking to the storage daemon's NBD server")]
    System(#[from] io::Error),
    /// It refused; its own words.
    #[error("the storage daemon's NBD server refused: {0}")]
    Refused(String),
    /// It said something that is not NBD.
    #[error("the storage daemon's NBD server sent what is not NBD: {0}")]
    NotNbd(&'static str),
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The bytes come after the reply.
    Read,
    /// The bytes follow the request.
    Write,
    /// All that was written before goes to the storage.
    Flush,
    /// The bytes become zeros, and may become a hole; not by writing them out.
    Discard,
    /// The bytes become zeros and no hole; not by writing them out.
    Zero,
}

impl Command {
    const fn code(self) -> u16 {
        match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::Flush => 3,
            Self::Discard | Self::Zero => 6,
        }
    }

    const fn flags(self) -> u16 {
        match self {
            Self::Read | Self::Write | Self::Flush => 0,
            Self::Discard => FAST_ZERO,
            Self::Zero => FAST_ZERO | NO_HOLE,
        }
    }

    /// What the export must be able to do for it.
    const fn needs(self) -> u16 {
        match self {
            Self::Read | Self::Write => 0,
            Self::Flush => CAN_FLUSH,
            Self::Discard | Self::Zero => CAN_WRITE_ZEROES | CAN_FAST_ZERO,
        }
    }
}

/// The head of a reply; the bytes that were read follow where there is no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Which request it answers.
    pub cookie: u64,
    /// What went wrong.
    pub error: Option<Errno>,
}

/// A connection to one export.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    flags: u16,
    awaited: usize,
    broken: bool,
}

impl Connection {
    /// Connects to the export of this name at a socket.
    ///
    /// # Errors
    /// When the server cannot be reached, or has no such export.
    pub fn open(socket: &Path, export: &str) -> Result<Self, ConnectionError> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(NEGOTIATION))?;
        let flags = negotiate(&mut stream, export)?;
        // A disk may take as long as it wants.
        stream.set_read_timeout(None)?;
        Ok(Self {
            stream,
            flags,
            awaited: 0,
            broken: false,
        })
    }

    /// Sends a request; a reply with the same cookie will come. `data` is what is written.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if the export cannot do it, `EIO` when the line is broken.
    pub fn send(
        &mut self,
        command: Command,
        cookie: u64,
        offset: Bytes,
        length: usize,
        data: &[u8],
    ) -> Result<(), Errno> {
        if self.flags & command.needs() != command.needs() {
            return Err(match command {
                // Nothing is kept back that could be flushed.
                Command::Flush => return Ok(()),
                _ => Errno::OPNOTSUPP,
            });
        }
        let length = u32::try_from(length).map_err(|_| Errno::INVAL)?;
        let mut head = Vec::with_capacity(28);
        head.extend(REQUEST_MAGIC.to_be_bytes());
        head.extend(command.flags().to_be_bytes());
        head.extend(command.code().to_be_bytes());
        head.extend(cookie.to_be_bytes());
        head.extend(offset.get().to_be_bytes());
        head.extend(length.to_be_bytes());
        self.try_io(|stream| write_both(stream, &head, data))?;
        self.awaited = self.awaited.saturating_add(1);
        Ok(())
    }

    /// Whether a reply is still to come.
    pub fn is_awaited(&self) -> bool {
        self.awaited > 0 && !self.broken
    }

    /// Waits for the next reply, to whichever request.
    ///
    /// # Errors
    /// `EIO` when the line is broken.
    pub fn receive(&mut self) -> Result<Reply, Errno> {
        let mut head = [0; 16];
        self.try_io(|stream| stream.read_exact(&mut head))?;
        let mut fields = Fields(&head);
        let (magic, error, cookie) = (fields.u32(), fields.u32(), fields.u64());
        let (Some(SIMPLE_REPLY_MAGIC), Some(error), Some(cookie)) = (magic, error, cookie) else {
            return Err(self.give_up());
        };
        self.awaited = self.awaited.saturating_sub(1);
        let error = errno(error);
        Ok(Reply { cookie, error })
    }

    /// Takes the bytes that follow a reply.
    ///
    /// # Errors
    /// `EIO` when the line is broken.
    pub fn take(&mut self, buffer: &mut [u8]) -> Result<(), Errno> {
        self.try_io(|stream| stream.read_exact(buffer))
    }

    /// Uses the line no more: it is not known what the next bytes on it mean.
    pub fn give_up(&mut self) -> Errno {
        self.broken = true;
        Errno::IO
    }

    fn try_io(
        &mut self,
        action: impl FnOnce(&mut UnixStream) -> io::Result<()>,
    ) -> Result<(), Errno> {
        if self.broken {
            return Err(Errno::IO);
        }
        match action(&mut self.stream) {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::debug!(target: "virt_fsck::nbd", "{error}");
                Err(self.give_up())
            }
        }
    }
}

/// What NBD calls an error, in the system's words; the numbers are fixed by the protocol.
fn errno(code: u32) -> Option<Errno> {
    Some(match code {
        0 => return None,
        1 => Errno::PERM,
        12 => Errno::NOMEM,
        22 => Errno::INVAL,
        28 => Errno::NOSPC,
        75 => Errno::OVERFLOW,
        95 => Errno::OPNOTSUPP,
        _ => Errno::IO,
    })
}

fn write_both(stream: &mut UnixStream, head: &[u8], data: &[u8]) -> io::Result<()> {
    let mut slices = [IoSlice::new(head), IoSlice::new(data)];
    let mut slices = slices.as_mut_slice();
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match stream.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut slices, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The export's transmission flags.
fn negotiate(stream: &mut (impl Read + Write), export: &str) -> Result<u16, ConnectionError> {
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting)?;
    let mut fields = Fields(&greeting);
    let magic = (fields.u64(), fields.u64());
    if magic != (Some(GREETING), Some(OPTION_MAGIC)) {
        return Err(ConnectionError::NotNbd("its greeting"));
    }
    let wanted = FIXED_NEWSTYLE | NO_ZEROES;
    if fields.u16().unwrap_or(0) & wanted != wanted {
        return Err(ConnectionError::NotNbd("an old negotiation"));
    }
    let name = export.as_bytes();
    let name_length = u32::try_from(name.len()).unwrap_or(u32::MAX);
    let mut ask = Vec::new();
    ask.extend(u32::from(wanted).to_be_bytes());
    ask.extend(OPTION_MAGIC.to_be_bytes());
    ask.extend(OPTION_GO.to_be_bytes());
    // The name with its length, and that nothing more is to be told.
    ask.extend(name_length.saturating_add(6).to_be_bytes());
    ask.extend(name_length.to_be_bytes());
    ask.extend(name);
    ask.extend(0_u16.to_be_bytes());
    stream.write_all(&ask)?;
    let mut told = None;
    loop {
        let (kind, answer) = option_reply(stream)?;
        match kind {
            REPLY_ACKNOWLEDGED => break,
            REPLY_INFORMATION => {
                let mut fields = Fields(&answer);
                if fields.u16() == Some(INFORMATION_EXPORT) {
                    let _size = fields.u64();
                    told = fields.u16();
                }
            }
            error if error & REPLY_IS_ERROR != 0 => {
                let words = String::from_utf8_lossy(&answer).into_owned();
                return Err(ConnectionError::Refused(words));
            }
            _ => return Err(ConnectionError::NotNbd("an answer to no question")),
        }
    }
    told.ok_or(ConnectionError::NotNbd("no word of the export"))
}

fn option_reply(stream: &mut impl Read) -> Result<(u32, Vec<u8>), ConnectionError> {
    let mut head = [0; 20];
    stream.read_exact(&mut head)?;
    let mut fields = Fields(&head);
    let (magic, option) = (fields.u64(), fields.u32());
    if (magic, option) != (Some(OPTION_REPLY_MAGIC), Some(OPTION_GO)) {
        return Err(ConnectionError::NotNbd("the head of an answer"));
    }
    let (Some(kind), Some(length)) = (fields.u32(), fields.u32()) else {
        return Err(ConnectionError::NotNbd("the head of an answer"));
    };
    if length > LONGEST_ANSWER {
        return Err(ConnectionError::NotNbd("an answer without end"));
    }
    let mut answer = vec![0; usize::try_from(length).unwrap_or(0)];
    stream.read_exact(&mut answer)?;
    Ok((kind, answer))
}

/// Numbers in network order, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests;
