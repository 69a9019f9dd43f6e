//! What goes wrong with network block devices.

use std::path::{Path, PathBuf};

use crate::cmd::CmdError;
use crate::engine::kernel::nbd::server::CONNECTION;

/// An image could not be made a block device, or not be given back.
#[derive(Debug, thiserror::Error)]
pub enum NbdError {
    /// There is none that nobody uses.
    #[error(
        "there is no free nbd device: all {0} are in use; give one back by qemu-nbd -d, or use \
         --engine user"
    )]
    NoneFree(usize),
    /// Somebody else has the image open.
    #[error(
        "{0} is in use: another process holds QEMU's lock on it; stop that process (lsof {0} names it)"
    )]
    InUse(String),
    /// qemu-nbd could not be started, or ended early.
    #[error("opening {image}")]
    Serve {
        /// The image.
        image: String,
        /// The cause.
        #[source]
        source: CmdError,
    },
    /// It does not come up.
    #[error("{device} does not show {image} after {} s", CONNECTION.as_secs())]
    Silent {
        /// The device.
        device: PathBuf,
        /// The image.
        image: String,
    },
    /// The device itself failed.
    #[error("{}", device.display())]
    Device {
        /// The device.
        device: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The host uses partitions of the image.
    #[error(
        "the host uses partition {number} of {device}, which is the guest's; close it (lsblk \
         {device} shows what lies on it)", device = device.display()
    )]
    PartitionInUse {
        /// The device.
        device: PathBuf,
        /// The partition.
        number: i32,
    },
    /// What was written may not be in the image.
    #[error("what was written to {} may not be in its image", device.display())]
    Flush {
        /// The device.
        device: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// qemu-nbd did not close the image well.
    #[error("closing the image behind {}", device.display())]
    Close {
        /// The device.
        device: PathBuf,
        /// The cause.
        #[source]
        source: CmdError,
    },
    /// Somebody else has the device open.
    #[error(
        "{device} is still open in another process, so the kernel keeps it (lsof {device} and lsblk \
         {device} name who uses it)", device = device.display()
    )]
    StillOpen {
        /// The device.
        device: PathBuf,
    },
    /// A process of an earlier run does not end.
    #[error(
        "the qemu-nbd with process number {pid}, which an earlier run left behind, does not end"
    )]
    Leftover {
        /// Its number.
        pid: i32,
    },
}

impl NbdError {
    pub(super) fn device(device: &Path, source: impl Into<std::io::Error>) -> Self {
        Self::Device {
            device: device.to_owned(),
            source: source.into(),
        }
    }
}
