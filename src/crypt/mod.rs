//! The ciphers of encrypted disks: sectors to bytes and back, as the kernel's dm-crypt does it.
//!
//! The rules are those of the kernel's `Documentation/admin-guide/device-mapper/dm-crypt.rst` and
//! `drivers/md/dm-crypt.c`. Nothing here opens or reads a device.

mod iv;
mod key;
mod mode;
mod sector_cipher;
mod spec;

pub use key::VolumeKey;
pub use sector_cipher::{SectorCipher, SectorCipherError};
pub use spec::{Algorithm, CipherSpec, EssivHash, Iv, Mode, SpecError};
