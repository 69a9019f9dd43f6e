//! F2FS (kernel: include/linux/f2fs_fs.h, `struct f2fs_super_block`).

use crate::layers::filesystem::{CheckRecord, Elsewhere, Filesystem, FilesystemKind};
use crate::layers::signature::field;
use crate::layers::signature::probe::Probe;
use crate::units::Bytes;

/// The two superblocks, in the first two blocks of 4 KiB.
const SUPERBLOCKS: [usize; 2] = [1024, 4096 + 1024];
const SUPERBLOCK_LENGTH: usize = 3072;
const MAGIC: u32 = 0xf2f5_2010;

const LOG_BLOCK_SIZE: usize = 16;
const BLOCK_COUNT: usize = 36;
const UUID: usize = 108;
const LABEL: usize = 124;
const LABEL_LENGTH: usize = 1024;
/// `struct f2fs_device`: a path and a number of segments.
const DEVICES: usize = 2201;
const PATH_LENGTH: usize = 64;
const DEVICE_LENGTH: usize = PATH_LENGTH + 4;
const MAX_DEVICES: usize = 8;

/// The first superblock. Both are asked for other devices, because fsck.f2fs takes the second
/// where the first does not please it.
pub(super) fn recognise(probe: &Probe) -> Option<Filesystem> {
    let [first, second] = SUPERBLOCKS.map(|at| superblock(probe, at));
    let block = first?;
    let [own, of_second] = [Some(block), second].map(|block| block.map_or_else(Vec::new, devices));
    let devices = if of_second.len() > own.len() {
        of_second
    } else {
        own
    };
    // That of all devices together, where there are several.
    let size = 1_u64
        .checked_shl(field::le32(block, LOG_BLOCK_SIZE)?)
        .and_then(|block_size| field::le64(block, BLOCK_COUNT)?.checked_mul(block_size))
        .filter(|size| devices.is_empty() && *size != 0);
    Some(Filesystem {
        kind: FilesystemKind::F2fs,
        uuid: field::uuid(block, UUID),
        label: field::utf16(block, LABEL, LABEL_LENGTH),
        size: size.map(Bytes::new),
        record: CheckRecord {
            devices: Some(devices.len().max(1) as u64),
            elsewhere: match devices.is_empty() {
                true => Elsewhere::Nothing,
                false => Elsewhere::Paths(devices),
            },
            ..CheckRecord::default()
        },
    })
}

fn superblock<'a>(probe: &'a Probe<'_>, at: usize) -> Option<&'a [u8]> {
    let block = probe.from(at).get(..SUPERBLOCK_LENGTH)?;
    (field::le32(block, 0)? == MAGIC).then_some(block)
}

/// The paths of all devices in the superblock; none where there is only this one.
fn devices(block: &[u8]) -> Vec<String> {
    let paths = (0..MAX_DEVICES).map(|number| DEVICES + DEVICE_LENGTH * number);
    let named = paths.filter(|at| field::u8(block, *at).is_some_and(|first| first != 0));
    named
        .map(|at| field::text(block, at, PATH_LENGTH).unwrap_or_default())
        .collect()
}
