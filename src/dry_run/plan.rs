//! One line a step; lines that begin with `#` explain.

use std::path::{Path, PathBuf};

use crate::check::checker::{Checker, Mode, Subject};
use crate::check::companion::companions_of;
use crate::check::layer::{self, Need};
use crate::check::outcome::Verdict;
use crate::cmd::tool::quoted;
use crate::engine::choice::{self, Engine};
use crate::layers::dormant::Headers;
use crate::layers::extent::{Extent, ImageIndex};
use crate::layers::tree::{Layer, ReadOnly};
use crate::names::RunId;
use crate::reach::chain::Chain;
use crate::run::Options;
use crate::run::look::Looked;
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
/// of the domain, `None` where one was not opened; `wanted` are some of the layers that were `looked` at.
pub fn steps<'a>(
    disks: &'a [Option<PlannedDisk<'a>>],
    looked: &'a Looked,
    wanted: &[&Layer],
    mode: Mode,
    options: &'a Options,
) -> Vec<String> {
    let run = RunId::example();
    let mut plan = Plan {
        disks,
        looked,
        mode,
        headers: &options.headers,
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
    pub(super) looked: &'a Looked,
    pub(super) mode: Mode,
    pub(super) headers: &'a Headers,
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
            Need::Answer(verdict) => self.explain(layer, &verdict),
            Need::Activation { by, reason } => self.lines.push(format!(
                "# {}: {reason}, which {} {} when the kernel engine has opened its disks",
                layer.path,
                by.name(),
                by.opens()
            )),
            Need::Check { .. } if self.is_left_to_lvm(layer, options) => self.lines.push(format!(
                "# {}: on a mirrored volume, which LVM activates when the kernel engine has opened \
                 its disks",
                layer.path
            )),
            Need::Check {
                checker,
                filesystem,
            } => {
                let companions = match companions_of(layer, filesystem, &self.looked.layers) {
                    Ok(companions) => companions,
                    Err(verdict) => return self.explain(layer, &verdict),
                };
                let devices = companions.devices.iter();
                let devices: Vec<&Path> = devices
                    .map(|device| Path::new(device.path.as_str()))
                    .collect();
                let journal = companions.journal;
                let disks = self.disks_below(&layer.extents);
                let read_only =
                    layer.read_only.is_some() || disks.iter().any(|(_, disk)| disk.read_only);
                let mode = self.mode.on(read_only);
                self.lines
                    .push(format!("# {} ({})", layer.path, filesystem.kind.name()));
                let subject = Subject {
                    layer: &layer.path,
                    filesystem,
                    path: Path::new(layer.path.as_str()),
                    journal: journal.map(|journal| Path::new(journal.path.as_str())),
                    devices: &devices,
                    mode,
                    allowed: &options.allowed,
                };
                if let Some(journal) = journal {
                    let what = format!("its journal is {}: both are", journal.path);
                    return self.together(checker, &subject, &what);
                }
                if !companions.devices.is_empty() {
                    let devices = companions.devices.iter();
                    let names: Vec<&str> = devices.map(|device| device.path.as_str()).collect();
                    let what = format!("its other devices are {}: all are", names.join(", "));
                    return self.together(checker, &subject, &what);
                }
                self.shown += 1;
                let shown = match choice::engine_for(options.engine) {
                    Ok(Engine::User) => match self.on_a_disk(layer) {
                        Some(extent) => self.by_user_engine(layer, extent, &disks, mode),
                        None => {
                            let subject = Subject {
                                path: Path::new("FILE"),
                                ..subject
                            };
                            let steps = checker.steps(&subject);
                            self.composed(layer, &disks, mode, &steps);
                            return;
                        }
                    },
                    Ok(Engine::Kernel) => self.by_kernel_engine(layer, &disks, mode),
                    Err(reason) => {
                        let verdict = layer::beyond_the_user_engine(layer, reason);
                        let reason = verdict.reason().unwrap_or_default();
                        self.lines.push(format!("# {}, {reason}", verdict.words()));
                        return;
                    }
                };
                let Some(shown) = shown else { return };
                let subject = Subject {
                    path: &shown.path,
                    ..subject
                };
                self.lines.extend(calls(checker, &subject));
                self.lines.extend(shown.undo);
            }
        }
    }

    /// The one extent of a disk that is the layer, if it is no more than that.
    fn on_a_disk(&self, layer: &Layer) -> Option<Extent> {
        let only = layer.extents.single()?;
        (only.image.0 < self.disks.len()).then_some(only)
    }

    /// What is read without LVM, but repaired with it.
    fn is_left_to_lvm(&self, layer: &Layer, options: &Options) -> bool {
        let mut disks = self.disks_below(&layer.extents).into_iter();
        matches!(layer.read_only, Some(ReadOnly::Copies { .. }))
            && self.mode.writes()
            && disks.all(|(_, disk)| !disk.read_only)
            && choice::kernel_engine_follows(options.engine)
    }

    fn explain(&mut self, layer: &Layer, verdict: &Verdict) {
        let reason = verdict.reason().unwrap_or_default();
        let line = format!("# {}: {}, {reason}", layer.path, verdict.words());
        self.lines.push(line);
    }

    /// A filesystem and its journal or other devices are shown at once, which takes one daemon with both, or devices
    /// that share the disks: no commands to be pasted one after the other.
    fn together(&mut self, checker: Checker, subject: &Subject<'_>, what: &str) {
        self.lines.push(format!(
            "# {what} shown at once, then, with their paths for their names:"
        ));
        let calls = calls(checker, subject);
        self.lines
            .extend(calls.into_iter().map(|call| format!("# {call}")));
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

fn calls(checker: Checker, subject: &Subject<'_>) -> Vec<String> {
    let steps = checker.steps(subject).into_iter();
    let calls = steps.map(|step| match step.when {
        "" => step.invocation.to_string(),
        when => format!("{}  # {when}", step.invocation),
    });
    calls.collect()
}

pub(super) fn with_path(command: &str, path: &Path) -> String {
    format!("{command} {}", quoted(path.as_os_str()))
}
