//! The check of a guest that has stopped. It runs after the hook has ended, because it asks libvirt,
//! which waits for the hook.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::cmd::{CmdError, Invocation, Tool};
use crate::domain::model::Domain;
use crate::folders;
use crate::names;

/// How long the check waits, in seconds: whoever stops a guest to start it again goes first.
const DELAY: &str = "3";

/// That this is so where systemd runs, sd_booted(3) says.
const SYSTEMD: &str = "/run/systemd/system";

/// How long systemd may take to take the check over.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(5);

/// The check could not be queued.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The system refuses something it needs.
    #[error(transparent)]
    System(#[from] io::Error),
    /// The tool that would run it later cannot be run.
    #[error(transparent)]
    Cmd(#[from] CmdError),
}

/// Has a domain checked in a moment, by systemd where it runs, else by a process of its own. A
/// shareable disk is left out: another host may have it mounted.
///
/// # Errors
/// When nobody will do it.
pub fn check_soon(domain: &Domain) -> Result<(), QueueError> {
    let is_root = rustix::process::geteuid().is_root();
    let program = std::env::current_exe()?;
    let (Some(uuid), Some(words)) = (domain.uuid, words(domain, is_root)) else {
        return Ok(());
    };
    let words = std::iter::once(program.into()).chain(words);
    let words: Vec<OsString> = words.collect();
    if is_root && Path::new(SYSTEMD).is_dir() && by_systemd(&words, uuid)? {
        return Ok(());
    }
    by_itself(words, uuid, is_root)
}

/// The arguments of the check, which makes all the guard's questions itself; `None` if there is
/// nothing to check.
fn words(domain: &Domain, is_root: bool) -> Option<Vec<OsString>> {
    let uri = match is_root {
        true => "qemu:///system",
        false => "qemu:///session",
    };
    let uuid = domain.uuid?.to_string();
    let mut words = ["-c", uri, "-d", &uuid, "-q"].map(OsString::from).to_vec();
    if domain.disks.iter().any(|disk| disk.shareable) {
        let own = domain.disks.iter().filter(|disk| !disk.shareable);
        let own = own.map(|disk| OsString::from(format!("--disk={}", disk.target)));
        let before = words.len();
        words.extend(own);
        if words.len() == before {
            return None;
        }
    }
    Some(words)
}

/// Whether systemd has taken it over; what it says goes to the journal.
fn by_systemd(words: &[OsString], domain: Uuid) -> Result<bool, QueueError> {
    let arguments = [
        "--quiet".to_owned(),
        "--no-block".to_owned(),
        "--collect".to_owned(),
        format!("--on-active={DELAY}"),
        format!("--unit=virt-fsck-after-stop-{domain}"),
        "--description=virt-fsck of a guest that has stopped".to_owned(),
        "--".to_owned(),
    ];
    let arguments = arguments.into_iter().map(OsString::from);
    let arguments = arguments.chain(words.iter().cloned());
    let call = Invocation::new(Tool::SYSTEMD_RUN, arguments);
    match call.detached(None) {
        Ok(mut child) => Ok(ends_well(&mut child)?),
        Err(CmdError::Missing(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether a child has ended with 0; one that does not end in time is left alone, and counts.
fn ends_well(child: &mut Child) -> io::Result<bool> {
    let begun = Instant::now();
    loop {
        match child.try_wait()? {
            Some(status) => return Ok(status.success()),
            None if begun.elapsed() > PATIENCE => return Ok(true),
            None => std::thread::sleep(LOOK),
        }
    }
}

fn by_itself(words: Vec<OsString>, domain: Uuid, is_root: bool) -> Result<(), QueueError> {
    let output = output(&names::after_stop(&folders::run_base(), domain))?;
    let script = format!("sleep {DELAY}; exec \"$@\"");
    let script = ["-c", &script, "sh"].map(OsString::from).into_iter();
    let call = Invocation::new(Tool::SH, script.chain(words));
    // libvirt starts the hooks of a user's daemon without the variable by which the daemon is found.
    let call = match folders::runtime_folder() {
        Some(folder) if !is_root => call.with_env("XDG_RUNTIME_DIR", folder),
        _ => call,
    };
    call.detached(Some(output))?;
    Ok(())
}

/// Where it says what it found: the last check of each domain is kept.
fn output(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    // Not written over: a check that still runs goes on with its own.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::xml;

    fn asked(disks: &[(&str, &str)]) -> Option<String> {
        let disks = disks.iter().map(|(target, more)| {
            format!("<disk type='file'><source file='/a'/><target dev='{target}'/>{more}</disk>")
        });
        let xml = format!(
            "<domain type='kvm'><name>vm1</name><uuid>{}</uuid><devices>{}</devices></domain>",
            Uuid::from_u128(1),
            disks.collect::<String>()
        );
        let words = words(&xml::parse(&xml).unwrap(), true)?;
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        Some(words.join(" "))
    }

    #[test]
    fn a_shareable_disk_is_left_out() {
        let all = "-c qemu:///system -d 00000000-0000-0000-0000-000000000001 -q";
        let shared = ("vdb", "<shareable/>");
        assert_eq!(asked(&[("vda", ""), ("vdc", "")]).unwrap(), all);
        assert_eq!(
            asked(&[("vda", ""), shared, ("vdc", "")]).unwrap(),
            format!("{all} --disk=vda --disk=vdc")
        );
        assert_eq!(asked(&[shared]), None);
    }
}
