//! The host's LUKS devices: cryptsetup(8) finds the key, and a device-mapper device of our own
//! decrypts with it.
//!
//! A device that `cryptsetup open` makes is announced to udev as one of the host's, whose rules then
//! let LVM activate whatever volume group lies on it: a guest's, and it keeps the device in use.

mod device;

pub(super) use device::{Luks, holder};
