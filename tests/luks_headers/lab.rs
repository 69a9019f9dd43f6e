//! Containers of one test, and cryptsetup's word on them.

use std::io;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use sha2::{Digest, Sha256};
use virt_fsck::layers::luks::{self, Container, Header, LuksError};
use virt_fsck::layers::read::ReadAt;
use virt_fsck::units::{Bytes, SectorSize};

/// A device: the bytes at its beginning, and zeros to its end.
pub(super) struct Device(pub(super) Vec<u8>, pub(super) Bytes);

impl ReadAt for Device {
    fn size(&self) -> Bytes {
        self.1
    }

    fn read_exact_at(&self, offset: Bytes, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(Bytes::new(buffer.len() as u64));
        if end.is_none_or(|end| end > self.1) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let start = usize::try_from(offset.get()).unwrap();
        let bytes = self.0.iter().skip(start).chain(std::iter::repeat(&0));
        buffer
            .iter_mut()
            .zip(bytes)
            .for_each(|(to, from)| *to = *from);
        Ok(())
    }
}

pub(super) struct Lab(tempfile::TempDir);

impl Lab {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "secret").unwrap();
        Self(folder)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn cryptsetup(&self, arguments: &str) -> Output {
        // A header may ask for hours of key derivation, in which cryptsetup hears no SIGTERM.
        Command::new("timeout")
            .args(["-s", "KILL", "2", "cryptsetup"])
            .args(arguments.split_whitespace())
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }

    /// A container in the file `image`, of so many MiB.
    pub(super) fn make(&self, options: &str, mib: u64) -> Device {
        self.make_if_can(options, mib).unwrap()
    }

    /// Nothing, if this system lacks the cipher.
    pub(super) fn make_if_can(&self, options: &str, mib: u64) -> Option<Device> {
        let size = Bytes::mib(mib);
        let image = std::fs::File::create(self.path("image")).unwrap();
        image.set_len(size.get()).unwrap();
        let made = self.cryptsetup(&format!(
            "luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 {options} image key"
        ));
        let said = String::from_utf8_lossy(&made.stderr);
        if said.contains("device-mapper") {
            println!("SKIPPED: cryptsetup cannot make {options} here");
            return None;
        }
        assert!(made.status.success(), "{options}: {said}");
        Some(self.device("image", size))
    }

    pub(super) fn device(&self, name: &str, size: Bytes) -> Device {
        Device(std::fs::read(self.path(name)).unwrap(), size)
    }

    /// What cryptsetup says of a header, if it finds the volume key by it.
    pub(super) fn truth(&self, name: &str) -> Option<Header> {
        let dump = format!("luksDump -q --dump-volume-key --key-file key {name}");
        let said = self.cryptsetup(&dump);
        if !said.status.success() {
            return None;
        }
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let field = |label: &str| {
            let line = said.lines().find(|line| line.starts_with(label));
            line.unwrap()[label.len()..].trim().to_owned()
        };
        // It prints them with a sign.
        let sectors: i64 = field("Payload offset:").parse().unwrap();
        let sectors = u64::from(u32::try_from(sectors & 0xffff_ffff).unwrap());
        let bits: usize = field("MK bits:").parse().unwrap();
        let mut header = Header {
            encryption: format!("{}-{}", field("Cipher name:"), field("Cipher mode:")),
            key_sizes: vec![bits / 8],
            offset: Bytes::new(sectors * 512),
            size: None,
            iv_tweak: 0,
            sector_size: SectorSize::S512,
            discards: false,
        };
        if let Some(metadata) = self.metadata(name) {
            let segment = &metadata["segments"]["0"];
            let text = |name: &str| segment[name].as_str().unwrap();
            let flags = metadata["config"]["flags"].as_array();
            // Where no mode is named, it prints the kernel's.
            header.encryption = text("encryption").to_owned();
            header.size = text("size").parse().ok().map(Bytes::new);
            header.iv_tweak = text("iv_tweak").parse().unwrap();
            let sector_size = segment["sector_size"].as_u64().unwrap();
            header.sector_size = SectorSize::new(u32::try_from(sector_size).unwrap())?;
            header.discards = flags.is_some_and(|flags| flags.contains(&"allow-discards".into()));
        }
        Some(header)
    }

    pub(super) fn metadata(&self, name: &str) -> Option<Value> {
        let said = self.cryptsetup(&format!("luksDump --dump-json-metadata {name}"));
        serde_json::from_slice(&said.stdout).ok()
    }
}

pub(super) fn read(device: &Device) -> Result<Option<Container>, LuksError> {
    luks::read(device)
}

/// How often who refused a header.
#[derive(Debug, Default)]
pub(super) struct Count {
    pub(super) both_read_it: u32,
    pub(super) both_refuse_it: u32,
    pub(super) only_the_key_step_refuses: u32,
    pub(super) only_virt_fsck_refuses: u32,
    pub(super) sentences: std::collections::BTreeSet<String>,
}

impl Count {
    pub(super) fn compare(
        &mut self,
        what: &str,
        ours: Result<Option<Container>, LuksError>,
        truth: Option<Header>,
    ) {
        let ours = match ours {
            Ok(found) => found.map(|container| container.header),
            Err(LuksError::Read(error)) => panic!("{what}: {error}"),
            Err(error) => {
                self.sentences.insert(error.to_string());
                None
            }
        };
        match (ours, truth) {
            (Some(ours), Some(truth)) => {
                assert_eq!(ours, truth, "{what}");
                self.both_read_it += 1;
            }
            (None, None) => self.both_refuse_it += 1,
            (Some(_), None) => self.only_the_key_step_refuses += 1,
            (None, Some(_)) => {
                self.only_virt_fsck_refuses += 1;
            }
        }
    }

    pub(super) fn show(&self, what: &str) {
        println!("{what}: {self:#?}");
    }
}

/// Both copies with this text in them.
pub(super) fn with_metadata(sound: &Device, text: &[u8]) -> Device {
    let size = u64::from_be_bytes(sound.0[8..16].try_into().unwrap());
    let size = usize::try_from(size).unwrap();
    let mut made = sound.0.clone();
    for copy in made[..2 * size].chunks_mut(size) {
        copy[4096..].fill(0);
        copy[4096..][..text.len()].copy_from_slice(text);
        copy[448..512].fill(0);
        let sum = Sha256::digest(&*copy);
        copy[448..480].copy_from_slice(&sum);
    }
    Device(made, sound.1)
}
