//! The image format itself: qemu-img check.
//!
//! QEMU reads zeros where an image file ends too early, and a damaged table maps one guest sector
//! to another's place: no answer about what lies inside is worth anything then, and no repair is
//! safe.

use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use crate::check::outcome::Verdict;
use crate::cmd::{CmdError, Invocation, Tool};
use crate::engine::user::daemon::{DaemonError, is_lock_conflict};
use crate::engine::user::nodes;
use crate::reach::chain::{Chain, Link};
use crate::reach::identity::Kind;
use crate::{cause, domain::model::Format};

/// qemu-img's exit statuses that stand for an image that can be used: leaked clusters only waste
/// space, and some formats have no check (docs/tools/qemu-img.rst).
const LEAKED: i32 = 3;
const NO_CHECK_FOR_THE_FORMAT: i32 = 63;
const CORRUPT: i32 = 2;

/// Looks at every image of a chain that has a format of its own.
///
/// # Errors
/// The verdict for a disk whose image is damaged or in use.
pub async fn look(chain: &Chain) -> Result<(), Verdict> {
    for link in std::iter::once(&chain.top).chain(&chain.under) {
        if link.format != Format::Raw {
            one(link).await?;
        }
    }
    Ok(())
}

async fn one(link: &Link) -> Result<(), Verdict> {
    let image = link.path.display().to_string();
    let judged = |error| judge(&image, &error);
    if let Err(error) = call(["check", "-q"], link).capture().await
        && let Some(verdict) = judged(error)
    {
        return Err(verdict);
    }
    if !end_is_not_checked(link) {
        return Ok(());
    }
    let mapped = call(["map", "--output=json"], link).capture().await;
    let mapped = mapped.map_err(|error| {
        judged(error).unwrap_or_else(|| Verdict::Failed(format!("{image} cannot be mapped")))
    })?;
    match is_cut_off(&mapped.stdout, link) {
        Ok(false) => Ok(()),
        Ok(true) => Err(damaged(&image)),
        Err(cause) => Err(Verdict::Failed(format!("qemu-img map {image}: {cause}"))),
    }
}

/// The call; QEMU's locks refuse it while somebody writes.
fn call(action: [&str; 2], link: &Link) -> Invocation {
    let mut call = Invocation::new(Tool::QEMU_IMG, action);
    let image = format!("json:{}", nodes::alone(link));
    call.arguments.push(image.into());
    call
}

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
fn is_cut_off(map: &[u8], link: &Link) -> Result<bool, String> {
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

fn damaged(image: &str) -> Verdict {
    Verdict::Failed(format!(
        "the image {image} is damaged or cut off, so what lies in it was not touched; see \
         qemu-img check {image}, and restore it, or repair a copy of it with qemu-img check \
         -r all"
    ))
}

fn judge(image: &str, error: &CmdError) -> Option<Verdict> {
    let CmdError::Failed { status, stderr, .. } = error else {
        return Some(Verdict::Failed(cause::sentence(error)));
    };
    match status.code() {
        Some(LEAKED | NO_CHECK_FOR_THE_FORMAT) => None,
        Some(CORRUPT) => Some(damaged(image)),
        _ if is_lock_conflict(stderr) => {
            let error = DaemonError::InUse(image.to_owned());
            Some(Verdict::Refused(error.to_string()))
        }
        _ => Some(Verdict::Failed(format!(
            "the image {image} cannot be checked: {}",
            words(stderr)
        ))),
    }
}

/// What qemu-img said, without the long name it was called with.
fn words(stderr: &str) -> String {
    let lines = stderr.lines().map(|line| {
        let line = line.strip_prefix("qemu-img: ").unwrap_or(line);
        match (
            line.starts_with("Could not open 'json:"),
            line.rfind("}': "),
        ) {
            (true, Some(end)) => line.get(end.saturating_add(4)..).unwrap_or(line),
            _ => line,
        }
    });
    lines.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn judged(code: i32, stderr: &str) -> Option<Verdict> {
        let error = CmdError::Failed {
            tool: "qemu-img",
            status: ExitStatus::from_raw(code << 8),
            stderr: stderr.to_owned(),
        };
        judge("/i/x", &error)
    }

    #[test]
    fn the_table_of_qemu_img_check() {
        for code in [3, 63] {
            assert_eq!(judged(code, "x"), None, "{code}");
        }
        assert!(
            matches!(judged(2, "x"), Some(Verdict::Failed(why)) if why.contains("/i/x is damaged"))
        );
        let locked = "qemu-img: Could not open 'json:{}': Failed to get shared \"write\" lock\n";
        assert!(matches!(judged(1, locked), Some(Verdict::Refused(_))));
        let header = "qemu-img: Could not open 'json:{\"driver\":\"qcow2\"}': Image is not in qcow2 format\n";
        assert_eq!(
            judged(1, header),
            Some(Verdict::Failed(
                "the image /i/x cannot be checked: Image is not in qcow2 format".to_owned()
            ))
        );
    }
}
