//! The initialisation vectors of sectors.

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::key::VolumeKey;
use super::mode::{Block, BlockCipher};
use super::spec::{EssivHash, Iv};

/// A cipher that encrypts initialisation vectors, each by itself.
trait EncryptEach: Send + Sync {
    fn encrypt_each(&self, blocks: &mut [Block]);
}

impl<C: BlockCipher> EncryptEach for C {
    fn encrypt_each(&self, blocks: &mut [Block]) {
        self.encrypt_blocks(blocks);
    }
}

/// Makes initialisation vectors.
pub(super) struct IvGenerator {
    iv: Iv,
    /// The cipher of ESSIV, with its key.
    salted: Option<Box<dyn EncryptEach>>,
}

impl IvGenerator {
    /// A generator; `E` is the volume's block cipher for the keys that ESSIV has. `None` if it takes
    /// no key of such a length.
    pub(super) fn new<E: BlockCipher>(iv: Iv, key: &VolumeKey) -> Option<Self> {
        let salted: Option<Box<dyn EncryptEach>> = match iv {
            Iv::Essiv(EssivHash::Sha256) => {
                let mut salt = Zeroizing::new([0; 32]);
                Sha256::new_with_prefix(key.bytes()).finalize_into((&mut *salt).into());
                Some(Box::new(E::new_from_slice(&*salt).ok()?))
            }
            Iv::Null | Iv::Plain | Iv::Plain64 | Iv::Plain64be => None,
        };
        Some(Self { iv, salted })
    }

    /// The initialisation vectors of sectors that follow one another: the number of the first, and by
    /// how much the numbers grow. They begin again at zero after 2^64, as in the kernel.
    pub(super) fn fill(&self, first: u64, step: u64, ivs: &mut [Block]) {
        let mut number = first;
        for iv in &mut *ivs {
            iv.0 = match self.iv {
                Iv::Null => [0; 16],
                Iv::Plain => u128::from(number & u64::from(u32::MAX)).to_le_bytes(),
                Iv::Plain64 | Iv::Essiv(_) => u128::from(number).to_le_bytes(),
                Iv::Plain64be => u128::from(number).to_be_bytes(),
            };
            number = number.wrapping_add(step);
        }
        if let Some(cipher) = &self.salted {
            cipher.encrypt_each(ivs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ivs(iv: Iv, first: u64, step: u64) -> [[u8; 16]; 2] {
        let key = VolumeKey::new(Zeroizing::new(vec![1; 16]));
        let generator = IvGenerator::new::<aes::Aes256>(iv, &key).unwrap();
        let mut ivs = [Block::default(); 2];
        generator.fill(first, step, &mut ivs);
        ivs.map(|iv| iv.0)
    }

    #[test]
    fn numbers() {
        let first = 0x0102_0304_ffff_fff8;
        assert_eq!(ivs(Iv::Null, first, 8), [[0; 16]; 2]);
        assert_eq!(
            ivs(Iv::Plain, first, 8),
            [
                [0xf8, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                [0; 16]
            ]
        );
        assert_eq!(
            ivs(Iv::Plain64, first, 8),
            [
                [0xf8, 0xff, 0xff, 0xff, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0],
                [0, 0, 0, 0, 5, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0]
            ]
        );
        assert_eq!(
            ivs(Iv::Plain64be, first, 8),
            [
                [0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 0xff, 0xff, 0xff, 0xf8],
                [0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 5, 0, 0, 0, 0]
            ]
        );
        assert_eq!(ivs(Iv::Plain64, u64::MAX, 1)[1], [0; 16]);
    }
}
