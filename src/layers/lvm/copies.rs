//! Mirrored volumes without LVM: which of their copies have what LVM's device would give.
//!
//! Only reading is possible so. LVM's device notes which regions are about to be written before it
//! writes them, so that it can make the copies equal again after a crash; who writes past it does not.

use std::collections::HashSet;

use super::identity::shown;
use crate::layers::extent::ExtentMap;
use crate::layers::read::{LayerReader, ReadImages};
use raid::Metadata;

pub mod log;
pub mod raid;

/// The copies of a volume, as the volume group's metadata names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Copies {
    /// Segment type `raid1`: each copy has a superblock of its own.
    Raid(Vec<RaidCopy>),
    /// Segment type `mirror`.
    Mirror {
        /// Where the copies lie, in the order of the metadata.
        legs: Vec<ExtentMap>,
        /// What is known of whether they are equal.
        log: Log,
    },
}

/// A copy of a `raid1` volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaidCopy {
    /// The name of the volume with its data.
    pub name: String,
    /// Where its data lie.
    pub data: ExtentMap,
    /// Where its superblock and its bitmap lie.
    pub metadata: ExtentMap,
    /// The next activation fills it from the others.
    pub to_be_filled: bool,
    /// It is only read where there is no other.
    pub write_mostly: bool,
}

/// Where the log of a `mirror` volume is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Log {
    /// In memory: each activation begins with copying the first leg over the others.
    Memory,
    /// On a volume.
    Disk {
        /// Where it lies.
        extents: ExtentMap,
        /// How many regions the volume has.
        regions: u64,
    },
}

/// A volume that can be read without LVM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readable {
    /// Where its bytes lie; the first copy is the one that is read.
    pub extents: ExtentMap,
    /// What a reader should know: copies that were left out.
    pub notes: Vec<String>,
}

impl Copies {
    /// All places that only LVM may write to.
    pub fn places(&self) -> Vec<&ExtentMap> {
        match self {
            Self::Raid(copies) => copies
                .iter()
                .flat_map(|copy| [&copy.data, &copy.metadata])
                .collect(),
            Self::Mirror { legs, log } => {
                let log = match log {
                    Log::Memory => None,
                    Log::Disk { extents, .. } => Some(extents),
                };
                legs.iter().chain(log).collect()
            }
        }
    }

    /// The volume by its copies that are in step.
    ///
    /// # Errors
    /// Why no copy can be trusted, in words for a report.
    pub fn readable(&self, images: &dyn ReadImages) -> Result<Readable, String> {
        match self {
            Self::Raid(copies) => raid_readable(copies, images),
            Self::Mirror { legs, log } => {
                let mut notes = Vec::new();
                match log {
                    Log::Memory => notes.push(
                        "its log is kept in memory only, so that its copies may differ; as LVM \
                         does, the first is read"
                            .to_owned(),
                    ),
                    Log::Disk { extents, regions } => {
                        log::all_in_sync(&LayerReader::new(images, extents), *regions)
                            .map_err(|fault| format!("its log cannot be relied on: {fault}"))?;
                    }
                }
                let legs: Vec<&ExtentMap> = legs.iter().collect();
                Ok(Readable {
                    extents: mirrored(&legs)?,
                    notes,
                })
            }
        }
    }
}

fn mirrored(legs: &[&ExtentMap]) -> Result<ExtentMap, String> {
    let mut map = ExtentMap::default();
    map.push_mirrored(legs)
        .map_err(|fault| format!("it has {fault}"))?;
    Ok(map)
}

fn raid_readable(copies: &[RaidCopy], images: &dyn ReadImages) -> Result<Readable, String> {
    let mut known: Vec<(&RaidCopy, Metadata)> = Vec::new();
    let mut notes = Vec::new();
    let left_out = |copy: &RaidCopy, why: &str| format!("{} is left out: {why}", shown(&copy.name));
    for copy in copies {
        if copy.to_be_filled {
            notes.push(left_out(copy, "it is to be filled from the other copies"));
            continue;
        }
        // Where one has no superblock, the kernel does not make up the volume either.
        let metadata = raid::read(&LayerReader::new(images, &copy.metadata));
        let metadata = metadata.map_err(|fault| format!("{}: {fault}", shown(&copy.name)))?;
        known.push((copy, metadata));
    }
    let events = known.iter().map(|(_, metadata)| metadata.events).max();
    let newest: Vec<&Metadata> = known
        .iter()
        .map(|(_, metadata)| metadata)
        .filter(|metadata| Some(metadata.events) == events)
        .collect();
    for metadata in &newest {
        if metadata.devices != copies.len() as u64 {
            return Err(format!(
                "its superblocks say that it has {} copies, and the volume group says {}",
                metadata.devices,
                copies.len()
            ));
        }
    }
    let mut positions = HashSet::new();
    let mut in_step = Vec::new();
    for (copy, metadata) in &known {
        if !positions.insert(metadata.position) {
            return Err(format!(
                "two of its copies say that they are number {}",
                metadata.position
            ));
        }
        let failed = newest.iter().any(|one| one.has_failed(metadata.position));
        let why = match metadata {
            _ if failed => "it has failed",
            _ if Some(metadata.events) != events => "it is older than the other copies",
            Metadata {
                recovered: false, ..
            } => "it is being filled from the other copies",
            _ => {
                in_step.push((*copy, metadata));
                continue;
            }
        };
        notes.push(left_out(copy, why));
    }
    // As MD reads, which leaves a slow copy for when there is no other.
    in_step.sort_by_key(|(copy, _)| copy.write_mostly);
    let Some((first, _)) = in_step.first() else {
        return Err("none of its copies is in step".to_owned());
    };
    let is_equal = |(copy, metadata): &(&RaidCopy, &Metadata)| {
        metadata.equal && metadata.size.is_none_or(|size| size == copy.data.size())
    };
    if in_step.len() > 1 && !in_step.iter().all(is_equal) {
        notes.push(format!(
            "its copies may differ, for they were not made equal yet or it was not stopped cleanly; \
             as MD does, {} is read",
            shown(&first.name)
        ));
    }
    let legs: Vec<&ExtentMap> = in_step.iter().map(|(copy, _)| &copy.data).collect();
    Ok(Readable {
        extents: mirrored(&legs)?,
        notes,
    })
}

#[cfg(test)]
pub(in crate::layers) mod tests;
