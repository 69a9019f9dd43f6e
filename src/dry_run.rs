//! The steps a check would take, as commands that can be pasted.

use std::path::PathBuf;

use crate::check::checker::Mode;
use crate::check::layer::{self, Need};
use crate::cmd::{Invocation, Tool};
use crate::engine::user::nodes::{self, Access};
use crate::engine::user::session;
use crate::layers::extent::ImageIndex;
use crate::layers::tree::Layer;
use crate::names::{self, NodeName};
use crate::reach::chain::Chain;
use crate::run::Options;
use crate::units::Bytes;

/// A disk that was opened.
#[derive(Clone, Copy, Debug)]
pub struct PlannedDisk<'a> {
    /// Its images.
    pub chain: &'a Chain,
    /// Its size as the guest sees it.
    pub size: Bytes,
    /// The guest may not write to it.
    pub read_only: bool,
}

/// One line a step; lines that begin with `#` explain. The folders are examples: a run makes new
/// ones of its own. `disks` are in the order of the domain, `None` where one was not opened.
pub fn steps(
    disks: &[Option<PlannedDisk<'_>>],
    wanted: &[&Layer],
    mode: Mode,
    options: &Options,
) -> Vec<String> {
    let mut plan = Plan {
        run_folder: options.run_base.join("virt-fsck-EXAMPLE"),
        state_folder: options.state_base.join("virt-fsck-EXAMPLE"),
        daemon: Invocation::new(Tool::STORAGE_DAEMON, [] as [&str; 0]),
        folders: Vec::new(),
        mount_points: Vec::new(),
        overlays: Vec::new(),
        checks: Vec::new(),
    };
    for (index, disk) in disks.iter().enumerate() {
        if let Some(disk) = disk {
            plan.add_disk(ImageIndex(index), *disk, mode);
        }
    }
    for layer in wanted {
        plan.add_layer(layer, disks, mode);
    }
    plan.lines()
}

struct Plan {
    run_folder: PathBuf,
    state_folder: PathBuf,
    daemon: Invocation,
    folders: Vec<PathBuf>,
    mount_points: Vec<PathBuf>,
    overlays: Vec<String>,
    checks: Vec<String>,
}

impl Plan {
    fn add_disk(&mut self, image: ImageIndex, disk: PlannedDisk<'_>, mode: Mode) {
        let changes_nothing = mode == Mode::Check || disk.read_only;
        let access = if changes_nothing {
            Access::ReadOnly
        } else {
            Access::Write
        };
        for node in nodes::disk(image, disk.chain, access) {
            self.daemon_option("--blockdev", &node);
        }
        if changes_nothing {
            let file = names::overlay_file(&self.state_folder, image);
            self.overlays
                .push(session::overlay_creation(&file, disk.size).to_string());
            self.daemon_option("--blockdev", &nodes::overlay(image, &file));
            self.folders.push(self.state_folder.clone());
        }
    }

    fn add_layer(&mut self, layer: &Layer, disks: &[Option<PlannedDisk<'_>>], mode: Mode) {
        let (checker, filesystem, extent) = match layer::need(layer) {
            Need::Nothing => return,
            Need::Answer(verdict) => {
                let reason = verdict.reason().unwrap_or_default();
                self.checks
                    .push(format!("# {}: {}, {reason}", layer.path, verdict.words()));
                return;
            }
            Need::Check {
                checker,
                filesystem,
                extent,
            } => (checker, filesystem, extent),
        };
        let on_read_only_disk = disks
            .get(extent.image.0)
            .is_some_and(|disk| disk.is_some_and(|disk| disk.read_only));
        let read_only = layer.read_only || on_read_only_disk;
        let (mode, below) = if mode == Mode::Check || read_only {
            (Mode::Check, NodeName::overlay(extent.image))
        } else {
            (mode, NodeName::disk(extent.image))
        };
        let number = self.mount_points.len() + 1;
        let node = NodeName::filesystem(number);
        let mount_point = names::mount_point(&self.run_folder, &layer.path, number);
        self.daemon_option(
            "--blockdev",
            &nodes::filesystem(&node, &below, extent, Access::Write),
        );
        self.daemon_option(
            "--export",
            &nodes::export(&node, &mount_point, Access::Write),
        );
        self.checks
            .push(format!("# {} ({})", layer.path, filesystem.kind.name()));
        for step in checker.steps(filesystem, mode, &mount_point) {
            let when = match step.when {
                "" => String::new(),
                when => format!("  # {when}"),
            };
            self.checks.push(format!("{}{when}", step.invocation));
        }
        self.mount_points.push(mount_point);
    }

    fn daemon_option(&mut self, option: &str, value: &serde_json::Value) {
        self.daemon.arguments.push(option.into());
        self.daemon.arguments.push(value.to_string().into());
    }

    fn lines(mut self) -> Vec<String> {
        if self.mount_points.is_empty() {
            return self.checks;
        }
        self.folders.insert(0, self.run_folder.clone());
        self.folders.dedup();
        let mut lines = vec![
            "# make the folders and the files that the filesystems are shown in".to_owned(),
            paths("mkdir -p", &self.folders),
            paths("touch", &self.mount_points),
        ];
        if !self.overlays.is_empty() {
            lines.push("# make the overlays that take all writes and are thrown away".to_owned());
            lines.append(&mut self.overlays);
        }
        lines.push("# open the images, with QEMU's locks, and show each filesystem".to_owned());
        lines.push(format!("{} &", self.daemon));
        lines.append(&mut self.checks);
        lines.push("# close the images; remove the files and folders".to_owned());
        lines.push("kill %1; wait".to_owned());
        lines.push(paths("rm -r", &self.folders));
        lines
    }
}

fn paths(command: &str, paths: &[PathBuf]) -> String {
    paths.iter().fold(command.to_owned(), |line, path| {
        format!("{line} {}", crate::cmd::tool::quoted(path.as_os_str()))
    })
}
