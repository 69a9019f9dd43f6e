//! The arguments. The man page is checked against them.

use std::path::PathBuf;

use clap::{ArgGroup, Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::allow::Allowance;
use crate::check::checker::Mode;
use crate::domain::model::Format;
use crate::engine::choice::EngineChoice;
use crate::hook::install;
use crate::keys::{DetachedHeader, KeySelector};
use crate::reach::chain;
use crate::run::Action;

/// Check and repair the filesystems inside shut-off libvirt guests, from the host
#[derive(Clone, Debug, Parser)]
#[command(name = "virt-fsck", version, max_term_width = 80, help_expected = true)]
#[command(override_usage = "\
virt-fsck [-c URI] -d NAME|UUID ... [OPTIONS]
       virt-fsck [-c URI] --all-inactive [OPTIONS]
       virt-fsck --xml FILE|- [OPTIONS]
       virt-fsck -a IMAGE ... [OPTIONS]
       virt-fsck recover
       virt-fsck hook --install|--uninstall")]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(disable_help_subcommand = true)]
#[command(after_help = "\
Exit status, the sum over all filesystems: 0 clean, 1 corrected, 4 errors left,
8 operational error, 16 usage, 32 interrupted, 64 refused (in use), 128 not
checked. See virt-fsck(8).")]
#[command(group = ArgGroup::new("what").required(true).args(["domain", "all_inactive", "xml", "add"]))]
#[command(group = ArgGroup::new("mode").args(["list", "check", "preen", "repair", "interactive"]))]
pub struct Cli {
    /// Anything but a check.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Which guests.
    #[command(flatten)]
    pub target: Target,
    /// What is to be done.
    #[command(flatten)]
    pub work: Work,
    /// What lies under the disks on the host.
    #[command(flatten)]
    pub host: HostLayers,
    /// How it is told.
    #[command(flatten)]
    pub output: Output,
}

/// Anything but a check.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Take back what runs that were killed have left open, and do nothing else
    Recover,
    /// Install or remove the hook by which libvirt tells when guests start and
    /// stop; libvirt calls the same with four words
    Hook(HookArguments),
}

/// libvirt's hook. Its own call never comes here: see [`crate::hook::call::Call::of_arguments`].
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(override_usage = "\
virt-fsck hook --install [--hooks-folder DIR]
       virt-fsck hook --uninstall [--hooks-folder DIR]
       virt-fsck hook GUEST OPERATION SUBOPERATION EXTRA <XML")]
#[command(group = ArgGroup::new("hook").required(true).args(["install", "uninstall"]))]
pub struct HookArguments {
    /// Write the script by which libvirt runs this program
    #[arg(long)]
    pub install: bool,

    /// Remove that script
    #[arg(long)]
    pub uninstall: bool,

    /// The script lies in DIR
    #[arg(long, value_name = "DIR", default_value = install::FOLDER)]
    pub hooks_folder: PathBuf,
}

/// Which guests.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// Connect to libvirt at URI (default: $LIBVIRT_DEFAULT_URI, else
    /// qemu:///system for root and qemu:///session for others)
    #[arg(short = 'c', long = "connect", value_name = "URI")]
    pub connect: Option<String>,

    /// Check this domain; may be given several times
    #[arg(short = 'd', long = "domain", value_name = "NAME|UUID")]
    pub domain: Vec<String>,

    /// Check every domain that is shut off
    #[arg(long)]
    pub all_inactive: bool,

    /// Read the domain's XML from FILE (- for standard input), without libvirt
    #[arg(long, value_name = "FILE")]
    pub xml: Option<PathBuf>,

    /// Check a bare image or device; several are checked together, as one
    /// guest's disks sda, sdb, ...
    #[arg(short = 'a', long = "add", value_name = "IMAGE")]
    pub add: Vec<PathBuf>,

    /// The format of the images given with -a (raw, qcow2, ...), instead of
    /// what QEMU finds
    #[arg(long, value_name = "FORMAT", requires = "add", conflicts_with_all = ["domain", "all_inactive", "xml"], value_parser = image_format)]
    pub image_format: Option<Format>,

    /// Check only this disk (vda); may be given several times
    #[arg(long, value_name = "DISK")]
    pub disk: Vec<String>,

    /// Check only this filesystem, by its path in the tree (vda/p2/lvg1/lvroot)
    /// or its UUID; may be given several times
    #[arg(long, value_name = "PATH|UUID")]
    pub filesystem: Vec<String>,
}

/// What is to be done.
#[derive(Args, Clone, Debug)]
pub struct Work {
    /// Only show the tree of layers, with UUIDs, last check and next check due
    #[arg(long)]
    pub list: bool,

    /// Change nothing; a dirty journal is replayed on a throw-away overlay
    #[arg(short = 'n', long)]
    pub check: bool,

    /// Make the repairs that are safe, as at boot (the default)
    #[arg(short = 'p', long)]
    pub preen: bool,

    /// Repair everything, without asking
    #[arg(short = 'y', long)]
    pub repair: bool,

    /// Let e2fsck, fsck.fat or fsck.exfat ask at the terminal before each repair
    #[arg(short = 'r', long)]
    pub interactive: bool,

    /// Allow what no mode does by itself; may be given several times
    #[arg(long, value_enum, value_name = "WHAT")]
    pub allow: Vec<Allowance>,

    /// Print every step that would be taken, and take none
    #[arg(long, conflicts_with = "list")]
    pub dry_run: bool,

    /// How filesystems are shown to their checkers
    #[arg(long, value_enum, value_name = "ENGINE", default_value = "auto")]
    pub engine: EngineChoice,

    /// Make overlays in DIR (default: /var/lib/virt-fsck for root,
    /// ~/.local/state/virt-fsck for others)
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// What lies under the disks on the host.
#[derive(Args, Clone, Debug)]
pub struct HostLayers {
    /// A key for what is encrypted: ID:file:FILE, ID:key:PASSPHRASE or
    /// ID:clevis, where ID is its UUID, its device, its name in /dev/mapper, its
    /// path in the tree (vda/p3) or all; may be given several times
    #[arg(long, value_name = "SELECTOR")]
    pub key: Vec<KeySelector>,

    /// A layer of the guest, such as vda/p3, is a LUKS container whose header is in FILE
    #[arg(long, value_name = "LAYER:FILE")]
    pub header: Vec<DetachedHeader>,

    /// Read FILE instead of /etc/virt-fsck.toml
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// How it is told.
#[derive(Args, Clone, Debug)]
pub struct Output {
    /// How the report is written
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "human")]
    pub format: OutputFormat,

    /// Say nothing of what is clean
    #[arg(short = 'q', long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Show every command as one that can be pasted; given twice, show QMP too
    #[arg(short = 'v', long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// For whom the report is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// A tree.
    Human,
    /// One JSON document with a stable schema, described in virt-fsck(8).
    Json,
}

impl Cli {
    /// Refuses what clap's rules cannot express.
    ///
    /// # Errors
    /// When a checker would talk to the user in the middle of a JSON document, or when something
    /// is allowed that the mode never does.
    pub fn validated(self) -> Result<Self, clap::Error> {
        let repairs_btrfs = self.work.allow.contains(&Allowance::BtrfsRepair);
        if repairs_btrfs && !self.work.repair {
            return Err(Self::command().error(
                clap::error::ErrorKind::MissingRequiredArgument,
                format!(
                    "--allow {} needs -y: no other mode repairs btrfs",
                    Allowance::BtrfsRepair.name()
                ),
            ));
        }
        let for_writing = [Allowance::SharedNfs, Allowance::SharedLvm];
        let of_no_use = for_writing
            .into_iter()
            .find(|allowance| self.work.allow.contains(allowance));
        if let (Some(allowance), true) = (of_no_use, self.work.check || self.work.list) {
            return Err(Self::command().error(
                clap::error::ErrorKind::ArgumentConflict,
                format!(
                    "--allow {} is of no use with -n and --list: to look at a disk needs no leave",
                    allowance.name()
                ),
            ));
        }
        if self.work.interactive && self.output.format == OutputFormat::Json {
            return Err(Self::command().error(
                clap::error::ErrorKind::ArgumentConflict,
                "--interactive needs the terminal, so it cannot be used with --format json",
            ));
        }
        Ok(self)
    }
}

impl Work {
    /// What the flags ask for.
    pub const fn action(&self) -> Action {
        let mode = if self.check {
            Mode::Check
        } else if self.repair {
            Mode::Repair
        } else if self.interactive {
            Mode::Interactive
        } else {
            Mode::Preen
        };
        if self.list {
            Action::List
        } else if self.dry_run {
            Action::DryRun(mode)
        } else {
            Action::Check(mode)
        }
    }
}

impl Target {
    /// Where libvirt is, as virsh finds it.
    pub fn uri(&self) -> String {
        let from_environment = || {
            std::env::var("LIBVIRT_DEFAULT_URI")
                .ok()
                .filter(|uri| !uri.is_empty())
        };
        let by_user = || {
            let uri = match rustix::process::geteuid().is_root() {
                true => "qemu:///system",
                false => "qemu:///session",
            };
            uri.to_owned()
        };
        self.connect
            .clone()
            .or_else(from_environment)
            .unwrap_or_else(by_user)
    }
}

fn image_format(name: &str) -> Result<Format, String> {
    match chain::format_named(name) {
        Format::Other(_) => {
            Err("must be one of raw, qcow2, qcow, qed, vmdk, vdi, vhdx, vpc".into())
        }
        format => Ok(format),
    }
}
