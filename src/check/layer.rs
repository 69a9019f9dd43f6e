//! The answers that need no checker: what a layer's kind says by itself.

use crate::allow::Allowance;
use crate::check::checker::{self, Checker};
use crate::check::outcome::Verdict;
use crate::layers::dormant::Opener;
use crate::layers::filesystem::Filesystem;
use crate::layers::tree::{Closed, Content, Layer};

/// What is to be done for a layer.
#[derive(Debug)]
pub enum Need<'a> {
    /// It only holds other layers, which have answers of their own.
    Nothing,
    /// The answer is known.
    Answer(Verdict),
    /// LVM, MD or dm-crypt must open it before it can be said what is in it.
    Activation {
        /// Which of the two.
        by: Opener,
        /// What it is.
        reason: &'a str,
    },
    /// It is a filesystem to be checked.
    Check {
        /// By this checker.
        checker: Checker,
        /// What its superblock tells.
        filesystem: &'a Filesystem,
    },
}

const UNFINISHED: &str = "its superblock says that it is still being made or copied (mkfs.xfs, \
                          xfs_copy): if nobody does, make it or copy it anew";

/// What is to be done for a layer.
pub fn need(layer: &Layer) -> Need<'_> {
    Need::Answer(match &layer.content {
        Content::PartitionTable {
            incomplete: true, ..
        } => Verdict::NotChecked(
            "there may be partitions that were not found; the notes tell why".to_owned(),
        ),
        Content::PartitionTable { .. } if layer.children.is_empty() => {
            Verdict::NothingToCheck("no partitions".to_owned())
        }
        Content::PartitionTable { .. } => return Need::Nothing,
        Content::PhysicalVolume { volume_group, .. } if layer.children.is_empty() => {
            Verdict::NothingToCheck(match volume_group {
                Some(group) => format!("no logical volume of {group} begins here"),
                None => "it belongs to no volume group".to_owned(),
            })
        }
        Content::PhysicalVolume { .. } => return Need::Nothing,
        Content::RaidMember { array, .. } if layer.children.is_empty() => {
            Verdict::NothingToCheck(format!("a member of {array}"))
        }
        Content::RaidMember { .. } => return Need::Nothing,
        Content::Filesystem(filesystem) if filesystem.record.unfinished => {
            Verdict::Refused(UNFINISHED.to_owned())
        }
        Content::Filesystem(filesystem) => match checker::checker_for(filesystem.kind) {
            Err(verdict) => verdict,
            Ok(_) if is_cut_off(filesystem, layer) => cut_off(filesystem, layer),
            Ok(checker) => {
                return Need::Check {
                    checker,
                    filesystem,
                };
            }
        },
        Content::Swap { .. } => Verdict::NothingToCheck("swap space".to_owned()),
        Content::Journal { kind, .. } => Verdict::NothingToCheck(format!(
            "{}: it is checked with the filesystem that it belongs to",
            kind.name()
        )),
        Content::Dormant { by, reason, .. } => return Need::Activation { by: *by, reason },
        Content::Pool { what, .. } => {
            Verdict::NothingToCheck(format!("{what}: it holds other volumes"))
        }
        Content::Opaque { reason, .. } => Verdict::NotChecked(reason.clone()),
        Content::Luks { closed: None, .. } => return Need::Nothing,
        Content::Luks {
            closed: Some(closed),
            ..
        } => match closed {
            Closed::ForTheKernel(reason) => {
                let by = Opener::Luks;
                return Need::Activation { by, reason };
            }
            Closed::NotTried | Closed::NoKey(_) => Verdict::NotChecked(closed.reason().to_owned()),
            Closed::Failed(reason) => Verdict::Failed(reason.clone()),
        },
        Content::Blank => Verdict::NothingToCheck("empty".to_owned()),
        Content::Unknown if holds_boot_code(layer) => {
            Verdict::NothingToCheck("boot code, no filesystem".to_owned())
        }
        Content::Unknown => Verdict::NotChecked("it holds data that was not recognised".to_owned()),
        Content::Unreadable { cause } => Verdict::Failed(cause.clone()),
    })
}

/// The answer for what only the kernel engine can show, where that is not to be had.
pub fn beyond_the_user_engine(layer: &Layer, no_kernel: &str) -> Verdict {
    Verdict::NotChecked(match &layer.content {
        Content::Dormant {
            by: Opener::Md,
            reason,
            ..
        } => format!("{reason}: {no_kernel}"),
        Content::Dormant { reason, .. }
        | Content::Luks {
            closed: Some(Closed::ForTheKernel(reason)),
            ..
        } => {
            format!("{reason}, which the user engine cannot open: {no_kernel}")
        }
        _ => no_kernel.to_owned(),
    })
}

/// The answer for what LVM or MD has not opened: its own reason, if there is one.
pub fn not_activated(layer: &Layer, otherwise: &str) -> Verdict {
    Verdict::NotChecked(match &layer.content {
        Content::Dormant { reason, cause, .. } => {
            format!("{reason}: {}", cause.as_deref().unwrap_or(otherwise))
        }
        _ => otherwise.to_owned(),
    })
}

/// Whether a part of it is not there.
pub fn is_cut_off(filesystem: &Filesystem, layer: &Layer) -> bool {
    filesystem.size.is_some_and(|size| size > layer.size())
}

/// Checkers take what is not there for empty, or "repair" it away, and e2fsck -n even goes on and
/// finds nothing wrong.
fn cut_off(filesystem: &Filesystem, layer: &Layer) -> Verdict {
    Verdict::Failed(format!(
        "its superblock says that it has {}, and only {} of it are there: the image or the \
         partition was cut off; give it its full size back and check again",
        filesystem.size.unwrap_or_default(),
        layer.size()
    ))
}

fn holds_boot_code(layer: &Layer) -> bool {
    layer.role.as_ref().is_some_and(|role| role.holds_boot_code)
}

/// Why nothing of the domain may be touched: a suspended system's memory knows the filesystems as
/// they are now (Documentation/power/swsusp.rst of Linux). `None` if there is none.
pub fn hibernated(layers: &[Layer]) -> Option<String> {
    layers
        .iter()
        .flat_map(Layer::walk)
        .find_map(|layer| match &layer.content {
            Content::Swap {
                hibernated: Some(signature),
                ..
            } => Some(format!(
                "the guest is hibernated: its memory lies in {} ({signature}); start it and shut \
                 it down, then check again",
                layer.path
            )),
            _ => None,
        })
}

/// Why nothing of the domain may be written: other guests, of this host or another, may use the same
/// disks, and only LVM's lock manager inside them knows. `None` if there is no such volume group.
pub fn shared_storage(layers: &[Layer]) -> Option<String> {
    let layers = layers.iter().flat_map(Layer::walk);
    layers.into_iter().find_map(|layer| match &layer.content {
        Content::PhysicalVolume {
            volume_group: Some(group),
            shared: Some(locks),
            ..
        } => Some(format!(
            "the volume group {group} on {} is meant for storage that several guests use at once \
             ({locks}): shut down all of them, and say so with --allow {}, or look only: -n",
            layer.path,
            Allowance::SharedLvm.name()
        )),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::extent::{ExtentMap, ImageIndex};
    use crate::layers::filesystem::{CheckRecord, FilesystemKind};
    use crate::layers::tree::{LayerPath, PartitionRole};
    use crate::units::Bytes;

    fn layer(content: Content) -> Layer {
        Layer {
            path: LayerPath::disk("vda"),
            extents: ExtentMap::whole(ImageIndex(0), Bytes::mib(1)),
            role: None,
            read_only: None,
            content,
            notes: Vec::new(),
            children: Vec::new(),
        }
    }

    #[test]
    fn what_nobody_recognises_is_not_called_clean() {
        let data = layer(Content::Unknown);
        assert!(matches!(need(&data), Need::Answer(Verdict::NotChecked(_))));
    }

    #[test]
    fn boot_code_is_expected_to_be_nothing() {
        let mut boot = layer(Content::Unknown);
        boot.role = Some(PartitionRole {
            type_code: String::new(),
            type_name: None,
            name: None,
            holds_boot_code: true,
        });
        assert!(matches!(
            need(&boot),
            Need::Answer(Verdict::NothingToCheck(_))
        ));
    }

    #[test]
    fn a_filesystem_that_is_larger_than_its_layer_is_not_checked() {
        let of_size = |size| Filesystem {
            kind: FilesystemKind::Ext4,
            uuid: None,
            label: None,
            size,
            record: CheckRecord::default(),
        };
        for (size, is_checked) in [
            (None, true),
            (Some(Bytes::mib(1)), true),
            (Some(Bytes::new(1024 * 1024 + 1)), false),
        ] {
            let layer = layer(Content::Filesystem(of_size(size)));
            let need = need(&layer);
            assert_eq!(matches!(need, Need::Check { .. }), is_checked, "{need:?}");
        }
    }

    #[test]
    fn a_hibernated_guest_is_found_wherever_its_swap_lies() {
        let swap = Content::Swap {
            uuid: None,
            label: None,
            hibernated: Some("S1SUSPEND".to_owned()),
        };
        let mut disk = layer(Content::Unknown);
        disk.children.push(layer(swap));
        assert!(hibernated(&[disk]).unwrap().contains("S1SUSPEND"));
        assert_eq!(hibernated(&[layer(Content::Blank)]), None);
    }

    #[test]
    fn a_shared_volume_group_is_found() {
        let group = |shared: Option<&str>| Content::PhysicalVolume {
            uuid: String::new(),
            volume_group: Some("data".to_owned()),
            shared: shared.map(str::to_owned),
        };
        let words = shared_storage(&[layer(group(Some("lock type dlm")))]).unwrap();
        assert!(words.contains("data on vda") && words.contains("lock type dlm"));
        assert_eq!(shared_storage(&[layer(group(None))]), None);
    }
}
