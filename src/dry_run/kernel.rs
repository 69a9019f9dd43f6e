//! The kernel engine's steps: devices for the disks, a table over them, a snapshot over that where
//! nothing may be written. A run takes free devices, and knows them by number.

use std::path::PathBuf;

use crate::check::checker::Mode;
use crate::cmd::tool::quoted;
use crate::dry_run::plan::{Plan, PlannedDisk, PlannedLayer, with_path};
use crate::engine::kernel::{mapping, module, nbd, snapshot, table};
use crate::engine::user::nodes::{self, Access};
use crate::layers::extent::ImageIndex;
use crate::layers::tree::Layer;
use crate::names::{self, MappingName, MappingRole};
use crate::reach::chain::Link;
use crate::reach::encrypted;
use crate::reach::identity::Kind;

/// Commands, and those that take back what they have made, the last first.
#[derive(Default)]
pub(super) struct Commands {
    make: Vec<String>,
    undo: Vec<String>,
}

impl Commands {
    pub(super) fn add(&mut self, make: String, undo: String) {
        self.make.push(make);
        self.undo.insert(0, undo);
    }
}

impl Plan<'_> {
    pub(super) fn by_kernel_engine(
        &mut self,
        layer: &Layer,
        disks: &[(ImageIndex, PlannedDisk<'_>)],
        mode: Mode,
    ) -> Option<PlannedLayer> {
        let mut commands = Commands::default();
        let access = Access::of(mode.writes());
        for (image, disk) in disks {
            self.add_disk(&mut commands, *image, disk, access);
        }
        let containers =
            self.add_containers(&mut commands, &layer.extents, access, &mut Vec::new());
        if let Err(reason) = containers {
            self.lines.push(format!("# {reason}"));
            return None;
        }
        let device = |image: ImageIndex| Some(disk_variable(image));
        let path = match table::table(&layer.extents, device) {
            Ok(table) => self.mapped(&mut commands, MappingRole::Filesystem, &table, access),
            Err(error) => {
                self.lines.push(format!("# {error}"));
                return None;
            }
        };
        let path = match mode.writes() {
            true => path,
            false => {
                let is_encrypted =
                    |(_, disk): &(_, PlannedDisk<'_>)| encrypted::is_encrypted(disk.chain);
                let encrypted = self.is_decrypted(&layer.extents) || disks.iter().any(is_encrypted);
                self.add_snapshot(&mut commands, &path, layer, encrypted)
            }
        };
        self.lines.extend(commands.make);
        let undo = commands.undo;
        Some(PlannedLayer { path, undo })
    }

    /// A variable with the disk's device.
    fn add_disk(
        &self,
        commands: &mut Commands,
        image: ImageIndex,
        disk: &PlannedDisk<'_>,
        access: Access,
    ) {
        let top = &disk.chain.top;
        let variable = format!("disk{}", image.0);
        match (top.is_plain(), top.kind) {
            (true, Kind::BlockDevice) if top.slice.is_none() => {
                let device = quoted(top.path.as_os_str());
                commands.make.push(format!("{variable}={device}"));
            }
            (true, _) => commands.add(
                format!("{variable}=$({})", loop_command(top, access)),
                format!("losetup --detach \"${variable}\""),
            ),
            _ => {
                let device = PathBuf::from(format!("/dev/nbd{}", image.0));
                let pid_file = names::nbd_pid_file(&self.run_folder, image.0);
                let image = nbd::Image {
                    node: &nodes::nested(disk.chain, access),
                    keys: &nodes::nested_keys(disk.chain),
                    access,
                    name: "",
                };
                if !module::is_there() {
                    commands.make.push(module::loading().to_string());
                }
                let serve = nbd::serving(&device, image, &pid_file);
                let device = device.display();
                commands.add(
                    format!(
                        "{serve} & until test \"$(blockdev --getsz {device})\" -gt 0; do sleep 0.1; \
                         done; {variable}={device}"
                    ),
                    format!("qemu-nbd --disconnect {device}; wait"),
                );
            }
        }
    }

    fn mapped(
        &self,
        commands: &mut Commands,
        role: MappingRole,
        table: &str,
        access: Access,
    ) -> PathBuf {
        let name = MappingName::numbered(&self.run, role, self.shown);
        self.mapped_as(commands, &name, table, access)
    }

    pub(super) fn mapped_as(
        &self,
        commands: &mut Commands,
        name: &MappingName,
        table: &str,
        access: Access,
    ) -> PathBuf {
        let lines: Vec<String> = table.lines().map(|line| format!("\"{line}\"")).collect();
        commands.add(
            format!(
                "printf '%s\\n' {} | {}",
                lines.join(" "),
                mapping::creation(name, access)
            ),
            mapping::removal(name).to_string(),
        );
        name.path()
    }

    fn add_snapshot(
        &self,
        commands: &mut Commands,
        origin: &std::path::Path,
        layer: &Layer,
        encrypted: bool,
    ) -> PathBuf {
        let file = names::snapshot_file(&self.state_folder);
        let size = layer.size();
        let room = snapshot::room(size);
        let shown = quoted(file.as_os_str());
        commands
            .make
            .push(format!("truncate --size {} {shown}", room.get()));
        commands.add(
            format!("kept=$(losetup --find --show {shown})"),
            "losetup --detach \"$kept\"".to_owned(),
        );
        commands.make.push(with_path("rm", &file));
        let mut kept_in = "$kept".to_owned();
        if encrypted {
            let random = "$(head -c 32 /dev/urandom | od -An -vtx1 | tr -d ' \\n')";
            if let Ok(table) = table::crypt(room, random, &kept_in) {
                let path = self.mapped(commands, MappingRole::Cipher, &table, Access::Write);
                kept_in = path.display().to_string();
            }
        }
        match table::snapshot(size, origin.display(), kept_in) {
            Ok(table) => self.mapped(commands, MappingRole::Overlay, &table, Access::Write),
            Err(_) => origin.to_owned(),
        }
    }
}

pub(super) fn disk_variable(image: ImageIndex) -> String {
    format!("$disk{}", image.0)
}

fn loop_command(top: &Link, access: Access) -> String {
    let mut command = "losetup --find --show".to_owned();
    if access == Access::ReadOnly {
        command.push_str(" --read-only");
    }
    if let Some(slice) = top.slice {
        let (offset, size) = (slice.offset.get(), slice.size.get());
        command.push_str(&format!(" --offset {offset} --sizelimit {size}"));
    }
    with_path(&command, &top.path)
}
