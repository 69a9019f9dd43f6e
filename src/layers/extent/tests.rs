use super::*;

fn extent(image: usize, offset: u64, length: u64) -> Extent {
    Extent {
        image: ImageIndex(image),
        offset: Bytes::new(offset),
        length: Bytes::new(length),
    }
}

fn map(extents: &[Extent]) -> ExtentMap {
    let mut map = ExtentMap::default();
    for extent in extents {
        map.push(*extent);
    }
    map
}

fn striped(columns: &[Extent], stripe_size: u64) -> Striped {
    Striped::new(columns, Bytes::new(stripe_size)).unwrap()
}

/// Where each byte of a map lies, by its pieces and without any of the code under test.
fn bytes_of(map: &ExtentMap) -> Vec<(usize, u64)> {
    let mut bytes = Vec::new();
    for piece in map.pieces() {
        match piece {
            Piece::Run(run) => {
                bytes.extend((0..run.length.get()).map(|at| (run.image.0, run.offset.get() + at)));
            }
            Piece::Striped(striped) => {
                let columns: Vec<_> = striped.columns().collect();
                let stripe = striped.stripe_size().get();
                for row in 0..columns[0].length.get() / stripe {
                    for column in &columns {
                        let start = column.offset.get() + row * stripe;
                        bytes.extend((0..stripe).map(|at| (column.image.0, start + at)));
                    }
                }
            }
            Piece::Mirrored(mirrored) => {
                let first = mirrored.legs()[0];
                let start = first.offset.get();
                bytes.extend((0..first.length.get()).map(|at| (first.image.0, start + at)));
            }
        }
    }
    bytes
}

#[test]
fn adjacent_extents_are_joined_and_empty_ones_left_out() {
    let joined = map(&[extent(0, 0, 10), extent(0, 10, 5), extent(1, 15, 0)]);
    assert_eq!(joined.single(), Some(extent(0, 0, 15)));
    let apart = map(&[extent(0, 0, 10), extent(1, 10, 5)]);
    assert_eq!(apart.single(), None);
    assert_eq!(apart.size(), Bytes::new(15));
}

#[test]
fn a_slice_crosses_extents() {
    let whole = map(&[extent(0, 100, 10), extent(1, 0, 10), extent(0, 0, 10)]);
    let part = whole.slice(Bytes::new(5), Bytes::new(20)).unwrap();
    let places: Vec<_> = part.places().collect();
    assert_eq!(
        places,
        [extent(0, 105, 5), extent(1, 0, 10), extent(0, 0, 5)]
    );
}

#[test]
fn a_slice_outside_is_refused() {
    let whole = map(&[extent(0, 100, 10)]);
    for (offset, length, inside) in [(5, 6, false), (u64::MAX, 2, false), (10, 0, true)] {
        let (offset, length) = (Bytes::new(offset), Bytes::new(length));
        assert_eq!(whole.slice(offset, length).is_ok(), inside);
        assert_eq!(whole.runs(offset, length).is_ok(), inside);
    }
}

/// Two runs around three columns of three stripes, two columns on one image, and two copies.
fn mixed() -> ExtentMap {
    let mut map = map(&[extent(0, 1000, 5)]);
    map.push_striped(striped(
        &[extent(0, 0, 12), extent(1, 50, 12), extent(2, 7, 12)],
        4,
    ));
    map.push(extent(1, 0, 3));
    map.push_striped(striped(&[extent(3, 100, 6), extent(3, 106, 6)], 3));
    map.append(&mirror());
    map
}

/// Two copies, the second of which comes apart after four bytes.
fn mirror() -> ExtentMap {
    let first = self::map(&[extent(0, 500, 10)]);
    let second = self::map(&[extent(1, 600, 4), extent(2, 700, 6)]);
    let mut map = ExtentMap::default();
    map.push_mirrored(&[&first, &second]).unwrap();
    map
}

#[test]
fn a_row_of_stripes_takes_turns() {
    let map = mixed();
    assert_eq!(map.size(), Bytes::new(5 + 36 + 3 + 12 + 10));
    assert_eq!(map.single(), None);
    assert_eq!(map.places().count(), 7 + 4);
    let runs: Vec<_> = map.runs(Bytes::new(8), Bytes::new(16)).unwrap().collect();
    assert_eq!(
        runs,
        [
            extent(0, 3, 1),
            extent(1, 50, 4),
            extent(2, 7, 4),
            extent(0, 4, 4),
            extent(1, 54, 3),
        ]
    );
}

#[test]
fn every_part_of_stripes_has_its_bytes() {
    let map = mixed();
    let bytes = bytes_of(&map);
    let size = bytes.len() as u64;
    for offset in 0..=size {
        for length in 0..=size - offset {
            let expected = &bytes[offset as usize..(offset + length) as usize];
            let (offset, length) = (Bytes::new(offset), Bytes::new(length));
            let part = map.slice(offset, length).unwrap();
            assert_eq!(bytes_of(&part), expected, "{offset} {length}");
            assert_eq!(part.size(), length);
            let runs: Vec<_> = map.runs(offset, length).unwrap().collect();
            assert!(runs.iter().all(|run| run.length > Bytes::ZERO));
            let run_bytes = runs.iter().flat_map(|run| {
                (0..run.length.get()).map(|at| (run.image.0, run.offset.get() + at))
            });
            assert!(run_bytes.eq(expected.iter().copied()), "{offset} {length}");
            // A part of a part is a part.
            let half = Bytes::new(length.get() / 2);
            let again = part.slice(half, length.saturating_sub(half)).unwrap();
            assert_eq!(bytes_of(&again), expected[half.get() as usize..]);
        }
    }
}

#[test]
fn whole_rows_stay_striped_and_one_stripe_is_a_run() {
    let columns = [extent(0, 0, 1 << 40), extent(1, 1 << 20, 1 << 40)];
    let mut map = ExtentMap::default();
    map.push_striped(striped(&columns, 4096));
    let slice = |offset, length| map.slice(Bytes::new(offset), Bytes::new(length)).unwrap();
    assert_eq!(slice(0, 2 << 40), map);
    assert_eq!(slice(4096, 4096).single(), Some(extent(1, 1 << 20, 4096)));
    assert_eq!(
        slice(5000, 100).single(),
        Some(extent(1, (1 << 20) + 904, 100))
    );

    // A tebibyte of stripes is not written out.
    let part = slice(4095, (2 << 40) - 4096);
    let rows = [
        extent(0, 4096, (1 << 40) - 8192),
        extent(1, (1 << 20) + 4096, (1 << 40) - 8192),
    ];
    let runs = |extents: &[Extent]| extents.iter().copied().map(Piece::Run).collect::<Vec<_>>();
    let mut expected = runs(&[extent(0, 4095, 1), extent(1, 1 << 20, 4096)]);
    expected.push(Piece::Striped(striped(&rows, 4096)));
    expected.extend(runs(&[
        extent(0, (1 << 40) - 4096, 4096),
        extent(1, (1 << 20) + (1 << 40) - 4096, 4095),
    ]));
    assert_eq!(part.pieces(), expected);

    let mut again = ExtentMap::default();
    again.append(&part);
    assert_eq!(again, part);
    let mut runs = map.runs(Bytes::ZERO, Bytes::new(2 << 40)).unwrap();
    assert_eq!(runs.next(), Some(extent(0, 0, 4096)));
    assert_eq!(runs.next(), Some(extent(1, 1 << 20, 4096)));
}

#[test]
fn what_are_no_whole_rows_is_refused() {
    let many = vec![extent(0, 0, 8); MAX_COLUMNS + 1];
    let stripe_size = |stripe_size, column| StripesFault::StripeSize {
        stripe_size: Bytes::new(stripe_size),
        column: Bytes::new(column),
    };
    for (columns, size, expected) in [
        (&[][..], 4, StripesFault::Count(0)),
        (&[extent(0, 0, 8)], 4, StripesFault::Count(1)),
        (&many, 4, StripesFault::Count(MAX_COLUMNS + 1)),
        (
            &[extent(0, 0, 8), extent(1, 0, 12)],
            4,
            StripesFault::Uneven,
        ),
        (&[extent(0, 0, 8), extent(1, 0, 8)], 0, stripe_size(0, 8)),
        (&[extent(0, 0, 8), extent(1, 0, 8)], 3, stripe_size(3, 8)),
        (&[extent(0, 0, 8), extent(1, 0, 8)], 16, stripe_size(16, 8)),
        (&[extent(0, 0, 0), extent(1, 0, 0)], 4, StripesFault::Length),
        (
            &[extent(0, 0, 8), extent(1, u64::MAX - 7, 8)],
            4,
            StripesFault::Length,
        ),
        (
            &[extent(0, 0, 1 << 63), extent(1, 0, 1 << 63)],
            4,
            StripesFault::Length,
        ),
    ] {
        assert_eq!(
            Striped::new(columns, Bytes::new(size)),
            Err(expected),
            "{columns:?}"
        );
    }
    assert!(Striped::new(&many[1..], Bytes::new(8)).is_ok());
}

#[test]
fn copies_are_read_once_and_written_everywhere() {
    let map = mirror();
    let legs: Vec<Vec<Extent>> = map
        .pieces()
        .iter()
        .map(|piece| match piece {
            Piece::Mirrored(mirrored) => mirrored.legs().to_vec(),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        [extent(0, 500, 4), extent(1, 600, 4)],
        [extent(0, 504, 6), extent(2, 700, 6)],
    ];
    assert_eq!(legs, expected);
    assert_eq!(map.single(), None);

    let (from, length) = (Bytes::new(2), Bytes::new(5));
    let runs: Vec<Extent> = map.runs(from, length).unwrap().collect();
    assert_eq!(runs, [extent(0, 502, 2), extent(0, 504, 3)]);
    let copies: Vec<Vec<Extent>> = map
        .copies(from, length)
        .unwrap()
        .map(|run| run.places().collect())
        .collect();
    assert_eq!(
        copies,
        [
            [extent(0, 502, 2), extent(1, 602, 2)],
            [extent(0, 504, 3), extent(2, 700, 3)],
        ]
    );
    // What is no mirror has one place.
    let mixed = mixed();
    let copies = mixed.copies(Bytes::ZERO, mixed.size()).unwrap();
    let mut places = copies.map(|run| run.places().count());
    assert!(places.by_ref().take(2 + 9 + 4).all(|count| count == 1));
    assert_eq!(places.collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn slices_of_copies_join_again() {
    let map = mirror();
    for cut in 0..=10 {
        let mut joined = map.slice(Bytes::ZERO, Bytes::new(cut)).unwrap();
        joined.append(&map.slice(Bytes::new(cut), Bytes::new(10 - cut)).unwrap());
        assert_eq!(joined, map, "{cut}");
    }
}

#[test]
fn what_are_no_copies_is_refused() {
    let run = map(&[extent(0, 0, 8)]);
    let mut stripes = ExtentMap::default();
    stripes.push_striped(striped(&[extent(0, 0, 4), extent(1, 0, 4)], 4));
    let short = map(&[extent(0, 0, 7)]);
    let many = vec![&run; MAX_LEGS + 1];
    for (legs, expected) in [
        (&[][..], MirrorFault::Count(0)),
        (&many, MirrorFault::Count(MAX_LEGS + 1)),
        (&[&run, &short], MirrorFault::Uneven),
        (&[&run, &stripes], MirrorFault::Nested),
    ] {
        let mut map = ExtentMap::default();
        assert_eq!(map.push_mirrored(legs), Err(expected));
    }
    let mut alone = ExtentMap::default();
    alone.push_mirrored(&[&stripes]).unwrap();
    assert_eq!(alone, stripes);
}
