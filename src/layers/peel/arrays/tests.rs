use crate::layers::dormant::{
    Activated, Activation, DormantArray, DormantId, Headers, Known, Opener, Peeled, Unlocked,
};
use crate::layers::extent::ImageIndex;
use crate::layers::md::writer::{Images, MemberImage};
use crate::layers::md::{Level, Role, Unsound, Version};
use crate::layers::peel::{OpenDisk, WholeMirrors, peel};
use crate::layers::tree::{Content, Layer, ReadOnly};
use crate::units::SectorSize;

/// The magic of XFS is all it takes to be recognised.
const XFS: &[u8] = b"XFSB";

/// The layers of these disks, each as its path and what it is.
fn peeled(disks: Vec<Vec<u8>>) -> Vec<Layer> {
    peeled_with(disks, &Activated::default(), WholeMirrors::ToBeRead).layers
}

/// The disks are those that have a name; what comes after them is what MD has started.
fn peeled_with(disks: Vec<Vec<u8>>, activated: &Activated, whole_mirrors: WholeMirrors) -> Peeled {
    let of_guest = disks.len() - activated.len();
    let open: Vec<OpenDisk> = disks
        .iter()
        .take(of_guest)
        .zip(["vda", "vdb", "vdc", "vdd"])
        .enumerate()
        .map(|(image, (bytes, target))| OpenDisk {
            target: target.to_owned(),
            image: ImageIndex(image),
            size: crate::layers::read::ReadAt::size(bytes),
            sector_size: SectorSize::S512,
        })
        .collect();
    let known = Known {
        activated: Some(activated),
        unlocked: &Unlocked::new(),
        headers: &Headers::new(),
    };
    peel(&open, &Images(disks), known, whole_mirrors)
}

fn all(layers: &[Layer]) -> Vec<(&str, String)> {
    let walked = layers.iter().flat_map(Layer::walk);
    walked
        .map(|layer| {
            let what = match &layer.content {
                Content::RaidMember { array, level, .. } => format!("{level} of {array}"),
                Content::Filesystem(filesystem) => filesystem.kind.name().to_owned(),
                Content::Opaque { what, reason, .. } => format!("{what}: {reason}"),
                Content::Blank => "blank".to_owned(),
                other => format!("{other:?}"),
            };
            (layer.path.as_str(), what)
        })
        .collect()
}

fn with(mut bytes: Vec<u8>, sector: u64, data: &[u8]) -> Vec<u8> {
    let at = usize::try_from(sector * 512).unwrap();
    bytes[at..at + data.len()].copy_from_slice(data);
    bytes
}

fn shows(disks: Vec<Vec<u8>>, expected: &[(&str, &str)]) -> Vec<Layer> {
    let layers = peeled(disks);
    let found = all(&layers);
    let found: Vec<(&str, &str)> = found
        .iter()
        .map(|(path, what)| (*path, what.as_str()))
        .collect();
    assert_eq!(found, expected);
    layers
}

#[test]
fn a_mirror_is_one_layer_that_is_only_checked() {
    for version in [Version::V0_90, Version::V1_0, Version::V1_1, Version::V1_2] {
        let disks: Vec<_> = (0..2)
            .map(|number| {
                let member = MemberImage::new(version, 1, number, 2);
                with(member.build(), member.data_offset, XFS)
            })
            .collect();
        let name = if version == Version::V0_90 {
            "md3"
        } else {
            "md/data"
        };
        let member = format!("RAID 1 of {name}");
        let array = format!("vda/{name}");
        let expected = [("vda", &*member), (&*array, "xfs"), ("vdb", &*member)];
        let layers = shows(disks, &expected);
        let read_only = ReadOnly::Mirror {
            array: name.to_owned(),
            may_be_started: true,
        };
        assert_eq!(layers[0].children[0].read_only, Some(read_only));
    }
}

#[test]
fn linear_may_be_repaired() {
    let disks: Vec<_> = (0..2)
        .map(|number| {
            let member = MemberImage::new(Version::V1_2, -1, number, 2);
            with(
                member.build(),
                member.data_offset,
                &XFS[..4 - 4 * number as usize],
            )
        })
        .collect();
    let expected = [
        ("vda", "linear RAID of md/data"),
        ("vda/md/data", "xfs"),
        ("vdb", "linear RAID of md/data"),
    ];
    let layers = shows(disks, &expected);
    assert_eq!(layers[0].children[0].read_only, None);
}

/// Two mirrors, whose contents are the two halves of a linear array; its own beginning is what makes
/// it a filesystem.
#[test]
fn arrays_lie_on_arrays() {
    let half = |number: u32| {
        let mut member = MemberImage {
            uuid: 0x33,
            name: "top",
            ..MemberImage::new(Version::V1_2, -1, number, 2)
        }
        .sized(1024);
        member.data_size -= 8;
        member
    };
    let disks: Vec<_> = (0..4_u32)
        .map(|disk| {
            let outer = MemberImage {
                uuid: 0x20 + u8::try_from(disk / 2).unwrap(),
                name: ["left", "right"][disk as usize / 2],
                ..MemberImage::new(Version::V1_2, 1, disk % 2, 2)
            };
            let inner = half(disk / 2);
            let start = outer.data_offset;
            let bytes = with(outer.build(), start + 8, &inner.superblock());
            with(
                bytes,
                start + inner.data_offset,
                &XFS[..4 * usize::from(disk < 2)],
            )
        })
        .collect();
    let layers = shows(
        disks,
        &[
            ("vda", "RAID 1 of md/left"),
            ("vda/md/left", "linear RAID of md/top"),
            ("vda/md/left/md/top", "xfs"),
            ("vdb", "RAID 1 of md/left"),
            ("vdc", "RAID 1 of md/right"),
            ("vdc/md/right", "linear RAID of md/top"),
            ("vdd", "RAID 1 of md/right"),
        ],
    );
    let top = &layers[0].children[0].children[0];
    assert!(matches!(top.read_only, Some(ReadOnly::Mirror { .. })));
    assert_eq!(top.extents.places().count(), 4);
}

#[test]
fn what_cannot_be_put_together_is_named() {
    let five = MemberImage::new(Version::V1_2, 5, 0, 3);
    assert_eq!(five.read().level, Level(5));
    let mut broken = MemberImage::new(Version::V1_0, 1, 0, 2).build();
    let at = broken.len() - 8192 + 200;
    broken[at] ^= 1;
    shows(
        vec![five.build(), broken],
        &[
            ("vda", "RAID 5 of md/data"),
            (
                "vda/md/data",
                "RAID array: RAID 5: of its 3 devices, counted from 0, these are missing: 1, 2; MD \
                 cannot do without",
            ),
            (
                "vdb",
                "RAID member: RAID superblock, metadata 1.0: wrong checksum",
            ),
        ],
    );
}

/// A member that lies inside the very array it belongs to.
#[test]
fn strays_are_not_believed() {
    let outer = MemberImage::new(Version::V1_2, 1, 0, 2);
    let mut inner = MemberImage::new(Version::V1_2, 1, 1, 2).sized(1024);
    inner.component = 256;
    inner.roles = vec![Role::Active(0), Role::Active(1)];
    let bytes = with(outer.build(), outer.data_offset + 8, &inner.superblock());
    shows(
        vec![bytes],
        &[
            ("vda", "RAID 1 of md/data"),
            (
                "vda/md/data",
                "RAID member: it belongs to the array md/data, which was put together without it",
            ),
        ],
    );
}

fn members(level: i32, count: u32) -> Vec<MemberImage> {
    (0..count)
        .map(|number| MemberImage::new(Version::V1_2, level, number, 4))
        .collect()
}

fn built(members: &[MemberImage]) -> Vec<Vec<u8>> {
    members.iter().map(MemberImage::build).collect()
}

fn is_unsound(layer: &Layer, wanted: Unsound) -> bool {
    matches!(layer.read_only, Some(ReadOnly::Array { unsound, .. }) if unsound == wanted)
}

/// What MD has started is an image of its own; without it the array is closed, and its reason told.
#[test]
fn what_md_starts_is_peeled_further() {
    for (level, count, read_only) in [(5, 4, false), (6, 4, false), (10, 4, false), (5, 3, true)] {
        let members = members(level, count);
        let mut disks = built(&members);
        let closed = peeled_with(disks.clone(), &Activated::default(), WholeMirrors::ToBeRead);
        let [
            DormantArray {
                id,
                members: given,
                version,
                read_only: told,
                ..
            },
        ] = &*closed.arrays
        else {
            panic!("{:?}", closed.arrays);
        };
        assert_eq!((given.len(), *version), (count as usize, Version::V1_2));
        assert_eq!(*told, read_only, "{level} {count}");
        let array = &closed.layers[0].children[0];
        assert!(matches!(
            &array.content,
            Content::Dormant {
                by: Opener::Md,
                cause: None,
                ..
            }
        ));

        let size = array.size();
        let image = ImageIndex(disks.len());
        disks.push(with(vec![0; usize::try_from(size.get()).unwrap()], 0, XFS));
        let activated =
            Activated::from([(DormantId::Array(*id), Activation::Active { image, size })]);
        let open = peeled_with(disks.clone(), &activated, WholeMirrors::ToBeRead);
        assert!(open.arrays.is_empty());
        let array = &open.layers[0].children[0];
        assert!(matches!(array.content, Content::Filesystem(_)), "{array:?}");
        assert_eq!(array.extents.single().unwrap().image, image);
        assert_eq!(array.read_only.is_some(), read_only);
        assert_eq!(is_unsound(array, Unsound::Degraded), read_only);
    }
}

#[test]
fn what_md_does_not_start_is_not_asked_for_again() {
    let disks = built(&members(5, 4));
    let id = members(5, 1)[0].read().array;
    let failed = Activation::Failed("it is in use".to_owned());
    let activated = Activated::from([(DormantId::Array(id), failed)]);
    let disks = disks.into_iter().chain([Vec::new()]).collect();
    let peeled = peeled_with(disks, &activated, WholeMirrors::ToBeRead);
    assert!(peeled.arrays.is_empty());
    let Content::Dormant { cause, .. } = &peeled.layers[0].children[0].content else {
        panic!("{:?}", peeled.layers);
    };
    assert_eq!(cause.as_deref(), Some("it is in use"));
}

/// A mirror is started only where it is to be written to and lacks nothing; one that MD does not
/// start is read as before.
#[test]
fn whole_mirrors_are_started_to_be_written_to() {
    let mirror = |count: u32| -> Vec<MemberImage> {
        let members = (0..count).map(|number| MemberImage::new(Version::V1_2, 1, number, 2));
        members.collect()
    };
    let disks = |count| -> Vec<Vec<u8>> {
        let members = mirror(count).into_iter();
        members
            .map(|member| with(member.build(), member.data_offset, XFS))
            .collect()
    };
    let none = Activated::default();
    for (count, whole_mirrors, asked) in [
        (2, WholeMirrors::ToBeRead, false),
        (2, WholeMirrors::ToBeStarted, true),
        (1, WholeMirrors::ToBeStarted, false),
    ] {
        let peeled = peeled_with(disks(count), &none, whole_mirrors);
        assert_eq!(
            !peeled.arrays.is_empty(),
            asked,
            "{count} {whole_mirrors:?}"
        );
        let array = &peeled.layers[0].children[0];
        assert_eq!(matches!(array.content, Content::Dormant { .. }), asked);
        assert_eq!(
            matches!(array.read_only, Some(ReadOnly::Mirror { .. })),
            !asked
        );
    }
    let id = DormantId::Array(mirror(1)[0].read().array);
    let failed = Activated::from([(id, Activation::Failed("no".to_owned()))]);
    let with_failed = disks(2).into_iter().chain([Vec::new()]).collect();
    let peeled = peeled_with(with_failed, &failed, WholeMirrors::ToBeStarted);
    let array = &peeled.layers[0].children[0];
    assert!(matches!(array.content, Content::Filesystem(_)));
    assert!(matches!(
        array.read_only,
        Some(ReadOnly::Mirror {
            may_be_started: false,
            ..
        })
    ));
    assert_eq!(array.notes, ["MD does not start it: no"]);
}
