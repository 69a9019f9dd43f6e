//! Every name virt-fsck gives to a file, a folder or a node of the storage daemon.

use std::path::{Path, PathBuf};

use crate::layers::extent::ImageIndex;
use crate::layers::tree::LayerPath;

/// The longest a mount point's file name gets; guests name their volume groups as they please.
const LONGEST_FILE_NAME: usize = 100;

/// The name of a node or export inside the storage daemon.
///
/// QEMU wants a letter first, then letters, digits, `-`, `.`, `_`, and at most 31 characters
/// (util/id.c and include/block/block-common.h), so disks go by number, not by target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct NodeName(String);

impl NodeName {
    /// The node that shows a disk as the guest sees it.
    pub fn disk(image: ImageIndex) -> Self {
        Self(format!("disk{}", image.0))
    }

    /// The node of an image under the disk's top image; 1 is directly under it.
    pub fn backing(image: ImageIndex, depth: usize) -> Self {
        Self(format!("disk{}-under{depth}", image.0))
    }

    /// The throw-away overlay over a disk.
    pub fn overlay(image: ImageIndex) -> Self {
        Self(format!("disk{}-overlay", image.0))
    }

    /// A filesystem, by its number in the run.
    pub fn filesystem(number: usize) -> Self {
        Self(format!("filesystem{number}"))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The mount point file for a layer: its path with dashes, so that a checker's messages name it.
pub fn mount_point(folder: &Path, layer: &LayerPath, number: usize) -> PathBuf {
    let readable: String = layer
        .as_str()
        .chars()
        .map(|letter| match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '+' | '-' => letter,
            _ => '-',
        })
        .take(LONGEST_FILE_NAME)
        .collect();
    folder.join(format!("{number}-{readable}"))
}

/// The overlay's file for a disk.
pub fn overlay_file(folder: &Path, image: ImageIndex) -> PathBuf {
    folder.join(format!("disk{}.qcow2", image.0))
}

/// What the folders of a run begin with, wherever they lie.
pub const FOLDER_PREFIX: &str = "virt-fsck-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_are_ones_qemu_takes() {
        let image = ImageIndex(usize::MAX);
        for name in [
            NodeName::disk(image),
            NodeName::overlay(image),
            NodeName::backing(ImageIndex(999), 200),
            NodeName::filesystem(usize::MAX),
        ] {
            assert!(name.as_str().len() <= 32, "{name:?}");
        }
        assert!(NodeName::backing(ImageIndex(9_999), 9_999).as_str().len() <= 31);
    }

    #[test]
    fn a_mount_point_stays_in_its_folder() {
        let layer = LayerPath::disk("vda").join("..").join("a b\u{202e}");
        assert_eq!(
            mount_point(Path::new("/run/x"), &layer, 3),
            Path::new("/run/x/3-vda-..-a-b-")
        );
        let long = LayerPath::disk(&"v".repeat(500));
        let file = mount_point(Path::new("/r"), &long, 0);
        assert!(file.file_name().is_some_and(|name| name.len() < 255));
    }
}
