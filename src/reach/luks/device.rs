//! A LUKS device that is to be opened.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::cause;
use crate::cmd::{Invocation, LentFile};
use crate::crypt::VolumeKey;
use crate::engine::kernel::mapping::{self, MappingError};
use crate::engine::kernel::table::{self, Cipher, DeviceNumber};
use crate::engine::user::nodes::Access;
use crate::keys::cryptsetup::{CRYPTSETUP, KeySlots, of_key_file};
use crate::keys::{Container, Key, KeyFile};
use crate::layers::luks::header::{self, Header, LONGEST_HEADER_AREA, LUKS1_LENGTH};
use crate::layers::luks::{self, metadata_area};
use crate::layers::read::ReadAt;
use crate::names::MappingName;
use crate::reach::crypttab::{CryptEntry, KeySource};
use crate::reach::host::HostError;
use crate::units::{Bytes, SectorSize, Sectors};

/// Where systemd looks for the key file of a device that has none in crypttab (crypttab(5)).
const KEY_FOLDERS: [&str; 2] = ["/etc/cryptsetup-keys.d", "/run/cryptsetup-keys.d"];

/// What is to be opened.
#[derive(Clone, Copy, Debug)]
pub(in crate::reach) struct Luks<'a> {
    /// What the host says of it.
    pub(in crate::reach) entry: &'a CryptEntry,
    /// The device.
    pub(in crate::reach) device: &'a Path,
    /// Whether it will be written.
    pub(in crate::reach) access: Access,
}

impl Luks<'_> {
    /// Who it is, for the keys.
    pub(in crate::reach) fn container(&self) -> Container {
        let entry = self.entry;
        let mapping = format!("/dev/mapper/{}", entry.name);
        let device = self.device.display().to_string();
        let shown = format!("{mapping} (on {device})");
        let mut ids = vec![entry.name.clone(), mapping, entry.device.clone(), device];
        ids.extend(self.uuid());
        if let Ok(device) = self.device.canonicalize() {
            ids.push(device.display().to_string());
        }
        let key_file = |path| KeyFile {
            path,
            offset: entry.options.key_file_offset,
            size: entry.options.key_file_size,
        };
        let (file, elsewhere) = match &entry.key {
            KeySource::File(path) => (Some(key_file(path.clone())), None),
            KeySource::Ask => (self.usual_key_file().map(key_file), None),
            KeySource::Unsupported(from) => (None, Some(from.clone())),
        };
        Container {
            shown,
            ids,
            file,
            elsewhere,
            tokens: self
                .whole_header()
                .map(|found| found.tokens)
                .unwrap_or_default(),
            ..Container::default()
        }
    }

    fn usual_key_file(&self) -> Option<PathBuf> {
        let name = format!("{}.key", self.entry.name);
        let places = KEY_FOLDERS
            .iter()
            .map(|folder| Path::new(folder).join(&name));
        places.into_iter().find(|path| path.is_file())
    }

    fn uuid(&self) -> Option<String> {
        header::uuid(&self.start().ok()?)
    }

    /// The first bytes of the header.
    fn start(&self) -> std::io::Result<[u8; LUKS1_LENGTH]> {
        let mut start = [0; LUKS1_LENGTH];
        File::open(self.header_path())?.read_exact(&mut start)?;
        Ok(start)
    }

    fn sound_metadata(&self) -> Option<Vec<u8>> {
        let file = File::open(self.header_path()).ok()?;
        let read = |offset: Bytes, length| {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, offset.get())?;
            Ok::<_, std::io::Error>(bytes)
        };
        metadata_area::sound_metadata(read).ok()?
    }

    fn header_path(&self) -> &Path {
        self.entry.options.header.as_deref().unwrap_or(self.device)
    }

    /// Refuses a device that lies under another one already.
    pub(in crate::reach) fn refuse_if_in_use(&self) -> Result<(), HostError> {
        let Some(holder) = holder(self.device) else {
            return Ok(());
        };
        Err(HostError::Busy(format!(
            "{} is in use already: {holder} lies on it, not {}; close it, or correct {}",
            self.device.display(),
            self.entry.name,
            self.entry.origin
        )))
    }

    /// What its header says. Nobody needs a key to know that.
    pub(in crate::reach) async fn header(&self) -> Result<Header, HostError> {
        let detached = self.entry.options.header.is_some();
        let found = match self.start() {
            Ok(start) if header::version(&start) == Some(1) => header::luks1(&start, detached),
            Ok(_) => {
                let metadata = match self.sound_metadata() {
                    Some(metadata) => metadata,
                    // What is none, or has only one copy left, cryptsetup knows.
                    None => {
                        let answer = self
                            .key_slots()
                            .dump("--dump-json-metadata", None)
                            .capture()
                            .await;
                        let answer = answer.map_err(|error| self.cannot(&cause::sentence(&error)));
                        answer?.stdout
                    }
                };
                header::luks2(&metadata, detached)
            }
            Err(error) => {
                let why = match error.kind() {
                    ErrorKind::UnexpectedEof => "it is too short".to_owned(),
                    _ => cause::sentence(&error),
                };
                let path = self.header_path().display();
                return Err(self.cannot(&format!("{path} holds no LUKS header: {why}")));
            }
        };
        found.map_err(|error| self.not_opened(&error))
    }

    /// Its volume key, if the key is right.
    pub(in crate::reach) async fn volume_key(
        &self,
        header: &Header,
        key: &Key,
    ) -> Result<Option<VolumeKey>, HostError> {
        let copy;
        let slots = match key {
            Key::Token => {
                copy = self.copy_of_header()?;
                KeySlots::Copy(&copy)
            }
            Key::File(_) | Key::Passphrase(_) => self.key_slots(),
        };
        let found = slots.volume_key(&header.key_sizes, key).await;
        found.map_err(|why| self.cannot(&why))
    }

    /// Its header with the key slots: what tokens may write to.
    fn copy_of_header(&self) -> Result<LentFile, HostError> {
        let area = self.whole_header().map(|found| found.header_area);
        let copied = File::open(self.header_path()).and_then(|file| {
            let mut bytes = Vec::new();
            let area = area.unwrap_or(LONGEST_HEADER_AREA);
            file.take(area.get()).read_to_end(&mut bytes)?;
            LentFile::new(&bytes)
        });
        copied.map_err(|error| self.cannot(&cause::sentence(&error)))
    }

    /// What its header says to those who read it in a guest.
    fn whole_header(&self) -> Option<luks::Container> {
        let size = |path: &Path| File::open(path)?.seek(SeekFrom::End(0)).map(Bytes::new);
        let header = HeaderFile {
            size: size(self.header_path()).ok()?,
            file: File::open(self.header_path()).ok()?,
        };
        let data = size(self.device).ok()?;
        let found = match self.entry.options.header {
            Some(_) => luks::read_detached(&header, data),
            None => luks::read(&header),
        };
        found.ok()?
    }

    fn key_slots(&self) -> KeySlots<'_> {
        KeySlots::Device {
            device: self.device,
            header: self.entry.options.header.as_deref(),
        }
    }

    /// Refuses a device that the system does not let anybody write to: device-mapper would take it,
    /// and every write would fail.
    pub(in crate::reach) fn refuse_if_read_only(&self) -> Result<(), HostError> {
        let Ok(number) = DeviceNumber::of(self.device) else {
            // A file; whoever attaches it knows.
            return Ok(());
        };
        let read_only = std::fs::read_to_string(format!("/sys/dev/block/{number}/ro"));
        match self.access() {
            Access::Write if read_only.is_ok_and(|text| text.trim() == "1") => {
                Err(self.cannot("the device can only be read; use -n"))
            }
            _ => Ok(()),
        }
    }

    /// Makes the device that decrypts `under`, which is the device itself or has its bytes. With
    /// `for_lvm` LVM sees what lies on it.
    pub(in crate::reach) fn map(
        &self,
        name: &MappingName,
        header: &Header,
        key: &VolumeKey,
        under: &Path,
        for_lvm: bool,
    ) -> Result<PathBuf, HostError> {
        let table = self.table(header, key, under)?;
        let made = match for_lvm {
            true => mapping::make_for_lvm(name, &table, self.access()),
            false => mapping::make(name, &table, self.access()),
        };
        made.map_err(|error| match error {
            MappingError::InUse { .. } => {
                let device = self.device.display();
                let origin = &self.entry.origin;
                HostError::Busy(format!(
                    "{device} of {origin} cannot be opened: it is in use"
                ))
            }
            MappingError::Make { source, .. }
                if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) =>
            {
                let cipher = &header.encryption;
                self.cannot(&format!("this kernel does not know the cipher {cipher}"))
            }
            error => self.cannot(&cause::sentence(&error)),
        })
    }

    fn table(
        &self,
        header: &Header,
        key: &VolumeKey,
        under: &Path,
    ) -> Result<zeroize::Zeroizing<String>, HostError> {
        let system = |error| self.cannot(&cause::sentence(&error));
        let device = DeviceNumber::of(under).map_err(system)?;
        let sectors = std::fs::read_to_string(format!("/sys/dev/block/{device}/size"));
        let sectors = sectors.map_err(system)?.trim().parse().unwrap_or(0);
        let size = Sectors::new(sectors).to_bytes(SectorSize::S512);
        let length = header.length(size.unwrap_or(Bytes::ZERO));
        let length = length.map_err(|error| self.not_opened(&error))?;
        let cipher = Cipher {
            name: &header.encryption,
            key: &key.digits(),
            iv_tweak: header.iv_tweak,
            sector_size: header.sector_size,
            discards: header.discards || self.entry.options.discard,
        };
        table::encrypted(length, cipher, device, header.offset)
            .map_err(|error| self.cannot(&cause::sentence(&error)))
    }

    fn access(&self) -> Access {
        match self.entry.options.read_only {
            true => Access::ReadOnly,
            false => self.access,
        }
    }

    fn cannot(&self, why: &str) -> HostError {
        HostError::Failed(format!(
            "{} of {} cannot be opened: {why}",
            self.device.display(),
            self.entry.origin
        ))
    }

    fn not_opened(&self, error: &header::HeaderError) -> HostError {
        let mut arguments: Vec<OsString> = vec!["open".into()];
        if let Some(header) = &self.entry.options.header {
            arguments.extend(["--header".into(), header.into()]);
        }
        arguments.extend([self.device.into(), self.entry.name.as_str().into()]);
        let by_hand = Invocation::new(CRYPTSETUP, arguments);
        self.cannot(&format!(
            "{error}; open it first ({by_hand}), then virt-fsck uses it as it is"
        ))
    }

    /// The command that opens it as `name`, for those who do it by hand; without a key file it asks.
    pub(in crate::reach) fn opening(
        &self,
        name: &MappingName,
        key: Option<&KeyFile>,
    ) -> Invocation {
        let options = &self.entry.options;
        let mut arguments: Vec<OsString> = ["open", "--type", "luks"].map(Into::into).into();
        if let Some(slot) = options.key_slot {
            arguments.extend(["--key-slot".into(), slot.to_string().into()]);
        }
        if let Some(header) = &options.header {
            arguments.extend(["--header".into(), header.into()]);
        }
        arguments.extend(key.into_iter().flat_map(of_key_file));
        if self.access() == Access::ReadOnly {
            arguments.push("--readonly".into());
        }
        if options.discard {
            arguments.push("--allow-discards".into());
        }
        arguments.extend(["--".into(), self.device.into(), name.as_str().into()]);
        Invocation::new(CRYPTSETUP, arguments).without_udev()
    }
}

/// A header in a file, or at the beginning of a device.
struct HeaderFile {
    file: File,
    size: Bytes,
}

impl ReadAt for HeaderFile {
    fn size(&self) -> Bytes {
        self.size
    }

    fn read_exact_at(&self, offset: Bytes, buffer: &mut [u8]) -> std::io::Result<()> {
        self.file.read_exact_at(buffer, offset.get())
    }
}

/// What lies on a device, or has a file attached (Documentation/ABI/testing/sysfs-block of Linux).
pub(in crate::reach) fn holder(device: &Path) -> Option<String> {
    let found = std::fs::metadata(device).ok()?;
    if found.is_file() {
        let file = device.canonicalize().ok()?;
        let backing = |loops: &PathBuf| {
            std::fs::read_to_string(loops.join("loop/backing_file"))
                .is_ok_and(|path| Path::new(path.trim_end_matches('\n')) == file)
        };
        return folder("/sys/block".into())
            .find(backing)
            .map(|found| shown(&found));
    }
    let number = found.rdev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let holders = format!("/sys/dev/block/{major}:{minor}/holders");
    folder(holders.into()).next().map(|found| shown(&found))
}

fn folder(path: PathBuf) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

/// A device of sysfs, by the name that people know.
fn shown(device: &Path) -> String {
    match std::fs::read_to_string(device.join("dm/name")) {
        Ok(name) => format!("/dev/mapper/{}", name.trim_end()),
        Err(_) => format!("/dev/{}", device.file_name().unwrap_or_default().display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Passphrase;
    use crate::names::RunId;
    use crate::reach::crypttab;

    #[test]
    fn calls() {
        let run = RunId::of_folder(Path::new("/run/virt-fsck-ab")).unwrap();
        let name = MappingName::host(&run, 1, "cr");
        for (line, access, opening, dump) in [
            (
                "cr /dev/a none luks",
                Access::Write,
                "-- /dev/a virt-fsck-ab-host1-cr",
                "--key-file - -- /dev/a",
            ),
            (
                "cr /dev/a /k luks,discard,keyslot=1,keyfile-size=32,keyfile-offset=8,header=/h",
                Access::ReadOnly,
                "--key-slot 1 --header /h --key-file /k --keyfile-offset 8 --keyfile-size 32 \
                 --readonly --allow-discards -- /dev/a virt-fsck-ab-host1-cr",
                "--header /h --key-file /k --keyfile-offset 8 --keyfile-size 32 -- /dev/a",
            ),
        ] {
            let entry = crypttab::parse(line, Path::new("/etc/crypttab")).remove(0);
            let luks = Luks {
                entry: &entry,
                device: Path::new("/dev/a"),
                access,
            };
            let file = luks.container().file;
            let call = luks.opening(&name, file.as_ref()).to_string();
            let wanted = format!("cryptsetup open --type luks {opening}");
            assert!(call.ends_with(&wanted), "{call}");
            let key = match file {
                Some(file) => Key::File(file),
                None => Key::Passphrase(Passphrase::new(b"secret")),
            };
            let call = luks
                .key_slots()
                .dump("--dump-volume-key", Some(&key))
                .to_string();
            let wanted = format!("cryptsetup luksDump --batch-mode --dump-volume-key {dump}");
            assert!(call.ends_with(&wanted), "{call}");
            assert!(!call.contains("secret"));
        }
    }

    #[test]
    fn whom_a_key_may_name() {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("device");
        let mut bytes = vec![0; 4096];
        bytes[..6].copy_from_slice(header::MAGIC);
        bytes[7] = 2;
        let uuid = "0a1b2c3d-0000-4000-8000-00000000abcd";
        bytes[168..204].copy_from_slice(uuid.as_bytes());
        std::fs::write(&device, bytes).unwrap();
        let line = format!("cr {} /k keyscript=/x", device.display());
        let entry = crypttab::parse(&line, Path::new("/etc/crypttab")).remove(0);
        let luks = Luks {
            entry: &entry,
            device: &device,
            access: Access::Write,
        };
        let container = luks.container();
        for id in ["cr", "/dev/mapper/cr", uuid, device.to_str().unwrap()] {
            assert!(container.ids.iter().any(|known| known == id), "{id}");
        }
        assert_eq!(container.file, None);
        assert!(container.elsewhere.unwrap().contains("keyscript"));
        luks.refuse_if_in_use().unwrap();
    }
}
