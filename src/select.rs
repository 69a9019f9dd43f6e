//! Which disks and filesystems of a domain the user asked for.

use std::time::Duration;

use crate::layers::filesystem::Timestamp;
use crate::layers::tree::{Content, Layer};

/// What `--disk` and `--filesystem` named; nothing named means everything.
///
/// Of that, perhaps only what is due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Target names: `vda`.
    pub disks: Vec<String>,
    /// Paths in the tree, or UUIDs.
    pub filesystems: Vec<String>,
    /// Only the filesystems that are due; all if `None`.
    pub due: Option<Due>,
}

/// When a filesystem is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The present moment.
    pub now: Timestamp,
    /// How long ago the last check may be; `None` if only the filesystem itself says when.
    pub max_age: Option<Duration>,
}

impl Due {
    /// What is no filesystem is not kept back: one may lie in it.
    fn wants(self, layer: &Layer) -> bool {
        match &layer.content {
            Content::Filesystem(filesystem) => filesystem.record.is_due(self.now, self.max_age),
            _ => true,
        }
    }
}

impl Selection {
    /// Whether answers for this disk are wanted. All disks are opened in any case, because a
    /// volume group may span them.
    pub fn wants_disk(&self, target: &str) -> bool {
        let is_root = |path: &String| path.split('/').next() == Some(target);
        let by_disk = self.disks.is_empty() || self.disks.iter().any(|disk| disk == target);
        let by_path = self.filesystems.is_empty() || self.filesystems.iter().any(is_root);
        by_disk && by_path
    }

    /// Whether an answer for this layer is wanted: it was named, or lies in a layer that was, or is
    /// closed, and something in it was named.
    pub fn wants(&self, layer: &Layer) -> bool {
        let path = &layer.path;
        let by_disk =
            self.disks.is_empty() || self.disks.iter().any(|disk| is_in(path.as_str(), disk));
        let by_name = self.filesystems.is_empty()
            || self.filesystems.iter().any(|name| {
                is_in(path.as_str(), name) || has_uuid(layer, name) || hides(layer, name)
            });
        by_disk && by_name && self.due.is_none_or(|due| due.wants(layer))
    }

    /// The layers that an answer is wanted for.
    pub fn wanted<'l>(&self, layers: &'l [Layer]) -> Vec<&'l Layer> {
        let all = layers.iter().flat_map(Layer::walk);
        all.filter(|layer| self.wants(layer)).collect()
    }

    /// The names that no disk and no layer has.
    pub fn unknown<'a>(&'a self, targets: &[&str], layers: &[Layer]) -> Vec<&'a str> {
        let no_disk = |disk: &&String| !targets.contains(&disk.as_str());
        let disks = self.disks.iter().filter(no_disk);
        let disks = disks.map(String::as_str);
        let filesystems = self.filesystems.iter().map(String::as_str);
        let filesystems = unknown_layers(filesystems, targets, layers);
        disks.chain(filesystems).collect()
    }
}

/// Those of the names that no layer has, as far as everything could be opened.
pub fn unknown_layers<'a>(
    names: impl Iterator<Item = &'a str>,
    targets: &[&str],
    layers: &[Layer],
) -> Vec<&'a str> {
    let all: Vec<&Layer> = layers.iter().flat_map(Layer::walk).collect();
    // What an unopened disk holds nobody knows.
    let may_be_unopened = |name: &str| {
        let root = name.split('/').next().unwrap_or_default();
        targets.contains(&root) && !layers.iter().any(|disk| disk.path.as_str() == root)
    };
    let is_known = |layer: &&Layer, name: &str| {
        layer.path.as_str() == name || has_uuid(layer, name) || hides(layer, name)
    };
    let unknown =
        |name: &&str| !may_be_unopened(name) && !all.iter().any(|layer| is_known(layer, name));
    names.filter(unknown).collect()
}

/// What a closed container holds nobody knows.
fn hides(layer: &Layer, name: &str) -> bool {
    let closed = layer.content.is_closed();
    closed && is_in(name, layer.path.as_str())
}

fn is_in(path: &str, name: &str) -> bool {
    path.strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn has_uuid(layer: &Layer, name: &str) -> bool {
    let uuid = match &layer.content {
        Content::Filesystem(filesystem) => filesystem.uuid.as_deref(),
        Content::Swap { uuid, .. }
        | Content::Journal { uuid, .. }
        | Content::Luks { uuid, .. }
        | Content::Opaque { uuid, .. } => uuid.as_deref(),
        Content::Dormant { uuid, .. } | Content::Pool { uuid, .. } => Some(uuid.as_str()),
        _ => None,
    };
    uuid.is_some_and(|uuid| uuid.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::extent::ExtentMap;
    use crate::layers::filesystem::{CheckRecord, Filesystem, FilesystemKind};
    use crate::layers::luks::Version;
    use crate::layers::tree::{Closed, LayerPath};

    fn layer(path: &LayerPath) -> Layer {
        Layer {
            path: path.clone(),
            extents: ExtentMap::default(),
            role: None,
            read_only: None,
            content: Content::Blank,
            notes: Vec::new(),
            children: Vec::new(),
        }
    }

    #[test]
    fn a_name_selects_a_layer_and_all_in_it() {
        let selection = Selection {
            disks: Vec::new(),
            filesystems: vec!["vda/p1".to_owned()],
            due: None,
        };
        let disk = LayerPath::disk("vda");
        assert!(selection.wants(&layer(&disk.join("p1"))));
        assert!(selection.wants(&layer(&disk.join("p1").join("vg"))));
        assert!(!selection.wants(&layer(&disk.join("p10"))));
        assert!(!selection.wants(&layer(&disk)));
        assert!(selection.wants_disk("vda"));
        assert!(!selection.wants_disk("vdb"));
        assert!(
            selection
                .unknown(&["vda"], &[layer(&disk.join("p1"))])
                .is_empty()
        );
        assert_eq!(selection.unknown(&["vda"], &[layer(&disk)]), ["vda/p1"]);
        assert!(selection.unknown(&["vda"], &[]).is_empty());
    }

    #[test]
    fn what_a_closed_container_holds_may_be_what_was_named() {
        let selection = Selection {
            disks: Vec::new(),
            filesystems: vec!["vda/p1/luks/guest/root".to_owned()],
            due: None,
        };
        let mut container = layer(&LayerPath::disk("vda").join("p1"));
        for (closed, is_wanted) in [
            (Some(Closed::NoKey("there is none".to_owned())), true),
            (None, false),
        ] {
            container.content = Content::Luks {
                version: Version::Two,
                uuid: None,
                cipher: "aes-xts-plain64".to_owned(),
                closed,
            };
            assert_eq!(selection.wants(&container), is_wanted);
            let mut disk = layer(&LayerPath::disk("vda"));
            disk.children.push(container.clone());
            let disks = [disk];
            let unknown = selection.unknown(&["vda"], &disks);
            assert_eq!(unknown.is_empty(), is_wanted);
        }
    }

    #[test]
    fn only_filesystems_can_be_not_due() {
        let due = Selection {
            due: Some(Due {
                now: Timestamp(1000),
                max_age: Some(Duration::from_secs(100)),
            }),
            ..Selection::default()
        };
        let mut root = layer(&LayerPath::disk("vda"));
        assert!(due.wants(&root));
        for (checked, is_wanted) in [(899, true), (900, false)] {
            root.content = Content::Filesystem(Filesystem {
                kind: FilesystemKind::Ext4,
                uuid: None,
                label: None,
                size: None,
                record: CheckRecord {
                    last_check: Some(Timestamp(checked)),
                    ..CheckRecord::default()
                },
            });
            assert_eq!(due.wants(&root), is_wanted, "{checked}");
            assert!(Selection::default().wants(&root));
        }
    }

    #[test]
    fn nothing_named_is_everything() {
        let everything = Selection::default();
        assert!(everything.wants(&layer(&LayerPath::disk("sda"))));
        assert!(everything.wants_disk("sda"));
    }
}
