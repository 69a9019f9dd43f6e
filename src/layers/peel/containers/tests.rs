use std::process::Command;

use super::*;
use crate::layers::dormant::{Headers, Known, Peeled, Unlocked};
use crate::layers::extent::ImageIndex;
use crate::layers::md::writer::Images;
use crate::layers::peel::{OpenDisk, WholeMirrors, peel};
use crate::layers::tree::Layer;
use crate::units::{Bytes, SectorSize};

const SIZE: Bytes = Bytes::mib(24);

/// A container with LUKS2, whose encrypted part nobody has written.
fn container() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let (image, key) = (folder.path().join("image"), folder.path().join("key"));
    std::fs::write(&key, "secret").unwrap();
    let file = std::fs::File::create(&image).unwrap();
    file.set_len(SIZE.get()).unwrap();
    let status = Command::new("cryptsetup")
        .args([
            "luksFormat",
            "-q",
            "--type",
            "luks2",
            "--sector-size",
            "4096",
        ])
        .args(["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"])
        .args([&image, &key])
        .status()
        .unwrap();
    assert!(status.success());
    std::fs::read(&image).unwrap()
}

fn peeled(images: Vec<Vec<u8>>, unlocked: &Unlocked) -> Peeled {
    let disk = OpenDisk {
        target: "vda".to_owned(),
        image: ImageIndex(0),
        size: Bytes::new(images[0].len() as u64),
        sector_size: SectorSize::S512,
    };
    let known = Known {
        activated: None,
        unlocked,
        headers: &Headers::new(),
    };
    peel(&[disk], &Images(images), known, WholeMirrors::default())
}

fn closed(layer: &Layer) -> Option<&Closed> {
    match &layer.content {
        Content::Luks { closed, .. } => closed.as_ref(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_container_waits_for_its_key_and_then_holds_what_is_in_it() {
    let container = container();
    let first = peeled(vec![container.clone()], &Unlocked::new());
    let [waiting] = first.containers.as_slice() else {
        panic!("{:?}", first.containers);
    };
    assert_eq!(waiting.path.as_str(), "vda");
    assert_eq!(waiting.container.header.sector_size, SectorSize::S4096);
    assert!(!waiting.read_only);
    assert_eq!(closed(&first.layers[0]), Some(&Closed::NotTried));

    // The magic of XFS is all it takes to be recognised.
    let mut inside = vec![0; 8 << 20];
    inside[..4].copy_from_slice(b"XFSB");
    let size = Bytes::new(inside.len() as u64);
    let image = ImageIndex(1);
    let open = Unlocking::Open { image, size };
    let unlocked = Unlocked::from([(waiting.path.clone(), open)]);
    let second = peeled(vec![container.clone(), inside], &unlocked);
    assert!(second.containers.is_empty());
    let layer = &second.layers[0];
    assert_eq!(closed(layer), None);
    let [child] = layer.children.as_slice() else {
        panic!("{layer:?}");
    };
    assert_eq!(child.path.as_str(), "vda/luks");
    assert_eq!(child.extents, ExtentMap::whole(image, size));
    assert!(matches!(child.content, Content::Filesystem(_)), "{child:?}");

    let no_key = Closed::NoKey("there is no key".to_owned());
    let stays = Unlocking::Closed(no_key.clone());
    let unlocked = Unlocked::from([(waiting.path.clone(), stays)]);
    let third = peeled(vec![container], &unlocked);
    assert!(third.containers.is_empty());
    assert_eq!(closed(&third.layers[0]), Some(&no_key));
    assert!(third.layers[0].children.is_empty());
}

#[test]
fn a_damaged_header_is_named_and_no_key_is_wanted() {
    let mut container = container();
    for copy in [0, 16 * 1024] {
        container[copy + 4096..copy + 4100].fill(0);
    }
    let peeled = peeled(vec![container], &Unlocked::new());
    assert!(peeled.containers.is_empty());
    let Content::Opaque { what, reason, uuid } = &peeled.layers[0].content else {
        panic!("{:?}", peeled.layers[0]);
    };
    assert_eq!(what, "LUKS2");
    assert!(uuid.is_some());
    assert!(reason.contains("damaged"), "{reason}");
}
