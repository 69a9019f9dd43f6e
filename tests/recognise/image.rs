//! An image file, the tools that write and read it, and the library's view of it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use virt_fsck::layers::filesystem::Filesystem;
use virt_fsck::layers::partition::{self, PartitionError, PartitionTable};
use virt_fsck::layers::read::ReadAt;
use virt_fsck::layers::signature::{self, Signature};
use virt_fsck::units::{Bytes, SectorSize};

pub(crate) const MIB: u64 = 1024 * 1024;

pub(crate) struct Image {
    _directory: tempfile::TempDir,
    pub(crate) path: PathBuf,
    pub(crate) file: File,
}

impl ReadAt for Image {
    fn size(&self) -> Bytes {
        Bytes::new(self.file.metadata().unwrap().len())
    }

    fn read_exact_at(&self, offset: Bytes, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset.get())
    }
}

impl Image {
    pub(crate) fn new(size: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        file.set_len(size).unwrap();
        Self {
            _directory: directory,
            path,
            file,
        }
    }

    /// Runs a tool; `IMAGE` among its arguments stands for the image.
    pub(crate) fn run(&self, command: &str, input: &str) -> String {
        let mut words = command.split_whitespace();
        let mut child = Command::new(words.next().unwrap())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .args(words.map(|word| match word {
                "IMAGE" => self.path.to_str().unwrap().to_owned(),
                word => word.replace('~', " "),
            }))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command}: {error}"));
        io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn made(size: u64, commands: &[&str]) -> Self {
        let image = Self::new(size);
        for command in commands {
            image.run(command, "");
        }
        image
    }

    pub(crate) fn partitioned(size: u64, command: &str, script: &str) -> Self {
        let image = Self::new(size);
        image.run(command, script);
        image
    }

    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, offset).unwrap();
    }

    pub(crate) fn wipe(&self, offset: u64, length: usize) {
        self.write(offset, &vec![0; length]);
    }

    pub(crate) fn recognise(&self) -> Option<Signature> {
        signature::recognise(self).unwrap()
    }

    pub(crate) fn filesystem(&self) -> Filesystem {
        match self.recognise() {
            Some(Signature::Filesystem(filesystem)) => filesystem,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn opaque(&self) -> (String, Option<String>, String) {
        match self.recognise() {
            Some(Signature::Opaque { what, uuid, reason }) => (what, uuid, reason),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn table(&self, sector: u32) -> Result<Option<PartitionTable>, PartitionError> {
        partition::read(self, SectorSize::new(sector).unwrap())
    }

    pub(crate) fn has_no_table(&self) -> bool {
        self.table(512).unwrap().is_none()
    }

    pub(crate) fn blkid(&self) -> BTreeMap<String, String> {
        self.run("blkid -p -o export IMAGE", "")
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.replace('\\', "")))
            .collect()
    }
}

/// An MD superblock of metadata 1.0 or 0.90 where MD puts it, for a mirror of two.
pub(crate) fn write_md(image: &Image, version: &str) {
    let size = image.size().get();
    let mut block = vec![0_u8; 256];
    let mut set = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    set(0, &0xa92b_4efc_u32.to_le_bytes());
    let offset = if version == "1.0" {
        let offset = (size & !4095) - 8192;
        set(4, &1_u32.to_le_bytes());
        set(16, &[0x11; 16]);
        set(72, &1_u32.to_le_bytes());
        set(92, &2_u32.to_le_bytes());
        set(144, &(offset / 512).to_le_bytes());
        offset
    } else {
        let offset = (size & !65535) - 65536;
        set(8, &90_u32.to_le_bytes());
        set(20, &[0x11; 4]);
        set(52, &[0x11; 12]);
        set(28, &1_u32.to_le_bytes());
        set(32, &u32::try_from(offset / 1024).unwrap().to_le_bytes());
        set(40, &2_u32.to_le_bytes());
        offset
    };
    image.write(offset, &block);
}

/// An image with some bits flipped in what is read of it.
pub(crate) struct Flipped<'a> {
    pub(crate) image: &'a Image,
    pub(crate) flips: &'a [(u64, u8)],
}

impl ReadAt for Flipped<'_> {
    fn size(&self) -> Bytes {
        self.image.size()
    }

    fn read_exact_at(&self, offset: Bytes, buffer: &mut [u8]) -> io::Result<()> {
        self.image.read_exact_at(offset, buffer)?;
        for (at, bit) in self.flips {
            let place = at.checked_sub(offset.get()).map(usize::try_from);
            if let Some(Ok(place)) = place
                && let Some(byte) = buffer.get_mut(place)
            {
                *byte ^= 1 << bit;
            }
        }
        Ok(())
    }
}
