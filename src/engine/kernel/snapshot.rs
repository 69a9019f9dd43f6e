//! A throw-away snapshot over a device: what a checker writes goes to a file without a name, which is
//! gone with the device (Documentation/admin-guide/device-mapper/snapshot.rst of Linux).

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::engine::kernel::session::{attach, mapped, number_of, overlay_file};
use crate::engine::kernel::table;
use crate::engine::overlay_key;
use crate::engine::session::SessionError;
use crate::engine::user::nodes::Access;
use crate::ledger::Ledger;
use crate::names::MappingRole;
use crate::units::Bytes;

/// Room beside the chunks themselves, which without a table on the device is next to nothing.
const SLACK: Bytes = Bytes::mib(1);

/// Lays a snapshot over the device `origin` of `size` bytes. With `encrypted`, what is written is
/// encrypted with a key that only the kernel has, and forgets with the device.
///
/// # Errors
/// When its file or its device cannot be made.
pub async fn over(
    ledger: &mut Ledger,
    origin: &Path,
    size: Bytes,
    state_base: &Path,
    encrypted: bool,
) -> Result<PathBuf, SessionError> {
    let path = overlay_file(ledger, state_base)?;
    let at = || SessionError::file(&path);
    let room = room(size);
    let file = File::options().write(true).open(&path).map_err(at())?;
    file.set_len(room.get()).map_err(at())?;
    let kept_in = attach(ledger, &path, Bytes::ZERO, room, None, Access::Write).await?;
    std::fs::remove_file(&path).map_err(at())?;
    let kept_in = match encrypted {
        true => {
            let table = table::crypt(room, &overlay_key::random()?, number_of(&kept_in)?)?;
            mapped(ledger, MappingRole::Cipher, &table, Access::Write)?.1
        }
        false => kept_in,
    };
    let table = table::snapshot(size, number_of(origin)?, number_of(&kept_in)?)?;
    Ok(mapped(ledger, MappingRole::Overlay, &table, Access::Write)?.1)
}

/// How long the file of a snapshot over `size` bytes is: it has room for every chunk, but only what
/// is written takes any.
pub fn room(size: Bytes) -> Bytes {
    size.checked_add(SLACK).unwrap_or(size)
}
