//! What of a filesystem lies on another layer, and must be shown to its checker together with it.

use std::collections::HashSet;

use crate::check::layer;
use crate::check::outcome::Verdict;
use crate::layers::filesystem::{Elsewhere, Filesystem, JournalKind};
use crate::layers::tree::{Content, Layer};

/// The layers that must be shown to a checker together with a filesystem; none if it is whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Companions<'l> {
    /// The one that holds its journal.
    pub journal: Option<&'l Layer>,
    /// Its other devices, in the order of the tree.
    pub devices: Vec<&'l Layer>,
}

impl<'l> Companions<'l> {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &'l Layer> + Clone + '_ {
        self.journal.into_iter().chain(self.devices.iter().copied())
    }
}

/// What of the filesystem in `layer` lies elsewhere. `layers` are all of the domain.
///
/// # Errors
/// The verdict where the checker must not be run, because a part of the filesystem is missing or
/// cannot be shown: it would take the rest for damaged, or look for it among the host's devices.
pub fn companions_of<'l>(
    layer: &Layer,
    filesystem: &Filesystem,
    layers: &'l [Layer],
) -> Result<Companions<'l>, Verdict> {
    let journal = |kind, uuid: &str| {
        Ok(Companions {
            journal: Some(the_only(layers, kind, uuid)?),
            devices: Vec::new(),
        })
    };
    match &filesystem.record.elsewhere {
        Elsewhere::Nothing => Ok(Companions::default()),
        Elsewhere::Journal { uuid } => journal(JournalKind::Ext, uuid),
        Elsewhere::Log => {
            let uuid = filesystem.uuid.as_deref().unwrap_or_default();
            journal(JournalKind::Xfs, uuid)
        }
        Elsewhere::Realtime => Err(Verdict::NotChecked(
            "its realtime section lies on another device, which bears no mark to be known by; \
             check it in the guest with xfs_repair -n -r DEVICE"
                .to_owned(),
        )),
        Elsewhere::Paths(paths) => Err(Verdict::NotChecked(format!(
            "it spans {} devices, which it names by paths in the guest ({}); fsck.f2fs would open \
             these paths on the host",
            paths.len(),
            paths.join(", ")
        ))),
        Elsewhere::Devices { .. } => {
            let mut devices = devices(filesystem, layers).map_err(Verdict::NotChecked)?;
            devices.retain(|device| device.path != layer.path);
            Ok(Companions {
                journal: None,
                devices,
            })
        }
    }
}

fn the_only<'l>(
    layers: &'l [Layer],
    wanted: JournalKind,
    wanted_uuid: &str,
) -> Result<&'l Layer, Verdict> {
    let mut found = all(layers).filter(|layer| match &layer.content {
        Content::Journal { kind, uuid } => *kind == wanted && uuid.as_deref() == Some(wanted_uuid),
        _ => false,
    });
    let what = match wanted {
        JournalKind::Ext => "journal",
        JournalKind::Xfs => "log",
    };
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        (Some(one), Some(other)) => Err(Verdict::NotChecked(format!(
            "its {what} (UUID {wanted_uuid}) is on two layers at once, {} and {}",
            one.path, other.path
        ))),
        (None, _) => Err(Verdict::NotChecked(format!(
            "its {what} (UUID {wanted_uuid}) lies on another device, which none of the disks \
             that were opened is"
        ))),
    }
}

/// All devices of a btrfs, each of which is there once.
fn devices<'l>(filesystem: &Filesystem, layers: &'l [Layer]) -> Result<Vec<&'l Layer>, String> {
    let mut found: Vec<(u64, &Layer, &Filesystem)> = Vec::new();
    for layer in all(layers) {
        if let Content::Filesystem(other) = &layer.content
            && let Elsewhere::Devices { own } = other.record.elsewhere
            && other.kind == filesystem.kind
            && other.uuid == filesystem.uuid
        {
            found.push((own, layer, other));
        }
    }
    let count = filesystem.record.devices.unwrap_or_default();
    let shown = |(number, layer, _): &(u64, &Layer, &Filesystem)| {
        format!("device {number} is {}", layer.path)
    };
    let named = found.iter().map(shown).collect::<Vec<_>>().join(", ");
    let numbers: HashSet<u64> = found.iter().map(|(number, ..)| *number).collect();
    let differs = |(_, layer, other): &(u64, &Layer, &Filesystem)| {
        other.record.devices != filesystem.record.devices || layer::is_cut_off(other, layer)
    };
    if numbers.len() != found.len() {
        return Err(format!("a device of it is there twice: {named}"));
    }
    if found.iter().any(differs) {
        return Err(format!(
            "its devices do not fit together: {named}; check it in the guest"
        ));
    }
    if found.len() as u64 > count {
        return Err(format!(
            "it spans {count} devices, and there are more: {named}"
        ));
    }
    match count.saturating_sub(found.len() as u64) {
        0 => Ok(found.into_iter().map(|(_, layer, _)| layer).collect()),
        missing => Err(format!(
            "of its {count} devices, {missing} are on none of the disks that were opened: {named}"
        )),
    }
}

fn all(layers: &[Layer]) -> impl Iterator<Item = &Layer> {
    layers.iter().flat_map(Layer::walk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::extent::ExtentMap;
    use crate::layers::filesystem::{CheckRecord, FilesystemKind};
    use crate::layers::tree::LayerPath;

    fn layer(name: &str, content: Content) -> Layer {
        Layer {
            path: LayerPath::disk(name),
            extents: ExtentMap::default(),
            role: None,
            read_only: None,
            content,
            notes: Vec::new(),
            children: Vec::new(),
        }
    }

    fn journal(name: &str, kind: JournalKind, uuid: &str) -> Layer {
        let uuid = Some(uuid.to_owned());
        layer(name, Content::Journal { kind, uuid })
    }

    fn filesystem(kind: FilesystemKind, elsewhere: Elsewhere) -> Filesystem {
        Filesystem {
            kind,
            uuid: Some("own".to_owned()),
            label: None,
            size: None,
            record: CheckRecord {
                devices: Some(2),
                elsewhere,
                ..CheckRecord::default()
            },
        }
    }

    fn with_journal() -> Filesystem {
        let uuid = "theirs".to_owned();
        filesystem(FilesystemKind::Ext4, Elsewhere::Journal { uuid })
    }

    fn companions<'l>(
        filesystem: &Filesystem,
        layers: &'l [Layer],
    ) -> Result<Companions<'l>, Verdict> {
        let own = layer("vda", Content::Filesystem(filesystem.clone()));
        companions_of(&own, filesystem, layers)
    }

    fn reason(filesystem: &Filesystem, layers: &[Layer]) -> String {
        match companions(filesystem, layers) {
            Err(Verdict::NotChecked(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_journal_is_found_by_its_kind_and_uuid() {
        let mut disk = layer("vdb", Content::Blank);
        disk.children = vec![
            journal("vdb/p1", JournalKind::Xfs, "theirs"),
            journal("vdb/p2", JournalKind::Ext, "another's"),
            journal("vdb/p3", JournalKind::Ext, "theirs"),
            journal("vdb/p4", JournalKind::Xfs, "own"),
        ];
        let layers = [disk];
        let path = |filesystem| {
            let found = companions(filesystem, &layers).unwrap();
            assert_eq!(found.devices, [] as [&Layer; 0]);
            found.journal.map(|layer| layer.path.as_str())
        };
        let ext = with_journal();
        assert_eq!(path(&ext), Some("vdb/p3"));
        let xfs = filesystem(FilesystemKind::Xfs, Elsewhere::Log);
        assert_eq!(path(&xfs), Some("vdb/p4"));
        let whole = filesystem(FilesystemKind::Ext4, Elsewhere::Nothing);
        assert_eq!(path(&whole), None);
    }

    #[test]
    fn a_journal_that_is_missing_or_there_twice_is_no_error_of_the_filesystem() {
        assert!(reason(&with_journal(), &[]).contains("theirs"));
        let twice = [
            journal("vdb", JournalKind::Ext, "theirs"),
            journal("vdc", JournalKind::Ext, "theirs"),
        ];
        assert!(reason(&with_journal(), &twice).contains("vdb and vdc"));
    }

    #[test]
    fn what_cannot_be_shown_whole_is_not_checked() {
        let paths = ["/dev/vda", "/dev/vdb"].map(str::to_owned).to_vec();
        let f2fs = filesystem(FilesystemKind::F2fs, Elsewhere::Paths(paths));
        assert!(reason(&f2fs, &[]).contains("(/dev/vda, /dev/vdb)"));
        let xfs = filesystem(FilesystemKind::Xfs, Elsewhere::Realtime);
        assert!(reason(&xfs, &[]).contains("realtime"));
    }

    fn btrfs(own: u64) -> Filesystem {
        filesystem(FilesystemKind::Btrfs, Elsewhere::Devices { own })
    }

    fn devices_of(members: &[(&str, Filesystem)]) -> Vec<Layer> {
        let layers = members.iter();
        layers
            .map(|(name, filesystem)| layer(name, Content::Filesystem(filesystem.clone())))
            .collect()
    }

    #[test]
    fn a_btrfs_needs_all_of_its_devices_once() {
        let mut strange = btrfs(2);
        strange.uuid = Some("another's".to_owned());
        let of = |second, third| devices_of(&[("vda", btrfs(1)), ("vdb", second), ("vdc", third)]);
        let layers = of(btrfs(2), strange.clone());
        let found = companions(&btrfs(1), &layers).unwrap();
        assert_eq!(found.devices, [&layers[1]]);
        assert_eq!(found.all().count(), 1);

        let said = reason(
            &btrfs(1),
            &devices_of(&[("vda", btrfs(1)), ("vdb", strange)]),
        );
        assert!(said.contains("of its 2 devices, 1"), "{said}");
        assert!(said.contains("device 1 is vda"), "{said}");
        let said = reason(&btrfs(1), &of(btrfs(2), btrfs(2)));
        assert!(said.contains("twice: device 1 is vda, device 2 is vdb, device 2 is vdc"));
        let said = reason(&btrfs(1), &of(btrfs(2), btrfs(7)));
        assert!(said.contains("there are more"), "{said}");
        let mut left = btrfs(2);
        left.record.devices = Some(3);
        let said = reason(&btrfs(1), &devices_of(&[("vda", btrfs(1)), ("vdb", left)]));
        assert!(said.contains("do not fit together"), "{said}");
        let mut cut_off = btrfs(2);
        cut_off.size = Some(crate::units::Bytes::mib(1));
        let said = reason(
            &btrfs(1),
            &devices_of(&[("vda", btrfs(1)), ("vdb", cut_off)]),
        );
        assert!(said.contains("do not fit together"), "{said}");
    }
}
