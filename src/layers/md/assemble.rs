//! Arrays out of the members found anywhere in a domain.

use super::by_md::{self, ForMd};
use super::placement;
use super::standing::Standing;
use super::superblock::{ArrayId, Level, Obstacle, Superblock};
use crate::layers::extent::ExtentMap;
use crate::layers::tree::LayerPath;
use crate::units::SectorSize;

/// How many missing devices are named.
const NAMED: usize = 8;

/// A member and where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundMember {
    /// The layer that it is.
    pub path: LayerPath,
    /// Where its bytes lie.
    pub extents: ExtentMap,
    /// What it says of itself and the array.
    pub superblock: Superblock,
}

/// An array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssembledArray {
    /// Its UUID; no other array has the same.
    pub id: ArrayId,
    /// What it is called below `/dev`; another array may have the same name.
    pub name: String,
    /// Its level.
    pub level: Level,
    /// Its sectors, where the superblock keeps them.
    pub sector_size: Option<SectorSize>,
    /// All found members, spares too: indexes into what [`assemble()`] was given, rising.
    pub members: Vec<usize>,
    /// The first of them that holds a part of the array; the first of all if none does.
    pub first: usize,
    /// Where its bytes lie; else why that cannot be said.
    pub layout: Result<ExtentMap, String>,
    /// How MD itself would start it, where it can and that is of use: where there is no layout, and
    /// for mirrors, which nobody else may write to.
    pub by_md: Option<ForMd>,
    /// Its members hold the same bytes, or did: a write that reaches only some of them, or that MD
    /// knows nothing of, makes them differ.
    pub is_mirror: bool,
    /// All devices it has were found, and are in use.
    pub complete: bool,
    /// What a reader should know but what stops nothing.
    pub notes: Vec<String>,
}

/// Puts arrays together, in the order in which their first members were found.
///
/// Nothing is chosen where two members contradict each other: the array gets a reason instead of a
/// layout. What is left out is named.
pub fn assemble(found: &[FoundMember]) -> Vec<AssembledArray> {
    let mut arrays: Vec<(ArrayId, Vec<usize>)> = Vec::new();
    for (index, member) in found.iter().enumerate() {
        let id = member.superblock.array;
        match arrays.iter_mut().find(|(known, _)| *known == id) {
            Some((_, members)) => members.push(index),
            None => arrays.push((id, vec![index])),
        }
    }
    arrays
        .into_iter()
        .filter_map(|(id, members)| assemble_one(found, id, members))
        .collect()
}

fn assemble_one(found: &[FoundMember], id: ArrayId, members: Vec<usize>) -> Option<AssembledArray> {
    let own: Vec<&FoundMember> = members.iter().filter_map(|at| found.get(*at)).collect();
    let standing = Standing::of(&own)?;
    let superblock = &standing.newest.superblock;
    let is_active = |at: &&usize| {
        let member = found.get(**at);
        let mut active = standing.active.iter();
        member.is_some_and(|member| active.any(|(_, one)| std::ptr::eq(*one, member)))
    };
    let first = members
        .iter()
        .find(is_active)
        .or(members.first())
        .copied()?;
    let missing = missing(&standing);
    let mut notes = standing.notes.clone();
    let (layout, by_md) = match by_md::plan(&standing, &members, found) {
        Some(Ok(plan)) if superblock.level == Level::RAID1 => {
            (layout(&standing, &missing, &mut notes), Some(plan))
        }
        Some(Ok(plan)) => {
            notes.extend(plan.notes.iter().cloned());
            (
                Err("only MD itself can put it together".to_owned()),
                Some(plan),
            )
        }
        Some(Err(reason)) if superblock.level != Level::RAID1 => (Err(reason), None),
        Some(Err(_)) | None => (layout(&standing, &missing, &mut notes), None),
    };
    Some(AssembledArray {
        id,
        name: superblock.array_name(),
        level: superblock.level,
        sector_size: superblock.logical_block,
        first,
        layout: layout.map_err(|reason| format!("{}: {reason}", superblock.level)),
        by_md,
        is_mirror: superblock.level == Level::RAID1 && superblock.devices > 1,
        complete: missing.is_empty() && standing.contradiction.is_none(),
        notes,
        members,
    })
}

/// The roles that nobody has.
fn missing(standing: &Standing<'_>) -> Vec<u32> {
    let devices = 0..standing.newest.superblock.devices;
    devices
        .filter(|role| !standing.active.iter().any(|(known, _)| known == role))
        .collect()
}

fn layout(
    standing: &Standing<'_>,
    missing: &[u32],
    notes: &mut Vec<String>,
) -> Result<ExtentMap, String> {
    let superblock = &standing.newest.superblock;
    if let Some(contradiction) = &standing.contradiction {
        return Err(contradiction.clone());
    }
    let lacking = lacking(superblock.devices, missing);
    let found: Vec<&FoundMember> = standing.active.iter().map(|(_, one)| *one).collect();
    if let Some((member, obstacle)) = obstacle(&found) {
        return Err(match obstacle {
            Obstacle::BadBlocks => format!("{}: {obstacle}", member.path),
            _ => obstacle.to_string(),
        });
    }
    match superblock.level {
        Level::LINEAR | Level::RAID0 => {
            if let Some(lacking) = lacking {
                return Err(lacking);
            }
            if let Some(filling) = found.iter().find(|one| !one.superblock.recovered) {
                return Err(format!(
                    "{} is being filled from another device",
                    filling.path
                ));
            }
            match superblock.level {
                Level::LINEAR => placement::linear(&found, superblock.chunk),
                _ => placement::striped(&found, superblock.chunk, superblock.layout),
            }
        }
        Level::RAID1 => {
            notes.extend(lacking.map(|lacking| format!("the mirror is degraded: {lacking}")));
            mirrored(&found, superblock, notes)
        }
        _ => Err("only MD itself can put it together".to_owned()),
    }
}

/// Which of its devices are missing, in words; `None` if none is.
pub(super) fn lacking(of: u32, missing: &[u32]) -> Option<String> {
    let numbers: Vec<String> = missing.iter().take(NAMED).map(u32::to_string).collect();
    let more = match missing.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!missing.is_empty()).then(|| {
        format!(
            "of its {of} devices, counted from 0, these are missing: {}{more}",
            numbers.join(", ")
        )
    })
}

/// The first thing that stands in the way, and of which member.
fn obstacle<'a>(members: &[&'a FoundMember]) -> Option<(&'a FoundMember, Obstacle)> {
    members
        .iter()
        .find_map(|member| Some((*member, *member.superblock.obstacles.first()?)))
}

fn mirrored(
    found: &[&FoundMember],
    superblock: &Superblock,
    notes: &mut Vec<String>,
) -> Result<ExtentMap, String> {
    let (mut legs, filling): (Vec<&FoundMember>, Vec<&FoundMember>) =
        found.iter().partition(|member| member.superblock.recovered);
    for member in filling {
        notes.push(format!(
            "{} is left out: it is being filled from the other members",
            member.path
        ));
    }
    // As MD reads, which leaves a slow member for when there is no other.
    legs.sort_by_key(|member| member.superblock.write_mostly);
    let Some(first) = legs.first() else {
        return Err("no member that is in step was found".to_owned());
    };
    if !superblock.in_step && legs.len() > 1 {
        notes.push(format!(
            "the mirror was not stopped cleanly, so that its members may differ; as MD does, {} is \
             read",
            first.path
        ));
    }
    placement::mirrored(&legs, superblock.component)
}

#[cfg(test)]
mod tests;
