//! What must be opened for a path to exist, told by the host's own tables. Nothing is touched here.

use std::path::{Component, Path, PathBuf};

use crate::config::GroupEntry;
use crate::reach::crypttab::CryptEntry;
use crate::reach::fstab::MountEntry;
use crate::reach::lines::{self, Origin};
use crate::reach::mounts::{self, MountPoint};
use crate::reach::volumes::{self, HostVolume};

/// How deep things may lie in each other: a mount on a volume on an encrypted device, and so on.
const DEEPEST: usize = 16;

/// How many links a path may lead over, as in the kernel (`MAXSYMLINKS` in include/linux/namei.h).
const MOST_LINKS: usize = 40;

/// Where device-mapper's devices are.
pub(super) const MAPPER: &str = "/dev/mapper";

/// A link to one of them, by udev.
const LINK_BY_NAME: &str = "/dev/disk/by-id/dm-name-";

/// One step on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// An encrypted device is opened.
    Crypt(CryptEntry),
    /// A filesystem is mounted.
    Mount(MountEntry),
    /// A logical volume is activated.
    Volume {
        /// Its volume group.
        group: String,
        /// Its name.
        volume: String,
    },
}

/// The files of the host.
pub trait Files: std::fmt::Debug {
    /// Whether something is there, over links.
    fn exists(&self, path: &Path) -> bool;
    /// Where a link leads; `None` for all that is none.
    fn link(&self, path: &Path) -> Option<PathBuf>;
}

/// What is known of the host.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What can be decrypted; the first of a name counts.
    pub crypts: &'a [CryptEntry],
    /// What can be mounted; the first at a place counts.
    pub mounts: &'a [MountEntry],
    /// What volume groups lie on.
    pub groups: &'a [GroupEntry],
    /// What is mounted.
    pub mounted: &'a [MountPoint],
    /// The logical volumes, if LVM has been asked.
    pub volumes: Option<&'a [HostVolume]>,
    /// Paths.
    pub files: &'a dyn Files,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// These, in this order; none if the path exists.
    Open(Vec<Opening>),
    /// LVM must be asked first.
    AskLvm,
}

/// A path cannot be made to exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// It does not exist, and nothing tells how to open it.
    #[error("{0} does not exist")]
    Missing(String),
    /// An entry leads nowhere.
    #[error(
        "{origin} names {device} for {what}, which does not exist; correct it, or say in \
             virt-fsck.toml what {what} is"
    )]
    NamesNothing {
        /// The entry.
        origin: Origin,
        /// What it names.
        device: String,
        /// For what.
        what: String,
    },
    /// An entry is of a kind that virt-fsck does not open.
    #[error("{origin}: {what} {reason}; open it first, then virt-fsck uses it as it is")]
    Unsupported {
        /// The entry.
        origin: Origin,
        /// What it is for.
        what: String,
        /// Why.
        reason: String,
    },
    /// A volume cannot be activated.
    #[error("the volume {name} {reason}")]
    Volume {
        /// Group and name.
        name: String,
        /// Why.
        reason: String,
    },
    /// Things lie in each other.
    #[error("{0}: one lies in the other; correct crypttab, fstab or virt-fsck.toml")]
    Loop(String),
    /// No end was found.
    #[error("{0} lies deeper than {DEEPEST} layers of the host's storage")]
    TooDeep(String),
}

/// What must be opened for `path` to exist, outermost device first.
///
/// # Errors
/// When there is no way.
pub fn plan(path: &Path, facts: Facts<'_>) -> Result<Plan, PlanError> {
    let mut planner = Planner {
        facts,
        way: Vec::new(),
        openings: Vec::new(),
    };
    match planner.need(path, None) {
        Ok(()) => Ok(Plan::Open(planner.openings)),
        Err(Stop::AskLvm) => Ok(Plan::AskLvm),
        Err(Stop::No(error)) => Err(error),
    }
}

/// The path without links, as far as it exists.
pub fn resolved(path: &Path, files: &dyn Files) -> PathBuf {
    let mut left = MOST_LINKS;
    let mut done = PathBuf::new();
    let mut rest: Vec<PathBuf> = parts(path);
    while let Some(part) = rest.pop() {
        if part == Path::new("..") {
            done.pop();
            continue;
        }
        let next = done.join(part);
        match files.link(&next) {
            Some(target) if left > 0 => {
                left = left.saturating_sub(1);
                rest.extend(parts(&target));
            }
            _ => done = next,
        }
    }
    done
}

/// The parts of a path, the last first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let part = |part: Component<'_>| (part != Component::CurDir).then(|| part.as_os_str().into());
    path.components().rev().filter_map(part).collect()
}

enum Stop {
    AskLvm,
    No(PlanError),
}

/// Who needs a path.
#[derive(Clone, Copy)]
struct By<'a> {
    origin: &'a Origin,
    what: &'a str,
    device: &'a str,
}

impl By<'_> {
    fn names_nothing(self) -> Stop {
        Stop::No(PlanError::NamesNothing {
            origin: self.origin.clone(),
            device: self.device.to_owned(),
            what: self.what.to_owned(),
        })
    }

    fn unsupported(self, reason: impl Into<String>) -> Stop {
        Stop::No(PlanError::Unsupported {
            origin: self.origin.clone(),
            what: self.what.to_owned(),
            reason: reason.into(),
        })
    }
}

struct Planner<'a> {
    facts: Facts<'a>,
    /// What needs what, down to what is looked at now.
    way: Vec<PathBuf>,
    openings: Vec<Opening>,
}

impl Planner<'_> {
    fn need(&mut self, path: &Path, by: Option<By<'_>>) -> Result<(), Stop> {
        let path = resolved(path, self.facts.files);
        if self.facts.files.exists(&path) {
            return Ok(());
        }
        if self.way.contains(&path) {
            let way = self.way.iter().chain([&path]);
            let shown: Vec<_> = way.map(|path| path.display().to_string()).collect();
            return Err(Stop::No(PlanError::Loop(shown.join(" needs "))));
        }
        if self.way.len() >= DEEPEST {
            let outermost = self.way.first().unwrap_or(&path).display().to_string();
            return Err(Stop::No(PlanError::TooDeep(outermost)));
        }
        self.way.push(path.clone());
        let found = match path.starts_with("/dev") {
            true => self.need_device(&path),
            false => self.need_file(&path),
        }?;
        self.way.pop();
        match (found, by) {
            (true, _) => Ok(()),
            (false, Some(by)) => Err(by.names_nothing()),
            (false, None) => Err(Stop::No(PlanError::Missing(path.display().to_string()))),
        }
    }

    /// `false` if nothing is known of it.
    fn need_device(&mut self, path: &Path) -> Result<bool, Stop> {
        let mapped = mapped_name(path);
        if let Some(name) = &mapped {
            let crypts = self.facts.crypts;
            if let Some(entry) = crypts.iter().find(|entry| entry.name == *name) {
                self.need_crypt(entry)?;
                return Ok(true);
            }
        }
        let of_path = match &mapped {
            Some(name) => volumes::of_dm_name(name),
            None => group_and_volume(path),
        };
        match of_path {
            Some((group, volume)) => self.need_volume(&group, &volume),
            None => Ok(false),
        }
    }

    fn need_crypt(&mut self, entry: &CryptEntry) -> Result<(), Stop> {
        let by = By {
            origin: &entry.origin,
            what: &entry.name,
            device: &entry.device,
        };
        if let Some(other) = &entry.options.other_type {
            return Err(by.unsupported(format!("has the option {other}, and only LUKS is opened")));
        }
        let Some(device) = lines::device_path(&entry.device) else {
            return Err(by.names_nothing());
        };
        if let Some(header) = &entry.options.header {
            let shown = header.display().to_string();
            self.need(
                header,
                Some(By {
                    device: &shown,
                    ..by
                }),
            )?;
        }
        self.need(&device, Some(by))?;
        self.open(Opening::Crypt(entry.clone()));
        Ok(())
    }

    fn need_volume(&mut self, group: &str, volume: &str) -> Result<bool, Stop> {
        let groups = self.facts.groups;
        let entry = groups.iter().find(|entry| entry.name == group);
        let before = self.openings.len();
        for device in entry.iter().flat_map(|entry| &entry.devices) {
            let Some(entry) = entry else { break };
            let by = By {
                origin: &entry.origin,
                what: &entry.name,
                device,
            };
            let path = lines::device_path(device).ok_or_else(|| by.names_nothing())?;
            self.need(&path, Some(by))?;
        }
        let opening = Opening::Volume {
            group: group.to_owned(),
            volume: volume.to_owned(),
        };
        if self.openings.len() > before {
            // LVM sees all of the group only when these are open.
            self.open(opening);
            return Ok(true);
        }
        let Some(known) = self.facts.volumes else {
            return Err(Stop::AskLvm);
        };
        let error = |reason: String| {
            Stop::No(PlanError::Volume {
                name: format!("{group}/{volume}"),
                reason,
            })
        };
        let mut of_name = known.iter().filter(|known| known.group == group);
        if let Some(first) = of_name.next()
            && of_name.any(|other| other.group_uuid != first.group_uuid)
        {
            return Err(error(
                "cannot be told from another: two volume groups have this name (vgrename takes a \
                 UUID too)"
                    .to_owned(),
            ));
        }
        match known
            .iter()
            .find(|known| known.group == group && known.name == volume)
        {
            Some(known) if known.is_active() => Err(error(format!(
                "is active, but there is no {}",
                known.dm_path.display()
            ))),
            Some(known) => match known.obstacle() {
                Some(reason) => Err(error(reason)),
                None => {
                    self.open(opening);
                    Ok(true)
                }
            },
            None => Ok(false),
        }
    }

    /// A file, or what lies in a file's place: all mounts on the way to it.
    fn need_file(&mut self, path: &Path) -> Result<bool, Stop> {
        let mounts = self.facts.mounts;
        let mut ancestors: Vec<&Path> = path.ancestors().skip(1).collect();
        ancestors.reverse();
        let mut found = false;
        for folder in ancestors {
            if mounts::topmost(self.facts.mounted, folder).is_some() {
                continue;
            }
            let files = self.facts.files;
            let at = |entry: &&MountEntry| resolved(&entry.target, files) == folder;
            if let Some(entry) = mounts.iter().find(at) {
                self.need_mount(entry)?;
                found = true;
            }
        }
        Ok(found)
    }

    fn need_mount(&mut self, entry: &MountEntry) -> Result<(), Stop> {
        let what = entry.target.display().to_string();
        let by = By {
            origin: &entry.origin,
            what: &what,
            device: &entry.device,
        };
        if entry.is_of_a_file() {
            return Err(by.unsupported("is no filesystem of a device of its own"));
        }
        let Some(device) = lines::device_path(&entry.device) else {
            return Err(by.unsupported(format!(
                "is mounted from {}, which is no device",
                entry.device
            )));
        };
        self.need(&device, Some(by))?;
        self.open(Opening::Mount(entry.clone()));
        Ok(())
    }

    fn open(&mut self, opening: Opening) {
        if !self.openings.contains(&opening) {
            self.openings.push(opening);
        }
    }
}

/// The paths of a device-mapper device, by its name.
pub(super) fn nodes_of(name: &str) -> [PathBuf; 2] {
    [
        Path::new(MAPPER).join(name),
        format!("{LINK_BY_NAME}{name}").into(),
    ]
}

/// The name of a device-mapper device, by its path.
fn mapped_name(path: &Path) -> Option<String> {
    let by_link = path
        .to_str()
        .and_then(|path| path.strip_prefix(LINK_BY_NAME));
    let name = match by_link {
        Some(name) => name,
        None if path.parent() == Some(Path::new(MAPPER)) => path.file_name()?.to_str()?,
        None => return None,
    };
    Some(name.to_owned())
}

/// The parts of /dev/VG/LV.
fn group_and_volume(path: &Path) -> Option<(String, String)> {
    let mut parts = path.strip_prefix("/dev").ok()?.iter();
    let group = parts.next()?.to_str()?.to_owned();
    let volume = parts.next()?.to_str()?.to_owned();
    parts.next().is_none().then_some((group, volume))
}

#[cfg(test)]
mod tests;
