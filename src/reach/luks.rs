//! Opening the host's LUKS devices by cryptsetup(8), under names of our own: so neither the host's
//! udev rules nor its LVM take them for the host's.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::cause;
use crate::cmd::{CmdError, Invocation, Tool};
use crate::engine::user::nodes::Access;
use crate::keys::{Container, Key, KeyFile};
use crate::names::MappingName;
use crate::reach::crypttab::{CryptEntry, KeySource};
use crate::reach::host::HostError;

const CRYPTSETUP: Tool = Tool {
    name: "cryptsetup",
    package: "cryptsetup-bin",
};

/// Exit statuses of cryptsetup(8).
const WRONG_KEY: i32 = 2;
const IN_USE: i32 = 5;

/// Where systemd looks for the key file of a device that has none in crypttab (crypttab(5)).
const KEY_FOLDERS: [&str; 2] = ["/etc/cryptsetup-keys.d", "/run/cryptsetup-keys.d"];

/// Where a header has its UUID, in both versions of LUKS (cryptsetup: docs/on-disk-format.pdf,
/// docs/on-disk-format-luks2.pdf).
const MAGIC: &[u8] = b"LUKS\xba\xbe";
const UUID: std::ops::Range<usize> = 168..208;

/// What is to be opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Luks<'a> {
    /// What the host says of it.
    pub(super) entry: &'a CryptEntry,
    /// The device.
    pub(super) device: &'a Path,
    /// Whether it will be written.
    pub(super) access: Access,
}

impl Luks<'_> {
    /// Who it is, for the keys.
    pub(super) fn container(&self) -> Container {
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
        let path = self.entry.options.header.as_deref().unwrap_or(self.device);
        let mut header = [0; 512];
        File::open(path).ok()?.read_exact(&mut header).ok()?;
        if !header.starts_with(MAGIC) {
            return None;
        }
        let text = header.get(UUID)?.split(|byte| *byte == 0).next()?;
        String::from_utf8(text.to_vec())
            .ok()
            .filter(|uuid| !uuid.is_empty())
    }

    /// Refuses a device that lies under another one already.
    pub(super) fn refuse_if_in_use(&self) -> Result<(), HostError> {
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

    /// Opens it, if the key is right.
    pub(super) async fn open(&self, name: &MappingName, key: &Key) -> Result<bool, HostError> {
        let call = self.opening(name, Some(key));
        let ended = match key {
            Key::File(_) => call.capture().await,
            Key::Passphrase(passphrase) => call.capture_with_input(passphrase.bytes()).await,
        };
        let error = match ended {
            Ok(_) => return Ok(true),
            Err(error) => error,
        };
        let (code, words) = match &error {
            CmdError::Failed { status, stderr, .. } => (status.code(), stderr.as_str()),
            _ => (None, ""),
        };
        if code == Some(WRONG_KEY) {
            return Ok(false);
        }
        let sentence = format!(
            "{} of {} cannot be opened: {}",
            self.device.display(),
            self.entry.origin,
            cause::sentence(&error)
        );
        if words.contains("Cannot initialize device-mapper") {
            return Err(HostError::Failed(format!(
                "{sentence} This kernel has no device-mapper."
            )));
        }
        Err(match code {
            Some(IN_USE) => HostError::Busy(sentence),
            _ => HostError::Failed(sentence),
        })
    }

    /// The call that opens it; without a key it asks for one.
    pub(super) fn opening(&self, name: &MappingName, key: Option<&Key>) -> Invocation {
        let options = &self.entry.options;
        let mut arguments: Vec<OsString> = ["open", "--type", "luks", "--batch-mode"]
            .map(Into::into)
            .into();
        let mut say = |option: &str, value: OsString| {
            arguments.push(option.into());
            arguments.push(value);
        };
        if let Some(slot) = options.key_slot {
            say("--key-slot", slot.to_string().into());
        }
        if let Some(header) = &options.header {
            say("--header", header.into());
        }
        match key {
            None => {}
            Some(Key::Passphrase(_)) => say("--key-file", "-".into()),
            Some(Key::File(file)) => {
                say("--key-file", file.path.clone().into());
                if let Some(offset) = file.offset {
                    say("--keyfile-offset", offset.to_string().into());
                }
                if let Some(size) = file.size {
                    say("--keyfile-size", size.to_string().into());
                }
            }
        }
        if self.access == Access::ReadOnly || options.read_only {
            arguments.push("--readonly".into());
        }
        if options.discard {
            arguments.push("--allow-discards".into());
        }
        arguments.extend(["--".into(), self.device.into(), name.as_str().into()]);
        Invocation::new(CRYPTSETUP, arguments).without_udev()
    }
}

/// What lies on a device, or has a file attached (Documentation/ABI/testing/sysfs-block of Linux).
pub(super) fn holder(device: &Path) -> Option<String> {
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
    use crate::names::RunId;
    use crate::reach::crypttab;
    use zeroize::Zeroizing;

    #[test]
    fn calls() {
        let run = RunId::of_folder(Path::new("/run/virt-fsck-ab")).unwrap();
        let name = MappingName::host(&run, 1, "cr");
        for (line, access, words) in [
            (
                "cr /dev/a none luks",
                Access::Write,
                "--key-file - -- /dev/a virt-fsck-ab-host1-cr",
            ),
            (
                "cr /dev/a /k luks,discard,keyslot=1,keyfile-size=32,keyfile-offset=8,header=/h",
                Access::ReadOnly,
                "--key-slot 1 --header /h --key-file /k --keyfile-offset 8 --keyfile-size 32 \
                 --readonly --allow-discards -- /dev/a virt-fsck-ab-host1-cr",
            ),
        ] {
            let entry = crypttab::parse(line, Path::new("/etc/crypttab")).remove(0);
            let luks = Luks {
                entry: &entry,
                device: Path::new("/dev/a"),
                access,
            };
            let key = match luks.container().file {
                Some(file) => Key::File(file),
                None => Key::Passphrase(crate::keys::Passphrase::new(Zeroizing::new(
                    b"secret".to_vec(),
                ))),
            };
            let call = luks.opening(&name, Some(&key)).to_string();
            let wanted = format!("cryptsetup open --type luks --batch-mode {words}");
            assert!(call.ends_with(&wanted), "{call}");
            assert!(!call.contains("secret"));
        }
    }

    #[test]
    fn whom_a_key_may_name() {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("device");
        let mut header = vec![0; 4096];
        header[..6].copy_from_slice(MAGIC);
        let uuid = "0a1b2c3d-0000-4000-8000-00000000abcd";
        header[168..204].copy_from_slice(uuid.as_bytes());
        std::fs::write(&device, header).unwrap();
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
