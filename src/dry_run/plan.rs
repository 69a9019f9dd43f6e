//! One line a step; lines that begin with `#` explain.

use std::path::{Path, PathBuf};

use crate::check::checker::Mode;
use crate::check::layer::{self, Need};
use crate::cmd::tool::quoted;
use crate::engine::choice::{self, Engine};
use crate::layers::extent::ImageIndex;
use crate::layers::tree::Layer;
use crate::names::RunId;
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

/// The folders and devices are examples: a run makes new ones of its own. `disks` are in the order
/// of the domain, `None` where one was not opened.
pub fn steps(
    disks: &[Option<PlannedDisk<'_>>],
    wanted: &[&Layer],
    mode: Mode,
    options: &Options,
) -> Vec<String> {
    let run = RunId::example();
    let mut plan = Plan {
        disks,
        mode,
        run_folder: run.folder(&options.run_base),
        state_folder: run.folder(&options.state_base),
        run,
        overlaid: Vec::new(),
        shown: 0,
        lines: Vec::new(),
    };
    for layer in wanted {
        plan.add_layer(layer, options);
    }
    plan.lines()
}

pub(super) struct Plan<'a> {
    pub(super) disks: &'a [Option<PlannedDisk<'a>>],
    pub(super) mode: Mode,
    pub(super) run: RunId,
    pub(super) run_folder: PathBuf,
    pub(super) state_folder: PathBuf,
    /// The disks whose overlay is there already.
    pub(super) overlaid: Vec<ImageIndex>,
    pub(super) shown: usize,
    pub(super) lines: Vec<String>,
}

/// A layer that a step shows.
pub(super) struct PlannedLayer {
    /// The file or device.
    pub(super) path: PathBuf,
    /// The commands that take it back.
    pub(super) undo: Vec<String>,
}

impl<'a> Plan<'a> {
    fn add_layer(&mut self, layer: &Layer, options: &Options) {
        match layer::need(layer) {
            Need::Nothing => {}
            Need::Answer(verdict) => {
                let reason = verdict.reason().unwrap_or_default();
                self.lines
                    .push(format!("# {}: {}, {reason}", layer.path, verdict.words()));
            }
            Need::Activation { reason } => self.lines.push(format!(
                "# {}: {reason}, which LVM activates when the kernel engine has opened its disks",
                layer.path
            )),
            Need::Check {
                checker,
                filesystem,
            } => {
                let disks = self.disks_under(layer);
                let read_only = layer.read_only || disks.iter().any(|(_, disk)| disk.read_only);
                let mode = self.mode.on(read_only);
                self.lines
                    .push(format!("# {} ({})", layer.path, filesystem.kind.name()));
                self.shown += 1;
                let shown = match choice::engine_for(options.engine, &layer.extents) {
                    Ok(Engine::User) => self.by_user_engine(layer, &disks, mode),
                    Ok(Engine::Kernel) => self.by_kernel_engine(layer, &disks, mode),
                    Err(reason) => {
                        let verdict = layer::beyond_the_user_engine(layer, &reason);
                        let reason = verdict.reason().unwrap_or_default();
                        self.lines.push(format!("# {}, {reason}", verdict.words()));
                        return;
                    }
                };
                let Some(shown) = shown else { return };
                for step in checker.steps(filesystem, mode, &shown.path) {
                    let when = match step.when {
                        "" => String::new(),
                        when => format!("  # {when}"),
                    };
                    self.lines.push(format!("{}{when}", step.invocation));
                }
                self.lines.extend(shown.undo);
            }
        }
    }

    /// The disks that a layer lies on, each once.
    fn disks_under(&self, layer: &Layer) -> Vec<(ImageIndex, PlannedDisk<'a>)> {
        let mut disks: Vec<(ImageIndex, PlannedDisk<'a>)> = Vec::new();
        for extent in layer.extents.places() {
            let image = extent.image;
            if let Some(Some(disk)) = self.disks.get(image.0)
                && !disks.iter().any(|(known, _)| *known == image)
            {
                disks.push((image, *disk));
            }
        }
        disks
    }

    fn lines(self) -> Vec<String> {
        if self.shown == 0 {
            return self.lines;
        }
        let folders = [self.run_folder, self.state_folder];
        let named = |folder: &&PathBuf| {
            let name = folder.to_string_lossy();
            self.lines.iter().any(|line| line.contains(name.as_ref()))
        };
        let folders: Vec<_> = folders.iter().filter(named).collect();
        let made: Vec<_> = folders.iter().map(|f| with_path("mkdir -p", f)).collect();
        let removed: Vec<_> = folders.iter().map(|f| with_path("rm -r", f)).collect();
        made.into_iter().chain(self.lines).chain(removed).collect()
    }
}

pub(super) fn with_path(command: &str, path: &Path) -> String {
    format!("{command} {}", quoted(path.as_os_str()))
}
