//! A volume group as its metadata text describes it (lib/format_text/import_vsn1.c and flags.c).

use std::collections::HashSet;

use super::error::GroupFault;
use super::identity::{LogicalVolumeId, PhysicalVolumeId, VolumeGroupId, is_valid_name, shown};
use super::text::{Section, Value};
use crate::units::{Bytes, SectorSize, Sectors};

/// How many segments one logical volume may have; real ones have a handful.
const MAX_SEGMENTS: usize = 4096;

const CONTENTS: &str = "Text Format Volume Group";
const FORMAT: &str = "lvm2";

/// A volume group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeGroup {
    /// Its name, valid by LVM's rule.
    pub name: String,
    /// Its UUID.
    pub uuid: VolumeGroupId,
    /// `seqno`: raised by every change.
    pub sequence: u32,
    /// The length of an extent.
    pub extent_size: Bytes,
    /// `status`: flags every reader must know.
    pub status: Vec<String>,
    /// `system_id`: the host that owns the group, in the guest's own words.
    pub system_id: Option<String>,
    /// `lock_type`: `sanlock`, `dlm` and others of a group on shared storage.
    pub lock_type: Option<String>,
    /// The physical volumes, in the order of the text.
    pub physical_volumes: Vec<Member>,
    /// The logical volumes, hidden ones too, in the order of the text. Names are valid.
    pub logical_volumes: Vec<LogicalVolume>,
}

/// A physical volume of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What the segments call it: `pv0`.
    pub key: String,
    /// Its UUID.
    pub uuid: PhysicalVolumeId,
    /// `pe_start`: where its extents begin.
    pub start: Bytes,
    /// `pe_count`: how many extents it has.
    pub extent_count: u32,
    /// LVM once saw the group without it, and has not taken it back since.
    pub missing: bool,
}

/// A logical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogicalVolume {
    /// Its name, valid by LVM's rule.
    pub name: String,
    /// Its UUID.
    pub uuid: LogicalVolumeId,
    /// `status`: flags every reader must know.
    pub status: Vec<String>,
    /// Its segments, in the order of the text; whether they fit together is not yet known.
    pub segments: Vec<Segment>,
}

/// A run of extents of a logical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its first extent in the logical volume.
    pub start: u32,
    /// How many extents it has.
    pub count: u32,
    /// How they lie.
    pub kind: SegmentKind,
}

/// How a segment's extents lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// One after the other in one place: `striped` with one stripe.
    Linear(Place),
    /// In turns over several places, each of which has its share of the extents.
    Striped {
        /// The places, in the order of their turns; at least two.
        places: Vec<Place>,
        /// `stripe_size`: how much of one place comes before it is the next one's turn.
        stripe_size: Bytes,
    },
    /// No data of its own: says that `store` keeps what was overwritten in `origin`.
    Snapshot {
        /// The volume that was snapshotted.
        origin: String,
        /// The volume users know as the snapshot.
        store: String,
    },
    /// `raid1`: volumes of their own for each copy and for what MD in device-mapper notes of it.
    Raid1(Vec<RaidLeg>),
    /// `mirror`: the older kind of copies, whose state one log keeps; an unfinished pvmove too.
    Mirror {
        /// The places of the copies; each has all the extents.
        copies: Vec<Place>,
        /// `mirror_log`: the volume that keeps the log; `None` if only memory does.
        log: Option<String>,
        /// `region_size`: how much of the volume one bit of the log stands for.
        region_size: Option<Bytes>,
    },
    /// Any other kind.
    Other {
        /// `type`, as LVM names it.
        name: String,
        /// The first volume it is made of, where it names one.
        below: Option<String>,
    },
}

/// One copy of a `raid1` volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaidLeg {
    /// The volume with its superblock: `root_rmeta_0`.
    pub metadata: String,
    /// The volume with its data: `root_rimage_0`.
    pub data: String,
}

/// An extent of a physical volume, or of another logical one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The key of the physical volume or the name of the logical one.
    pub volume: String,
    /// The first extent there.
    pub extent: u32,
}

impl VolumeGroup {
    /// Reads a group from its parsed text.
    ///
    /// # Errors
    /// [`GroupFault`] wherever LVM's own tools would refuse the text.
    pub fn from_text(root: &Section<'_>) -> Result<Self, GroupFault> {
        if root.string("contents") != Some(CONTENTS) || root.integer("version") != Some(1_u8) {
            return Err(GroupFault::NotMetadata);
        }
        let mut sections = root.entries().filter_map(|(name, value)| match value {
            Value::Section(section) => Some((name, section)),
            _ => None,
        });
        let (name, section) = sections.next().ok_or(GroupFault::GroupCount(0))?;
        let more = sections.count();
        if more > 0 {
            return Err(GroupFault::GroupCount(more.saturating_add(1)));
        }
        Self::from_section(name, Keys { name, section })
    }

    fn from_section(name: &str, keys: Keys<'_>) -> Result<Self, GroupFault> {
        if keys
            .section
            .get("format")
            .is_some_and(|format| *format != Value::String(FORMAT.into()))
        {
            return Err(keys.fault("format"));
        }
        let extent_size = keys.integer::<u32>("extent_size")?;
        if extent_size == 0 {
            return Err(keys.fault("extent_size"));
        }
        let group = Self {
            name: valid_name(name)?,
            uuid: keys.uuid(VolumeGroupId::parse)?,
            sequence: keys.integer("seqno")?,
            extent_size: keys.sectors("extent_size", u64::from(extent_size))?,
            status: keys.flags("status")?.ok_or(keys.fault("status"))?,
            system_id: keys.section.string("system_id").map(str::to_owned),
            lock_type: keys.section.string("lock_type").map(str::to_owned),
            physical_volumes: keys
                .sections("physical_volumes")?
                .ok_or(keys.fault("physical_volumes"))?
                .into_iter()
                .map(Member::from_keys)
                .collect::<Result<_, _>>()?,
            logical_volumes: keys
                .sections("logical_volumes")?
                .unwrap_or_default()
                .into_iter()
                .map(LogicalVolume::from_keys)
                .collect::<Result<_, _>>()?,
        };
        no_duplicates(group.physical_volumes.iter().map(|member| member.uuid))?;
        no_duplicates(group.logical_volumes.iter().map(|volume| volume.uuid))?;
        Ok(group)
    }

    /// Whether `status` has the flag.
    pub fn has_status(&self, flag: &str) -> bool {
        self.status.iter().any(|own| own == flag)
    }
}

/// `status`, with the leave to write where readers of any age find it only if nobody shares the group:
/// in a shared one it stands among the other flags, by another name (`LVM_WRITE_LOCKED`).
fn volume_status(keys: &Keys<'_>) -> Result<Vec<String>, GroupFault> {
    let mut status = keys.flags("status")?.ok_or(keys.fault("status"))?;
    let flags = keys.flags("flags")?.unwrap_or_default();
    if flags.iter().any(|flag| flag == "WRITE_LOCKED") {
        status.push("WRITE".to_owned());
    }
    Ok(status)
}

impl Member {
    fn from_keys(keys: Keys<'_>) -> Result<Self, GroupFault> {
        let mut flags = keys.flags("status")?.ok_or(keys.fault("status"))?;
        flags.extend(keys.flags("flags")?.unwrap_or_default());
        Ok(Self {
            key: keys.name.to_owned(),
            uuid: keys.uuid(PhysicalVolumeId::parse)?,
            start: keys.sectors("pe_start", keys.integer("pe_start")?)?,
            extent_count: keys.integer("pe_count")?,
            missing: flags.iter().any(|flag| flag == "MISSING"),
        })
    }
}

impl LogicalVolume {
    fn from_keys(keys: Keys<'_>) -> Result<Self, GroupFault> {
        let mut segments = Vec::new();
        for (name, value) in keys.section.entries() {
            if let Value::Section(section) = value {
                if segments.len() >= MAX_SEGMENTS {
                    return Err(GroupFault::TooManySegments(shown(keys.name)));
                }
                segments.push(Segment::from_keys(Keys { name, section })?);
            }
        }
        if keys.integer::<usize>("segment_count")? != segments.len() {
            return Err(GroupFault::SegmentCount(shown(keys.name)));
        }
        Ok(Self {
            name: valid_name(keys.name)?,
            uuid: keys.uuid(LogicalVolumeId::parse)?,
            status: volume_status(&keys)?,
            segments,
        })
    }

    /// Whether `status` has the flag.
    pub fn has_status(&self, flag: &str) -> bool {
        self.status.iter().any(|own| own == flag)
    }

    /// Meant for users, not a part of another volume.
    pub fn is_visible(&self) -> bool {
        self.has_status("VISIBLE")
    }
}

impl Segment {
    fn from_keys(keys: Keys<'_>) -> Result<Self, GroupFault> {
        let name = keys.section.string("type").ok_or(keys.fault("type"))?;
        let kind = match name {
            "striped" | "linear" => Self::stripes(&keys)?,
            "snapshot" => SegmentKind::Snapshot {
                origin: keys.string("origin")?.to_owned(),
                store: keys
                    .string("merging_store")
                    .or_else(|_| keys.string("cow_store"))?
                    .to_owned(),
            },
            "mirror" => SegmentKind::Mirror {
                copies: keys.places("mirrors").unwrap_or_default(),
                log: keys.section.string("mirror_log").map(str::to_owned),
                region_size: keys
                    .integer::<u32>("region_size")
                    .and_then(|size| keys.sectors("region_size", u64::from(size)))
                    .ok(),
            },
            _ => match raid_legs(keys.section) {
                Some(legs) if name == "raid1" => SegmentKind::Raid1(legs),
                _ => SegmentKind::Other {
                    name: name.to_owned(),
                    below: below(keys.section),
                },
            },
        };
        Ok(Self {
            start: keys.integer("start_extent")?,
            count: keys.integer("extent_count")?,
            kind,
        })
    }

    fn stripes(keys: &Keys<'_>) -> Result<SegmentKind, GroupFault> {
        let fault = || keys.fault("stripes");
        let mut places = keys.places("stripes").ok_or_else(fault)?;
        if keys.integer::<usize>("stripe_count")? != places.len() {
            return Err(fault());
        }
        let first = places.pop().ok_or_else(fault)?;
        if places.is_empty() {
            return Ok(SegmentKind::Linear(first));
        }
        places.push(first);
        let stripe_size = u64::from(keys.integer::<u32>("stripe_size")?);
        Ok(SegmentKind::Striped {
            places,
            stripe_size: keys.sectors("stripe_size", stripe_size)?,
        })
    }
}

/// The first volume that a segment of an uncommon kind is made of. RAID names pairs of a metadata
/// and a data volume.
fn below(segment: &Section<'_>) -> Option<String> {
    let name = |value: &Value<'_>| match value {
        Value::String(name) => Some(name.to_string()),
        _ => None,
    };
    ["origin", "pool", "thin_pool", "vdo_pool", "data"]
        .into_iter()
        .find_map(|key| segment.get(key).and_then(name))
        .or_else(|| segment.array("raids")?.get(1).and_then(name))
        .or_else(|| segment.array("raid0_lvs")?.first().and_then(name))
}

/// The pairs of volumes that a RAID is made of; `None` if it names anything else.
fn raid_legs(segment: &Section<'_>) -> Option<Vec<RaidLeg>> {
    let pairs = segment.array("raids")?.chunks(2).map(|pair| match pair {
        [Value::String(metadata), Value::String(data)] => Some(RaidLeg {
            metadata: metadata.to_string(),
            data: data.to_string(),
        }),
        _ => None,
    });
    pairs.collect()
}

fn valid_name(name: &str) -> Result<String, GroupFault> {
    if is_valid_name(name) {
        Ok(name.to_owned())
    } else {
        Err(GroupFault::Name(shown(name)))
    }
}

fn no_duplicates<T: std::hash::Hash + Eq + Copy + ToString>(
    uuids: impl Iterator<Item = T>,
) -> Result<(), GroupFault> {
    let mut seen = HashSet::new();
    for uuid in uuids {
        if !seen.insert(uuid) {
            return Err(GroupFault::DuplicateUuid(uuid.to_string()));
        }
    }
    Ok(())
}

/// A named section, whose keys are read with errors that say where.
#[derive(Clone, Copy)]
struct Keys<'a> {
    name: &'a str,
    section: &'a Section<'a>,
}

impl<'a> Keys<'a> {
    fn fault(&self, key: &'static str) -> GroupFault {
        GroupFault::Key {
            section: shown(self.name),
            key,
        }
    }

    fn integer<T: TryFrom<i64>>(&self, key: &'static str) -> Result<T, GroupFault> {
        self.section.integer(key).ok_or_else(|| self.fault(key))
    }

    fn string(&self, key: &'static str) -> Result<&'a str, GroupFault> {
        self.section.string(key).ok_or_else(|| self.fault(key))
    }

    fn uuid<T>(&self, parse: impl Fn(&str) -> Option<T>) -> Result<T, GroupFault> {
        self.section
            .string("id")
            .and_then(parse)
            .ok_or_else(|| self.fault("id"))
    }

    /// Sectors of 512 as bytes.
    fn sectors(&self, key: &'static str, count: u64) -> Result<Bytes, GroupFault> {
        Sectors::new(count)
            .to_bytes(SectorSize::S512)
            .ok_or_else(|| self.fault(key))
    }

    /// Flags: an array of strings or one string. `None` if the key is missing.
    fn flags(&self, key: &'static str) -> Result<Option<Vec<String>>, GroupFault> {
        let values = match self.section.get(key) {
            None => return Ok(None),
            Some(Value::Array(values)) => values.as_slice(),
            Some(value) => std::slice::from_ref(value),
        };
        values
            .iter()
            .map(|value| match value {
                Value::String(flag) => Ok(flag.to_string()),
                _ => Err(self.fault(key)),
            })
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// The sections inside the section `key`. `None` if it is missing.
    fn sections(&self, key: &'static str) -> Result<Option<Vec<Keys<'a>>>, GroupFault> {
        let section = match self.section.get(key) {
            None => return Ok(None),
            Some(Value::Section(section)) => section,
            Some(_) => return Err(self.fault(key)),
        };
        section
            .entries()
            .map(|(name, value)| match value {
                Value::Section(section) => Ok(Keys { name, section }),
                _ => Err(GroupFault::NotSection {
                    section: key.to_owned(),
                    entry: shown(name),
                }),
            })
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// An array of pairs: a volume and an extent on it. `None` if it is anything else.
    fn places(&self, key: &str) -> Option<Vec<Place>> {
        let values = self.section.array(key)?;
        values
            .chunks(2)
            .map(|pair| match pair {
                [Value::String(volume), Value::Integer(extent)] => Some(Place {
                    volume: volume.to_string(),
                    extent: u32::try_from(*extent).ok()?,
                }),
                _ => None,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
