//! An encrypted container that was opened: an image whose bytes are those of other images, decrypted
//! on their way up and encrypted on their way down. Nothing of it is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::crypt::SectorCipher;
use crate::layers::extent::{ExtentMap, ImageIndex};
use crate::units::Bytes;

/// What the cipher counts, in bytes.
const UNIT: u64 = 512;

/// The opened containers of a domain, by the image that each is.
pub type DecryptedImages = BTreeMap<ImageIndex, Decrypted>;

/// An opened container.
#[derive(Clone, Debug)]
pub struct Decrypted {
    under: ExtentMap,
    cipher: Arc<SectorCipher>,
}

/// Bytes could not be had, or not be decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable<E> {
    /// What lies under the container says so.
    Under(E),
    /// They are no part of the container.
    Outside,
}

impl Decrypted {
    /// The container whose encrypted bytes lie at `under`, all of it.
    pub fn new(under: ExtentMap, cipher: SectorCipher) -> Self {
        let cipher = Arc::new(cipher);
        Self { under, cipher }
    }

    /// How many bytes it has.
    pub fn size(&self) -> Bytes {
        self.under.size()
    }

    /// The whole sectors around `length` bytes from `offset`: where they begin, and how many bytes
    /// they have. `None` if any of them lies outside.
    fn sectors_around(&self, offset: Bytes, length: usize) -> Option<(Bytes, usize)> {
        let sector = u64::from(self.cipher.sector_size().get());
        let end = offset.get().checked_add(length as u64)?;
        let start = offset
            .get()
            .checked_sub(offset.get().checked_rem(sector)?)?;
        let end = end.checked_next_multiple_of(sector)?;
        let inside = end <= self.size().get();
        let length = usize::try_from(end.checked_sub(start)?).ok()?;
        inside.then_some((Bytes::new(start), length))
    }

    /// Decrypts whole sectors in place, the first of which begins at `offset`.
    fn decrypt<E>(&self, offset: Bytes, data: &mut [u8]) -> Result<(), Unreadable<E>> {
        let decrypted = self.cipher.decrypt(offset.get() / UNIT, data);
        decrypted.map_err(|_| Unreadable::Outside)
    }

    /// Encrypts whole sectors in place, the first of which begins at `offset`.
    fn encrypt<E>(&self, offset: Bytes, data: &mut [u8]) -> Result<(), Unreadable<E>> {
        let encrypted = self.cipher.encrypt(offset.get() / UNIT, data);
        encrypted.map_err(|_| Unreadable::Outside)
    }

    /// Fills `buffer` from `offset`; `read` fills a buffer with what lies under the container.
    ///
    /// # Errors
    /// What `read` says, or that the bytes lie outside.
    pub fn read<E>(
        &self,
        offset: Bytes,
        buffer: &mut [u8],
        mut read: impl FnMut(&ExtentMap, Bytes, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), Unreadable<E>> {
        let around = self.sectors_around(offset, buffer.len());
        let (start, length) = around.ok_or(Unreadable::Outside)?;
        if length == buffer.len() {
            read(&self.under, start, buffer).map_err(Unreadable::Under)?;
            return self.decrypt(start, buffer);
        }
        let mut sectors = vec![0; length];
        read(&self.under, start, &mut sectors).map_err(Unreadable::Under)?;
        self.decrypt(start, &mut sectors)?;
        let skipped = usize::try_from(offset.saturating_sub(start).get()).unwrap_or(usize::MAX);
        let wanted = sectors
            .get(skipped..)
            .and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(wanted.ok_or(Unreadable::Outside)?);
        Ok(())
    }

    /// Writes `data` at `offset`; `read` and `write` reach what lies under the container. A sector of
    /// which only a part is written is read first.
    ///
    /// # Errors
    /// What `read` or `write` says, or that the bytes lie outside.
    pub fn write<X, E>(
        &self,
        reach: &mut X,
        offset: Bytes,
        data: &[u8],
        read: impl Fn(&mut X, &ExtentMap, Bytes, &mut [u8]) -> Result<(), E>,
        write: impl Fn(&mut X, &ExtentMap, Bytes, &[u8]) -> Result<(), E>,
    ) -> Result<(), Unreadable<E>> {
        let around = self.sectors_around(offset, data.len());
        let (start, length) = around.ok_or(Unreadable::Outside)?;
        let mut sectors = vec![0; length];
        let skipped = usize::try_from(offset.saturating_sub(start).get()).unwrap_or(usize::MAX);
        let sector = usize::try_from(self.cipher.sector_size().get()).unwrap_or(usize::MAX);
        let covered = skipped.saturating_add(data.len());
        let mut read_sector = |at: usize| {
            let place = start
                .checked_add(Bytes::new(at as u64))
                .ok_or(Unreadable::Outside)?;
            let sector = sectors
                .get_mut(at..)
                .and_then(|rest| rest.get_mut(..sector));
            let sector = sector.ok_or(Unreadable::Outside)?;
            read(reach, &self.under, place, sector).map_err(Unreadable::Under)?;
            self.decrypt(place, sector)
        };
        let last = length.saturating_sub(sector);
        if skipped > 0 {
            read_sector(0)?;
        }
        if covered < length && (last > 0 || skipped == 0) {
            read_sector(last)?;
        }
        let place = sectors.get_mut(skipped..covered);
        place.ok_or(Unreadable::Outside)?.copy_from_slice(data);
        self.encrypt(start, &mut sectors)?;
        write(reach, &self.under, start, &sectors).map_err(Unreadable::Under)
    }
}

/// The images that a layer lies on at last, below all containers, each once.
pub fn lowest(map: &ExtentMap, opened: &DecryptedImages) -> Vec<ImageIndex> {
    let images_of = |map: &ExtentMap| map.places().map(|extent| extent.image).collect::<Vec<_>>();
    let mut seen = BTreeSet::new();
    let mut lowest = Vec::new();
    let mut waiting = images_of(map);
    while let Some(image) = waiting.pop() {
        if !seen.insert(image) {
            continue;
        }
        match opened.get(&image) {
            Some(container) => waiting.extend(images_of(&container.under)),
            None => lowest.push(image),
        }
    }
    lowest.sort_unstable();
    lowest
}
