//! The kernel's nbd module: loaded only if it is not there, unloaded only if nobody needs it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cmd::{CmdError, Invocation, Tool};
use crate::engine::kernel::wait;

/// Where the module stands while it is loaded.
const MODULE: &str = "/sys/module/nbd";

/// The first of its devices, there as soon as it is loaded, unless told to make none.
const FIRST_DEVICE: &str = "/dev/nbd0";

/// How long devtmpfs or udev may take to make its devices' nodes.
const APPEARANCE: Duration = Duration::from_secs(10);

/// How long udev may still look at the devices: there are 16 of them, and it has heard of each.
const RELEASE: Duration = Duration::from_secs(30);

/// How long a device that nobody serves any longer may look as if it were served.
const GIVING_BACK: Duration = Duration::from_secs(3);

/// How long after a refusal it is tried again.
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// The nbd module is not to be had, or did not go.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// modprobe did not load it.
    #[error("this kernel has no nbd module ({0}); --engine user needs none")]
    Missing(CmdError),
    /// It is loaded, but its devices have no nodes.
    #[error(
        "the nbd module is loaded, but there is no {FIRST_DEVICE} after {} s; --engine user needs \
         none", APPEARANCE.as_secs()
    )]
    NoDevice,
    /// modprobe did not unload it.
    #[error("the nbd module cannot be unloaded")]
    Unload(#[source] CmdError),
}

/// What came of [`load`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// It was there, or is built into the kernel, and stays.
    Found,
    /// We loaded it.
    ByUs,
}

/// What came of [`unload`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unloaded {
    /// It is no longer there.
    Gone,
    /// Somebody else uses it by now, so it stays.
    InUse,
}

/// Whether the module is there, or built into the kernel.
pub fn is_there() -> bool {
    Path::new(MODULE).is_dir()
}

/// Whether the module is there with its devices.
pub fn is_loaded() -> bool {
    is_there() && Path::new(FIRST_DEVICE).exists()
}

/// How the module is loaded, for whoever wants to see it before.
///
/// Without partitions of its own (`max_part`), as they would be probed and activated by the host;
/// partition tables are read by virt-fsck.
pub fn loading() -> Invocation {
    Invocation::new(Tool::MODPROBE, ["nbd", "max_part=0"])
}

/// Loads the module, if it is not there.
///
/// # Errors
/// When modprobe does not find it, and when its devices do not appear.
pub async fn load() -> Result<Loaded, ModuleError> {
    let was_there = is_there();
    if !was_there {
        loading().capture().await.map_err(ModuleError::Missing)?;
    }
    if !wait::until(APPEARANCE, is_loaded).await {
        if !was_there {
            // The first error is the one to tell.
            let _later = unload().await;
        }
        return Err(ModuleError::NoDevice);
    }
    Ok(if was_there {
        Loaded::Found
    } else {
        Loaded::ByUs
    })
}

/// Unloads the module that [`load`] has loaded, unless somebody else has come to use it.
///
/// # Errors
/// When modprobe fails although nobody uses it.
pub async fn unload() -> Result<Unloaded, ModuleError> {
    let until = Instant::now() + RELEASE;
    let mut since = None;
    loop {
        let mut refused = None;
        if open_count() == 0 {
            match removal().capture().await {
                Ok(_) => return Ok(Unloaded::Gone),
                // Somebody opened a device in this moment.
                Err(cause) => refused = Some(cause),
            }
        }
        if !is_there() {
            return Ok(Unloaded::Gone);
        }
        // One that is being given back stays connected for moments; who serves one stays.
        since = connected().map(|_| since.unwrap_or_else(Instant::now));
        let is_served = since.is_some_and(|since| since.elapsed() >= GIVING_BACK);
        match refused {
            _ if is_served => return Ok(Unloaded::InUse),
            Some(cause) if Instant::now() >= until => return Err(ModuleError::Unload(cause)),
            None if Instant::now() >= until => return Ok(Unloaded::InUse),
            _ => tokio::time::sleep(BETWEEN_TRIES).await,
        }
    }
}

fn removal() -> Invocation {
    Invocation::new(Tool::MODPROBE, ["-r", "nbd"])
}

/// How many uses keep the module in the kernel; of one that is not there, none.
fn open_count() -> u64 {
    let text = std::fs::read_to_string(Path::new(MODULE).join("refcnt")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// A device that somebody has connected.
fn connected() -> Option<PathBuf> {
    let devices = std::fs::read_dir("/sys/block").ok()?;
    devices
        .flatten()
        .filter(|device| device.file_name().to_string_lossy().starts_with("nbd"))
        .map(|device| device.path())
        .find(|device| device.join("pid").exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_left_to_us() {
        assert_eq!(loading().to_string(), "modprobe nbd max_part=0");
    }

    #[tokio::test]
    async fn a_kernel_without_it_is_told_of_with_the_way_out() {
        let version = std::process::Command::new("uname").arg("-r").output();
        let version = String::from_utf8(version.unwrap().stdout).unwrap();
        let modules = Path::new("/lib/modules").join(version.trim());
        if Path::new(MODULE).exists() || modules.exists() {
            eprintln!("SKIPPED: this kernel may have the nbd module");
            return;
        }
        let error = load().await.unwrap_err().to_string();
        assert!(error.starts_with("this kernel has no nbd module (modprobe: "));
        assert!(error.ends_with("; --engine user needs none"), "{error}");
        assert_eq!(unload().await.unwrap(), Unloaded::Gone);
    }

    /// Loads and unloads for real; only where somebody says that nobody else needs it.
    #[tokio::test]
    async fn it_goes_as_it_came() {
        if std::env::var_os("VIRT_FSCK_TEST_NBD").is_none() {
            eprintln!("SKIPPED: it loads kernel modules; set VIRT_FSCK_TEST_NBD on a test machine");
            return;
        }
        assert_eq!(load().await.unwrap(), Loaded::ByUs);
        assert_eq!(load().await.unwrap(), Loaded::Found);
        let parameter = std::fs::read_to_string(Path::new(MODULE).join("parameters/max_part"));
        assert_eq!(parameter.unwrap().trim(), "0");
        let held = std::fs::File::open("/dev/nbd1").unwrap();
        assert_eq!(unload().await.unwrap(), Unloaded::InUse);
        drop(held);
        assert_eq!(unload().await.unwrap(), Unloaded::Gone);
        assert!(!is_loaded());
    }
}
