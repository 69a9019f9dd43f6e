//! Where an image's file ends, for the formats in which nobody else asks.

use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use crate::cause;
use crate::cmd::{Invocation, Tool};
use crate::domain::model::Format;
use crate::engine::user::nodes::{self, Access};
use crate::reach::chain::Link;
use crate::reach::identity::Kind;

/// The formats in which neither opening nor `qemu-img check` sees that the file ends too early
/// (tried with QEMU 10.0), where all data lies in this file.
fn end_is_not_checked(link: &Link) -> bool {
    link.kind == Kind::File
        && match link.format {
            Format::Vdi | Format::Qed | Format::Qcow => true,
            Format::Vmdk => is_one_sparse_file(&link.path),
            _ => false,
        }
}

/// A VMDK whose data lies in files of its own is a text; one that holds its data begins with this
/// magic (block/vmdk.c of QEMU, `VMDK4_MAGIC`).
fn is_one_sparse_file(path: &Path) -> bool {
    let mut magic = [0; 4];
    std::fs::File::open(path).is_ok_and(|mut file| file.read_exact(&mut magic).is_ok())
        && magic == *b"KDMV"
}

/// One run of `qemu-img map --output=json`.
#[derive(Deserialize)]
struct Run {
    length: u64,
    /// Where its data lies in the file; missing where there is none, or it is compressed.
    offset: Option<u64>,
}

/// Whether the image's tables name data behind the end of its file.
///
/// # Errors
/// The reason why nobody can say.
pub async fn is_cut_off(link: &Link) -> Result<bool, String> {
    if !end_is_not_checked(link) {
        return Ok(false);
    }
    let image = link.path.display();
    let opened = nodes::alone_argument(link, Access::ReadOnly);
    let call = Invocation::new(Tool::QEMU_IMG, ["map", "--output=json", opened.as_str()])
        .with_secrets(nodes::alone_key(link));
    let mapped = call.capture().await;
    let mapped =
        mapped.map_err(|error| format!("{image} cannot be mapped: {}", cause::sentence(&error)))?;
    is_cut_off_by(&mapped.stdout, link).map_err(|cause| format!("qemu-img map {image}: {cause}"))
}

fn is_cut_off_by(map: &[u8], link: &Link) -> Result<bool, String> {
    let runs: Vec<Run> = serde_json::from_slice(map).map_err(|error| error.to_string())?;
    let whole = std::fs::metadata(&link.path)
        .map_err(|error| cause::sentence(&error))?
        .len();
    let file = match link.slice {
        None => whole,
        Some(slice) => whole
            .saturating_sub(slice.offset.get())
            .min(slice.size.get()),
    };
    let end = |run: &Run| run.offset.unwrap_or_default().saturating_add(run.length);
    Ok(runs
        .iter()
        .any(|run| run.offset.is_some() && end(run) > file))
}
