//! A cipher with its key: sectors of a device to bytes and back.

use std::fmt;

use aes::{Aes128, Aes192, Aes256};
use camellia::{Camellia128, Camellia192, Camellia256};
use serpent::Serpent;
use twofish::Twofish;

use SectorCipherError::{IvOffset, KeyLength, PartOfSector, SectorLength};

use super::iv::IvGenerator;
use super::key::VolumeKey;
use super::mode::{BATCH, BLOCK, Block, BlockCipher, Cbc, Cipher, Xts};
use super::spec::{Algorithm, CipherSpec, Mode};
use crate::units::SectorSize;

/// What the numbers of sectors count, in bytes (dm-crypt without `iv_large_sectors`, which
/// cryptsetup does not ask for with LUKS).
const UNIT: usize = 512;

/// The largest sector of dm-crypt, in bytes.
const LARGEST_SECTOR: u32 = 4096;

/// How many of them a batch has, and so the most sectors in one.
const BATCH_SECTORS: usize = BATCH * BLOCK / UNIT;

/// Why something is not encrypted or decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SectorCipherError {
    /// The key is not as long as the header says.
    #[error("the volume key has {found} bytes instead of {expected}")]
    KeyLength {
        /// How long it must be, in bytes.
        expected: usize,
        /// How long it is, in bytes.
        found: usize,
    },
    /// dm-crypt has no such sectors.
    #[error("no sector of {length} bytes can be encrypted", length = .0.get())]
    SectorLength(SectorSize),
    /// What is added to the numbers of sectors is no whole number of them.
    #[error("{iv_offset} sectors of 512 bytes are no whole sectors of {sector_size} bytes", sector_size = .sector_size.get())]
    IvOffset {
        /// It, in sectors of 512 bytes.
        iv_offset: u64,
        /// What is encrypted at once.
        sector_size: SectorSize,
    },
    /// It begins or ends inside a sector.
    #[error("{length} bytes at sector {first_sector} are no whole sectors of {sector_size} bytes", sector_size = .sector_size.get())]
    PartOfSector {
        /// Where they begin, in sectors of 512 bytes.
        first_sector: u64,
        /// How many bytes there are.
        length: usize,
        /// What is encrypted at once.
        sector_size: SectorSize,
    },
}

/// Encrypts and decrypts the sectors of a device. Several threads may use it at a time.
pub struct SectorCipher {
    spec: CipherSpec,
    sector_size: SectorSize,
    iv_offset: u64,
    ivs: IvGenerator,
    cipher: Box<dyn Cipher>,
}

/// Without the key.
impl fmt::Debug for SectorCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SectorCipher")
            .field("spec", &self.spec)
            .field("sector_size", &self.sector_size)
            .field("iv_offset", &self.iv_offset)
            .finish_non_exhaustive()
    }
}

impl SectorCipher {
    /// The cipher of a device: with its key, what is encrypted at once, and what is added to the
    /// numbers of sectors for their initialisation vectors, in sectors of 512 bytes (`iv_tweak` of
    /// a segment of LUKS2; 0 for LUKS1).
    ///
    /// # Errors
    /// [`KeyLength`], [`SectorLength`] and [`IvOffset`]; the kernel refuses these as well.
    pub fn new(
        spec: CipherSpec,
        key: &VolumeKey,
        sector_size: SectorSize,
        iv_offset: u64,
    ) -> Result<Self, SectorCipherError> {
        let wrong_key = KeyLength {
            expected: spec.key_length(),
            found: key.length(),
        };
        if key.length() != spec.key_length() {
            return Err(wrong_key);
        }
        if sector_size.get() > LARGEST_SECTOR {
            return Err(SectorLength(sector_size));
        }
        if !iv_offset.is_multiple_of(units(sector_size)) {
            return Err(IvOffset {
                iv_offset,
                sector_size,
            });
        }
        let block_key = match spec.mode() {
            Mode::Xts => spec.key_length() / 2,
            Mode::Cbc => spec.key_length(),
        };
        let parts = match (spec.algorithm(), block_key) {
            (Algorithm::Aes, 16) => parts::<Aes128, Aes256>(spec, key),
            (Algorithm::Aes, 24) => parts::<Aes192, Aes256>(spec, key),
            (Algorithm::Aes, _) => parts::<Aes256, Aes256>(spec, key),
            (Algorithm::Serpent, _) => parts::<Serpent, Serpent>(spec, key),
            (Algorithm::Twofish, _) => parts::<Twofish, Twofish>(spec, key),
            (Algorithm::Camellia, 16) => parts::<Camellia128, Camellia256>(spec, key),
            (Algorithm::Camellia, 24) => parts::<Camellia192, Camellia256>(spec, key),
            (Algorithm::Camellia, _) => parts::<Camellia256, Camellia256>(spec, key),
        };
        let (ivs, cipher) = parts.ok_or(wrong_key)?;
        Ok(Self {
            spec,
            sector_size,
            iv_offset,
            ivs,
            cipher,
        })
    }

    /// What is encrypted at once.
    pub const fn sector_size(&self) -> SectorSize {
        self.sector_size
    }

    /// Decrypts whole sectors in place. `first_sector` counts from where the encrypted bytes begin,
    /// in sectors of 512 bytes, however large those of the cipher are.
    ///
    /// # Errors
    /// [`PartOfSector`]; nothing is decrypted then.
    pub fn decrypt(&self, first_sector: u64, data: &mut [u8]) -> Result<(), SectorCipherError> {
        self.each_batch(first_sector, data, |ivs, blocks, length| {
            self.cipher.decrypt(ivs, blocks, length);
        })
    }

    /// Encrypts whole sectors in place; the rest is as in [`Self::decrypt`].
    ///
    /// # Errors
    /// [`PartOfSector`]; nothing is encrypted then.
    pub fn encrypt(&self, first_sector: u64, data: &mut [u8]) -> Result<(), SectorCipherError> {
        self.each_batch(first_sector, data, |ivs, blocks, length| {
            self.cipher.encrypt(ivs, blocks, length);
        })
    }

    /// Calls `work` with the sectors' initialisation vectors, their blocks, and how many blocks a
    /// sector has.
    fn each_batch(
        &self,
        first_sector: u64,
        data: &mut [u8],
        work: impl Fn(&mut [Block], &mut [Block], usize),
    ) -> Result<(), SectorCipherError> {
        let part_of_sector = PartOfSector {
            first_sector,
            length: data.len(),
            sector_size: self.sector_size,
        };
        let units = units(self.sector_size);
        let sector = usize::try_from(self.sector_size.get()).map_err(|_| part_of_sector)?;
        if !first_sector.is_multiple_of(units) || !data.len().is_multiple_of(sector) {
            return Err(part_of_sector);
        }
        let length = sector / BLOCK;
        let (blocks, _) = Block::slice_as_chunks_mut(data);
        let mut number = first_sector.wrapping_add(self.iv_offset);
        for batch in blocks.chunks_mut(BATCH) {
            let sectors = batch.len().div_ceil(length).min(BATCH_SECTORS);
            let mut ivs = [Block::default(); BATCH_SECTORS];
            let (ivs, _) = ivs.split_at_mut(sectors);
            self.ivs.fill(number, units, ivs);
            work(ivs, batch, length);
            number = number.wrapping_add(BATCH_SECTORS as u64);
        }
        Ok(())
    }
}

/// How many sectors of 512 bytes a sector has.
fn units(size: SectorSize) -> u64 {
    u64::from(size.get()) / UNIT as u64
}

/// What makes the initialisation vectors, and the cipher in its mode; `E` is the cipher for the keys
/// of ESSIV. `None` if it takes no key of such a length.
fn parts<C: BlockCipher, E: BlockCipher>(
    spec: CipherSpec,
    key: &VolumeKey,
) -> Option<(IvGenerator, Box<dyn Cipher>)> {
    let cipher: Box<dyn Cipher> = match spec.mode() {
        Mode::Xts => Box::new(Xts::<C>::new(key.bytes())?),
        Mode::Cbc => Box::new(Cbc::<C>::new(key.bytes())?),
    };
    Some((IvGenerator::new::<E>(spec.iv(), key)?, cipher))
}

#[cfg(test)]
mod tests;
