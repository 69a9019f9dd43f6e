//! One filesystem, checked inside a disk and bare.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::place::Template;

/// What e2fsck takes for the present, so that two runs write the same times.
const NOW: &str = "1800000000";

/// `s_uuid` of the primary superblock.
const UUID: Range<usize> = 1024 + 104..1024 + 120;

/// How many differing bytes are named.
const MOST_SHOWN: usize = 20;

/// What both runs came to.
pub struct Trial {
    /// The exit status of the bare e2fsck.
    bare: i32,
    /// What differs; `None` if nothing does.
    pub difference: Option<Difference>,
    /// The difference in detail.
    pub words: String,
}

/// What differs between the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// virt-fsck ran no e2fsck on it, and left it as it was.
    OtherChecker,
    /// The exit status.
    Ending,
    /// The UUID only: e2fsck makes a random one for a filesystem that has none.
    NewUuid,
    /// The bytes left in the filesystem.
    Content,
    /// Bytes around the filesystem.
    Around,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherChecker => "not e2fsck's",
            Self::Ending => "another ending",
            Self::NewUuid => "another UUID",
            Self::Content => "other bytes",
            Self::Around => "BYTES AROUND IT CHANGED",
        })
    }
}

/// What virt-fsck's exit status has to be when e2fsck's is `code` (e2fsck(8), EXIT CODE).
fn expected_exit(code: i32) -> i32 {
    match code {
        0 => 0,
        code if code & 4 != 0 => 4,
        code if code & !3 != 0 => 8,
        _ => 1,
    }
}

impl Trial {
    pub fn run(content: &[u8], template: &Template) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let file = |name: &str| folder.path().join(name);
        let mut filesystem = content.to_vec();
        filesystem.resize(template.size, 0);
        let room = template.offset..template.offset + template.size;
        let mut disk = template.disk.clone();
        disk[room.clone()].copy_from_slice(&filesystem);

        std::fs::write(file("bare"), &filesystem).unwrap();
        let mut e2fsck = Command::new("e2fsck");
        e2fsck.args(["-f", "-y"]).arg(file("bare"));
        let bare = at_a_fixed_time(&mut e2fsck);
        let bare_content = std::fs::read(file("bare")).unwrap();

        std::fs::write(file("disk"), &disk).unwrap();
        convert("raw", &file("disk"), "qcow2", &file("disk.qcow2"));
        let mut virt_fsck = Command::new(crate::binary::virt_fsck());
        virt_fsck
            .args(["-y", "--format", "json", "--image-format", "qcow2"])
            .arg("--add")
            .arg(file("disk.qcow2"))
            .arg("--state-dir")
            .arg(file("state"));
        let output = at_a_fixed_time(&mut virt_fsck);
        convert("qcow2", &file("disk.qcow2"), "raw", &file("disk"));
        let mut disk_after = std::fs::read(file("disk")).unwrap();
        let content_after = disk_after[room.clone()].to_vec();
        disk_after[room.clone()].copy_from_slice(&disk[room]);

        let changes = Changes {
            filesystem: &filesystem,
            bare: &bare_content,
            here: &content_after,
        };
        let (difference, words) = if disk_after == disk {
            match other_ending(bare.status.code().unwrap(), &output, template.layer) {
                Some(other) => changes.after(other),
                None => changes.alone(&bare),
            }
        } else {
            (Some(Difference::Around), difference(&disk, &disk_after).1)
        };
        Self {
            bare: bare.status.code().unwrap(),
            difference,
            words,
        }
    }

    /// The ending, for the closing figures.
    pub fn ending(&self) -> String {
        let exit = expected_exit(self.bare);
        format!("e2fsck {}, virt-fsck {exit}", self.bare)
    }
}

fn at_a_fixed_time(command: &mut Command) -> Output {
    command
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .env("E2FSCK_TIME", NOW)
        .env("E2FSPROGS_FAKE_TIME", NOW)
        .output()
        .unwrap()
}

fn convert(from: &str, source: &Path, to: &str, target: &Path) {
    let converted = Command::new("qemu-img")
        .args(["convert", "-f", from, "-O", to])
        .args([source, target])
        .status();
    assert!(converted.unwrap().success());
}

/// `None` if virt-fsck ran e2fsck and ended as that did.
fn other_ending(bare: i32, output: &Output, layer: &str) -> Option<(Difference, String)> {
    let exit = output.status.code();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let found = find(&json["domains"][0]["disks"][0]["layer"], layer);
    let result = found.map_or(&Value::Null, |layer| &layer["result"]);
    if result["checker"] != "e2fsck" {
        let kind = found.map_or(&Value::Null, |layer| &layer["kind"]);
        let reason = format!(
            "e2fsck {bare}, virt-fsck {exit:?}, taken for {kind}: {} {} {} {}",
            result["verdict"],
            result["reason"],
            result["checker"],
            String::from_utf8_lossy(&output.stderr).trim()
        );
        return Some((Difference::OtherChecker, reason));
    }
    if result["exit_code"] == bare && exit == Some(expected_exit(bare)) {
        return None;
    }
    let words = format!(
        "bare e2fsck {bare}, here {}, virt-fsck {exit:?}: {} {}; {}",
        result["exit_code"], result["verdict"], result["reason"], json["domains"][0]["reason"]
    );
    Some((Difference::Ending, words))
}

fn find<'a>(layer: &'a Value, path: &str) -> Option<&'a Value> {
    if layer["path"] == path {
        return Some(layer);
    }
    let children = layer["children"].as_array()?;
    children.iter().find_map(|child| find(child, path))
}

/// A filesystem before and after.
struct Changes<'a> {
    filesystem: &'a [u8],
    bare: &'a [u8],
    here: &'a [u8],
}

impl Changes<'_> {
    /// What counts when the endings are alike: the bytes.
    fn alone(&self, bare: &Output) -> (Option<Difference>, String) {
        let (places, words) = difference(self.bare, self.here);
        let made_up = String::from_utf8_lossy(&bare.stdout)
            .contains("Filesystem did not have a UUID; generating one.");
        if places.is_empty() {
            (None, words)
        } else if made_up && places.iter().all(|place| UUID.contains(place)) {
            (Some(Difference::NewUuid), words)
        } else {
            (Some(Difference::Content), words)
        }
    }

    /// What counts when the endings are not: where e2fsck did not run, nothing may have changed.
    fn after(&self, (ending, words): (Difference, String)) -> (Option<Difference>, String) {
        if ending == Difference::OtherChecker && self.here != self.filesystem {
            let changed = difference(self.filesystem, self.here).1;
            return (Some(Difference::Content), format!("{words}; {changed}"));
        }
        (Some(ending), words)
    }
}

/// Where two runs of bytes differ.
fn difference(one: &[u8], other: &[u8]) -> (Vec<usize>, String) {
    let places: Vec<usize> = (0..one.len().max(other.len()))
        .filter(|at| one.get(*at) != other.get(*at))
        .collect();
    let shown: Vec<String> = places.iter().map(|at| format!("{at:#x}")).collect();
    let shown = shown[..shown.len().min(MOST_SHOWN)].join(" ");
    let words = format!("{} bytes, at {shown}", places.len());
    (places, words)
}
