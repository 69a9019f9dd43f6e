use crate::layers::dormant::{Activated, Activation, DormantId, Headers, Known, Peeled, Unlocked};
use crate::layers::extent::ImageIndex;
use crate::layers::lvm::copies::tests::RaidMeta;
use crate::layers::lvm::writer::{PhysicalVolumeImage, group_text, raid1};
use crate::layers::md::writer::Images;
use crate::layers::peel::{OpenDisk, WholeMirrors, peel};
use crate::layers::tree::{Content, Layer, ReadOnly};
use crate::units::{Bytes, SectorSize};

const MIB: usize = 1 << 20;
/// 1 MiB before the first extent, and three extents of 4 MiB.
const SIZE: Bytes = Bytes::mib(13);

/// Two disks with a group that has one `raid1` volume of 8 MiB; the magic of XFS is all it takes to be
/// recognised.
fn disks(metas: [RaidMeta; 2]) -> Vec<Vec<u8>> {
    let text = group_text("vg", 'g', 1, &[('a', 3), ('b', 3)], &raid1("lv", 'l', 2));
    let disk = |(letter, meta): (char, RaidMeta)| {
        let image = PhysicalVolumeImage {
            size: SIZE,
            ..PhysicalVolumeImage::with_text(letter, text.clone())
        };
        let mut bytes = image.build();
        let meta = meta.build();
        bytes[MIB..MIB + meta.len()].copy_from_slice(&meta);
        bytes[5 * MIB..5 * MIB + 4].copy_from_slice(b"XFSB");
        bytes
    };
    ['a', 'b'].into_iter().zip(metas).map(disk).collect()
}

fn peeled(metas: [RaidMeta; 2], activated: Option<&Activated>) -> Peeled {
    let open = ["vda", "vdb"].into_iter().enumerate();
    let open: Vec<OpenDisk> = open
        .map(|(image, target)| OpenDisk {
            target: target.to_owned(),
            image: ImageIndex(image),
            size: SIZE,
            sector_size: SectorSize::S512,
        })
        .collect();
    peel(
        &open,
        &Images(disks(metas)),
        Known {
            activated,
            unlocked: &Unlocked::new(),
            headers: &Headers::new(),
        },
        WholeMirrors::default(),
    )
}

fn sound() -> [RaidMeta; 2] {
    [RaidMeta::new(0, 2), RaidMeta::new(1, 2)]
}

fn volume(peeled: &Peeled) -> &Layer {
    let layer = &peeled.layers[0].children[0];
    assert_eq!(layer.path.as_str(), "vda/vg/lv");
    layer
}

/// It was recognised, may only be checked, and lies on so many disks.
fn is_readable(layer: &Layer, copies: usize) {
    assert!(matches!(layer.content, Content::Filesystem(_)), "{layer:?}");
    let volume = "vg/lv".to_owned();
    assert_eq!(layer.read_only, Some(ReadOnly::Copies { volume }));
    assert_eq!(layer.extents.places().count(), copies);
    assert_eq!(layer.size(), Bytes::mib(8));
}

#[test]
fn without_lvm_a_mirrored_volume_is_read_by_its_copies() {
    let peeled = peeled(sound(), None);
    assert!(peeled.groups.is_empty());
    is_readable(volume(&peeled), 2);
    assert_eq!(volume(&peeled).notes, Vec::<String>::new());
}

#[test]
fn where_lvm_is_there_it_comes_first() {
    let nothing_yet = Activated::default();
    let peeled = peeled(sound(), Some(&nothing_yet));
    let uuid = peeled.groups[0].volumes[0].uuid;
    assert!(matches!(volume(&peeled).content, Content::Dormant { .. }));
    assert!(!peeled.groups[0].read_only);

    let failed = Activation::Failed("no such module".to_owned());
    let peeled = self::peeled(
        sound(),
        Some(&Activated::from([(DormantId::Volume(uuid), failed)])),
    );
    assert!(peeled.groups.is_empty());
    is_readable(volume(&peeled), 2);
    assert_eq!(volume(&peeled).notes, ["no such module"]);
}

#[test]
fn a_failed_copy_is_left_out_and_named() {
    let [first, mut second] = sound();
    second.failed = 1;
    let peeled = peeled([first, second], None);
    is_readable(volume(&peeled), 1);
    assert!(volume(&peeled).notes[0].contains("lv_rimage_0 is left out"));
}

#[test]
fn what_no_copy_can_answer_for_stays_closed() {
    let [mut first, second] = sound();
    first.failed = 3;
    let peeled = peeled([first, second], None);
    match &volume(&peeled).content {
        Content::Dormant { reason, .. } => {
            assert_eq!(reason, "raid1 (none of its copies is in step)");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(volume(&peeled).read_only, None);
}
