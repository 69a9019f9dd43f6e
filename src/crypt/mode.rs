//! Modes of block ciphers: the blocks of sectors to bytes and back.

use aes::cipher::array::Array;
use aes::cipher::consts::U16;
use aes::cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, BlockSizeUser,
    InnerIvInit, KeyInit,
};

/// What a cipher takes at once.
pub(super) type Block = Array<u8, U16>;

/// The length of a [`Block`] in bytes.
pub(super) const BLOCK: usize = 16;

/// How many blocks are worked on at once: 4096 bytes, the largest sector. Processors with AES decrypt
/// several blocks in the time of one, so that a sector of 512 bytes at a time would be slower.
pub(super) const BATCH: usize = 4096 / BLOCK;

/// A block cipher with a key.
pub(super) trait BlockCipher:
    BlockCipherEncrypt
    + BlockCipherDecrypt
    + BlockSizeUser<BlockSize = U16>
    + KeyInit
    + Send
    + Sync
    + 'static
{
}

impl<C> BlockCipher for C where
    C: BlockCipherEncrypt
        + BlockCipherDecrypt
        + BlockSizeUser<BlockSize = U16>
        + KeyInit
        + Send
        + Sync
        + 'static
{
}

/// A cipher and its mode. Both ways work in place, on sectors of `length` blocks, one for each
/// initialisation vector, and on [`BATCH`] blocks at most.
pub(super) trait Cipher: Send + Sync {
    fn encrypt(&self, ivs: &mut [Block], blocks: &mut [Block], length: usize);
    fn decrypt(&self, ivs: &mut [Block], blocks: &mut [Block], length: usize);
}

/// CBC.
pub(super) struct Cbc<C>(C);

impl<C: BlockCipher> Cbc<C> {
    /// The cipher with its key; `None` if it takes none of such a length.
    pub(super) fn new(key: &[u8]) -> Option<Self> {
        Some(Self(C::new_from_slice(key).ok()?))
    }
}

impl<C: BlockCipher> Cipher for Cbc<C> {
    fn encrypt(&self, ivs: &mut [Block], blocks: &mut [Block], length: usize) {
        for (sector, iv) in blocks.chunks_mut(length).zip(ivs) {
            cbc::Encryptor::inner_iv_init(&self.0, iv).encrypt_blocks(sector);
        }
    }

    fn decrypt(&self, ivs: &mut [Block], blocks: &mut [Block], length: usize) {
        for (sector, iv) in blocks.chunks_mut(length).zip(ivs) {
            cbc::Decryptor::inner_iv_init(&self.0, iv).decrypt_blocks(sector);
        }
    }
}

/// XTS (IEEE 1619), without the part about sectors that are no whole number of blocks.
pub(super) struct Xts<C> {
    data: C,
    tweak: C,
}

impl<C: BlockCipher> Xts<C> {
    /// The cipher with both of its keys; `None` if it takes none of such a length.
    pub(super) fn new(key: &[u8]) -> Option<Self> {
        let (data, tweak) = key.split_at_checked(key.len() / 2)?;
        Some(Self {
            data: C::new_from_slice(data).ok()?,
            tweak: C::new_from_slice(tweak).ok()?,
        })
    }

    fn crypt(
        &self,
        ivs: &mut [Block],
        blocks: &mut [Block],
        length: usize,
        work: impl Fn(&C, &mut [Block]),
    ) {
        self.tweak.encrypt_blocks(ivs);
        let mut tweaks = [Block::default(); BATCH];
        for (tweaks, iv) in tweaks.chunks_mut(length).zip(ivs) {
            let mut next = u128::from_le_bytes(iv.0);
            for tweak in tweaks {
                tweak.0 = next.to_le_bytes();
                next = doubled(next);
            }
        }
        add(blocks, &tweaks);
        work(&self.data, blocks);
        add(blocks, &tweaks);
    }
}

impl<C: BlockCipher> Cipher for Xts<C> {
    fn encrypt(&self, ivs: &mut [Block], blocks: &mut [Block], length: usize) {
        self.crypt(ivs, blocks, length, C::encrypt_blocks);
    }

    fn decrypt(&self, ivs: &mut [Block], blocks: &mut [Block], length: usize) {
        self.crypt(ivs, blocks, length, C::decrypt_blocks);
    }
}

/// The tweak of the next block: times x in the field of 2^128 elements whose polynomial is
/// x^128 + x^7 + x^2 + x + 1.
const fn doubled(tweak: u128) -> u128 {
    // Without a branch, so that the time it takes tells nothing.
    let carry = 0_u128.wrapping_sub(tweak >> 127);
    (tweak << 1) ^ (carry & 0x87)
}

fn add(blocks: &mut [Block], tweaks: &[Block]) {
    for (block, tweak) in blocks.iter_mut().zip(tweaks) {
        for (byte, tweak) in block.iter_mut().zip(tweak) {
            *byte ^= tweak;
        }
    }
}
