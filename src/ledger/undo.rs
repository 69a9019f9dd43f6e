//! Taking a step back. A run does it for its own steps, a later run for those of one that was killed:
//! so a step that was never taken, or is taken back already, is success.

use std::io;
use std::path::{Path, PathBuf};

use crate::engine::kernel::mapping::{self, MappingError};
use crate::engine::kernel::{arrays, module, nbd, volumes};
use crate::engine::user::composed::{ServeError, served};
use crate::ledger::step::{Handle, Step};
use crate::reach::host::{self, HostError};

/// A step could not be taken back.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// A device-mapper device.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// A volume or mount of the host.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A network block device.
    #[error(transparent)]
    Nbd(#[from] nbd::NbdError),
    /// The module nbd.
    #[error(transparent)]
    Module(#[from] module::ModuleError),
    /// A loop device.
    #[error(transparent)]
    Loop(#[from] crate::engine::kernel::loops::LoopError),
    /// A layer that was served.
    #[error(transparent)]
    Served(#[from] ServeError),
    /// A guest's volumes.
    #[error(transparent)]
    Volumes(#[from] volumes::VolumesError),
    /// A guest's array.
    #[error(transparent)]
    Array(#[from] arrays::ArrayError),
    /// A file or folder.
    #[error("{path} cannot be removed")]
    File {
        /// Its path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Takes a step back.
///
/// # Errors
/// When something is left of it.
pub async fn undo(step: &Step, handle: Option<Handle>) -> Result<(), UndoError> {
    match (step, handle) {
        (_, Some(Handle::Loop(device))) => Ok(device.close().await?),
        (_, Some(Handle::Nbd(device))) => Ok(device.disconnect().await?),
        (_, Some(Handle::Served(layer))) => Ok(layer.end().await?),
        (Step::Nbd { device, pid_file }, None) => {
            Ok(nbd::release_leftover(device, pid_file).await?)
        }
        (Step::Folder { path }, None) => remove_folder(path),
        (Step::File { path }, None) => remove(path, std::fs::remove_file),
        (Step::Served { file }, None) => Ok(served::take_back(file).await?),
        (Step::NbdModule, None) => {
            // Whoever has come to use it keeps it.
            let _stays_or_not = module::unload().await?;
            Ok(())
        }
        (Step::Mapping { name }, None) => Ok(mapping::remove(name).await?),
        (Step::HostVolume { group, volume }, None) => {
            Ok(host::deactivate_volume(group, volume).await?)
        }
        (Step::Mount { device, target }, None) => Ok(host::unmount(device, target).await?),
        (Step::GuestArray { name }, None) => Ok(arrays::stop(name).await?),
        (Step::GuestGroup { group }, None) => Ok(group.deactivate().await?),
        (Step::Loop { .. } | Step::StorageDaemon | Step::Check { .. }, None) => Ok(()),
    }
}

fn remove(path: &Path, by: fn(PathBuf) -> io::Result<()>) -> Result<(), UndoError> {
    match by(path.to_owned()) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(UndoError::File {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Removes a folder and the empty files in it: mount points of the storage daemon. Anything else in
/// it is not ours, and stays.
fn remove_folder(path: &Path) -> Result<(), UndoError> {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        let empty = entry
            .metadata()
            .is_ok_and(|found| found.is_file() && found.len() == 0);
        if empty {
            remove(&entry.path(), std::fs::remove_file)?;
        }
    }
    remove(path, std::fs::remove_dir)
}
