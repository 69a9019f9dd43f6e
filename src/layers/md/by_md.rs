//! Arrays that MD itself is to start: whether it can, with which members, and whether for writing.
//!
//! What MD needs to start an array is as in `raid5_run` (drivers/md/raid5.c) and `_enough`
//! (drivers/md/raid10.c).

use std::fmt;

use super::assemble::{FoundMember, lacking};
use super::standing::Standing;
use super::superblock::{Level, Obstacle, Role, Superblock, Version};
use crate::units::Bytes;

/// How MD starts an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForMd {
    /// The metadata of its members.
    pub version: Version,
    /// The members that MD gets: indexes into what was found, rising.
    pub members: Vec<usize>,
    /// How long the array is.
    pub size: Bytes,
    /// Why it is started for reading only; `None` for an array that is whole.
    pub unsound: Option<Unsound>,
    /// What a reader should know.
    pub(super) notes: Vec<String>,
}

/// Why an array is not written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unsound {
    /// A device is missing, or is being filled.
    Degraded,
    /// It was not stopped cleanly, or is being made equal.
    OutOfStep,
}

/// As in "it lies on an array that ...".
impl fmt::Display for Unsound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Degraded => "is degraded",
            Self::OutOfStep => "was not stopped cleanly",
        })
    }
}

/// How MD would start the array; `Err` says why it would not, `None` that it is none of its levels
/// with redundancy. `own` are the array's members in `found`.
pub(super) fn plan(
    standing: &Standing<'_>,
    own: &[usize],
    found: &[FoundMember],
) -> Option<Result<ForMd, String>> {
    let superblock = &standing.newest.superblock;
    let has_copies = superblock.level == Level::RAID1 && superblock.devices > 1;
    let is_for_md = has_copies
        || matches!(
            superblock.level,
            Level::RAID4 | Level::RAID5 | Level::RAID6 | Level::RAID10
        );
    is_for_md.then(|| planned(standing, own, found))
}

fn planned(standing: &Standing<'_>, own: &[usize], found: &[FoundMember]) -> Result<ForMd, String> {
    let superblock = &standing.newest.superblock;
    if let Some(contradiction) = &standing.contradiction {
        return Err(contradiction.clone());
    }
    let mut active = standing.active.iter().map(|(_, member)| member);
    // Of bad blocks MD keeps the list itself.
    let obstacle = active.find_map(|member| {
        let mut obstacles = member.superblock.obstacles.iter();
        obstacles.find(|obstacle| **obstacle != Obstacle::BadBlocks)
    });
    if let Some(obstacle) = obstacle {
        return Err(obstacle.to_string());
    }
    let whole = |role: u32| {
        let mut active = standing.active.iter();
        active.any(|(known, member)| *known == role && member.superblock.recovered)
    };
    let missing: Vec<u32> = (0..superblock.devices)
        .filter(|role| !whole(*role))
        .collect();
    let lacking = lacking(superblock.devices, &missing);
    let mut notes = Vec::new();
    if let Some(lacking) = &lacking {
        if !is_enough(superblock, &missing) {
            return Err(format!("{lacking}; MD cannot do without"));
        }
        if !superblock.in_step && has_parity(superblock.level) {
            return Err(format!(
                "it was not stopped cleanly, and {lacking}: what those held cannot be told for \
                 certain, and MD does not start it"
            ));
        }
        notes.push(format!("the array is degraded: {lacking}"));
    } else if !superblock.in_step {
        notes.push(
            "the array was not stopped cleanly, so that its redundancy may not match its data"
                .to_owned(),
        );
    }
    let unsound = match (&lacking, superblock.in_step) {
        (Some(_), _) => Some(Unsound::Degraded),
        (None, false) => Some(Unsound::OutOfStep),
        (None, true) => None,
    };
    let is_taken = |member: &FoundMember| match member.superblock.role() {
        Role::Active(_) => {
            let mut active = standing.active.iter();
            let is_active = active.any(|(_, one)| std::ptr::eq(*one, member));
            is_active && member.superblock.recovered
        }
        // It belongs to the array, and MD keeps its superblock up to date; but it must not be
        // filled by us.
        Role::Spare => unsound.is_none() && member.superblock.agrees_with(superblock),
        Role::Faulty | Role::Journal => false,
    };
    let members = own.iter().copied();
    Ok(ForMd {
        version: standing.newest.superblock.version,
        members: members
            .filter(|at| found.get(*at).is_some_and(is_taken))
            .collect(),
        size: size(superblock),
        unsound,
        notes,
    })
}

const fn has_parity(level: Level) -> bool {
    matches!(level, Level::RAID4 | Level::RAID5 | Level::RAID6)
}

/// Whether the array can be read without the missing devices.
fn is_enough(superblock: &Superblock, missing: &[u32]) -> bool {
    let devices = superblock.devices;
    match superblock.level {
        Level::RAID4 | Level::RAID5 => missing.len() <= 1,
        Level::RAID6 => missing.len() <= 2,
        Level::RAID10 => {
            // Each set of devices that hold the same chunk needs one; sets begin that far apart.
            let Copies { near, far } = copies(superblock);
            let all = near.saturating_mul(far);
            let step = usize::try_from(near).unwrap_or(1);
            let mut sets = (0..devices).step_by(step);
            sets.all(|first| {
                (0..all.min(devices)).any(|next| {
                    let role = first.saturating_add(next).checked_rem(devices);
                    role.is_some_and(|role| !missing.contains(&role))
                })
            })
        }
        _ => u32::try_from(missing.len()).is_ok_and(|missing| missing < devices),
    }
}

struct Copies {
    near: u32,
    far: u32,
}

/// How many copies a RAID 10 has of each chunk, on devices side by side and far apart
/// (`setup_geo`).
fn copies(superblock: &Superblock) -> Copies {
    let layout = superblock.layout.unwrap_or_default();
    Copies {
        near: (layout & 0xff).max(1),
        far: (layout >> 8 & 0xff).max(1),
    }
}

/// How long the array is, by its level; zero where its superblock makes no sense.
fn size(superblock: &Superblock) -> Bytes {
    let devices = superblock.devices;
    let component = superblock.component;
    let whole = |part: u64| {
        let chunk = superblock.chunk.get();
        part.saturating_sub(part.checked_rem(chunk).unwrap_or(0))
    };
    let of_parity = |parities: u32| {
        let data = devices.saturating_sub(parities).into();
        Bytes::new(whole(component.get())).checked_mul(data)
    };
    let size = match superblock.level {
        Level::RAID4 | Level::RAID5 => of_parity(1),
        Level::RAID6 => of_parity(2),
        Level::RAID10 => {
            let Copies { near, far } = copies(superblock);
            let chunk = superblock.chunk.get();
            let chunks = component.get().checked_div(chunk).unwrap_or(0);
            let chunks = chunks.checked_div(far.into()).unwrap_or(0);
            let chunks = chunks.saturating_mul(devices.into());
            let chunks = chunks.checked_div(near.into()).unwrap_or(0);
            superblock.chunk.checked_mul(chunks)
        }
        _ => Some(component),
    };
    size.unwrap_or_default()
}

#[cfg(test)]
mod tests;
