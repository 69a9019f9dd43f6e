use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};

use super::*;
use crate::layers::extent::Striped;
use crate::layers::read::{LayerReader, ReadAt, ReadImages, read_one_of};

fn extent(image: usize, offset: u64, length: u64) -> Extent {
    Extent {
        image: ImageIndex(image),
        offset: Bytes::new(offset),
        length: Bytes::new(length),
    }
}

/// Images of the minor numbers 0 to 3, and no more.
fn device(image: ImageIndex) -> Option<DeviceNumber> {
    (image.0 < 4).then_some(DeviceNumber {
        major: 7,
        minor: u32::try_from(image.0).ok()?,
    })
}

/// Columns begin at their number in MiB.
fn striped(columns: u64, length: u64, stripe_size: u64) -> ExtentMap {
    let columns: Vec<_> = (0..columns)
        .map(|number| extent(number as usize, number << 20, length))
        .collect();
    let mut map = ExtentMap::default();
    map.push_striped(Striped::new(&columns, Bytes::new(stripe_size)).unwrap());
    map
}

#[test]
fn pieces_become_lines() {
    let mut both = ExtentMap::whole(ImageIndex(1), Bytes::mib(3));
    both.push(extent(0, 512, 1024));
    both.append(&striped(2, 8192, 4096));
    let ragged = striped(3, 12288, 4096);
    let part = |offset, length| {
        let part = ragged.slice(Bytes::new(offset), Bytes::new(length));
        part.unwrap()
    };
    for (map, expected) in [
        (
            both,
            "0 6144 linear 7:1 0\n6144 2 linear 7:0 1\n6146 32 striped 2 8 7:0 0 7:1 2048\n",
        ),
        (part(0, 36864), "0 72 striped 3 8 7:0 0 7:1 2048 7:2 4096\n"),
        // From the middle of the second stripe to the middle of the last but one.
        (
            part(6144, 25600),
            "0 4 linear 7:1 2052\n\
             4 8 linear 7:2 4096\n\
             12 24 striped 3 8 7:0 8 7:1 2056 7:2 4104\n\
             36 8 linear 7:0 16\n\
             44 6 linear 7:1 2064\n",
        ),
        // No whole row.
        (
            part(20480, 8192),
            "0 8 linear 7:2 4104\n8 8 linear 7:0 16\n",
        ),
        (part(4608, 512), "0 1 linear 7:1 2049\n"),
        (
            striped(2, 1 << 62, 1 << 32),
            "0 18014398509481984 striped 2 8388608 7:0 0 7:1 2048\n",
        ),
    ] {
        assert_eq!(table(&map, device).as_deref(), Ok(expected));
    }
}

#[test]
fn copies_become_mirrors() {
    let mirror = |copies: u64, length: u64| {
        let legs: Vec<ExtentMap> = (0..copies)
            .map(|number| {
                let mut leg = ExtentMap::default();
                leg.push(extent((number % 4) as usize, number << 20, length));
                leg
            })
            .collect();
        let mut map = ExtentMap::default();
        map.push_mirrored(&legs.iter().collect::<Vec<_>>()).unwrap();
        table(&map, device)
    };
    for (copies, length, expected) in [
        (
            2,
            8 << 20,
            "0 16384 mirror core 2 1024 nosync 2 7:0 0 7:1 2048\n",
        ),
        (2, 1024, "0 2 mirror core 2 2 nosync 2 7:0 0 7:1 2048\n"),
        (
            3,
            512 * 1023,
            "0 1023 mirror core 2 512 nosync 3 7:0 0 7:1 2048 7:2 4096\n",
        ),
    ] {
        assert_eq!(mirror(copies, length).as_deref(), Ok(expected));
    }
    for (copies, length) in [(10, 1 << 20), (2, 512)] {
        let error = TableError::Mirror {
            copies: copies as usize,
            length: Bytes::new(length),
        };
        assert_eq!(mirror(copies, length), Err(error));
    }
    assert!(mirror(9, 1 << 20).is_ok());
}

/// The lines are those that cryptsetup itself makes (`dmsetup table --showkeys`).
#[test]
fn encrypted_devices() {
    let plain = Cipher {
        name: "aes-xts-plain64",
        key: "b8337b06",
        iv_tweak: 0,
        sector_size: SectorSize::S512,
        discards: false,
    };
    let of_4096 = Cipher {
        sector_size: SectorSize::S4096,
        ..plain
    };
    let table = |length, cipher, offset| {
        let table = encrypted(Bytes::new(length), cipher, "254:0", Bytes::new(offset));
        table.map(|table| table.to_string())
    };
    for (cipher, expected) in [
        (
            plain,
            "0 258048 crypt aes-xts-plain64 b8337b06 0 254:0 4096\n",
        ),
        (
            Cipher {
                discards: true,
                ..plain
            },
            "0 258048 crypt aes-xts-plain64 b8337b06 0 254:0 4096 1 allow_discards\n",
        ),
        (
            of_4096,
            "0 258048 crypt aes-xts-plain64 b8337b06 0 254:0 4096 1 sector_size:4096\n",
        ),
        (
            Cipher {
                name: "aes-cbc-essiv:sha256",
                iv_tweak: 8,
                discards: true,
                ..of_4096
            },
            "0 258048 crypt aes-cbc-essiv:sha256 b8337b06 8 254:0 4096 2 allow_discards \
             sector_size:4096\n",
        ),
    ] {
        let length = 258_048 * 512;
        assert_eq!(table(length, cipher, 2 << 20).as_deref(), Ok(expected));
    }
    assert_eq!(
        crypt(Bytes::new(1024), "ab", "$kept").unwrap().as_str(),
        "0 2 crypt aes-xts-plain64 ab 0 $kept 0\n"
    );
    assert_eq!(table(0, plain, 0), Err(TableError::Empty));
    for (length, cipher, offset, expected) in [
        (511, plain, 0, "a length of 511 bytes is no multiple of 512"),
        (512, plain, 1, "an offset of 1 bytes is no multiple of 512"),
        (
            4608,
            of_4096,
            0,
            "a length of 4608 bytes is no multiple of 4096",
        ),
    ] {
        let error = table(length, cipher, offset).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    assert!(!format!("{plain:?}").contains("b8337b06"));
}

#[test]
fn what_device_mapper_cannot_have_is_refused() {
    let runs = |extents: &[Extent]| {
        let mut map = ExtentMap::default();
        extents.iter().for_each(|extent| map.push(*extent));
        map
    };
    let many: Vec<_> = (0..=MAX_LINES as u64)
        .map(|number| extent(0, number << 20, 512))
        .collect();
    for (map, expected) in [
        (ExtentMap::default(), "a device-mapper table of no bytes"),
        (
            runs(&[extent(0, 513, 512)]),
            "an offset of 513 bytes is no multiple of 512",
        ),
        (
            runs(&[extent(0, 512, 512), extent(1, 0, 100)]),
            "a length of 100 bytes is no multiple of 512",
        ),
        (
            runs(&[extent(4, 0, 512)]),
            "image 4 is no block device here",
        ),
        (striped(5, 4096, 4096), "image 4 is no block device here"),
        (
            striped(2, 1536, 768),
            "a stripe size of 768 bytes is no multiple of 512",
        ),
        (
            striped(2, 1 << 42, 1 << 42),
            "a stripe size of 4398046511104 bytes is more than device-mapper takes",
        ),
        (
            runs(&many),
            "16385 pieces are too many for a device-mapper table",
        ),
    ] {
        assert_eq!(table(&map, device).unwrap_err().to_string(), expected);
    }
    assert_eq!(
        table(&runs(&many[1..]), device).unwrap().lines().count(),
        MAX_LINES
    );
}

#[test]
fn a_snapshot_and_a_part_of_a_device_are_one_line() {
    let number = |minor| DeviceNumber { major: 253, minor };
    let unaligned = |what, bytes| {
        Err(TableError::Unaligned {
            what,
            bytes: Bytes::new(bytes),
            unit: 512,
        })
    };
    for (length, expected) in [
        (1 << 20, Ok("0 2048 snapshot 253:7 253:12 N 8\n".to_owned())),
        (0, Err(TableError::Empty)),
        (100, unaligned("a length", 100)),
    ] {
        let text = snapshot(Bytes::new(length), number(7), number(12));
        assert_eq!(text, expected);
    }
    for (offset, length, expected) in [
        (1024, 1536, Ok("0 3 linear 253:7 2\n".to_owned())),
        (1024, 0, Err(TableError::Empty)),
        (1, 512, unaligned("an offset", 1)),
    ] {
        let text = linear(number(7), Bytes::new(offset), Bytes::new(length));
        assert_eq!(text, expected);
    }
}

#[test]
fn only_block_devices_have_numbers() {
    let error = DeviceNumber::of(Path::new("/dev/null")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    let error = DeviceNumber::of(Path::new("/nowhere")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    let number = DeviceNumber {
        major: 253,
        minor: 7,
    };
    assert_eq!(number.to_string(), "253:7");
}

/// An image in a file, and a loop device that has it.
struct Image {
    file: File,
    device: String,
}

impl Image {
    /// Bytes that are the same nowhere else.
    fn new(folder: &Path, number: u8, length: usize) -> Self {
        let path = folder.join(format!("image{number}"));
        let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(number);
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        std::fs::write(&path, bytes).unwrap();
        Self {
            file: File::open(&path).unwrap(),
            device: said(
                Command::new("losetup")
                    .args(["--find", "--show"])
                    .arg(&path),
            ),
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        said(Command::new("losetup").arg("--detach").arg(&self.device));
    }
}

impl ReadAt for Image {
    fn size(&self) -> Bytes {
        Bytes::new(self.file.metadata().unwrap().len())
    }

    fn read_exact_at(&self, offset: Bytes, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset.get())
    }
}

struct Images(Vec<Image>);

impl ReadImages for Images {
    fn read_image(&self, index: ImageIndex, offset: Bytes, buffer: &mut [u8]) -> io::Result<()> {
        read_one_of(&self.0, index, offset, buffer)
    }
}

fn said(command: &mut Command) -> String {
    let output = command.env("DM_DISABLE_UDEV", "1").output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A mapping of that table, for as long as it is looked at.
fn mapped<T>(table: &str, look: impl FnOnce(&Path) -> T) -> T {
    let name = format!("virt-fsck-table-{}", std::process::id());
    let mut create = Command::new("dmsetup")
        .args(["create", &name])
        .env("DM_DISABLE_UDEV", "1")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    create
        .stdin
        .take()
        .unwrap()
        .write_all(table.as_bytes())
        .unwrap();
    assert!(create.wait().unwrap().success(), "{table}");
    let result = look(&Path::new("/dev/mapper").join(&name));
    said(Command::new("dmsetup").args(["remove", "--retry", &name]));
    result
}

#[test]
#[ignore = "needs root, loop devices and device-mapper"]
fn the_kernel_reads_the_same_bytes() {
    const LENGTH: u64 = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let images = (0..3).map(|number| Image::new(folder.path(), number, LENGTH as usize));
    let images = Images(images.collect());
    let number = |image: ImageIndex| {
        let image = images.0.get(image.0)?;
        Some(DeviceNumber::of(Path::new(&image.device)).unwrap())
    };
    let columns = |offsets: &[(usize, u64)], length, stripe_size| {
        let columns: Vec<_> = offsets
            .iter()
            .map(|(image, offset)| extent(*image, *offset, length))
            .collect();
        let mut map = ExtentMap::default();
        map.push_striped(Striped::new(&columns, Bytes::new(stripe_size)).unwrap());
        map
    };
    let three = columns(&[(2, 4096), (0, 0), (1, 512)], 983_040, 65_536);
    let many: Vec<_> = (0..128).map(|at| (at % 3, (at as u64) << 12)).collect();
    let mut mixed = ExtentMap::default();
    mixed.push(extent(1, 512, 1024));
    mixed.append(&columns(&[(0, 512), (2, 8192)], 262_144, 4096));
    mixed.push(extent(0, 786_432, 512));
    let mut maps = vec![
        ExtentMap::whole(ImageIndex(1), Bytes::new(LENGTH)),
        columns(&many, 4096, 512),
        columns(&[(0, 0), (1, 0)], 3 * 1536, 1536),
    ];
    for (map, parts) in [
        (
            &three,
            &[
                (0, 2_949_120),
                (65_536, 65_536),
                (66_048, 2_000_384),
                (131_072, 131_072),
            ][..],
        ),
        (&mixed, &[(0, 525_824), (512, 525_312), (5632, 12_288)]),
    ] {
        for (offset, length) in parts {
            maps.push(map.slice(Bytes::new(*offset), Bytes::new(*length)).unwrap());
        }
    }
    for map in maps {
        let text = table(&map, number).unwrap();
        let expected = LayerReader::new(&images, &map)
            .read_at(Bytes::ZERO, map.size())
            .unwrap();
        mapped(&text, |device| {
            let mut bytes = Vec::new();
            File::open(device).unwrap().read_to_end(&mut bytes).unwrap();
            assert!(bytes == expected, "other bytes: {text}");
            // The kernel tells the table as it was given.
            assert_eq!(
                said(Command::new("dmsetup").arg("table").arg(device)),
                text.trim()
            );
        });
    }

    let loop_number = number(ImageIndex(0)).unwrap();
    assert_eq!(loop_number.logical_block_size(), 512);

    // A snapshot has the bytes of its origin until it is written to; the origin keeps them.
    let [origin, store] = [0, 1].map(|image| number(ImageIndex(image)).unwrap());
    let text = snapshot(Bytes::new(LENGTH), origin, store).unwrap();
    let before = images.0[0]
        .read_at(Bytes::ZERO, Bytes::new(LENGTH))
        .unwrap();
    mapped(&text, |device| {
        let file = File::options().read(true).write(true).open(device).unwrap();
        let mut bytes = vec![0; LENGTH as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes == before);
        file.write_all_at(&[7; 512], 8192).unwrap();
        file.sync_all().unwrap();
        file.read_exact_at(&mut bytes[..512], 8192).unwrap();
        assert_eq!(bytes[..512], [7; 512]);
    });
    let after = images.0[0]
        .read_at(Bytes::ZERO, Bytes::new(LENGTH))
        .unwrap();
    assert!(after == before);
}
