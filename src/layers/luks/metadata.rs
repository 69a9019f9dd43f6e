//! LUKS2's metadata: a JSON text about key slots, digests, segments and tokens.
//!
//! cryptsetup: docs/on-disk-format-luks2.pdf, 3; what it takes for damaged is in
//! lib/luks2/luks2_json_metadata.c, luks2_keyslot.c and luks2_keyslot_luks2.c.

mod sections;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::container::Integrity;
use super::header::{self, Header, HeaderError, LONGEST_HEADER_AREA};
use super::metadata_area::{BINARY, is_size};
use super::part::Part;
use crate::units::{Bytes, SectorSize};
use sections::{Digest, KeySlot, Segment};

/// The longest text in bytes: LUKS2 has at most 4 MiB, and cryptsetup prints it with blanks.
const LONGEST: usize = 64 * 1024 * 1024;

/// How many parts a text may have: a header with all key slots and tokens that cryptsetup knows has a
/// hundredth of them. What is read of it takes many times its length.
const MOST_PARTS: usize = 100_000;

/// How many tokens are named: cryptsetup has no more.
const MOST_TOKENS: usize = 32;

/// The most that cryptsetup takes for key slots.
const MOST_KEY_SLOTS: u64 = 128 << 20;

/// The metadata, as far as it says what is encrypted how.
pub(super) struct Metadata {
    key_slots: BTreeMap<u64, KeySlot>,
    segments: Vec<Segment>,
    digests: Vec<Digest>,
    tokens: Vec<String>,
    flags: Vec<String>,
    requirements: Vec<String>,
    /// How long a copy of it is with its binary header.
    copy: u64,
    key_slots_size: u64,
}

impl Metadata {
    /// The metadata in a text.
    ///
    /// # Errors
    /// `Damaged` where cryptsetup refuses it too.
    pub(super) fn parse(text: &[u8]) -> Result<Self, HeaderError> {
        let unreadable = || HeaderError::damaged("its metadata");
        let parts = text.iter().filter(|byte| b",[{".contains(byte)).count();
        if text.len() > LONGEST || parts > MOST_PARTS {
            return Err(unreadable());
        }
        let value: Value = serde_json::from_slice(text).map_err(|_| unreadable())?;
        let all = Part::new("its metadata", &value)?;
        let config = all.part("config")?;
        let copy = config.number("json_size")?.saturating_add(BINARY as u64);
        if !is_size(copy) {
            return Err(config.wrong("has a wrong json_size"));
        }
        let key_slots_size = config.number("keyslots_size")?;
        if key_slots_size % 4096 != 0 || key_slots_size > MOST_KEY_SLOTS {
            return Err(config.wrong("has a wrong keyslots_size"));
        }
        let tokens = all.numbered("tokens", "token")?;
        for (_, token) in &tokens {
            token.text("type")?;
            token.numbers("keyslots")?;
        }
        let tokens = tokens.iter().take(MOST_TOKENS);
        let metadata = Self {
            key_slots: sections::key_slots(&all)?,
            segments: sections::segments(&all)?,
            digests: sections::digests(&all)?,
            tokens: tokens
                .map(|(_, token)| token.text("type").map(header::shown))
                .collect::<Result<_, _>>()?,
            flags: sections::owned(config.texts_if_any("flags")?),
            requirements: match config.has("requirements") {
                true => sections::owned(config.part("requirements")?.texts_if_any("mandatory")?),
                false => Vec::new(),
            },
            copy,
            key_slots_size,
        };
        metadata.check_references(&all)?;
        metadata.check_areas()?;
        Ok(metadata)
    }

    /// What it says of the encrypted bytes.
    ///
    /// # Errors
    /// `Beyond` or `Reencrypted` if it is not one segment with one cipher and one key.
    pub(super) fn header(&self) -> Result<Header, HeaderError> {
        use HeaderError::{Beyond, Reencrypted};
        if let Some(requirement) = self.requirements.first() {
            let shown = header::shown(requirement);
            return Err(match requirement.as_str() {
                "opal" => Beyond(format!("is encrypted by the disk itself ({shown})")),
                _ if requirement.contains("reencrypt") => Reencrypted(shown),
                _ => Beyond(format!("needs something special ({shown})")),
            });
        }
        let [segment] = self.segments.as_slice() else {
            return Err(Beyond(format!("has {} segments", self.segments.len())));
        };
        if let Some(flag) = segment.flags.first() {
            return Err(Beyond(format!("has the flag {}", header::shown(flag))));
        }
        let kind = header::shown(&segment.kind);
        if segment.kind.starts_with("hw-opal") {
            return Err(Beyond(format!("is encrypted by the disk itself ({kind})")));
        }
        let Some(crypt) = &segment.crypt else {
            return Err(Beyond(format!("is of the type {kind}")));
        };
        let mut digests = self
            .digests
            .iter()
            .filter(|digest| digest.segments.contains(&0));
        let digest = digests.next();
        if digests.next().is_some() {
            return Err(Beyond("has several keys for one segment".to_owned()));
        }
        let slots = digest.into_iter().flat_map(|digest| &digest.key_slots);
        let slots = slots.filter_map(|id| self.key_slots.get(id));
        let key_sizes: BTreeSet<usize> = slots
            .filter(|slot| slot.is_for_a_key)
            .map(|slot| header::key_length(slot.key_size))
            .collect::<Result<_, _>>()?;
        if key_sizes.is_empty() {
            return Err(Beyond("has no key slot in use".to_owned()));
        }
        if key_sizes.len() > 1 {
            return Err(HeaderError::damaged(
                "its key slots are for keys of several lengths",
            ));
        }
        let sector_size = u32::try_from(crypt.sector_size)
            .ok()
            .and_then(SectorSize::new);
        Ok(Header {
            encryption: header::encryption(&crypt.encryption)?,
            key_sizes: key_sizes.into_iter().collect(),
            offset: Bytes::new(segment.offset),
            size: segment.size.map(Bytes::new),
            iv_tweak: crypt.iv_tweak,
            sector_size: sector_size
                .filter(|size| size.get() <= SectorSize::S4096.get())
                .ok_or_else(|| HeaderError::damaged("its sector size"))?,
            discards: self.has_flag("allow-discards"),
        })
    }

    /// The checksums of its first segment.
    ///
    /// # Errors
    /// `Damaged` if dm-integrity cannot be told their names.
    pub(super) fn integrity(&self) -> Result<Option<Integrity>, HeaderError> {
        let crypt = self.segments.first().and_then(|first| first.crypt.as_ref());
        let Some(integrity) = crypt.and_then(|crypt| crypt.integrity.as_ref()) else {
            return Ok(None);
        };
        for name in [
            &integrity.kind,
            &integrity.journal_encryption,
            &integrity.journal_integrity,
        ] {
            header::encryption(name).map_err(|_| HeaderError::damaged("its checksums' names"))?;
        }
        Ok(Some(Integrity {
            no_journal: self.has_flag("no-journal"),
            ..integrity.clone()
        }))
    }

    /// How many bytes its copies and the key slots take.
    pub(super) fn header_area(&self) -> Bytes {
        let area = self
            .copy
            .saturating_mul(2)
            .saturating_add(self.key_slots_size);
        Bytes::new(area).min(LONGEST_HEADER_AREA)
    }

    /// How long one copy is, with its binary header.
    pub(super) fn copy(&self) -> u64 {
        self.copy
    }

    pub(super) fn tokens(&self) -> &[String] {
        &self.tokens
    }

    fn has_flag(&self, name: &str) -> bool {
        self.flags.iter().any(|flag| flag == name)
    }

    /// Whether all that is referred to is there, and each key slot is for one key.
    fn check_references(&self, all: &Part<'_>) -> Result<(), HeaderError> {
        let known = |slots: &[u64]| slots.iter().all(|id| self.key_slots.contains_key(id));
        let segment_count = self.segments.len() as u64;
        let mut uses: BTreeMap<u64, u32> = BTreeMap::new();
        for (id, digest) in self.digests.iter().enumerate() {
            let segments = &digest.segments;
            if !known(&digest.key_slots) || segments.iter().any(|segment| *segment >= segment_count)
            {
                let what = format!("digest {id} is for what is not there");
                return Err(HeaderError::damaged(what));
            }
            let distinct: BTreeSet<u64> = digest.key_slots.iter().copied().collect();
            for slot in distinct {
                *uses.entry(slot).or_default() += 1;
            }
        }
        for (id, token) in all.numbered("tokens", "token")? {
            if !known(&token.numbers("keyslots")?) {
                let what = format!("token {id} is for a key slot that is not there");
                return Err(HeaderError::damaged(what));
            }
        }
        for (id, slot) in &self.key_slots {
            if slot.is_for_a_key && uses.get(id) != Some(&1) {
                let what = format!("key slot {id} is not for one key");
                return Err(HeaderError::damaged(what));
            }
        }
        for (id, segment) in (0..).zip(&self.segments) {
            let mut digests = self.digests.iter();
            if segment.crypt.is_some() && !digests.any(|digest| digest.segments.contains(&id)) {
                let what = format!("segment {id} has no key");
                return Err(HeaderError::damaged(what));
            }
        }
        Ok(())
    }

    /// Whether copies, key slots and segments lie behind each other.
    fn check_areas(&self) -> Result<(), HeaderError> {
        let first = self.copy.saturating_mul(2);
        let end = first.saturating_add(self.key_slots_size);
        let mut areas = Vec::with_capacity(self.key_slots.len());
        for (id, slot) in &self.key_slots {
            let (offset, size) = slot.area;
            let after = offset.checked_add(size).filter(|after| *after <= end);
            match after {
                Some(after) if offset >= first && size > 0 => areas.push((offset, after, *id)),
                _ => {
                    let what = format!("key slot {id} lies outside of the key slots' area");
                    return Err(HeaderError::damaged(what));
                }
            }
        }
        no_overlap("key slot", areas)?;
        let regular = self
            .segments
            .iter()
            .take_while(|segment| !segment.is_backup());
        let mut areas = Vec::new();
        for (id, segment) in (0..).zip(regular) {
            let after = segment
                .size
                .map_or(Some(u64::MAX), |size| segment.offset.checked_add(size));
            let Some(after) = after else {
                let what = format!("segment {id} is too long");
                return Err(HeaderError::damaged(what));
            };
            areas.push((segment.offset, after, id));
        }
        // With an offset of zero the encrypted bytes lie elsewhere.
        let least = areas.iter().map(|(offset, ..)| *offset).min();
        if least.is_some_and(|least| least != 0 && least < end) {
            return Err(HeaderError::damaged(
                "the encrypted data begin in the key slots' area",
            ));
        }
        no_overlap("segment", areas)
    }
}

/// Areas with their beginnings, ends and numbers.
fn no_overlap(what: &str, mut areas: Vec<(u64, u64, u64)>) -> Result<(), HeaderError> {
    areas.sort_unstable();
    for pair in areas.windows(2) {
        if let [(_, end, id), (next, _, other)] = pair
            && next < end
        {
            let what = format!("{what} {id} overlaps {what} {other}");
            return Err(HeaderError::damaged(what));
        }
    }
    Ok(())
}
