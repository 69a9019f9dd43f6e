//! The sections of LUKS2's metadata, each by itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::layers::luks::container::Integrity;
use crate::layers::luks::header::HeaderError;
use crate::layers::luks::part::{Part, number};

pub(super) struct KeySlot {
    pub(super) is_for_a_key: bool,
    pub(super) key_size: u64,
    pub(super) area: (u64, u64),
}

pub(super) struct Segment {
    pub(super) kind: String,
    pub(super) offset: u64,
    /// To the end of the device if `None`.
    pub(super) size: Option<u64>,
    pub(super) flags: Vec<String>,
    pub(super) crypt: Option<Crypt>,
}

pub(super) struct Crypt {
    pub(super) iv_tweak: u64,
    pub(super) encryption: String,
    pub(super) sector_size: u64,
    pub(super) integrity: Option<Integrity>,
}

pub(super) struct Digest {
    pub(super) key_slots: Vec<u64>,
    pub(super) segments: BTreeSet<u64>,
}

impl Segment {
    /// What was or will be, while the data are being re-encrypted.
    pub(super) fn is_backup(&self) -> bool {
        self.flags.iter().any(|flag| flag.starts_with("backup-"))
    }
}

pub(super) fn key_slots(all: &Part<'_>) -> Result<BTreeMap<u64, KeySlot>, HeaderError> {
    let mut found = BTreeMap::new();
    for (id, slot) in all.numbered("keyslots", "key slot")? {
        let area = slot.part("area")?;
        let area_kind = area.text("type")?;
        let kind = slot.text("type")?;
        if kind == "luks2" {
            check_key_slot(&slot, &area)?;
            if area_kind != "raw" {
                return Err(area.wrong("has a wrong type"));
            }
        }
        found.insert(
            id,
            KeySlot {
                is_for_a_key: kind == "luks2",
                key_size: slot.integer("key_size")?,
                area: (area.number("offset")?, area.number("size")?),
            },
        );
    }
    Ok(found)
}

/// What a key slot with a key has.
fn check_key_slot(slot: &Part<'_>, area: &Part<'_>) -> Result<(), HeaderError> {
    let derivation = slot.part("kdf")?;
    derivation.text("salt")?;
    match derivation.text("type")? {
        "pbkdf2" => {
            derivation.text("hash")?;
            derivation.integer("iterations")?;
        }
        "argon2i" | "argon2id" => {
            for cost in ["time", "memory", "cpus"] {
                derivation.integer(cost)?;
            }
        }
        _ => return Err(derivation.wrong("has an unknown type")),
    }
    let splitter = slot.part("af")?;
    if splitter.text("type")? != "luks1" {
        return Err(splitter.wrong("has an unknown type"));
    }
    splitter.text("hash")?;
    splitter.integer("stripes")?;
    area.text("encryption")?;
    area.integer("key_size")?;
    Ok(())
}

pub(super) fn segments(all: &Part<'_>) -> Result<Vec<Segment>, HeaderError> {
    let mut found: Vec<Segment> = Vec::new();
    for (id, segment) in all.numbered("segments", "segment")? {
        if id != found.len() as u64 {
            return Err(HeaderError::damaged(format!(
                "segment {} is missing",
                found.len()
            )));
        }
        let kind = segment.text("type")?;
        let size = match segment.text("size")? {
            "dynamic" => None,
            text => Some(
                number(text)
                    .filter(|size| *size != 0 && size % 512 == 0)
                    .ok_or_else(|| segment.wrong("has a wrong size"))?,
            ),
        };
        let offset = segment.number("offset")?;
        if offset % 512 != 0 {
            return Err(segment.wrong("has a wrong offset"));
        }
        let made = Segment {
            kind: kind.to_owned(),
            offset,
            size,
            flags: owned(segment.texts_if_any("flags")?),
            crypt: match kind {
                "crypt" => Some(crypt(&segment, size)?),
                _ => None,
            },
        };
        if !made.is_backup() && found.last().is_some_and(Segment::is_backup) {
            return Err(segment.wrong("lies behind a backup of one"));
        }
        found.push(made);
    }
    match found.first() {
        None => Err(HeaderError::damaged("it has no segment")),
        Some(first) if first.is_backup() => {
            Err(HeaderError::damaged("it has backups of segments only"))
        }
        Some(_) => Ok(found),
    }
}

fn crypt(segment: &Part<'_>, size: Option<u64>) -> Result<Crypt, HeaderError> {
    let sector_size = segment.integer("sector_size")?;
    if sector_size == 0 || sector_size % 512 != 0 {
        return Err(segment.wrong("has a wrong sector_size"));
    }
    if size.is_some_and(|size| size % sector_size != 0) {
        return Err(segment.wrong("has no whole number of its sectors"));
    }
    Ok(Crypt {
        iv_tweak: segment.number("iv_tweak")?,
        encryption: segment.text("encryption")?.to_owned(),
        sector_size,
        integrity: match segment.has("integrity") {
            true => Some(integrity(&segment.part("integrity")?)?),
            false => None,
        },
    })
}

fn integrity(part: &Part<'_>) -> Result<Integrity, HeaderError> {
    Ok(Integrity {
        kind: part.text("type")?.to_owned(),
        journal_encryption: part.text("journal_encryption")?.to_owned(),
        journal_integrity: part.text("journal_integrity")?.to_owned(),
        key_size: match part.has("key_size") {
            true => Some(part.integer("key_size")?),
            false => None,
        },
        no_journal: false,
    })
}

pub(super) fn digests(all: &Part<'_>) -> Result<Vec<Digest>, HeaderError> {
    let digests = all.numbered("digests", "digest")?.into_iter();
    digests
        .map(|(_, digest)| {
            digest.text("type")?;
            Ok(Digest {
                key_slots: digest.numbers("keyslots")?,
                segments: digest.numbers("segments")?.into_iter().collect(),
            })
        })
        .collect()
}

pub(super) fn owned(texts: Vec<&str>) -> Vec<String> {
    texts.into_iter().map(str::to_owned).collect()
}
