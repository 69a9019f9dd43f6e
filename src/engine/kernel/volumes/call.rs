//! How LVM is called for a guest's volumes, and what its words mean.

use std::path::{Path, PathBuf};

use super::GuestGroup;
use crate::cmd::{Invocation, Tool};

/// LVM's only devices: links in its folder for devices. A colon stands in no name that LVM gives, so
/// that no volume's node looks like one.
const LINK: &str = "pv:";

/// What LVM says on the way that tells nothing of what is asked here.
const NOISE: [&str; 7] = [
    "Udev is running and DM_DISABLE_UDEV",
    "File descriptor ",
    "WARNING: Sum of all thin volume sizes",
    "WARNING: You have not turned on protection",
    "WARNING: Set activation/thin_pool_autoextend_threshold",
    "Change of snapshot ",
    "For thin pool auto extension activation",
];

/// The call that activates a volume; only one group of that name is visible to it.
///
/// `--yes` answers the one question there is: a snapshot cannot be had without its origin. `-K`
/// because LVM skips thin snapshots unless told otherwise. `--poll n`: what the guest has begun, a
/// pvmove or the merge of a snapshot, is not finished by us.
pub fn activation(group: &GuestGroup, volume: &str) -> Invocation {
    let devices = device_folder(&group.folder);
    Invocation::new(
        Tool::LVM,
        [
            "lvchange",
            "--activate",
            "y",
            "--ignoreactivationskip",
            "--ignoremonitoring",
            "--poll",
            "n",
            "--yes",
            "--config",
            &configuration(&group.folder),
            &format!("{}/{volume}", group.name),
        ],
    )
    .with_env("LVM_SYSTEM_DIR", &group.folder)
    .with_env("DM_DEV_DIR", devices)
    .with_env("LVM_SUPPRESS_FD_WARNINGS", "1")
    .without_udev()
}

/// LVM's configuration, in place of the host's (lvm.conf(5)).
///
/// A member of a RAID that is missing is not done without (`activation_mode`): the RAID would write
/// that into its metadata. The guest's LVM metadata cannot be written at all (`metadata_read_only`).
pub fn configuration(folder: &Path) -> String {
    let devices = quoted(&device_folder(folder));
    let locks = quoted(&lock_folder(folder));
    [
        "config { checks=0 }",
        &format!(
            r#"devices {{ dir={devices} scan=[{devices}] filter=["a|/{LINK}[0-9]+$|", "r|.*|"] use_devicesfile=0 obtain_device_list_from_udev=0 external_device_info_source="none" hints="none" scan_lvs=1 multipath_component_detection=0 md_component_detection=0 fw_raid_component_detection=0 }}"#
        ),
        r#"activation { udev_sync=0 udev_rules=0 monitoring=0 activation_mode="complete" }"#,
        &format!(
            "global {{ locking_dir={locks} wait_for_locks=0 metadata_read_only=1 use_lvmlockd=0 use_lvmpolld=0 event_activation=0 notify_dbus=0 }}"
        ),
        "backup { backup=0 archive=0 }",
        r#"log { prefix="" }"#,
    ]
    .join(" ")
}

/// A path as a string of LVM's configuration.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
}

/// Where LVM finds and makes devices.
pub fn device_folder(folder: &Path) -> PathBuf {
    folder.join("dev")
}

/// Where it keeps its locks.
pub fn lock_folder(folder: &Path) -> PathBuf {
    folder.join("lock")
}

/// The link to a physical volume in the folder for devices.
pub fn link_name(index: usize) -> String {
    format!("{LINK}{index}")
}

/// The name that the kernel did not give because there is a device of that name already: the
/// `device-mapper: create ioctl on NAME UUID failed: Device or resource busy` of libdevmapper.
pub fn name_in_use(stderr: &str) -> Option<&str> {
    stderr.lines().find_map(|line| {
        let rest = line
            .trim()
            .strip_prefix("device-mapper: create ioctl on ")?;
        let (what, why) = rest.split_once(" failed: ")?;
        let is_taken = why.trim_end() == "Device or resource busy";
        is_taken.then(|| what.split(' ').next()).flatten()
    })
}

/// Why LVM refused, in its own words; errors alone if there are any, and each once.
pub fn reason(stderr: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in stderr.lines().map(str::trim) {
        if !line.is_empty() && !is_noise(line) && !lines.contains(&line) {
            lines.push(line);
        }
    }
    let is_warning = |line: &&str| line.starts_with("WARNING: ");
    if !lines.iter().all(is_warning) {
        lines.retain(|line| !is_warning(line));
    }
    lines
        .into_iter()
        .map(|line| line.trim_end_matches('.'))
        .collect::<Vec<_>>()
        .join("; ")
}

/// What LVM did not do though it activated a volume.
///
/// It checks the metadata of thin pools and caches first, as the guest's own LVM does, and goes on
/// without where the tool for it is missing (`_pool_callback`, lib/activate/dev_manager.c).
pub fn notes(stderr: &str) -> Vec<String> {
    let mut notes = Vec::new();
    for line in stderr.lines().map(str::trim) {
        let Some(skipped) = line.strip_prefix("WARNING: Check is skipped, please ") else {
            continue;
        };
        let tool = skipped
            .trim_end_matches('!')
            .rsplit('/')
            .next()
            .unwrap_or(skipped);
        let note = format!(
            "LVM's metadata of the volume was not checked: {tool} is missing or too old; it is in \
             the package thin-provisioning-tools (its name on Debian)"
        );
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    notes
}

fn is_noise(line: &str) -> bool {
    NOISE.iter().any(|noise| line.starts_with(noise))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::lvm::identity::VolumeGroupId;

    #[test]
    fn the_call_can_be_pasted() {
        let group = GuestGroup {
            devices: vec!["/dev/mapper/virt-fsck-a-pv0".into()],
            uuid: VolumeGroupId::parse("FC33RB-Q60H-uyYb-RtyW-J88P-adqe-PX2lPd").unwrap(),
            name: "lvg1".to_owned(),
            folder: "/run/virt-fsck/virt-fsck-a/lvm0".into(),
        };
        let text = activation(&group, "lvroot").to_string();
        let folder = "/run/virt-fsck/virt-fsck-a/lvm0";
        let begin = format!(
            "LVM_SYSTEM_DIR={folder} DM_DEV_DIR={folder}/dev LVM_SUPPRESS_FD_WARNINGS=1 \
             DM_DISABLE_UDEV=1 lvm lvchange --activate y --ignoreactivationskip \
             --ignoremonitoring --poll n --yes --config 'config {{ checks=0 }} devices {{ \
             dir=\"{folder}/dev\" scan=[\"{folder}/dev\"] filter=[\"a|/pv:[0-9]+$|\", \"r|.*|\"] \
             use_devicesfile=0 "
        );
        assert!(text.starts_with(&begin), "{text}");
        assert!(
            text.ends_with(" log { prefix=\"\" }' lvg1/lvroot"),
            "{text}"
        );
        assert_eq!(quoted(Path::new(r#"/a"b\c"#)), r#""/a\"b\\c""#);
    }

    /// LVM's own parser takes the configuration and knows every setting in it.
    #[test]
    fn lvm_knows_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let text = configuration(folder.path()).replace("checks=0", "checks=1");
        let told = std::process::Command::new("lvmconfig")
            .args(["--config", &text, "--validate"])
            .env("LVM_SYSTEM_DIR", folder.path())
            .env("LVM_SUPPRESS_FD_WARNINGS", "1")
            .output();
        match told {
            Ok(told) => {
                let said = String::from_utf8_lossy(&told.stderr).into_owned();
                assert!(told.status.success() && !said.contains("unknown"), "{said}");
            }
            Err(missing) => eprintln!("lvmconfig: {missing}"),
        }
    }

    #[test]
    fn lvms_words_become_a_sentence() {
        let busy = "Udev is running and DM_DISABLE_UDEV environment variable is set. Bypassing.\n\
             device-mapper: create ioctl on lvg1-org LVM-2QZDzb23o3 failed: Device or resource busy\n";
        assert_eq!(name_in_use(busy), Some("lvg1-org"));
        assert_eq!(name_in_use(&busy.replace("resource busy", "x")), None);
        let partial = "WARNING: Couldn't find device with uuid 87WmLy.\n\
             WARNING: VG lvg1 is missing PV 87WmLy (last written to /dev/loop1).\n\
             Refusing activation of partial LV lvg1/r1.  Try '--activationmode degraded'.\n";
        assert_eq!(
            reason(partial),
            "Refusing activation of partial LV lvg1/r1.  Try '--activationmode degraded'"
        );
        let pool = "  WARNING: Sum of all thin volume sizes (1 GiB) exceeds the size.\n\
             Check of pool lvg1/pool failed (status:1). Manual repair required!\n";
        assert_eq!(
            reason(pool),
            "Check of pool lvg1/pool failed (status:1). Manual repair required!"
        );
        assert_eq!(
            reason("WARNING: a\nWARNING: b.\nWARNING: a\n"),
            "WARNING: a; WARNING: b"
        );
        assert_eq!(reason(""), "");
    }

    #[test]
    fn a_check_left_out_is_told() {
        let said = "/usr/sbin/thin_check: execvp failed: No such file or directory\n\
             WARNING: Check is skipped, please install recommended missing binary /usr/sbin/thin_check!\n\
             WARNING: Check is skipped, please upgrade installed version of /usr/sbin/cache_check!\n";
        let told = notes(&said.repeat(2));
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("thin_check is missing"), "{told:?}");
        assert!(told[1].contains("cache_check is missing"), "{told:?}");
        assert_eq!(notes("WARNING: something else\n"), [""; 0]);
    }
}
