//! The user engine: QEMU's storage daemon opens the images and shows each filesystem as a plain
//! file over FUSE. No kernel module, no device, and no root for images the user owns.

pub mod composed;
pub mod daemon;
pub mod nodes;
pub mod qmp;
pub mod session;
