//! Which engine serves a domain.

use std::path::Path;

use clap::ValueEnum;

use crate::engine::kernel::control;

/// What the user chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum EngineChoice {
    /// The user engine where it can serve, the kernel engine for what needs it.
    #[default]
    Auto,
    /// Only QEMU's storage daemon and FUSE.
    User,
    /// Only devices of the kernel.
    Kernel,
}

/// Why the kernel engine cannot be used here at all; `None` if it can.
pub fn no_kernel_engine() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("the kernel engine needs root");
    }
    if !control::is_there() {
        return Some(
            "the kernel engine needs device-mapper, which this kernel does not have (modprobe dm-mod)",
        );
    }
    None
}

/// Whether the kernel engine takes what the user engine has left.
pub fn kernel_engine_follows(choice: EngineChoice) -> bool {
    choice == EngineChoice::Auto && no_kernel_engine().is_none()
}

/// Whether the user engine cannot be used here: the storage daemon or FUSE is not there.
pub fn no_user_engine() -> bool {
    crate::cmd::Tool::STORAGE_DAEMON.locate().is_err() || !Path::new("/dev/fuse").exists()
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The storage daemon.
    User,
    /// The kernel.
    Kernel,
}

/// The engine that shows a filesystem.
///
/// # Errors
/// Why neither can.
pub fn engine_for(choice: EngineChoice) -> Result<Engine, &'static str> {
    match choice {
        EngineChoice::User => Ok(Engine::User),
        EngineChoice::Auto if !no_user_engine() => Ok(Engine::User),
        EngineChoice::Auto | EngineChoice::Kernel => match no_kernel_engine() {
            None => Ok(Engine::Kernel),
            Some(reason) => Err(reason),
        },
    }
}
