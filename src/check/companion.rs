//! What of a filesystem lies on another layer, and must be shown to its checker together with it.

use crate::check::outcome::Verdict;
use crate::layers::filesystem::{Elsewhere, Filesystem, FilesystemKind, JournalKind};
use crate::layers::tree::{Content, Layer};

/// The layer that holds a filesystem's journal; `None` if the filesystem is whole. `layers` are all
/// of the domain.
///
/// # Errors
/// The verdict where the checker must not be run, because a part of the filesystem is missing or
/// cannot be shown: it would take the rest for damaged, or look for it among the host's devices.
pub fn journal_of<'l>(
    filesystem: &Filesystem,
    layers: &'l [Layer],
) -> Result<Option<&'l Layer>, Verdict> {
    match &filesystem.record.elsewhere {
        Elsewhere::Nothing => Ok(None),
        Elsewhere::Journal { uuid } => the_only(layers, JournalKind::Ext, uuid).map(Some),
        Elsewhere::Log => {
            let uuid = filesystem.uuid.as_deref().unwrap_or_default();
            the_only(layers, JournalKind::Xfs, uuid).map(Some)
        }
        Elsewhere::Realtime => Err(Verdict::NotChecked(
            "its realtime section lies on another device, which bears no mark to be known by; \
             check it in the guest with xfs_repair -n -r DEVICE"
                .to_owned(),
        )),
        Elsewhere::Devices => Err(Verdict::NotChecked(devices(filesystem, layers))),
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

fn devices(filesystem: &Filesystem, layers: &[Layer]) -> String {
    let count = filesystem.record.devices.unwrap_or_default();
    if filesystem.kind == FilesystemKind::F2fs {
        return format!(
            "it spans {count} devices, which it names by paths in the guest; fsck.f2fs would \
             open these paths on the host"
        );
    }
    let members: Vec<_> = all(layers)
        .filter(|layer| match &layer.content {
            Content::Filesystem(other) => {
                other.kind == filesystem.kind && other.uuid == filesystem.uuid
            }
            _ => false,
        })
        .map(|layer| layer.path.as_str())
        .collect();
    format!(
        "it spans {count} devices ({} found: {}), and btrfs check would look for the others among \
         the host's own; check it in the guest, where btrfs scrub can also repair",
        members.len(),
        members.join(", ")
    )
}

fn all(layers: &[Layer]) -> impl Iterator<Item = &Layer> {
    layers.iter().flat_map(Layer::walk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::extent::ExtentMap;
    use crate::layers::filesystem::CheckRecord;
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

    fn reason(found: Result<Option<&Layer>, Verdict>) -> String {
        match found {
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
            let found = journal_of(filesystem, &layers).unwrap();
            found.map(|layer| layer.path.as_str())
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
        assert!(reason(journal_of(&with_journal(), &[])).contains("theirs"));
        let twice = [
            journal("vdb", JournalKind::Ext, "theirs"),
            journal("vdc", JournalKind::Ext, "theirs"),
        ];
        assert!(reason(journal_of(&with_journal(), &twice)).contains("vdb and vdc"));
    }

    #[test]
    fn what_cannot_be_shown_whole_is_not_checked() {
        let btrfs = filesystem(FilesystemKind::Btrfs, Elsewhere::Devices);
        let layers = ["vda", "vdb"].map(|name| layer(name, Content::Filesystem(btrfs.clone())));
        let said = reason(journal_of(&btrfs, &layers));
        assert!(said.contains("2 devices (2 found: vda, vdb)"), "{said}");
        let f2fs = filesystem(FilesystemKind::F2fs, Elsewhere::Devices);
        assert!(reason(journal_of(&f2fs, &[])).contains("paths"));
        let xfs = filesystem(FilesystemKind::Xfs, Elsewhere::Realtime);
        assert!(reason(journal_of(&xfs, &[])).contains("realtime"));
    }
}
