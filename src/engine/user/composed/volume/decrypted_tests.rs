//! Layers in containers, and containers in containers.

use proptest::prelude::*;

use super::tests::{IMAGE_SIZE, Memory, extent};
use super::*;
use crate::crypt::{CipherSpec, SectorCipher, VolumeKey};
use crate::layers::extent::Striped;
use crate::units::SectorSize;

fn cipher(encryption: &str, sector_size: u32) -> SectorCipher {
    let length = if encryption.contains("xts") { 64 } else { 32 };
    let key = VolumeKey::new((1..=length).collect::<Vec<u8>>().into());
    let spec = CipherSpec::parse(encryption, length.into()).unwrap();
    SectorCipher::new(spec, &key, SectorSize::new(sector_size).unwrap(), 0).unwrap()
}

fn map(extents: &[Extent]) -> ExtentMap {
    let mut map = ExtentMap::default();
    extents.iter().for_each(|extent| map.push(*extent));
    map
}

/// Three images of 4096 bytes. Image 3 is a container over parts of two of them, in turns of 512 bytes
/// and one run; image 4 one with larger sectors inside that; image 5 lies by itself on the last.
fn containers() -> DecryptedImages {
    let mut first = ExtentMap::default();
    let columns = [extent(0, 512, 1024), extent(1, 1024, 1024)];
    first.push_striped(Striped::new(&columns, Bytes::new(512)).unwrap());
    first.push(extent(0, 2048, 2048));
    let second = map(&[extent(3, 1024, 3072)]);
    let third = map(&[extent(2, 0, IMAGE_SIZE)]);
    DecryptedImages::from([
        (
            ImageIndex(3),
            Decrypted::new(first, cipher("aes-xts-plain64", 512)),
        ),
        (
            ImageIndex(4),
            Decrypted::new(second, cipher("aes-cbc-essiv:sha256", 1024)),
        ),
        (
            ImageIndex(5),
            Decrypted::new(third, cipher("serpent-xts-plain64", 4096)),
        ),
    ])
}

/// What a container holds, by its cipher alone: all of it is read from below and decrypted at once.
fn inside(images: &Memory, container: usize) -> Vec<u8> {
    let sectors = |map: &[(usize, usize, usize)]| -> Vec<u8> {
        let part = |(image, at, length): &(usize, usize, usize)| {
            images.0[*image][*at..at + length].to_vec()
        };
        map.iter().flat_map(part).collect()
    };
    let (mut bytes, cipher) = match container {
        3 => {
            let rows = [
                (0, 512, 512),
                (1, 1024, 512),
                (0, 1024, 512),
                (1, 1536, 512),
            ];
            let all = [rows.as_slice(), &[(0, 2048, 2048)]].concat();
            (sectors(&all), cipher("aes-xts-plain64", 512))
        }
        4 => {
            let below = inside(images, 3);
            (below[1024..].to_vec(), cipher("aes-cbc-essiv:sha256", 1024))
        }
        _ => (
            sectors(&[(2, 0, 4096)]),
            cipher("serpent-xts-plain64", 4096),
        ),
    };
    cipher.decrypt(0, &mut bytes).unwrap();
    bytes
}

/// A layer over two containers and a plain image.
fn layer() -> ExtentMap {
    map(&[
        extent(4, 100, 2900),
        extent(1, 3000, 500),
        extent(5, 1, 4000),
        extent(3, 0, 1000),
    ])
}

fn expected(images: &Memory) -> Vec<u8> {
    [
        &inside(images, 4)[100..3000],
        &images.0[1][3000..3500],
        &inside(images, 5)[1..4001],
        &inside(images, 3)[..1000],
    ]
    .concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is written is there when all of it is decrypted afterwards, and all else is as before.
    #[test]
    fn a_layer_in_containers_is_one_run_of_bytes(
        actions in prop::collection::vec((any::<Option<u8>>(), any::<u32>(), any::<u32>()), 1..20),
    ) {
        let mut images = Memory::new();
        let volume = Volume::new(layer(), containers());
        let mut flat = expected(&images);
        prop_assert_eq!(volume.size().get(), flat.len() as u64);
        for (write, begin, length) in actions {
            let begin = begin as usize % (flat.len() + 1);
            let length = length as usize % (flat.len() - begin + 1);
            let (offset, part) = (Bytes::new(begin as u64), begin..begin + length);
            if let Some(seed) = write {
                let data: Vec<u8> = (0..length).map(|at| (at as u8).wrapping_mul(seed)).collect();
                volume.write(&mut images, offset, &data).unwrap();
                flat[part].copy_from_slice(&data);
            } else {
                let mut buffer = vec![0xEE; length];
                volume.read(&mut images, offset, &mut buffer).unwrap();
                prop_assert_eq!(&buffer, &flat[part]);
            }
            prop_assert!(expected(&images) == flat);
            prop_assert_eq!(&images.0[1][..1024], &Memory::new().0[1][..1024]);
            prop_assert_eq!(&images.0[0][..512], &Memory::new().0[0][..512]);
        }
    }
}

#[test]
fn the_images_at_last() {
    let volume = Volume::new(layer(), containers());
    assert_eq!(volume.images(), [0, 1, 2].map(ImageIndex));
    let plain = Volume::new(map(&[extent(2, 0, 512)]), containers());
    assert_eq!(plain.images(), [ImageIndex(2)]);
}

#[test]
fn zeros_are_written_out_by_who_wants_them() {
    let mut images = Memory::new();
    let volume = Volume::new(layer(), containers());
    for space in [Space::Kept, Space::GivenBack] {
        let zeroed = volume.zero(&mut images, Bytes::ZERO, Bytes::new(512), space);
        assert_eq!(zeroed, Err(Errno::OPNOTSUPP));
    }
    assert_eq!(images, Memory::new());
}
