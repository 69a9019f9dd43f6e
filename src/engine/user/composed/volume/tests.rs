use proptest::prelude::*;

use super::*;
use crate::layers::extent::{Extent, Piece, Striped};

const IMAGES: usize = 3;
pub(super) const IMAGE_SIZE: u64 = 4096;

/// Images in memory.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Memory(pub(super) Vec<Vec<u8>>);

impl Memory {
    /// Every byte differs from its neighbours.
    pub(super) fn new() -> Self {
        let image = |number: usize| (0..IMAGE_SIZE).map(move |at| (at * 7 + number as u64) as u8);
        Self((0..IMAGES).map(|number| image(number).collect()).collect())
    }

    fn run(&mut self, transfer: &Transfer) -> &mut [u8] {
        let begin = usize::try_from(transfer.offset.get()).unwrap();
        &mut self.0[transfer.image.0][begin..begin + transfer.length]
    }
}

impl Images for Memory {
    fn read(&mut self, transfers: &[Transfer], buffer: &mut [u8]) -> Result<(), Errno> {
        for transfer in transfers {
            let mut bytes = self.run(transfer).iter();
            for part in transfer.parts.clone() {
                for byte in &mut buffer[part] {
                    *byte = *bytes.next().unwrap();
                }
            }
            assert_eq!(bytes.next(), None);
        }
        Ok(())
    }

    fn write(&mut self, transfers: &[Transfer], data: &[u8]) -> Result<(), Errno> {
        for transfer in transfers {
            let mut bytes = self.run(transfer).iter_mut();
            for part in transfer.parts.clone() {
                for byte in &data[part] {
                    *bytes.next().unwrap() = *byte;
                }
            }
            assert_eq!(bytes.next(), None);
        }
        Ok(())
    }

    fn zero(&mut self, transfers: &[Transfer], _space: Space) -> Result<(), Errno> {
        for transfer in transfers {
            self.run(transfer).fill(0);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Errno> {
        Ok(())
    }
}

/// Where each byte of a map lies, by its pieces and without any of the code under test: all its
/// copies, the one that is read first.
fn places_of(map: &ExtentMap) -> Vec<Vec<(usize, usize)>> {
    let run = |image: ImageIndex, begin: u64, length: u64| {
        (begin..begin + length).map(move |at| (image.0, usize::try_from(at).unwrap()))
    };
    let mut places: Vec<Vec<_>> = Vec::new();
    for piece in map.pieces() {
        match piece {
            Piece::Run(one) => {
                let bytes = run(one.image, one.offset.get(), one.length.get());
                places.extend(bytes.map(|place| vec![place]));
            }
            Piece::Striped(striped) => {
                let stripe = striped.stripe_size().get();
                let columns: Vec<_> = striped.columns().collect();
                for row in 0..columns[0].length.get() / stripe {
                    for column in &columns {
                        let begin = column.offset.get() + row * stripe;
                        let bytes = run(column.image, begin, stripe);
                        places.extend(bytes.map(|place| vec![place]));
                    }
                }
            }
            Piece::Mirrored(mirrored) => {
                let legs = mirrored.legs().iter();
                let legs = legs.map(|leg| run(leg.image, leg.offset.get(), leg.length.get()));
                let mut legs: Vec<_> = legs.collect();
                for _ in 0..mirrored.length().get() {
                    places.push(legs.iter_mut().map(|leg| leg.next().unwrap()).collect());
                }
            }
        }
    }
    places
}

/// What a piece is made of: its columns, how many stripes each has, the length of a stripe, and
/// whether the columns are copies of each other instead.
type Shape = (usize, u64, u64, bool);

/// A map whose places do not overlap: each piece takes what comes next on the images, some with a gap
/// before it.
fn map_of(shapes: &[(Shape, u8)]) -> ExtentMap {
    let mut free = [0_u64; IMAGES];
    let mut map = ExtentMap::default();
    for ((columns, rows, stripe, mirror), seed) in shapes {
        let length = rows * stripe;
        let mut extents = Vec::new();
        for column in 0..*columns {
            let image = (usize::from(*seed) + column) % IMAGES;
            let offset = free[image] + u64::from(seed % 3);
            if offset + length > IMAGE_SIZE {
                return map;
            }
            free[image] = offset + length;
            extents.push(Extent {
                image: ImageIndex(image),
                offset: Bytes::new(offset),
                length: Bytes::new(length),
            });
        }
        match extents.as_slice() {
            [run] => map.push(*run),
            legs if *mirror => {
                let legs: Vec<_> = legs.iter().map(|leg| one_run(*leg)).collect();
                map.push_mirrored(&legs.iter().collect::<Vec<_>>()).unwrap();
            }
            columns => map.push_striped(Striped::new(columns, Bytes::new(*stripe)).unwrap()),
        }
    }
    map
}

fn one_run(run: Extent) -> ExtentMap {
    let mut map = ExtentMap::default();
    map.push(run);
    map
}

#[derive(Clone, Debug)]
enum Action {
    Read,
    Write(u8),
    Zero,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Read),
        any::<u8>().prop_map(Action::Write),
        Just(Action::Zero),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A layer is one flat run of bytes to whoever reads and writes it: each copy has what was
    /// written, and nothing else is ever touched.
    #[test]
    fn a_layer_is_as_if_it_lay_in_one_piece(
        shapes in prop::collection::vec(((1_usize..5, 1_u64..20, 1_u64..30, any::<bool>()), any::<u8>()), 1..12),
        actions in prop::collection::vec((action(), any::<u32>(), any::<u32>()), 1..40),
    ) {
        let map = map_of(&shapes);
        let places = places_of(&map);
        let mut images = Memory::new();
        let mut expected = images.clone();
        let mut flat: Vec<u8> = places.iter().map(|copies| {
            let (image, at) = copies[0];
            images.0[image][at]
        }).collect();
        let mut written = vec![false; flat.len()];
        let volume = Volume::new(map, DecryptedImages::new());
        prop_assert_eq!(volume.size().get(), flat.len() as u64);
        for (action, begin, length) in actions {
            let begin = begin as usize % (flat.len() + 1);
            let length = length as usize % (flat.len() - begin + 1);
            let (offset, part) = (Bytes::new(begin as u64), begin..begin + length);
            match action {
                Action::Read => {
                    let mut buffer = vec![0xEE; length];
                    volume.read(&mut images, offset, &mut buffer).unwrap();
                    prop_assert_eq!(&buffer, &flat[part]);
                }
                Action::Write(seed) => {
                    let data: Vec<u8> = (0..length).map(|at| (at as u8).wrapping_mul(seed)).collect();
                    volume.write(&mut images, offset, &data).unwrap();
                    flat[part.clone()].copy_from_slice(&data);
                    written[part].fill(true);
                }
                Action::Zero => {
                    let length = Bytes::new(length as u64);
                    volume.zero(&mut images, offset, length, Space::Kept).unwrap();
                    flat[part.clone()].fill(0);
                    written[part].fill(true);
                }
            }
        }
        for ((copies, byte), written) in places.iter().zip(&flat).zip(written) {
            for (image, at) in copies.iter().filter(|_| written) {
                expected.0[*image][*at] = *byte;
            }
        }
        prop_assert_eq!(images, expected);
    }
}

pub(super) fn extent(image: usize, offset: u64, length: u64) -> Extent {
    Extent {
        image: ImageIndex(image),
        offset: Bytes::new(offset),
        length: Bytes::new(length),
    }
}

#[test]
fn stripes_that_follow_each_other_are_one_transfer() {
    let mut map = ExtentMap::default();
    let columns = [extent(0, 0, 32), extent(1, 64, 32)];
    map.push_striped(Striped::new(&columns, Bytes::new(8)).unwrap());
    let found = reads(&map, Bytes::new(4), 40).unwrap();
    let expected = [
        Transfer {
            image: ImageIndex(0),
            offset: Bytes::new(4),
            length: 20,
            parts: vec![0..4, 12..20, 28..36],
        },
        Transfer {
            image: ImageIndex(1),
            offset: Bytes::new(64),
            length: 20,
            parts: vec![4..12, 20..28, 36..40],
        },
    ];
    assert_eq!(found, expected);
    assert_eq!(writes(&map, Bytes::new(4), 40).unwrap(), expected);
}

#[test]
fn what_lies_outside_is_refused_as_a_disk_refuses_it() {
    let mut map = ExtentMap::default();
    map.push(extent(0, 0, 10));
    map.push(extent(1, 5, 10));
    let volume = Volume::new(map, DecryptedImages::new());
    assert_eq!(volume.images(), [ImageIndex(0), ImageIndex(1)]);
    let mut images = Memory::new();
    let before = images.clone();
    let offset = Bytes::new(15);
    assert_eq!(
        volume.read(&mut images, offset, &mut [0; 6]),
        Err(Errno::INVAL)
    );
    assert_eq!(
        volume.write(&mut images, offset, &[1; 6]),
        Err(Errno::NOSPC)
    );
    for length in [6, u64::MAX] {
        let zeroed = volume.zero(&mut images, offset, Bytes::new(length), Space::GivenBack);
        assert_eq!(zeroed, Err(Errno::NOSPC));
    }
    assert_eq!(images, before);
}

#[test]
fn copies_are_read_from_the_first_and_written_to_all() {
    let leg = |extents: &[Extent]| {
        let mut map = ExtentMap::default();
        extents.iter().for_each(|extent| map.push(*extent));
        map
    };
    let first = leg(&[extent(0, 100, 20)]);
    // The second goes on right after the first, the third in two pieces.
    let second = leg(&[extent(0, 120, 20)]);
    let third = leg(&[extent(1, 0, 7), extent(2, 50, 13)]);
    let mut map = ExtentMap::default();
    map.push_mirrored(&[&first, &second, &third]).unwrap();
    let volume = Volume::new(map, DecryptedImages::new());
    let mut images = Memory::new();
    let mut expected = images.clone();
    let data: Vec<u8> = (200..220).collect();
    expected.0[0][100..120].copy_from_slice(&data);
    expected.0[0][120..140].copy_from_slice(&data);
    expected.0[1][..7].copy_from_slice(&data[..7]);
    expected.0[2][50..63].copy_from_slice(&data[7..]);
    volume.write(&mut images, Bytes::ZERO, &data).unwrap();
    assert_eq!(images, expected);

    let (at, length) = (Bytes::new(5), Bytes::new(4));
    volume.zero(&mut images, at, length, Space::Kept).unwrap();
    for start in [105, 125] {
        expected.0[0][start..start + 4].fill(0);
    }
    expected.0[1][5..7].fill(0);
    expected.0[2][50..52].fill(0);
    assert_eq!(images, expected);

    images.0[0][120] = 1;
    let mut read = [0; 20];
    volume.read(&mut images, Bytes::ZERO, &mut read).unwrap();
    assert_eq!(read, expected.0[0][100..120]);
}
