//! The user engine's steps: a storage daemon for each filesystem, which is ready when the command
//! returns. A run has one for all, and talks to it.

use std::path::{Path, PathBuf};

use crate::check::checker::{Mode, Step};
use crate::cmd::tool::quoted;
use crate::cmd::{Invocation, Tool};
use crate::dry_run::plan::{Plan, PlannedDisk, PlannedLayer, with_path};
use crate::engine::user::nodes::{self, Access};
use crate::layers::extent::{Extent, ImageIndex, Piece};
use crate::layers::tree::Layer;
use crate::names::{self, NodeName};
use crate::reach::encrypted;
use crate::units::Bytes;

/// How many lines tell where the pieces of a layer lie.
const LONGEST_TABLE: usize = 100;

impl Plan<'_> {
    pub(super) fn by_user_engine(
        &mut self,
        layer: &Layer,
        extent: Extent,
        disks: &[(ImageIndex, PlannedDisk<'_>)],
        mode: Mode,
    ) -> Option<PlannedLayer> {
        let (image, disk) = *disks.first()?;
        let access = Access::of(self.mode.on(disk.read_only).writes());
        let mut daemon = Invocation::new(Tool::STORAGE_DAEMON, ["--daemonize", "--pidfile"]);
        daemon.arguments.push(self.pid_file().into());
        let mut option = |option: &str, value: String| {
            daemon.arguments.push(option.into());
            daemon.arguments.push(value.into());
        };
        for (name, _) in nodes::keys(image, disk.chain) {
            let secret = format!("secret,id={},file=PASSPHRASE-FILE", name.as_str());
            option("--object", secret);
        }
        for node in nodes::disk(image, disk.chain, access) {
            option("--blockdev", node.to_string());
        }
        let mut below = NodeName::disk(image);
        if !mode.writes() {
            let file = names::overlay_file(&self.state_folder, image);
            let key_file = self.run_folder.join(format!("disk{}.key", image.0));
            let key = encrypted::is_encrypted(disk.chain).then_some(key_file);
            if !self.overlaid.contains(&image) {
                self.overlaid.push(image);
                if let Some(key) = &key {
                    let key = quoted(key.as_os_str());
                    let random = "head -c 24 /dev/urandom | base64";
                    self.lines.push(format!("(umask 077; {random} >{key})"));
                }
                let creation = overlay_creation(&file, disk.size, key.as_deref());
                self.lines.push(creation.to_string());
            }
            let name = NodeName::overlay_key(image);
            if let Some(key) = &key {
                let secret = format!("secret,id={},file={}", name.as_str(), key.display());
                option("--object", secret);
            }
            let node = nodes::overlay_file(image, &file);
            option("--blockdev", node.to_string());
            let node = nodes::overlay(image, key.as_ref().map(|_| &name));
            option("--blockdev", node.to_string());
            below = NodeName::overlay(image);
        }
        let node = NodeName::filesystem(self.shown);
        let mount_point = names::mount_point(&self.run_folder, &layer.path, self.shown);
        let filesystem = nodes::filesystem(&node, &below, extent, Access::Write);
        option("--blockdev", filesystem.to_string());
        let export = nodes::export(&node, &mount_point, Access::Write);
        option("--export", export.to_string());
        self.lines.push(with_path("touch", &mount_point));
        self.lines.push(daemon.to_string());
        let pid_file = quoted(self.pid_file().as_os_str());
        let undo = vec![
            format!("kill \"$(cat {pid_file})\"; while test -e {pid_file}; do sleep 0.1; done"),
            with_path("rm", &mount_point),
        ];
        let path = mount_point;
        Some(PlannedLayer { path, undo })
    }

    /// What lies in several pieces is served by a run itself: no command does the same.
    pub(super) fn composed(
        &mut self,
        layer: &Layer,
        disks: &[(ImageIndex, PlannedDisk<'_>)],
        mode: Mode,
        checker: &[Step],
    ) {
        let overlays = match mode.writes() {
            true => "",
            false => ", over overlays that are thrown away",
        };
        let decrypted = match self.is_decrypted(&layer.extents) {
            true => ", decrypted,",
            false => "",
        };
        let pieces = match layer.extents.places().count() {
            1 => "it".to_owned(),
            count => format!("its {count} pieces"),
        };
        let size = layer.size().get();
        self.lines.push(format!(
            "# virt-fsck itself serves {pieces}{decrypted} as one FILE of {size} bytes over \
             FUSE{overlays}; no command does that, and --engine kernel plans it with dmsetup:"
        ));
        let place = |extent: &Extent| {
            if let Some(container) = self.container(extent.image) {
                let offset = extent.offset.get();
                return format!("byte {offset} of what is in {}", container.path);
            }
            let disk = disks.iter().find(|(image, _)| *image == extent.image);
            let path = disk.map(|(_, disk)| quoted(disk.chain.top.path.as_os_str()));
            let disk = path.unwrap_or_else(|| format!("disk {}", extent.image.0));
            format!("byte {} of the disk in {disk}", extent.offset.get())
        };
        let mut begin = 0_u64;
        let mut lines = Vec::new();
        for piece in layer.extents.pieces() {
            let length = piece.length().get();
            let what = format!("#   {length} bytes of FILE from byte {begin}:");
            begin = begin.saturating_add(length);
            match piece {
                Piece::Run(extent) => lines.push(format!("{what} from {}", place(extent))),
                Piece::Striped(striped) => {
                    let turn = striped.stripe_size().get();
                    lines.push(format!("{what} in turns of {turn} bytes"));
                    let columns = striped.columns();
                    lines.extend(columns.map(|column| format!("#     from {}", place(&column))));
                }
                Piece::Mirrored(mirrored) => {
                    let copies = mirrored.legs();
                    lines.push(format!("{what} of {} copies", copies.len()));
                    lines.extend(
                        copies
                            .iter()
                            .map(|copy| format!("#     at {}", place(copy))),
                    );
                }
            }
        }
        let more = lines.len().saturating_sub(LONGEST_TABLE);
        lines.truncate(LONGEST_TABLE);
        self.lines.extend(lines);
        if more > 0 {
            let text = format!("#   ... {more} more (--list --format json has all)");
            self.lines.push(text);
        }
        for step in checker {
            let when = match step.when {
                "" => String::new(),
                when => format!("  # {when}"),
            };
            self.lines.push(format!("# {}{when}", step.invocation));
        }
    }

    fn pid_file(&self) -> PathBuf {
        self.run_folder.join("daemon.pid")
    }
}

/// The call that makes an empty overlay, as the run has the daemon make it; `key` is the file with
/// the key that it gets.
fn overlay_creation(file: &Path, disk_size: Bytes, key: Option<&Path>) -> Invocation {
    let size = disk_size.get().to_string();
    let mut call = Invocation::new(Tool::QEMU_IMG, ["create", "-q", "-f", "qcow2"]);
    if let Some(key) = key {
        let secret = format!("secret,id=key,file={}", key.display());
        let options = "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=1";
        let arguments = ["--object", &secret, "-o", options];
        call.arguments.extend(arguments.map(Into::into));
    }
    call.arguments.push(file.as_os_str().to_owned());
    call.arguments.push(size.into());
    call
}
