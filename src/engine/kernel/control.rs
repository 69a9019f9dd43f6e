//! The kernel's device-mapper interface (include/uapi/linux/dm-ioctl.h of Linux).
//!
//! dmsetup(8) cannot do what is needed here: to make a device that udev's rules leave alone. Which
//! rules run for a device is told with each call, in the upper half of the event number
//! (`DM_UDEV_FLAGS_SHIFT` and the flags after it in libdm/libdevmapper.h of LVM2), and udev keeps it
//! for the device. So nobody probes ours, makes links to it, activates what is in it, or has it
//! open when it is to be removed.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use zeroize::Zeroize;

/// The interface.
const CONTROL: &str = "/dev/mapper/control";

/// The version of the interface that is spoken; any 4.x kernel side takes it (`check_version` in
/// drivers/md/dm-ioctl.c). 4.6 brought UUIDs by name.
const VERSION: [u32; 3] = [4, 6, 0];

const NAME_LENGTH: usize = 128;
const UUID_LENGTH: usize = 129;
const TYPE_LENGTH: usize = 16;

/// Bytes for targets and answers behind the header; a table of `table::MAX_LINES` lines fits.
const LARGEST_TABLE: usize = 16 * 1024 * 1024;

const READ_ONLY: u32 = 1 << 0;
const SECURE_DATA: u32 = 1 << 15;
const UUID: u32 = 1 << 14;

/// All of udev's rules off, and: this is the event that says what the device is.
const NO_RULES: u32 = (0x0001 | 0x0002 | 0x0004 | 0x0008 | 0x0020 | 0x0040) << 16;

/// `struct dm_ioctl`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Header {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_number: u32,
    padding: u32,
    device: u64,
    name: [u8; NAME_LENGTH],
    uuid: [u8; UUID_LENGTH],
    data: [u8; 7],
}

const HEADER_LENGTH: usize = size_of::<Header>();

/// `_IOWR(DM_IOCTL, number, struct dm_ioctl)`.
const fn command(number: u8) -> Opcode {
    opcode::read_write::<Header>(0xfd, number)
}

const MAKE: Opcode = command(3);
const REMOVE: Opcode = command(4);
const RENAME: Opcode = command(5);
const SUSPEND: Opcode = command(6);
const LOAD: Opcode = command(9);

/// One target of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The first sector of 512 bytes.
    pub start: u64,
    /// How many.
    pub length: u64,
    /// `linear`, `striped`, `snapshot`, `crypt`.
    pub kind: &'a str,
    /// What the kind takes.
    pub parameters: &'a str,
}

/// The targets of a table as text, a line each: `START LENGTH KIND PARAMETERS`.
///
/// # Errors
/// `InvalidInput` if a line is not of that form.
pub fn targets(table: &str) -> io::Result<Vec<Target<'_>>> {
    let target = |line| target(line).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput));
    table.lines().map(target).collect()
}

fn target(line: &str) -> Option<Target<'_>> {
    let (start, rest) = line.split_once(' ')?;
    let (length, rest) = rest.split_once(' ')?;
    let (kind, parameters) = rest.split_once(' ')?;
    Some(Target {
        start: start.parse().ok()?,
        length: length.parse().ok()?,
        kind,
        parameters,
    })
}

/// Whether the kernel has the interface. Opening it loads the module where it is one.
pub fn is_there() -> bool {
    File::open(CONTROL).is_ok()
}

/// Makes a device; it has no table yet. The node that the kernel makes for it.
///
/// # Errors
/// When the name or UUID is taken or too long, or the kernel has no device-mapper.
pub fn make(name: &str, uuid: Option<&str>) -> io::Result<PathBuf> {
    let mut request = Request::new(name, 0)?;
    request.set_uuid(uuid.unwrap_or_default())?;
    let answer = request.send::<MAKE>()?;
    Ok(node(answer.device))
}

/// Gives a device its table, and lets it begin to serve.
///
/// # Errors
/// When the kernel does not take the table, or a device in it is in use.
pub fn start(name: &str, targets: &[Target<'_>], read_only: bool) -> io::Result<()> {
    let mut request = Request::new(name, 0)?;
    if read_only {
        request.header.flags |= READ_ONLY;
    }
    // A key may be in it: the kernel wipes its copy.
    request.header.flags |= SECURE_DATA;
    for target in targets {
        request.add(target)?;
    }
    request.send::<LOAD>()?;
    Request::new(name, NO_RULES)?.send::<SUSPEND>()?;
    Ok(())
}

/// Gives a device its UUID, which it must not have yet.
///
/// # Errors
/// When the kernel refuses.
pub fn set_uuid(name: &str, uuid: &str) -> io::Result<()> {
    let mut request = Request::new(name, NO_RULES)?;
    request.header.flags |= UUID;
    request.append(uuid.as_bytes());
    request.append(&[0]);
    request.send::<RENAME>()?;
    Ok(())
}

/// Removes a device.
///
/// # Errors
/// `ENXIO` if there is none of this name, `EBUSY` if it is in use.
pub fn remove(name: &str) -> io::Result<()> {
    Request::new(name, NO_RULES)?.send::<REMOVE>()?;
    Ok(())
}

/// What is sent: the header and, behind it, targets or a string.
struct Request {
    header: Header,
    data: Vec<u8>,
}

impl Request {
    fn new(name: &str, event_number: u32) -> io::Result<Self> {
        Ok(Self {
            header: Header {
                version: VERSION,
                data_size: 0,
                data_start: u32::try_from(HEADER_LENGTH).map_err(io::Error::other)?,
                target_count: 0,
                open_count: 0,
                flags: 0,
                event_number,
                padding: 0,
                device: 0,
                name: padded(name)?,
                uuid: [0; UUID_LENGTH],
                data: [0; 7],
            },
            data: Vec::new(),
        })
    }

    fn set_uuid(&mut self, uuid: &str) -> io::Result<()> {
        self.header.uuid = padded(uuid)?;
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) {
        // What is moved when the vector grows is not wiped.
        if self.data.capacity() < self.data.len().saturating_add(bytes.len()) {
            let mut larger = Vec::with_capacity(self.data.len().saturating_add(bytes.len()) * 2);
            larger.extend_from_slice(&self.data);
            self.data.zeroize();
            self.data = larger;
        }
        self.data.extend_from_slice(bytes);
    }

    /// `struct dm_target_spec`, its parameters, and padding to eight bytes.
    fn add(&mut self, target: &Target<'_>) -> io::Result<()> {
        const SPEC_LENGTH: usize = 8 + 8 + 4 + 4 + TYPE_LENGTH;
        let parameters = target.parameters.len().saturating_add(1);
        let length = SPEC_LENGTH.saturating_add(parameters).next_multiple_of(8);
        if self.data.len().saturating_add(length) > LARGEST_TABLE {
            return Err(io::ErrorKind::ArgumentListTooLong.into());
        }
        let next = u32::try_from(length).map_err(io::Error::other)?;
        let kind: [u8; TYPE_LENGTH] = padded(target.kind)?;
        self.append(&target.start.to_ne_bytes());
        self.append(&target.length.to_ne_bytes());
        self.append(&0_i32.to_ne_bytes());
        self.append(&next.to_ne_bytes());
        self.append(&kind);
        self.append(target.parameters.as_bytes());
        let padding = [0; 8];
        let missing = length.saturating_sub(SPEC_LENGTH + target.parameters.len());
        self.append(padding.get(..missing).unwrap_or(&padding));
        self.header.target_count = self.header.target_count.saturating_add(1);
        Ok(())
    }

    /// Sends it, and gives the header of the answer.
    #[expect(unsafe_code, reason = "ioctl(2) has no safe interface")]
    fn send<const OPCODE: Opcode>(mut self) -> io::Result<Header> {
        let control = File::options().read(true).write(true).open(CONTROL)?;
        // The kernel writes its answer into the same bytes; none is longer than what was sent but by
        // a list of names, for which there must be some room.
        let room = self.data.len().saturating_add(512);
        self.data.resize(room, 0);
        let length = HEADER_LENGTH.saturating_add(self.data.len());
        self.header.data_size = u32::try_from(length).map_err(io::Error::other)?;
        let mut buffer = Buffer::of(&self.header, &self.data);
        // SAFETY: the buffer begins with a header, aligned as one, that says how long the whole
        // buffer is, and the kernel writes no more than that.
        let sent = unsafe { ioctl(&control, Updater::<OPCODE, Header>::new(buffer.header())) };
        let header = *buffer.header();
        buffer.wipe();
        sent?;
        Ok(header)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.data.zeroize();
    }
}

/// The header and what follows it, in one piece.
struct Buffer {
    /// Of eight bytes each, so that it is aligned as the header is.
    words: Vec<u64>,
}

impl Buffer {
    #[expect(unsafe_code, reason = "a header is looked at as bytes")]
    fn of(header: &Header, data: &[u8]) -> Self {
        let length = HEADER_LENGTH.saturating_add(data.len());
        let mut words = vec![0_u64; length.div_ceil(8)];
        let begin = words.as_mut_ptr().cast::<u8>();
        // SAFETY: the words have room for both; a header has no padding between its fields.
        unsafe {
            std::ptr::copy_nonoverlapping(std::ptr::from_ref(header).cast(), begin, HEADER_LENGTH);
            std::ptr::copy_nonoverlapping(data.as_ptr(), begin.add(HEADER_LENGTH), data.len());
        }
        Self { words }
    }

    #[expect(unsafe_code, reason = "the first bytes are a header")]
    fn header(&mut self) -> &mut Header {
        // SAFETY: the words are longer than a header, aligned for it, and any bytes are one.
        unsafe { &mut *self.words.as_mut_ptr().cast::<Header>() }
    }

    fn wipe(&mut self) {
        self.words.zeroize();
    }
}

/// A string as the kernel takes it: with at least one zero behind it.
fn padded<const N: usize>(text: &str) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let fits = text.len() < N && !text.contains('\0');
    match bytes.get_mut(..text.len()) {
        Some(place) if fits => place.copy_from_slice(text.as_bytes()),
        _ => return Err(io::ErrorKind::InvalidFilename.into()),
    }
    Ok(bytes)
}

/// The node of a device, by the number in the kernel's own form (`huge_encode_dev` in
/// include/linux/kdev_t.h).
fn node(device: u64) -> PathBuf {
    let minor = (device & 0xff) | ((device >> 12) & 0xf_ff00);
    Path::new("/dev").join(format!("dm-{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_layout() {
        // sizeof(struct dm_ioctl) and DM_DEV_CREATE of the header, as the C compiler has them.
        assert_eq!(HEADER_LENGTH, 312);
        assert_eq!(MAKE, 0xc138_fd03);
        let mut request = Request::new("x", 0).unwrap();
        let table = "0 8 linear 7:0 16\n8 16 linear 7:1 0\n";
        for target in targets(table).unwrap() {
            request.add(&target).unwrap();
        }
        assert_eq!(request.header.target_count, 2);
        assert_eq!(request.data.len(), 48 + 48);
        assert_eq!(request.data[20..24], 48_u32.to_ne_bytes());
        assert_eq!(&request.data[24..31], b"linear\0");
        assert_eq!(&request.data[40..48], b"7:0 16\0\0");
    }

    #[test]
    fn a_parameter_that_fills_its_padding_still_ends_in_a_zero() {
        let mut request = Request::new("x", 0).unwrap();
        let target = Target {
            start: 0,
            length: 1,
            kind: "linear",
            parameters: "12345678",
        };
        request.add(&target).unwrap();
        assert_eq!(request.data.len(), 56);
        assert_eq!(request.data[48], 0);
    }

    #[test]
    fn what_is_no_table_or_name_is_refused() {
        for table in ["x", "0 8 linear", "a 8 linear 7:0 0", "0 -8 linear 7:0 0"] {
            assert!(targets(table).is_err(), "{table}");
        }
        assert!(Request::new(&"x".repeat(128), 0).is_err());
        assert!(Request::new("a\0b", 0).is_err());
        assert_eq!(node(0xfd07), Path::new("/dev/dm-7"));
        assert_eq!(node(0x0010_fd2c), Path::new("/dev/dm-300"));
    }
}
