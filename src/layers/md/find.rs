//! One layer that is, or is not, a member of an array.

use super::error::{Fault, MdError};
use super::superblock::{SUPERBLOCK, Superblock, Version};
use super::{version_0, version_1};
use crate::layers::read::ReadAt;

/// Those at the end first: what begins with a superblock may itself be what a mirror holds, whose
/// own lies at the end.
const VERSIONS: [Version; 4] = [Version::V1_0, Version::V0_90, Version::V1_1, Version::V1_2];

/// Reads a layer's superblock. `Ok(None)`: it is no member.
///
/// # Errors
/// [`MdError`] if the layer has a superblock that cannot be relied on, or several.
pub fn read(layer: &dyn ReadAt) -> Result<Option<Superblock>, MdError> {
    let mut found: Option<(Version, Result<Superblock, Fault>)> = None;
    for version in VERSIONS {
        let Some(at) = version.superblock_at(layer.size()) else {
            continue;
        };
        let block = layer.read_at(at, SUPERBLOCK).map_err(MdError::Read)?;
        let parsed = match version {
            Version::V0_90 if version_0::is_there(&block, at) => version_0::parse(&block, at),
            Version::V1_0 | Version::V1_1 | Version::V1_2 if version_1::is_there(&block, at) => {
                version_1::parse(&block, version, at, layer)
            }
            _ => continue,
        };
        match &found {
            None => found = Some((version, parsed)),
            Some((_, outer)) if holds(outer, &parsed) => {}
            Some((first, _)) => return Err(MdError::Two(*first, version)),
        }
    }
    match found {
        None => Ok(None),
        Some((_, Ok(superblock))) => Ok(Some(superblock)),
        Some((version, Err(fault))) => Err(MdError::Superblock { version, fault }),
    }
}

/// Whether the inner superblock can be that of a member which lies on the array of the outer one:
/// a superblock that is left over from before was made for the whole layer.
fn holds(outer: &Result<Superblock, Fault>, inner: &Result<Superblock, Fault>) -> bool {
    let (Ok(outer), Ok(inner)) = (outer, inner) else {
        return false;
    };
    let ends_at_the_start = matches!(inner.version, Version::V1_1 | Version::V1_2);
    let used = match outer.component.get() {
        0 => outer.data_size,
        _ => outer.component,
    };
    let end = inner.data_offset.checked_add(inner.data_size);
    ends_at_the_start
        && inner.array != outer.array
        && matches!(outer.version, Version::V0_90 | Version::V1_0)
        && end.is_some_and(|end| end <= used)
}

#[cfg(test)]
mod tests;
