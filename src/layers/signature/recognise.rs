//! From the bytes of a layer to what it is.

use std::io;

use crate::layers::filesystem::JournalKind;
use crate::layers::read::ReadAt;
use crate::layers::signature::model::Signature;
use crate::layers::signature::probe::Probe;
use crate::layers::signature::{btrfs, ext, f2fs, fat, luks, other, raid, swap, windows, xfs};
use crate::units::Bytes;

/// How much of a layer has to be zeros for it to be called blank.
const BLANK: u64 = 1024 * 1024;
const BLANK_STEP: u64 = 64 * 1024;
const ZEROS: [u8; 4096] = [0; 4096];

/// What these bytes are; `None` when nothing is recognised.
///
/// Partition tables and LVM2 physical volumes are not told here. The order of the answers:
/// members of arrays, encryption, a suspended system, then filesystems, and at last what only a
/// backup of a superblock says. Where two filesystems both look alive the answer is
/// [`Signature::Opaque`]: the wrong checker would repair one to death by the other's leftovers.
///
/// # Errors
/// If the layer cannot be read. A layer too short for a superblock just has none.
pub fn recognise(layer: &dyn ReadAt) -> io::Result<Option<Signature>> {
    if let Some(member) = raid::at_end(layer)? {
        return Ok(Some(member.signature));
    }
    let probe = Probe::new(layer)?;
    let first = raid::at_start(&probe)
        .or_else(|| luks::recognise(&probe))
        .or_else(|| windows::bitlocker(&probe));
    if first.is_some() {
        return Ok(first);
    }
    let swap = swap::recognise(&probe);
    if let Some(swap) = &swap
        && swap.hibernated
        && swap.has_header
    {
        return Ok(Some(swap.signature.clone()));
    }
    let mut found = live_filesystems(&probe)?;
    found.extend(raid::zfs(&probe)?);
    if let Some(swap) = &swap
        && swap.has_header
    {
        found.push(swap.signature.clone());
    }
    if let Some(ext) = ext::primary(&probe)
        && (found.is_empty() || ext::primary_is_plausible(&probe))
    {
        found.push(ext_signature(ext));
    }
    if found.len() > 1 {
        return Ok(Some(ambiguous(&found)));
    }
    if let Some(only) = found.pop() {
        return Ok(Some(only));
    }
    if let Some(named) = other::unchecked(&probe) {
        return Ok(Some(named));
    }
    if let Some(swap) = swap {
        return Ok(Some(swap.signature));
    }
    if let Some(encrypted) = luks::second_header(&probe)? {
        return Ok(Some(encrypted));
    }
    if let Some(uuid) = xfs::external_log(&probe) {
        return Ok(Some(Signature::Journal {
            kind: JournalKind::Xfs,
            uuid: Some(uuid),
        }));
    }
    // Last of all: a backup may be what an older filesystem left behind.
    Ok(ext::backup(&probe)?.map(Signature::Filesystem))
}

/// Whether the layer is a member of an array, a pool or a replica, by its own metadata at either
/// end. Its beginning may look like what the array holds, an LVM2 physical volume too. A disk has to
/// be asked for its partition table first: a member that is its last partition ends where it ends.
///
/// # Errors
/// If the layer cannot be read.
pub fn array_member(layer: &dyn ReadAt) -> io::Result<Option<Signature>> {
    if let Some(member) = raid::at_end(layer)? {
        return Ok(Some(member.signature));
    }
    Ok(raid::at_start(&Probe::new(layer)?))
}

/// True if the first MiB, or all of a shorter layer, is zeros.
///
/// # Errors
/// If the layer cannot be read.
pub fn is_blank(layer: &dyn ReadAt) -> io::Result<bool> {
    is_blank_from(layer, Bytes::ZERO)
}

/// As [`is_blank`], without the bytes before `start`.
///
/// # Errors
/// If the layer cannot be read.
pub fn is_blank_from(layer: &dyn ReadAt, start: Bytes) -> io::Result<bool> {
    let end = layer.size().get().min(BLANK);
    let mut offset = start.get();
    while offset < end {
        let length = BLANK_STEP.min(end.saturating_sub(offset));
        let part = layer.look_at(Bytes::new(offset), Bytes::new(length))?;
        if !part.chunks(ZEROS.len()).all(is_zero) {
            return Ok(false);
        }
        offset = offset.saturating_add(length);
    }
    Ok(true)
}

/// In one comparison, which the machine makes many bytes at a time.
fn is_zero(chunk: &[u8]) -> bool {
    ZEROS.get(..chunk.len()) == Some(chunk)
}

fn live_filesystems(probe: &Probe) -> io::Result<Vec<Signature>> {
    let found = [
        xfs::recognise(probe),
        btrfs::recognise(probe),
        windows::ntfs(probe)?,
        windows::exfat(probe)?,
        fat::recognise(probe),
        f2fs::recognise(probe),
        other::iso9660(probe),
        other::squashfs(probe),
    ];
    Ok(found
        .into_iter()
        .flatten()
        .map(Signature::Filesystem)
        .collect())
}

fn ext_signature(ext: ext::Ext) -> Signature {
    match ext {
        ext::Ext::Filesystem(filesystem) => Signature::Filesystem(filesystem),
        ext::Ext::JournalDevice(uuid) => Signature::Journal {
            kind: JournalKind::Ext,
            uuid,
        },
    }
}

fn ambiguous(found: &[Signature]) -> Signature {
    let names: Vec<&str> = found.iter().map(Signature::name).collect();
    Signature::Opaque {
        what: names.join(" or "),
        uuid: None,
        reason: format!(
            "signatures of {} are there at once, and which are left over cannot be told; `wipefs` \
             in the guest removes them",
            names.join(" and ")
        ),
    }
}
