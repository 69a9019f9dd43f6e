//! One look at a layer's bytes: what it is.

use std::io;

use super::{Place, opaque};
use crate::layers::luks::{self, LuksError};
use crate::layers::lvm::{self, LvmError};
use crate::layers::md::{self, MdError};
use crate::layers::partition::{self, PartitionError, PartitionTable};
use crate::layers::read::ReadAt;
use crate::layers::signature::{self, Signature};
use crate::layers::tree::Content;
use crate::units::SectorSize;

/// What one look at a layer's bytes gave.
pub(super) enum Look {
    Table(PartitionTable),
    Volume(Box<lvm::PhysicalVolume>),
    Member(Box<md::Superblock>),
    Container(Box<luks::Container>),
    Content(Content),
}

/// One look at a layer, in the order of what may hide what: a partitioned disk may carry the label
/// or superblock of an earlier life; an array's member looks like what the array holds.
pub(super) fn look(layer: &dyn ReadAt, place: Place, sector_size: SectorSize) -> Look {
    match try_look(layer, place, sector_size) {
        Ok(look) => look,
        Err(error) => Look::Content(Content::Unreadable {
            cause: format!("it cannot be read: {error}"),
        }),
    }
}

fn try_look(layer: &dyn ReadAt, place: Place, sector_size: SectorSize) -> io::Result<Look> {
    if place == Place::Disk {
        match partition::read(layer, sector_size) {
            Ok(Some(table)) => return Ok(Look::Table(table)),
            Ok(None) => {}
            Err(PartitionError::Read(error)) => return Err(error),
            Err(error) => {
                let content = opaque("partition table", None, &error.to_string());
                return Ok(Look::Content(content));
            }
        }
    }
    match md::read(layer) {
        Ok(Some(superblock)) => return Ok(Look::Member(Box::new(superblock))),
        Ok(None) => {}
        Err(MdError::Read(cause)) => return Err(cause),
        Err(error) => {
            let content = opaque("RAID member", None, &error.to_string());
            return Ok(Look::Content(content));
        }
    }
    if let Some(member) = signature::array_member(layer)? {
        return Ok(Look::Content(content(member)));
    }
    match lvm::read(layer) {
        Ok(Some(volume)) => return Ok(Look::Volume(Box::new(volume))),
        Ok(None) => {}
        Err(LvmError::Read { cause }) => return Err(cause),
        Err(error) => {
            let content = opaque(
                "LVM2 physical volume",
                None,
                &crate::cause::sentence(&error),
            );
            return Ok(Look::Content(content));
        }
    }
    match luks::read(layer) {
        Ok(Some(container)) => return Ok(Look::Container(Box::new(container))),
        Ok(None) => {}
        Err(LuksError::Read(cause)) => return Err(cause),
        Err(error) => return Ok(Look::Content(closed_for_good(&error))),
    }
    Ok(Look::Content(match signature::recognise(layer)? {
        Some(signature) => content(signature),
        None => {
            if place == Place::Partition
                && let Some(table) = partition::read_nested(layer, sector_size)?
            {
                return Ok(Look::Table(table));
            }
            if signature::is_blank(layer)? {
                Content::Blank
            } else {
                Content::Unknown
            }
        }
    }))
}

/// A container that no key opens.
pub(super) fn closed_for_good(error: &LuksError) -> Content {
    let version = error.version();
    let what = version.map_or_else(|| "LUKS".to_owned(), |version| version.to_string());
    opaque(&what, error.uuid().map(str::to_owned), &error.to_string())
}

fn content(signature: Signature) -> Content {
    match signature {
        Signature::Filesystem(filesystem) => Content::Filesystem(filesystem),
        Signature::Swap {
            uuid,
            label,
            hibernated,
        } => Content::Swap {
            uuid,
            label,
            hibernated,
        },
        Signature::Journal { kind, uuid } => Content::Journal { kind, uuid },
        Signature::Opaque { what, uuid, reason } => Content::Opaque { what, uuid, reason },
    }
}
