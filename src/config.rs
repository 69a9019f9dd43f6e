//! /etc/virt-fsck.toml: what crypttab, fstab and LVM do not tell. Described in virt-fsck.toml(5).

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::reach::crypttab::{self, CryptEntry};
use crate::reach::fstab::MountEntry;
use crate::reach::lines::Origin;

mod duration;
mod hook;

pub use hook::{CheckBeforeStart, HookSettings};

/// Where it is looked for.
pub const DEFAULT: &str = "/etc/virt-fsck.toml";

/// The largest file that is read, in bytes.
const LARGEST: u64 = 1024 * 1024;

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Encrypted devices.
    pub crypts: Vec<CryptEntry>,
    /// Filesystems of the host.
    pub mounts: Vec<MountEntry>,
    /// What volume groups lie on.
    pub groups: Vec<GroupEntry>,
    /// Key files.
    pub keys: Vec<KeyEntry>,
    /// A program that asks for passphrases, and its arguments; empty if none.
    pub askpass: Vec<String>,
    /// What libvirt's hook does.
    pub hook: HookSettings,
}

/// A key file for whatever is called so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    /// What may call it so: a UUID, a device, a name in /dev/mapper, a path in the tree; `all`.
    pub id: String,
    /// The file.
    pub file: PathBuf,
    /// Where this is said.
    pub origin: Origin,
}

/// The devices without which a volume group is not seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupEntry {
    /// Its name.
    pub name: String,
    /// The devices, as crypttab would name them.
    pub devices: Vec<String>,
    /// Where this is said.
    pub origin: Origin,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// What it says is wrong.
    #[error("{origin}: {message}")]
    Wrong {
        /// Where.
        origin: Origin,
        /// What.
        message: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    crypt: Vec<Spanned<Crypt>>,
    #[serde(default)]
    mount: Vec<Spanned<Mount>>,
    #[serde(default)]
    volume_group: Vec<Spanned<VolumeGroup>>,
    #[serde(default)]
    key: Vec<Spanned<Key>>,
    askpass: Option<Spanned<Vec<String>>>,
    hook: Option<hook::Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Crypt {
    name: String,
    device: String,
    key_file: Option<PathBuf>,
    header: Option<PathBuf>,
    #[serde(default)]
    options: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Mount {
    target: PathBuf,
    device: String,
    #[serde(rename = "type")]
    filesystem: Option<String>,
    #[serde(default)]
    options: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct VolumeGroup {
    name: String,
    devices: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Key {
    #[serde(rename = "for")]
    id: String,
    file: PathBuf,
}

impl Config {
    /// The file that the user named.
    ///
    /// # Errors
    /// When it cannot be read or says something that is unknown.
    pub fn named(path: &Path) -> Result<Self, ConfigError> {
        let at = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(at)?;
        let mut file = io::Read::take(file, LARGEST.saturating_add(1));
        io::Read::read_to_string(&mut file, &mut text).map_err(at)?;
        if text.len() as u64 > LARGEST {
            return Err(at(io::ErrorKind::FileTooLarge.into()));
        }
        Self::parse(&text, path)
    }

    /// The file at its place; that there is none is no error.
    ///
    /// # Errors
    /// As [`Config::named`].
    pub fn at_its_place() -> Result<Self, ConfigError> {
        match Self::named(Path::new(DEFAULT)) {
            Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            other => other,
        }
    }

    /// What a file's text says.
    ///
    /// # Errors
    /// As [`Config::named`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let origin = |at: usize| Origin {
            file: path.to_owned(),
            line: line(text, at),
        };
        let wrong = |at: usize, message: String| ConfigError::Wrong {
            origin: origin(at),
            message,
        };
        let file: File = toml::from_str(text).map_err(|error| {
            let message = error.message().lines().collect::<Vec<_>>().join("; ");
            wrong(error.span().map_or(0, |span| span.start), message)
        })?;
        let mut config = Self::default();
        for entry in file.crypt {
            let at = entry.span().start;
            config.crypts.push(
                entry
                    .into_inner()
                    .checked(origin(at))
                    .map_err(|why| wrong(at, why))?,
            );
        }
        for entry in file.mount {
            let at = entry.span().start;
            config.mounts.push(
                entry
                    .into_inner()
                    .checked(origin(at))
                    .map_err(|why| wrong(at, why))?,
            );
        }
        for entry in file.volume_group {
            let at = entry.span().start;
            let VolumeGroup { name, devices } = entry.into_inner();
            if devices.is_empty() {
                return Err(wrong(at, format!("the volume group {name} has no devices")));
            }
            config.groups.push(GroupEntry {
                name,
                devices,
                origin: origin(at),
            });
        }
        for entry in file.key {
            let at = entry.span().start;
            let Key { id, file } = entry.into_inner();
            if id.is_empty() {
                return Err(wrong(at, "the key is for nothing".to_owned()));
            }
            absolute(&file).map_err(|why| wrong(at, why))?;
            config.keys.push(KeyEntry {
                id,
                file,
                origin: origin(at),
            });
        }
        if let Some(askpass) = file.askpass {
            let at = askpass.span().start;
            config.askpass = askpass.into_inner();
            program(&config.askpass).map_err(|why| wrong(at, why))?;
        }
        if let Some(table) = file.hook {
            config.hook = table.checked().map_err(|(at, why)| wrong(at, why))?;
        }
        Ok(config)
    }
}

impl Crypt {
    fn checked(self, origin: Origin) -> Result<CryptEntry, String> {
        if self.name.is_empty() || self.name.contains('/') {
            return Err(format!("{:?} is no name of a mapping", self.name));
        }
        for path in [&self.key_file, &self.header].into_iter().flatten() {
            absolute(path)?;
        }
        let key = self
            .key_file
            .as_deref()
            .map(Path::to_string_lossy)
            .unwrap_or_default();
        let key = crypttab::key_source(&key, &self.options);
        let mut options = crypttab::options(&self.options);
        options.header = self.header.or(options.header);
        Ok(CryptEntry {
            name: self.name,
            device: self.device,
            key,
            options,
            origin,
        })
    }
}

impl Mount {
    fn checked(self, origin: Origin) -> Result<MountEntry, String> {
        absolute(&self.target)?;
        Ok(MountEntry {
            device: self.device,
            target: self.target,
            filesystem: self.filesystem.filter(|kind| kind != "auto"),
            options: self.options,
            origin,
        })
    }
}

fn absolute(path: &Path) -> Result<(), String> {
    match path.is_absolute() {
        true => Ok(()),
        false => Err(format!("{} is no absolute path", path.display())),
    }
}

/// A program that is looked for in `PATH`, or the absolute path of one.
fn program(words: &[String]) -> Result<(), String> {
    match words.first().map(String::as_str) {
        None | Some("") => Err("askpass names no program".to_owned()),
        Some(name) if name.contains('/') => absolute(Path::new(name)),
        Some(_) => Ok(()),
    }
}

/// The line of a byte, from 1.
fn line(text: &str, at: usize) -> usize {
    let before = text.as_bytes().iter().take(at);
    before
        .filter(|byte| **byte == b'\n')
        .count()
        .saturating_add(1)
}

#[cfg(test)]
mod tests;
