//! The steps of a run that leave something behind on the host, as plain data: enough to take each of
//! them back without knowing anything else of the run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::engine::kernel::loops::LoopDevice;
use crate::engine::kernel::nbd::Nbd;
use crate::engine::kernel::volumes::GuestGroup;
use crate::engine::user::composed::Served;
use crate::names::{ArrayName, MappingName};

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// A folder of ours was made; nothing but empty files may be in it when it is removed.
    Folder {
        /// Its path.
        path: PathBuf,
    },
    /// A file of ours was made, which holds nothing that anybody needs.
    File {
        /// Its path.
        path: PathBuf,
    },
    /// The kernel module nbd was loaded.
    NbdModule,
    /// A device-mapper device of ours was made: a table, or cryptsetup's.
    Mapping {
        /// Its name.
        name: MappingName,
    },
    /// A volume of the host that was not active was activated.
    HostVolume {
        /// Its volume group.
        group: String,
        /// Its name there.
        volume: String,
    },
    /// A filesystem of the host was mounted in our own mount namespace.
    Mount {
        /// What was mounted.
        device: String,
        /// Where.
        target: PathBuf,
    },
    /// A loop device was attached. It ends with the last who has it open, so nothing of it is left
    /// after a SIGKILL.
    Loop {
        /// The file under it.
        file: PathBuf,
    },
    /// qemu-nbd was started.
    Nbd {
        /// The device it serves.
        device: PathBuf,
        /// The file with its process number, by which it is known as ours.
        pid_file: PathBuf,
    },
    /// LVM was let at volumes of a guest.
    GuestGroup {
        /// Which, and through which devices.
        group: GuestGroup,
    },
    /// MD was let at an array of a guest.
    GuestArray {
        /// What it is called here.
        name: ArrayName,
    },
    /// A layer was served by us as a file of its own. A plain user's mount outlives us.
    Served {
        /// The file.
        file: PathBuf,
    },
    /// The storage daemon was started. It ends with us.
    StorageDaemon,
    /// A checker ran. Nothing of it is left but what it wrote.
    Check {
        /// The filesystem's place in the tree.
        layer: String,
    },
}

/// What a run itself holds of a step, and a later run does not.
#[derive(Debug)]
pub enum Handle {
    /// An attached loop device.
    Loop(LoopDevice),
    /// A running qemu-nbd.
    Nbd(Nbd),
    /// A layer that is served.
    Served(Served),
}
