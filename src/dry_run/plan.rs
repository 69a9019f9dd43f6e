//! The steps a check would take, as commands that can be pasted.

use std::path::{Path, PathBuf};

use crate::check::checker::Mode;
use crate::check::layer::{self, Need};
use crate::cmd::tool::quoted;
use crate::cmd::{Invocation, Tool};
use crate::engine::user::nodes::{self, Access};
use crate::engine::user::session;
use crate::layers::extent::{Extent, ImageIndex};
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
        disks,
        mode,
        run_folder: options.run_base.join("virt-fsck-EXAMPLE"),
        state_folder: options.state_base.join("virt-fsck-EXAMPLE"),
        overlaid: Vec::new(),
        shown: 0,
        lines: Vec::new(),
    };
    for layer in wanted {
        plan.add_layer(layer);
    }
    plan.lines()
}

struct Plan<'a> {
    disks: &'a [Option<PlannedDisk<'a>>],
    mode: Mode,
    run_folder: PathBuf,
    state_folder: PathBuf,
    /// The disks whose overlay is there already.
    overlaid: Vec<ImageIndex>,
    shown: usize,
    lines: Vec<String>,
}

impl Plan<'_> {
    fn add_layer(&mut self, layer: &Layer) {
        match layer::need(layer) {
            Need::Nothing => {}
            Need::Answer(verdict) => {
                let reason = verdict.reason().unwrap_or_default();
                self.lines
                    .push(format!("# {}: {}, {reason}", layer.path, verdict.words()));
            }
            Need::Check {
                checker,
                filesystem,
                extent,
            } => {
                let Some(Some(disk)) = self.disks.get(extent.image.0) else {
                    return;
                };
                let mode = self.mode.on(layer.read_only || disk.read_only);
                self.lines
                    .push(format!("# {} ({})", layer.path, filesystem.kind.name()));
                let mount_point = self.show(layer, *disk, extent, mode);
                for step in checker.steps(filesystem, mode, &mount_point) {
                    let when = match step.when {
                        "" => String::new(),
                        when => format!("  # {when}"),
                    };
                    self.lines.push(format!("{}{when}", step.invocation));
                }
                self.take_back(&mount_point);
            }
        }
    }

    /// The steps that show a filesystem as a plain file: a storage daemon of its own, which is
    /// ready when the command returns. A run has one for all, and talks to it.
    fn show(
        &mut self,
        layer: &Layer,
        disk: PlannedDisk<'_>,
        extent: Extent,
        mode: Mode,
    ) -> PathBuf {
        self.shown += 1;
        let image = extent.image;
        let access = Access::of(self.mode.on(disk.read_only).writes());
        let mut daemon = Invocation::new(Tool::STORAGE_DAEMON, ["--daemonize", "--pidfile"]);
        daemon.arguments.push(self.pid_file().into());
        let mut option = |option: &str, value: &serde_json::Value| {
            daemon.arguments.push(option.into());
            daemon.arguments.push(value.to_string().into());
        };
        for node in nodes::disk(image, disk.chain, access) {
            option("--blockdev", &node);
        }
        let mut below = NodeName::disk(image);
        if !mode.writes() {
            let file = names::overlay_file(&self.state_folder, image);
            if !self.overlaid.contains(&image) {
                self.overlaid.push(image);
                self.lines
                    .push(session::overlay_creation(&file, disk.size).to_string());
            }
            option("--blockdev", &nodes::overlay(image, &file));
            below = NodeName::overlay(image);
        }
        let node = NodeName::filesystem(self.shown);
        let mount_point = names::mount_point(&self.run_folder, &layer.path, self.shown);
        let filesystem = nodes::filesystem(&node, &below, extent, Access::Write);
        option("--blockdev", &filesystem);
        let export = nodes::export(&node, &mount_point, Access::Write);
        option("--export", &export);
        self.lines.push(with_path("touch", &mount_point));
        self.lines.push(daemon.to_string());
        mount_point
    }

    fn take_back(&mut self, mount_point: &Path) {
        let pid_file = quoted(self.pid_file().as_os_str());
        self.lines.push(format!(
            "kill \"$(cat {pid_file})\"; while test -e {pid_file}; do sleep 0.1; done"
        ));
        self.lines.push(with_path("rm", mount_point));
    }

    fn pid_file(&self) -> PathBuf {
        self.run_folder.join("daemon.pid")
    }

    fn lines(self) -> Vec<String> {
        if self.shown == 0 {
            return self.lines;
        }
        let mut folders = vec![self.run_folder];
        if !self.overlaid.is_empty() {
            folders.push(self.state_folder);
        }
        let made = folders.iter().map(|folder| with_path("mkdir -p", folder));
        let removed = folders.iter().map(|folder| with_path("rm -r", folder));
        made.chain(self.lines).chain(removed).collect()
    }
}

fn with_path(command: &str, path: &Path) -> String {
    format!("{command} {}", quoted(path.as_os_str()))
}
