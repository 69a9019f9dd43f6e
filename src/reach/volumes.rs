//! The host's logical volumes: what LVM tells of them, activation and deactivation.
//!
//! Only the volume that is needed is activated. LVM makes and removes the nodes itself
//! (`DM_DISABLE_UDEV`), keeps no copy of the metadata and starts no daemon for it, so that nothing is
//! left when it is deactivated.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use serde::Deserialize;

use crate::cause;
use crate::cmd::{CmdError, Invocation, Tool};

/// For how long a volume that is in use is tried again: whoever looks at a device that has just
/// changed is done within moments.
const LONGEST: Duration = Duration::from_secs(10);
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// What LVM leaves behind without being told not to: copies of metadata, and dmeventd. It is also
/// told to leave trying again to virt-fsck.
const LEAVE_NOTHING: &str =
    "backup { backup=0 archive=0 } activation { monitoring=0 retry_deactivation=0 }";

/// The list of devices that LVM keeps to, where there is one (lvmdevices(8)).
const DEVICES_FILE: &str = "/etc/lvm/devices/system.devices";

/// Which devices LVM looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of the host.
    Host,
    /// All, also those that virt-fsck has opened, which no list of devices names.
    All,
}

/// A logical volume.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct HostVolume {
    /// Its volume group.
    #[serde(rename = "vg_name")]
    pub group: String,
    /// The group's UUID.
    #[serde(rename = "vg_uuid")]
    pub group_uuid: String,
    /// What LVM says of the group, a letter each (`vg_attr` of vgs(8)).
    #[serde(rename = "vg_attr")]
    pub group_attributes: String,
    /// Its name.
    #[serde(rename = "lv_name")]
    pub name: String,
    /// Empty unless it is active.
    #[serde(rename = "lv_active")]
    active: String,
    /// /dev/VG/LV.
    #[serde(rename = "lv_path")]
    pub path: PathBuf,
    /// /dev/mapper/VG-LV.
    #[serde(rename = "lv_dm_path")]
    pub dm_path: PathBuf,
    /// What LVM says of it (`lv_attr` of lvs(8)).
    #[serde(rename = "lv_attr")]
    pub attributes: String,
}

impl HostVolume {
    /// Whether it is active.
    pub fn is_active(&self) -> bool {
        !matches!(self.active.as_str(), "" | "unknown")
    }

    /// Why it cannot be activated, as the rest of a sentence that begins with its name.
    pub fn obstacle(&self) -> Option<String> {
        let group = |at| self.group_attributes.chars().nth(at);
        let volume = |at| self.attributes.chars().nth(at);
        let in_group = |what: &str| Some(format!("is in the volume group {}, {what}", self.group));
        if group(2) == Some('x') {
            return in_group("which is exported (vgimport makes it usable)");
        }
        if let Some(how) = sharing(&self.group_attributes) {
            return in_group(&format!("which is shared with other hosts ({how})"));
        }
        if volume(8) == Some('p') {
            return in_group("of which devices are missing");
        }
        match volume(0) {
            Some('s' | 'S') => {
                Some("is a snapshot, which comes and goes with its origin".to_owned())
            }
            Some('t') => Some("is a thin pool".to_owned()),
            _ => None,
        }
    }
}

/// How a volume group is shared with other hosts, if it is, by what LVM says of it (`vg_attr`).
fn sharing(attributes: &str) -> Option<&'static str> {
    match attributes.chars().nth(5) {
        Some('s') => Some("lvmlockd"),
        Some('c') => Some("clustered"),
        _ => None,
    }
}

/// A volume could not be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum VolumeError {
    /// LVM did not do it.
    #[error("{0}")]
    Failed(String),
    /// It is in use.
    #[error("a volume of the host cannot be deactivated: {0}")]
    Busy(String),
}

#[derive(Deserialize)]
struct Answer {
    report: Vec<Report>,
}

#[derive(Deserialize)]
struct Report {
    lv: Vec<HostVolume>,
}

/// All volumes LVM sees; none if it is not installed.
///
/// # Errors
/// When LVM does not answer.
pub async fn list(scope: Scope) -> Result<Vec<HostVolume>, VolumeError> {
    let call = lvm(
        "lvs",
        scope,
        [
            "--reportformat",
            "json",
            "-o",
            "vg_name,vg_uuid,vg_attr,lv_name,lv_active,lv_path,lv_dm_path,lv_attr",
        ],
    );
    match call.capture().await {
        Ok(answer) => parse(&answer.stdout),
        Err(CmdError::Missing(_)) => Ok(Vec::new()),
        Err(error) => Err(VolumeError::Failed(format!(
            "LVM cannot be asked for its volumes: {}",
            cause::sentence(&error)
        ))),
    }
}

/// The answer of `lvs --reportformat json`.
///
/// # Errors
/// When it is none.
pub fn parse(answer: &[u8]) -> Result<Vec<HostVolume>, VolumeError> {
    let answer: Answer = serde_json::from_slice(answer).map_err(|error| {
        VolumeError::Failed(format!("lvs gave an answer that cannot be read: {error}"))
    })?;
    Ok(answer
        .report
        .into_iter()
        .flat_map(|report| report.lv)
        .collect())
}

#[derive(Deserialize)]
struct GroupAnswer {
    report: Vec<GroupReport>,
}

#[derive(Deserialize)]
struct GroupReport {
    vg: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(rename = "vg_attr")]
    attributes: String,
}

/// How a volume group of the host is shared with other hosts; `None` if it is this host's alone, or
/// LVM is not installed.
///
/// # Errors
/// When LVM does not answer.
pub async fn group_sharing(group: &str) -> Result<Option<&'static str>, VolumeError> {
    // Without it, LVM says nothing of groups that are shared when its lock daemon does not run.
    let arguments = ["--shared", "--reportformat", "json", "-o", "vg_attr", group];
    match lvm("vgs", Scope::All, arguments).capture().await {
        Ok(answer) => sharing_in(&answer.stdout),
        Err(CmdError::Missing(_)) => Ok(None),
        Err(error) => Err(VolumeError::Failed(said(&error))),
    }
}

/// The same, of the answer of `vgs --reportformat json`.
fn sharing_in(answer: &[u8]) -> Result<Option<&'static str>, VolumeError> {
    let answer: GroupAnswer = serde_json::from_slice(answer).map_err(|error| {
        VolumeError::Failed(format!("vgs gave an answer that cannot be read: {error}"))
    })?;
    let groups = answer.report.iter().flat_map(|report| &report.vg);
    Ok(groups
        .into_iter()
        .find_map(|group| sharing(&group.attributes)))
}

/// Activates a volume.
///
/// # Errors
/// When LVM refuses.
pub async fn activate(group: &str, volume: &str, scope: Scope) -> Result<(), VolumeError> {
    let call = activation(group, volume, scope);
    call.capture().await.map(|_| ()).map_err(|error| {
        VolumeError::Failed(format!(
            "the volume {group}/{volume} cannot be activated: {}",
            said(&error)
        ))
    })
}

/// The call that activates a volume.
pub fn activation(group: &str, volume: &str, scope: Scope) -> Invocation {
    // The host's "skip activation" is about boot; whoever asks for the volume wants it.
    lvm(
        "lvchange",
        scope,
        ["-ay", "-K", &format!("{group}/{volume}")],
    )
}

/// Deactivates a volume, if it is active. What is briefly in use is tried again.
///
/// # Errors
/// When it stays in use, or LVM refuses.
pub async fn deactivate(group: &str, volume: &str) -> Result<(), VolumeError> {
    let name = format!("{group}/{volume}");
    let until = tokio::time::Instant::now() + LONGEST;
    while is_active(group, volume) {
        let Err(error) = deactivation(&name).await else {
            return Ok(());
        };
        let words = said(&error);
        let in_use = words.contains("in use") || words.contains("used by another device");
        if !in_use {
            return Err(VolumeError::Failed(format!(
                "the volume {name} cannot be deactivated: {words}"
            )));
        }
        if tokio::time::Instant::now() >= until {
            return Err(VolumeError::Busy(words));
        }
        tokio::time::sleep(BETWEEN_TRIES).await;
    }
    Ok(())
}

async fn deactivation(name: &str) -> Result<(), CmdError> {
    let by_list = lvm("lvchange", Scope::Host, ["-an", name]);
    let by_all = lvm("lvchange", Scope::All, ["-an", name]);
    let mut outcome = by_list.capture().await;
    // On a device that was opened by virt-fsck, it is in no list.
    if outcome.is_err() && by_all != by_list {
        outcome = by_all.capture().await;
    }
    outcome.map(|_| ())
}

fn lvm<const COUNT: usize>(command: &str, scope: Scope, arguments: [&str; COUNT]) -> Invocation {
    let mut all: Vec<OsString> = [command, "--config", LEAVE_NOTHING].map(Into::into).into();
    if scope == Scope::All && Path::new(DEVICES_FILE).exists() {
        // An empty name stands for no list.
        all.extend(["--devicesfile", ""].map(Into::into));
    }
    all.extend(arguments.map(Into::into));
    Invocation::new(Tool::LVM, all).without_udev()
}

/// LVM's words for a failure, without the warnings before them.
fn said(error: &CmdError) -> String {
    let CmdError::Failed {
        tool,
        status,
        stderr,
    } = error
    else {
        return cause::sentence(error);
    };
    let is_noise = |line: &&str| line.is_empty() || line.starts_with("WARNING:");
    let words: Vec<_> = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !is_noise(line))
        .collect();
    match words.is_empty() {
        true => cause::sentence(error),
        false => failure(tool, *status, &words.join("; ")),
    }
}

fn failure(tool: &'static str, status: ExitStatus, words: &str) -> String {
    let stderr = words.to_owned();
    CmdError::Failed {
        tool,
        status,
        stderr,
    }
    .to_string()
}

/// The name of a volume's device-mapper device: `-` stands between group and volume, and is doubled
/// within their names (`dm_build_dm_name` of LVM2).
pub fn dm_name(group: &str, volume: &str) -> String {
    let doubled = |name: &str| name.replace('-', "--");
    format!("{}-{}", doubled(group), doubled(volume))
}

/// Group and volume of a device-mapper name, if it can be a volume's.
pub fn of_dm_name(name: &str) -> Option<(String, String)> {
    let bytes = name.as_bytes();
    let single = |at: usize| {
        let is = |at: Option<usize>| at.and_then(|at| bytes.get(at)) == Some(&b'-');
        is(Some(at)) && !is(at.checked_sub(1)) && !is(at.checked_add(1))
    };
    let mut between = (0..bytes.len()).filter(|at| single(*at));
    let at = between.next()?;
    let (group, volume) = (name.get(..at)?, name.get(at.checked_add(1)?..)?);
    let whole = |part: &str| part.replace("--", "-");
    (!group.is_empty() && !volume.is_empty() && between.next().is_none())
        .then(|| (whole(group), whole(volume)))
}

/// Whether the kernel has the volume's device.
fn is_active(group: &str, volume: &str) -> bool {
    let wanted = dm_name(group, volume);
    let read = |device: &Path, what: &str| std::fs::read_to_string(device.join("dm").join(what));
    let mut devices = std::fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten();
    devices.any(|device| {
        let device = device.path();
        read(&device, "name").is_ok_and(|name| name.trim_end() == wanted)
            && read(&device, "uuid").is_ok_and(|uuid| uuid.starts_with("LVM-"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices() {
        for (group, volume, name) in [
            ("lvg2", "lvhd0", "lvg2-lvhd0"),
            ("my-vg", "a-b--c", "my--vg-a--b----c"),
            ("a.b_c+d", "e", "a.b_c+d-e"),
        ] {
            assert_eq!(dm_name(group, volume), name);
            assert_eq!(
                of_dm_name(name),
                Some((group.to_owned(), volume.to_owned())),
                "{name}"
            );
        }
        for name in ["cr_hd0", "", "-", "-a", "a-", "a--b", "a-b-c", "--", "---"] {
            assert_eq!(of_dm_name(name), None, "{name}");
        }
    }

    #[test]
    fn groups_that_are_shared() {
        for (attributes, shared) in [
            ("wz--n-", None),
            ("wz--ns", Some("lvmlockd")),
            ("wz--nc", Some("clustered")),
            ("rz-pnc", Some("clustered")),
            ("", None),
        ] {
            let answer =
                format!(r#"{{"report":[{{"vg":[{{"vg_attr":"{attributes}"}}]}}],"log":[]}}"#);
            assert_eq!(sharing_in(answer.as_bytes()).unwrap(), shared);
        }
        assert!(sharing_in(b"  Failed to find").is_err());
    }

    #[test]
    fn an_answer_of_lvs() {
        let answer = br#"{"report":[{"lv":[
            {"vg_name":"host","vg_uuid":"u1","vg_attr":"wz--n-","lv_name":"vm1","lv_active":"active",
             "lv_path":"/dev/host/vm1","lv_dm_path":"/dev/mapper/host-vm1","lv_attr":"-wi-a-----"},
            {"vg_name":"old","vg_uuid":"u2","vg_attr":"wzx-n-","lv_name":"x","lv_active":"",
             "lv_path":"/dev/old/x","lv_dm_path":"/dev/mapper/old-x","lv_attr":"-wi-------"},
            {"vg_name":"half","vg_uuid":"u3","vg_attr":"wz-pn-","lv_name":"whole","lv_active":"",
             "lv_path":"/dev/half/whole","lv_dm_path":"/dev/mapper/half-whole","lv_attr":"-wi-------"},
            {"vg_name":"half","vg_uuid":"u3","vg_attr":"wz-pn-","lv_name":"gone","lv_active":"",
             "lv_path":"/dev/half/gone","lv_dm_path":"/dev/mapper/half-gone","lv_attr":"-wi-----p-"},
            {"vg_name":"san","vg_uuid":"u4","vg_attr":"wz--ns","lv_name":"x","lv_active":"",
             "lv_path":"/dev/san/x","lv_dm_path":"/dev/mapper/san-x","lv_attr":"-wi-------"}
        ]}],"log":[]}"#;
        let volumes = parse(answer).unwrap();
        let told: Vec<_> = volumes
            .iter()
            .map(|volume| (volume.is_active(), volume.obstacle().unwrap_or_default()))
            .collect();
        let [vm1, old, whole, gone, san] = told.as_slice() else {
            panic!("{told:?}");
        };
        assert_eq!(*vm1, (true, String::new()));
        assert_eq!(*whole, (false, String::new()));
        assert!(!old.0 && old.1.contains("exported"), "{old:?}");
        assert!(gone.1.contains("missing"), "{gone:?}");
        assert!(san.1.contains("shared"), "{san:?}");
        assert!(parse(b"  Failed to find").is_err());
    }
}
