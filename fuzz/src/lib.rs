//! Disks that a fuzzer can write: mostly zeros, at most four, of any length.
//!
//! As bytes, all numbers little-endian: how many disks (one byte), the length of each in sectors of 512
//! bytes (eight bytes), then records of sectors that are not zero: disk (one byte), first sector (eight
//! bytes), how many (one byte), their bytes. `fuzz/seeds` writes the same of real images.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::io;

use libfuzzer_sys::arbitrary::{self, Arbitrary, Unstructured};
use virt_fsck::layers::extent::ImageIndex;
use virt_fsck::layers::peel::OpenDisk;
use virt_fsck::layers::read::{ReadAt, ReadImages, read_one_of};
use virt_fsck::units::{Bytes, SectorSize};

const SECTOR: usize = 512;
const MOST_DISKS: u8 = 4;

/// Nothing that is parsed needs more, in bytes.
const LARGEST_ALLOCATION: usize = 64 << 20;

/// The system's allocator, for no more than is needed. There is no unsafe code in the parsers for a
/// sanitizer to find, and with one every buffer is mapped anew, which takes most of the time.
struct Bounded;

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

/// Ends the fuzzer, which then keeps the input.
fn bound(size: usize) {
    if size > LARGEST_ALLOCATION {
        eprintln!("ERROR: an allocation of {size} bytes");
        std::process::abort();
    }
}

// SAFETY: all is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        bound(layout.size());
        // SAFETY: by the caller's word.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        bound(layout.size());
        // SAFETY: by the caller's word.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        bound(size);
        // SAFETY: by the caller's word.
        unsafe { System.realloc(place, layout, size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: by the caller's word.
        unsafe { System.dealloc(place, layout) }
    }
}

/// One disk.
#[derive(Debug, Default)]
pub struct Disk {
    sectors: u64,
    written: BTreeMap<u64, [u8; SECTOR]>,
}

impl ReadAt for Disk {
    fn size(&self) -> Bytes {
        Bytes::new(self.sectors * SECTOR as u64)
    }

    fn read_exact_at(&self, offset: Bytes, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.get().checked_add(buffer.len() as u64);
        let end = end.filter(|end| *end <= self.size().get());
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.fill(0);
        let first = offset.get() / SECTOR as u64;
        for (number, bytes) in self.written.range(first..end.div_ceil(SECTOR as u64)) {
            let start = number * SECTOR as u64;
            let from = start.max(offset.get());
            let to = (start + SECTOR as u64).min(end);
            let of_sector = (from - start) as usize..(to - start) as usize;
            let of_buffer = (from - offset.get()) as usize..(to - offset.get()) as usize;
            buffer[of_buffer].copy_from_slice(&bytes[of_sector]);
        }
        Ok(())
    }
}

/// The disks of a domain.
#[derive(Debug)]
pub struct Disks(Vec<Disk>);

impl Disks {
    /// The first one.
    pub fn first(&self) -> Option<&Disk> {
        self.0.first()
    }

    /// As the engine opens them: `vda`, `vdb`.
    pub fn open(&self) -> Vec<OpenDisk> {
        let disks = self.0.iter().enumerate();
        disks
            .map(|(index, disk)| OpenDisk {
                target: format!("vd{}", char::from(b'a' + index as u8)),
                image: ImageIndex(index),
                size: disk.size(),
                sector_size: SectorSize::S512,
            })
            .collect()
    }
}

impl Disks {
    /// One of them.
    pub fn image(&self, index: ImageIndex) -> Option<&dyn ReadAt> {
        let disk = self.0.get(index.0)?;
        Some(disk)
    }
}

impl ReadImages for Disks {
    fn read_image(&self, index: ImageIndex, offset: Bytes, buffer: &mut [u8]) -> io::Result<()> {
        read_one_of(&self.0, index, offset, buffer)
    }
}

impl<'a> Arbitrary<'a> for Disks {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let number = |bytes: &mut Unstructured<'a>| -> arbitrary::Result<u64> {
            let eight = bytes.bytes(8)?;
            Ok(u64::from_le_bytes(eight.try_into().unwrap_or_default()))
        };
        let count = bytes.bytes(1)?[0] % MOST_DISKS + 1;
        let mut disks = Vec::new();
        for _ in 0..count {
            // No image is longer than a file can be.
            let sectors = number(bytes)? % (i64::MAX as u64 / SECTOR as u64);
            disks.push(Disk {
                sectors,
                written: BTreeMap::new(),
            });
        }
        while bytes.len() >= 10 {
            let disk = usize::from(bytes.bytes(1)?[0] % count);
            let first = number(bytes)?;
            for index in 0..u64::from(bytes.bytes(1)?[0]) {
                let length = bytes.len().min(SECTOR);
                let mut sector = [0; SECTOR];
                sector[..length].copy_from_slice(bytes.bytes(length)?);
                let number = first.saturating_add(index);
                disks[disk].written.insert(number, sector);
            }
        }
        Ok(Self(disks))
    }
}
