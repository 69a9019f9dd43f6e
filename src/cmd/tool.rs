//! The tools virt-fsck may run, and how their calls are written.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use crate::cmd::lent::LentFile;
use crate::keys::Passphrase;

/// Where tools lie that a plain user's `PATH` does not name.
const SYSTEM_DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// A tool that virt-fsck may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tool {
    /// The file name.
    pub name: &'static str,
    /// The Debian package that brings it, for the error when it is missing.
    pub package: &'static str,
}

impl Tool {
    /// qemu-img(1).
    pub const QEMU_IMG: Self = Self::new("qemu-img", "qemu-utils");
    /// qemu-storage-daemon(1).
    pub const STORAGE_DAEMON: Self = Self::new("qemu-storage-daemon", "qemu-utils");
    /// qemu-nbd(8).
    pub const QEMU_NBD: Self = Self::new("qemu-nbd", "qemu-utils");
    /// fusermount3(1).
    pub const FUSERMOUNT: Self = Self::new("fusermount3", "fuse3");
    /// modprobe(8).
    pub const MODPROBE: Self = Self::new("modprobe", "kmod");
    /// dmsetup(8).
    pub const DMSETUP: Self = Self::new("dmsetup", "dmsetup");
    /// lvm(8).
    pub const LVM: Self = Self::new("lvm", "lvm2");
    /// e2fsck(8).
    pub const E2FSCK: Self = Self::new("e2fsck", "e2fsprogs");
    /// xfs_repair(8).
    pub const XFS_REPAIR: Self = Self::new("xfs_repair", "xfsprogs");
    /// fsck.fat(8).
    pub const FSCK_FAT: Self = Self::new("fsck.fat", "dosfstools");
    /// btrfs-check(8).
    pub const BTRFS: Self = Self::new("btrfs", "btrfs-progs");
    /// fsck.exfat(8) of exfatprogs.
    pub const FSCK_EXFAT: Self = Self::new("fsck.exfat", "exfatprogs");
    /// fsck.f2fs(8).
    pub const FSCK_F2FS: Self = Self::new("fsck.f2fs", "f2fs-tools");
    /// ntfsfix(8).
    pub const NTFSFIX: Self = Self::new("ntfsfix", "ntfs-3g");
    /// ntfs-3g.probe(8).
    pub const NTFS_PROBE: Self = Self::new("ntfs-3g.probe", "ntfs-3g");
    /// ntfsresize(8).
    pub const NTFSRESIZE: Self = Self::new("ntfsresize", "ntfs-3g");

    /// systemd-run(1).
    pub const SYSTEMD_RUN: Self = Self::new("systemd-run", "systemd");
    /// sh(1).
    pub const SH: Self = Self::new("sh", "dash");

    const fn new(name: &'static str, package: &'static str) -> Self {
        Self { name, package }
    }

    /// The tool's full path: the first in `PATH` and the system's directories.
    ///
    /// # Errors
    /// [`CmdError::Missing`].
    pub fn locate(self) -> Result<PathBuf, CmdError> {
        directories()
            .map(|directory| directory.join(self.name))
            .find(|file| is_executable(file))
            .ok_or(CmdError::Missing(self))
    }
}

/// Where tools are looked for: what the user's `PATH` names, and the system's directories.
fn directories() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let named: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let named = named
        .into_iter()
        .filter(|directory| directory.is_absolute());
    named.chain(SYSTEM_DIRECTORIES.iter().map(PathBuf::from))
}

/// The same for tools that run others themselves.
pub(super) fn search_path() -> OsString {
    // Only what came out of a path is joined to one again.
    std::env::join_paths(directories()).unwrap_or_default()
}

fn is_executable(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}

/// A tool could not be run, or did not do what it must.
#[derive(Debug, thiserror::Error)]
pub enum CmdError {
    /// It is not installed.
    #[error("{} is not installed; install the package {} (its name on Debian)", .0.name, .0.package)]
    Missing(Tool),
    /// The system could not start it, or the talk with it broke off.
    #[error("{tool} could not be run")]
    System {
        /// The tool's name.
        tool: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It ended with an error.
    #[error("{tool}: {}", said(.tool, .status, .stderr))]
    Failed {
        /// The tool's name.
        tool: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
}

/// What a tool said, without its own name in front of each line.
fn said(tool: &str, status: &ExitStatus, stderr: &str) -> String {
    let named = format!("{tool}: ");
    match stderr.trim() {
        "" => format!("it ended with {status} and said nothing"),
        text => text
            .lines()
            .map(|line| line.strip_prefix(&named).unwrap_or(line))
            .collect::<Vec<_>>()
            .join("; "),
    }
}

/// A tool with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// The tool.
    pub tool: Tool,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// What its environment has beside virt-fsck's own.
    pub environment: Vec<(&'static str, OsString)>,
    /// What it reads from its standard input, and a newline after that; `None` if nothing.
    pub answer: Option<&'static str>,
    /// The only devices, or files in their place, that it finds by libblkid; empty if it does not
    /// look for any.
    pub devices: Vec<PathBuf>,
    /// It writes to nothing that outlives it, so it may be killed at any moment.
    pub is_harmless: bool,
    /// The files in memory that it may open.
    pub lent: Vec<LentFile>,
    /// The secrets that a tool of QEMU is given, under the names by which its other arguments call
    /// them.
    pub secrets: Vec<(String, Passphrase)>,
}

/// As one can paste it into a shell.
impl fmt::Display for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(answer) = self.answer {
            write!(f, "echo {} | ", quoted(OsStr::new(answer)))?;
        }
        for (name, value) in &self.environment {
            write!(f, "{name}={} ", quoted(value))?;
        }
        f.write_str(self.tool.name)?;
        let file = Path::new("PASSPHRASE-FILE");
        for argument in self.all_arguments(|_| Ok::<_, fmt::Error>(file.to_owned()))? {
            write!(f, " {}", quoted(&argument))?;
        }
        Ok(())
    }
}

/// An argument as a shell reads it back.
pub fn quoted(argument: &OsStr) -> String {
    let text = argument.to_string_lossy();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=:,+@%".contains(&byte);
    if !text.is_empty() && argument.as_bytes().iter().all(|byte| is_plain(*byte)) {
        return text.into_owned();
    }
    if text.chars().any(char::is_control) {
        return format!("$'{}'", text.chars().map(escaped).collect::<String>());
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A character inside `$'...'` (bash(1), QUOTING).
fn escaped(letter: char) -> String {
    match letter {
        '\n' => r"\n".to_owned(),
        '\'' | '\\' => format!("\\{letter}"),
        control if control.is_control() => format!("\\u{:04x}", u32::from(control)),
        other => other.to_string(),
    }
}

impl Invocation {
    /// A call of `tool`.
    pub fn new<I, S>(tool: Tool, arguments: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        Self {
            tool,
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
            answer: None,
            devices: Vec::new(),
            is_harmless: false,
            lent: Vec::new(),
            secrets: Vec::new(),
        }
    }

    /// The same, and it reads this.
    #[must_use]
    pub fn answered(mut self, answer: &'static str) -> Self {
        self.answer = Some(answer);
        self
    }

    /// The same, and this tool of QEMU is given these secrets.
    #[must_use]
    pub fn with_secrets<'p>(
        mut self,
        secrets: impl IntoIterator<Item = (String, &'p Passphrase)>,
    ) -> Self {
        let secrets = secrets.into_iter();
        self.secrets
            .extend(secrets.map(|(name, secret)| (name, secret.clone())));
        self
    }

    /// Its arguments with those that name a file for each secret (qemu-img(1), `--object`).
    pub(super) fn all_arguments<E>(
        &self,
        mut file: impl FnMut(&Passphrase) -> Result<PathBuf, E>,
    ) -> Result<Vec<OsString>, E> {
        let mut arguments = self.arguments.clone();
        // What qemu-img is to do comes first.
        let at = usize::from(self.tool == Tool::QEMU_IMG).min(arguments.len());
        for (name, secret) in self.secrets.iter().rev() {
            let object = format!("secret,id={name},file={}", file(secret)?.display());
            arguments.splice(at..at, ["--object".into(), object.into()]);
        }
        Ok(arguments)
    }

    /// The same, and it is killed when virt-fsck dies: it need not end in good order.
    #[must_use]
    pub const fn harmless(mut self) -> Self {
        self.is_harmless = true;
        self
    }

    /// The same, and it may open this file.
    #[must_use]
    pub fn lending(mut self, file: &LentFile) -> Self {
        self.lent.push(file.clone());
        self
    }

    /// The same with `name=value` in its environment.
    #[must_use]
    pub fn with_env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// The same, and libdevmapper makes device nodes itself instead of waiting for udev, whose rules
    /// then leave the devices alone.
    #[must_use]
    pub fn without_udev(self) -> Self {
        self.with_env("DM_DISABLE_UDEV", "1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_pasted() {
        for (argument, text) in [
            ("plain-1.0/x=y", "plain-1.0/x=y"),
            ("", "''"),
            ("two words", "'two words'"),
            ("it's", r"'it'\''s'"),
            (r#"{"a":1}"#, r#"'{"a":1}'"#),
            ("a\nb", r"$'a\nb'"),
            ("it's\u{1b}\\caf\u{e9}", "$'it\\'s\\u001b\\\\caf\u{e9}'"),
        ] {
            assert_eq!(quoted(OsStr::new(argument)), text);
        }
        let call = Invocation::new(Tool::E2FSCK, ["-f", "a b"]);
        assert_eq!(call.to_string(), "e2fsck -f 'a b'");
        let call = call.with_env("PLACE", "a b").without_udev();
        assert_eq!(
            call.to_string(),
            "PLACE='a b' DM_DISABLE_UDEV=1 e2fsck -f 'a b'"
        );
        let call = Invocation::new(Tool::FSCK_F2FS, ["x"]).answered("n");
        assert_eq!(call.to_string(), "echo n | fsck.f2fs x");
    }

    #[test]
    fn a_tool_is_named_once() {
        let error = CmdError::Failed {
            tool: "qemu-img",
            status: ExitStatus::default(),
            stderr: "qemu-img: no\nqemu-img: space\n".to_owned(),
        };
        assert_eq!(error.to_string(), "qemu-img: no; space");
    }

    #[test]
    fn a_missing_tool_names_its_package() {
        let tool = Tool::new("no-such-tool-anywhere", "nothing");
        assert_eq!(
            tool.locate().unwrap_err().to_string(),
            "no-such-tool-anywhere is not installed; install the package nothing (its name on Debian)"
        );
    }
}
