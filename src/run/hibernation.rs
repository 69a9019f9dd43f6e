//! A guest that is not off but asleep: its memory, on a disk of its own, knows the filesystems as
//! they are now.

use crate::check::layer;
use crate::check::outcome::Verdict;
use crate::cmd::{CmdError, Invocation, Tool};
use crate::engine::session::{Beside, Session, Writes};
use crate::layers::filesystem::FilesystemKind;
use crate::layers::tree::{Content, Layer};
use crate::run::look::Looked;
use crate::run::options::{Run, failed};

/// What ntfs-3g.probe(8) ends with when Windows is hibernated, or was shut down by its fast startup,
/// which is to be hibernated without its users (`NTFS_VOLUME_HIBERNATED` in ntfs-3g's
/// include/ntfs-3g/volume.h).
const HIBERNATED: i32 = 14;

/// Refuses a guest that is hibernated.
///
/// # Errors
/// The verdict for the domain as a whole.
pub async fn refuse(
    run: &mut Run<'_>,
    session: &mut Session,
    looked: &Looked,
) -> Result<(), Verdict> {
    if let Some(reason) = layer::hibernated(&looked.layers) {
        return Err(Verdict::Refused(reason));
    }
    for layer in looked.layers.iter().flat_map(Layer::walk) {
        if is_ntfs(layer) && is_windows_hibernated(run, session, layer).await? {
            return Err(Verdict::Refused(format!(
                "the guest is hibernated, or was shut down by Windows's fast startup: its memory \
                 lies in hiberfil.sys of {path}; start it and shut it down with shutdown /s /t 0, \
                 then check again",
                path = layer.path
            )));
        }
    }
    Ok(())
}

fn is_ntfs(layer: &Layer) -> bool {
    matches!(&layer.content, Content::Filesystem(filesystem)
        if filesystem.kind == FilesystemKind::Ntfs && !layer::is_cut_off(filesystem, layer))
}

/// Asks ntfs-3g, which looks for hiberfil.sys as it does before each mount; whatever it writes goes to
/// an overlay.
async fn is_windows_hibernated(
    run: &mut Run<'_>,
    session: &mut Session,
    layer: &Layer,
) -> Result<bool, Verdict> {
    let (path, extents) = (&layer.path, &layer.extents);
    let overlay = Writes::ToAnOverlay;
    let shown = session.show(run.ledger, path, extents, overlay, Beside::Nothing);
    // What cannot be shown is told when it comes to be checked.
    let Ok(shown) = shown.await else {
        return Ok(false);
    };
    let probe = Invocation::new(
        Tool::NTFS_PROBE,
        ["--readwrite".into(), shown.path().as_os_str().to_owned()],
    );
    let answer = probe.capture().await;
    let taken_back = session.take_back(run.ledger, shown).await;
    taken_back.map_err(|error| failed(&error))?;
    match answer {
        Err(CmdError::Failed { status, .. }) => Ok(status.code() == Some(HIBERNATED)),
        // Nothing of NTFS is checked without its tools, but other filesystems would be written.
        Err(error) if run.options.action.writes() => Err(failed(&error)),
        Ok(_) | Err(_) => Ok(false),
    }
}
