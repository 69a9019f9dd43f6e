//! Making a source exist that is closed: encrypted devices, volumes and mounts of the host.
//!
//! Every step goes through the ledger, so all of it is closed again, and only what was opened here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cause;
use crate::config::{Config, ConfigError};
use crate::engine::kernel::loops::LoopDevice;
use crate::engine::kernel::mapping::{self, MappingError};
use crate::engine::user::nodes::Access;
use crate::interrupt::Interrupt;
use crate::keys::{KeyError, KeySelector, Keys};
use crate::ledger::{Handle, Ledger, LedgerError, Step};
use crate::names::MappingName;
use crate::reach::crypttab::{self, CryptEntry};
use crate::reach::fstab::{self, MountEntry};
use crate::reach::lines;
use crate::reach::luks::{self, Luks};
use crate::reach::mounting;
use crate::reach::mounts;
use crate::reach::plan::{self, Facts, Files, Opening, Plan, PlanError};
use crate::reach::volumes::{self, HostVolume, Scope, VolumeError};
use crate::units::Bytes;

const CRYPTTAB: &str = "/etc/crypttab";
const FSTAB: &str = "/etc/fstab";

/// How often a path is planned anew: LVM is asked once, and what is mounted may hold links to what
/// is closed.
const MOST_ROUNDS: u32 = 8;

/// A path could not be made to exist, or not be taken back.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HostError {
    /// It does not exist, and nothing tells how to open it.
    #[error("{0} does not exist")]
    Missing(String),
    /// It cannot be opened: the sentence.
    #[error("{0}")]
    Failed(String),
    /// Somebody uses what is needed: the sentence.
    #[error("{0}")]
    Busy(String),
    /// A signal came.
    #[error("interrupted")]
    Interrupted,
}

/// What a [`HostError`] means for the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostErrorKind {
    /// Nothing is known of the path.
    Unknown,
    /// It is known how, and does not succeed.
    Failed,
    /// Somebody else uses it.
    Busy,
    /// A signal came.
    Interrupted,
}

impl HostError {
    /// What it means for the verdict.
    pub const fn kind(&self) -> HostErrorKind {
        match self {
            Self::Missing(_) => HostErrorKind::Unknown,
            Self::Failed(_) => HostErrorKind::Failed,
            Self::Busy(_) => HostErrorKind::Busy,
            Self::Interrupted => HostErrorKind::Interrupted,
        }
    }
}

impl From<PlanError> for HostError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Missing(path) => Self::Missing(path),
            other => Self::Failed(other.to_string()),
        }
    }
}

impl From<LedgerError> for HostError {
    fn from(error: LedgerError) -> Self {
        Self::Failed(cause::sentence(&error))
    }
}

impl From<VolumeError> for HostError {
    fn from(error: VolumeError) -> Self {
        match error {
            VolumeError::Failed(_) => Self::Failed(error.to_string()),
            VolumeError::Busy(_) => Self::Busy(error.to_string()),
        }
    }
}

impl From<KeyError<Self>> for HostError {
    fn from(error: KeyError<Self>) -> Self {
        match error {
            KeyError::NoKey(sentence) => Self::Failed(sentence),
            KeyError::Interrupted => Self::Interrupted,
            KeyError::Device(error) => error,
        }
    }
}

/// The host's storage, as far as it is closed.
#[derive(Debug)]
pub struct Host {
    config: Config,
    keys: Keys,
    /// The configuration with crypttab and fstab, when a path has been missing.
    known: Option<Config>,
    volumes: Option<Vec<HostVolume>>,
    pub(super) opened: Opened,
    /// What could not be opened: it is not tried, and nobody is asked for its key, a second time.
    failed: Vec<(Opening, HostError)>,
    mappings: usize,
}

/// What was opened under another name than the host's: from, to.
#[derive(Clone, Debug, Default)]
pub(super) struct Opened(Vec<(PathBuf, PathBuf)>);

impl Files for Opened {
    fn exists(&self, path: &Path) -> bool {
        match fs::metadata(path) {
            Ok(_) => true,
            // What may not be looked at is there; whoever opens it says so.
            Err(error) => !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ),
        }
    }

    fn link(&self, path: &Path) -> Option<PathBuf> {
        let ours = self.0.iter().find(|(name, _)| name == path);
        ours.map(|(_, opened)| opened.clone())
            .or_else(|| fs::read_link(path).ok())
    }
}

impl Opened {
    /// An entry of the host was opened under another name.
    pub(super) fn add(&mut self, entry: &CryptEntry, opened: &Path) {
        for named in plan::nodes_of(&entry.name) {
            self.0.push((named, opened.to_owned()));
        }
    }

    /// The path under which it can be opened now.
    pub(super) fn located(&self, path: &Path) -> Option<PathBuf> {
        if self.exists(path) {
            return Some(path.to_owned());
        }
        let resolved = plan::resolved(path, self);
        self.exists(&resolved).then_some(resolved)
    }
}

impl Host {
    /// The keys for all that is encrypted.
    pub const fn keys(&mut self) -> &mut Keys {
        &mut self.keys
    }

    /// The host with the configuration at its place, or the one that is named, and these keys. No
    /// other file is read, and no tool asked, before a path is missing.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn new(config: Option<&Path>, keys: Vec<KeySelector>) -> Result<Self, ConfigError> {
        let config = match config {
            Some(path) => Config::named(path)?,
            None => Config::at_its_place()?,
        };
        Ok(Self {
            keys: Keys::new(keys, &config),
            config,
            known: None,
            volumes: None,
            opened: Opened::default(),
            failed: Vec::new(),
            mappings: 0,
        })
    }

    /// Makes a path exist, and says under which path it can be opened. One that exists is left as it
    /// is.
    ///
    /// # Errors
    /// When nothing tells how to open it, or that does not succeed. What was opened until then stands
    /// in the ledger.
    pub async fn ensure(
        &mut self,
        ledger: &mut Ledger,
        path: &Path,
        access: Access,
        interrupt: &mut Interrupt,
    ) -> Result<PathBuf, HostError> {
        for _ in 0..MOST_ROUNDS {
            if let Some(found) = self.opened.located(path) {
                return Ok(found);
            }
            match self.next_openings(path)? {
                Plan::AskLvm => self.ask_lvm(path).await?,
                Plan::Open(openings) if openings.is_empty() => break,
                Plan::Open(openings) => {
                    if !is_root() {
                        return Err(HostError::Failed(format!(
                            "{} is not open on this host, and only root can open it; run \
                             virt-fsck as root",
                            path.display()
                        )));
                    }
                    for opening in openings {
                        self.open(ledger, opening, access, interrupt).await?;
                    }
                }
            }
        }
        self.opened
            .located(path)
            .ok_or_else(|| HostError::Missing(path.display().to_string()))
    }

    pub(super) fn next_openings(&mut self, path: &Path) -> Result<Plan, HostError> {
        let mounted = mounts::read().map_err(|error| {
            HostError::Failed(format!(
                "the mounts cannot be read: {}",
                cause::sentence(&error)
            ))
        })?;
        if self.known.is_none() {
            self.known = Some(with_tables(&self.config)?);
        }
        let known = self.known.as_ref().unwrap_or(&self.config);
        let facts = Facts {
            crypts: &known.crypts,
            mounts: &known.mounts,
            groups: &known.groups,
            mounted: &mounted,
            volumes: self.volumes.as_deref(),
            files: &self.opened,
        };
        Ok(plan::plan(path, facts)?)
    }

    /// What volumes the host has.
    pub(super) async fn ask_lvm(&mut self, path: &Path) -> Result<(), HostError> {
        if !is_root() {
            return Err(HostError::Failed(format!(
                "{} does not exist, or is closed; only root can find out and open it",
                path.display()
            )));
        }
        self.volumes = Some(volumes::list(self.scope()).await?);
        Ok(())
    }

    /// A group that lies on what virt-fsck opens is in none of the host's lists.
    pub(super) fn scope(&self) -> Scope {
        match self.config.groups.is_empty() {
            true => Scope::Host,
            false => Scope::All,
        }
    }

    async fn open(
        &mut self,
        ledger: &mut Ledger,
        opening: Opening,
        access: Access,
        interrupt: &mut Interrupt,
    ) -> Result<(), HostError> {
        if interrupt.is_raised() {
            return Err(HostError::Interrupted);
        }
        if let Some((_, error)) = self.failed.iter().find(|(failed, _)| *failed == opening) {
            return Err(error.clone());
        }
        let outcome = match &opening {
            Opening::Crypt(entry) => self.open_crypt(ledger, entry, access, interrupt).await,
            Opening::Mount(entry) => self.mount(ledger, entry, access).await,
            Opening::Volume { group, volume } => self.activate(ledger, group, volume).await,
        };
        if let Err(error @ (HostError::Failed(_) | HostError::Busy(_))) = &outcome {
            self.failed.push((opening, error.clone()));
        }
        outcome
    }

    async fn open_crypt(
        &mut self,
        ledger: &mut Ledger,
        entry: &CryptEntry,
        access: Access,
        interrupt: &mut Interrupt,
    ) -> Result<(), HostError> {
        let device = self.device(&entry.device)?;
        if access == Access::Write && entry.options.read_only {
            return Err(HostError::Failed(format!(
                "{} says that {} is only read; use -n",
                entry.origin, entry.name
            )));
        }
        let luks = Luks {
            entry,
            device: &device,
            access,
        };
        luks.refuse_if_in_use()?;
        luks.refuse_if_read_only()?;
        let header = luks.header().await?;
        let volume_key = self
            .keys
            .open(&luks.container(), interrupt, async |key| {
                luks.volume_key(&header, key).await
            })
            .await?;
        let under = match device.is_file() {
            true => attached(ledger, &device, access).await?,
            false => device.clone(),
        };
        let for_lvm = self.is_of_group(entry);
        let name = self.mapping_name(ledger, &entry.name)?;
        ledger.about_to(Step::Mapping { name: name.clone() })?;
        let node = luks.map(&name, &header, &volume_key, &under, for_lvm)?;
        ledger.taken();
        self.opened.add(entry, &node);
        // LVM may see more now.
        self.volumes = None;
        Ok(())
    }

    /// Whether a volume group of the host lies on it, by the configuration. On all others LVM shall
    /// see nothing: it is a guest's.
    fn is_of_group(&self, entry: &CryptEntry) -> bool {
        let nodes = plan::nodes_of(&entry.name);
        let devices = self.config.groups.iter().flat_map(|group| &group.devices);
        devices
            .filter_map(|device| lines::device_path(device))
            .any(|device| nodes.contains(&device))
    }

    async fn activate(
        &mut self,
        ledger: &mut Ledger,
        group: &str,
        volume: &str,
    ) -> Result<(), HostError> {
        if self.volumes.is_none() {
            let path = format!("/dev/{group}/{volume}");
            self.ask_lvm(Path::new(&path)).await?;
        }
        let of_name = |known: &&HostVolume| known.group == group && known.name == volume;
        let volumes = self.volumes.iter().flatten();
        let Some(found) = volumes.into_iter().find(of_name).cloned() else {
            return Err(HostError::Failed(format!(
                "LVM sees no volume {group}/{volume}"
            )));
        };
        if let Some(reason) = found.obstacle() {
            return Err(HostError::Failed(format!(
                "the volume {group}/{volume} {reason}"
            )));
        }
        if !found.is_active() {
            ledger.about_to(Step::HostVolume {
                group: group.to_owned(),
                volume: volume.to_owned(),
            })?;
            volumes::activate(group, volume, self.scope()).await?;
            ledger.taken();
        }
        if !self.opened.exists(&found.path) {
            self.opened.0.push((found.path, found.dm_path));
        }
        self.volumes = None;
        Ok(())
    }

    async fn mount(
        &mut self,
        ledger: &mut Ledger,
        entry: &MountEntry,
        access: Access,
    ) -> Result<(), HostError> {
        let cannot = |why: String| {
            HostError::Failed(format!(
                "{} ({}) cannot be mounted: {why}",
                entry.target.display(),
                entry.origin
            ))
        };
        let device = self.device(&entry.device)?;
        let (number, _) = mounting::block_device(&device)
            .ok_or_else(|| cannot(format!("{} is no block device", device.display())))?;
        let target = entry
            .target
            .canonicalize()
            .map_err(|error| cannot(cause::sentence(&error)))?;
        let mounted = mounts::read().map_err(|error| cannot(cause::sentence(&error)))?;
        if let Some(place) = mounting::place_of(&mounted, &device) {
            return Err(HostError::Busy(format!(
                "{} is mounted at {}, not at {} as {} says",
                device.display(),
                place.display(),
                entry.target.display(),
                entry.origin
            )));
        }
        let device = match access {
            Access::ReadOnly => self.shielded(ledger, device, number).await?,
            Access::Write => device,
        };
        ledger.about_to(Step::Mount {
            device: device.display().to_string(),
            target: target.clone(),
        })?;
        mounting::mount(entry, &device, &target, access).await?;
        ledger.taken();
        Ok(())
    }

    /// A device that nothing can be written to: some filesystems write when they are mounted for
    /// reading, to replay their journal.
    async fn shielded(
        &mut self,
        ledger: &mut Ledger,
        device: PathBuf,
        number: u64,
    ) -> Result<PathBuf, HostError> {
        let number = format!(
            "{}:{}",
            rustix::fs::major(number),
            rustix::fs::minor(number)
        );
        let read = |what: &str| {
            let path = format!("/sys/dev/block/{number}/{what}");
            fs::read_to_string(path).map(|text| text.trim_end().to_owned())
        };
        let cannot = |error: io::Error| {
            HostError::Failed(format!("{}: {}", device.display(), cause::sentence(&error)))
        };
        if read("ro").map_err(cannot)? == "1" {
            return Ok(device);
        }
        let sectors = read("size").map_err(cannot)?;
        let shown = device.file_name().unwrap_or_default().to_string_lossy();
        let name = self.mapping_name(ledger, &shown)?;
        ledger.about_to(Step::Mapping { name: name.clone() })?;
        let table = format!("0 {sectors} linear {number} 0\n");
        let node = mapping::make(&name, &table, Access::ReadOnly)
            .map_err(|error| not_shielded(&device, &error))?;
        ledger.taken();
        Ok(node)
    }

    fn mapping_name(&mut self, ledger: &mut Ledger, name: &str) -> Result<MappingName, HostError> {
        self.mappings = self.mappings.saturating_add(1);
        Ok(MappingName::host(ledger.run()?, self.mappings, name))
    }

    /// Where a device of a table is, which was planned to exist by now.
    fn device(&self, named: &str) -> Result<PathBuf, HostError> {
        lines::device_path(named)
            .and_then(|path| self.opened.located(&path))
            .ok_or_else(|| HostError::Failed(format!("{named} is gone")))
    }
}

/// A file as a block device.
async fn attached(ledger: &mut Ledger, file: &Path, access: Access) -> Result<PathBuf, HostError> {
    ledger.about_to(Step::Loop {
        file: file.to_owned(),
    })?;
    let device = LoopDevice::attach(file, Bytes::ZERO, None, None, access)
        .await
        .map_err(|error| HostError::Failed(cause::sentence(&error)))?;
    let node = device.path().to_owned();
    ledger.taken_with(Handle::Loop(device));
    Ok(node)
}

fn not_shielded(device: &Path, error: &MappingError) -> HostError {
    match luks::holder(device) {
        Some(holder) => HostError::Busy(format!(
            "{} is in use: {holder} lies on it",
            device.display()
        )),
        None => HostError::Failed(cause::sentence(error)),
    }
}

/// The configuration, and behind it what the host's own tables say.
fn with_tables(config: &Config) -> Result<Config, HostError> {
    let mut all = config.clone();
    all.crypts
        .extend(crypttab::parse(&table(CRYPTTAB)?, Path::new(CRYPTTAB)));
    all.mounts
        .extend(fstab::parse(&table(FSTAB)?, Path::new(FSTAB)));
    Ok(all)
}

fn table(path: &str) -> Result<String, HostError> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(HostError::Failed(format!(
            "{path} cannot be read: {}",
            cause::sentence(&error)
        ))),
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Takes back the activation of a volume.
///
/// # Errors
/// When it stays active.
pub async fn deactivate_volume(group: &str, volume: &str) -> Result<(), HostError> {
    Ok(volumes::deactivate(group, volume).await?)
}

/// Takes back a mount; one of another device stays.
///
/// # Errors
/// When it stays mounted.
pub async fn unmount(device: &str, target: &Path) -> Result<(), HostError> {
    mounting::unmount(Path::new(device), target).await
}
