//! The format of a bare image given with `-a`, where the user named none.

use std::path::Path;

use crate::cause;
use crate::cmd::{Invocation, Tool};
use crate::domain::model::Format;
use crate::reach::chain;
use crate::reach::identity::{self, Kind};
use crate::reach::information::ImageInformation;

/// Tells the format of the image at an absolute path: a block device is raw; a file is probed by
/// QEMU, but a probed format is not trusted to name other files, because a guest can write any
/// header into a raw disk.
///
/// # Errors
/// One sentence: why the image cannot be used, and the way out.
pub async fn format(path: &Path) -> Result<Format, String> {
    let (_, kind) = identity::identify(path).map_err(|error| cause::sentence(&error))?;
    if kind == Kind::BlockDevice {
        return Ok(Format::Raw);
    }
    let mut call = Invocation::new(Tool::QEMU_IMG, ["info", "--output=json", "--force-share"]);
    call.arguments.push(path.as_os_str().to_owned());
    let captured = call
        .capture()
        .await
        .map_err(|error| cause::sentence(&error))?;
    let probed: ImageInformation = serde_json::from_slice(&captured.stdout)
        .map_err(|error| format!("qemu-img info {}: {error}", path.display()))?;
    if probed.names_other_files() {
        return Err(format!(
            "{} looks like {format} and names another file; if you trust it, give \
             --image-format {format}",
            path.display(),
            format = probed.format
        ));
    }
    match probed.format.as_str() {
        // Who encrypted it nobody knows; it is opened as a container on a whole disk.
        "luks" => Ok(Format::Raw),
        format => Ok(chain::format_named(format)),
    }
}
