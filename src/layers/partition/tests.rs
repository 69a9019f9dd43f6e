//! Hostile and odd tables; those of the real tools are in `tests/recognise.rs`.

use proptest::prelude::*;

use super::{PartitionError, PartitionTable, types};
use crate::layers::read::ReadAt;
use crate::layers::tree::PartitionScheme;
use crate::units::{Bytes, SectorSize};

struct Disk<'a>(&'a [u8]);

impl ReadAt for Disk<'_> {
    fn size(&self) -> Bytes {
        self.0.size()
    }

    fn read_exact_at(&self, offset: Bytes, buffer: &mut [u8]) -> std::io::Result<()> {
        self.0.read_exact_at(offset, buffer)
    }
}

fn read(disk: &[u8], size: SectorSize) -> Result<Option<PartitionTable>, PartitionError> {
    super::read(&Disk(disk), size)
}

const SECTOR: usize = 512;
const DISK: usize = 4096 * SECTOR;

/// Writes a record's entry: type, first sector, number of sectors.
fn entry(disk: &mut [u8], record: usize, index: usize, fields: (u8, u32, u32)) {
    let at = record * SECTOR + 446 + index * 16;
    disk[at + 4] = fields.0;
    disk[at + 8..at + 12].copy_from_slice(&fields.1.to_le_bytes());
    disk[at + 12..at + 16].copy_from_slice(&fields.2.to_le_bytes());
    disk[record * SECTOR + 510..record * SECTOR + 512].copy_from_slice(&[0x55, 0xaa]);
}

fn mbr(entries: &[(usize, usize, (u8, u32, u32))]) -> Vec<u8> {
    let mut disk = vec![0; DISK];
    for (record, index, fields) in entries {
        entry(&mut disk, *record, *index, *fields);
    }
    disk
}

fn table(disk: &[u8]) -> PartitionTable {
    read(disk, SectorSize::S512).unwrap().unwrap()
}

/// Number, first sector and number of sectors of each partition.
fn places(table: &PartitionTable) -> Vec<(u32, u64, u64)> {
    let sectors = |bytes: Bytes| bytes.get() / SECTOR as u64;
    table
        .partitions
        .iter()
        .map(|found| (found.number, sectors(found.start), sectors(found.length)))
        .collect()
}

fn only_note(table: &PartitionTable) -> &str {
    match table.notes.as_slice() {
        [only] => only,
        notes => panic!("{notes:?}"),
    }
}

#[test]
fn a_chain_that_comes_back_ends() {
    let disk = mbr(&[
        (0, 0, (0x83, 100, 10)),
        (0, 1, (0x05, 200, 1000)),
        (200, 0, (0x83, 1, 10)),
        (200, 1, (0x05, 50, 20)),
        (250, 0, (0x83, 1, 10)),
        (250, 1, (0x05, 0, 50)),
    ]);
    let table = table(&disk);
    assert_eq!(places(&table), [(1, 100, 10), (5, 201, 10), (6, 251, 10)]);
    assert_eq!(
        only_note(&table),
        "in the chain of extended partition 2, at sector 200: the chain comes back to a record it \
         has been at; partitions after it are not seen"
    );
}

#[test]
fn a_chain_that_goes_astray_keeps_what_it_had() {
    for (link, note) in [
        ((0x05, 100_000, 20), "leaves the disk"),
        ((0x05, u32::MAX, u32::MAX), "leaves the disk"),
        ((0x05, 300, 20), "there is no boot record"),
    ] {
        let disk = mbr(&[
            (0, 1, (0x0f, 200, 1000)),
            (200, 0, (0x83, 1, 10)),
            (200, 1, link),
        ]);
        let table = table(&disk);
        assert_eq!(places(&table), [(5, 201, 10)]);
        assert!(only_note(&table).contains(note), "{:?}", table.notes);
    }
}

#[test]
fn a_chain_without_end_is_cut() {
    let mut disk = mbr(&[(0, 0, (0x85, 1, 4000))]);
    for record in 1..2000 {
        entry(
            &mut disk,
            record,
            1,
            (0x05, u32::try_from(record).unwrap(), 1),
        );
    }
    let table = table(&disk);
    assert_eq!(table.partitions, []);
    assert!(only_note(&table).contains("more than 256 records"));
}

#[test]
fn logical_partitions_are_numbered_as_linux_does() {
    // An empty record takes no number; the third entry counts if it lies inside, else it is
    // garbage; a partition past the end of the disk uses up its number.
    let disk = mbr(&[
        (0, 3, (0x05, 200, 2000)),
        (200, 1, (0x05, 100, 500)),
        (300, 0, (0x83, 1, 10)),
        (300, 1, (0x05, 700, 500)),
        (300, 2, (0x83, 20, 10)),
        (300, 3, (0x83, 20, 5000)),
        (900, 0, (0x83, 90_000, 10)),
        (900, 1, (0x05, 1200, 100)),
        (1400, 0, (0x8e, 1, 10)),
    ]);
    let table = table(&disk);
    assert_eq!(places(&table), [(5, 301, 10), (6, 320, 10), (8, 1401, 10)]);
    assert!(table.notes[0].starts_with("logical partition 7 reaches out of"));
    assert!(table.notes[1].starts_with("partition 7 begins at byte"));
    assert_eq!(table.notes.len(), 2);
}

#[test]
fn overlaps_are_noted_and_notes_are_bounded() {
    let disk = mbr(&[(0, 0, (0x83, 100, 100)), (0, 2, (0x83, 150, 10))]);
    assert_eq!(
        only_note(&table(&disk)),
        "partitions 1 and 3 overlap from byte 76800"
    );

    let mut gpt = Gpt::new();
    gpt.entries = (0..100).map(|_| (40, 50)).collect();
    let table = table(&gpt.disk());
    assert_eq!(table.partitions.len(), 100);
    assert_eq!(table.notes.len(), 33);
    assert_eq!(table.notes.last().unwrap(), "and 68 more of these");
}

/// Why partitions are held, by their numbers.
fn held(table: &PartitionTable) -> Vec<(u32, &str)> {
    let reasons = table.partitions.iter();
    reasons
        .filter_map(|found| Some((found.number, found.held.as_deref()?)))
        .collect()
}

#[test]
fn what_shares_bytes_is_held() {
    let disk = mbr(&[
        (0, 0, (0x83, 100, 100)),
        (0, 1, (0x83, 150, 100)),
        (0, 2, (0x83, 250, 10)),
    ]);
    assert_eq!(
        held(&table(&disk)),
        [
            (
                1,
                "it overlaps p2 from byte 76800, and a repair of one would damage the other"
            ),
            (
                2,
                "it overlaps p1 from byte 76800, and a repair of one would damage the other"
            ),
        ]
    );
    // The very same bytes are as good as one partition.
    let disk = mbr(&[(0, 0, (0x83, 100, 100)), (0, 1, (0x0c, 100, 100))]);
    assert_eq!(
        held(&table(&disk)),
        [(2, "it has the same bytes as p1, which stands for both")]
    );
    // The records of the chain are part of the table.
    let disk = mbr(&[
        (0, 0, (0x83, 100, 101)),
        (0, 1, (0x05, 200, 1000)),
        (200, 0, (0x83, 2, 10)),
    ]);
    assert_eq!(
        held(&table(&disk)),
        [(
            1,
            "it reaches over a record of the extended partition, at byte 102400, and a repair \
             could damage that"
        )]
    );
    // And so is the GPT.
    let mut gpt = Gpt::new();
    gpt.entries = vec![(2, 50), (100, 200)];
    let table = table(&gpt.disk());
    assert_eq!(held(&table).len(), 1);
    assert!(held(&table)[0].1.contains("the GPT itself, at byte 1024"));
}

#[test]
fn entries_without_sectors_are_named() {
    let disk = mbr(&[(0, 0, (0x83, 100, 100)), (0, 2, (0x07, 300, 0))]);
    assert_eq!(
        only_note(&table(&disk)),
        "partition 3 has a type, 0x07, and no sectors, and is left out"
    );
}

#[test]
fn no_more_logical_partitions_than_linux_has() {
    let mut disk = mbr(&[(0, 0, (0x05, 1, 4000))]);
    for record in 1..1000 {
        let next = u32::try_from(record).unwrap();
        for index in [0, 2, 3] {
            entry(&mut disk, record, index, (0x83, 1, 1));
        }
        entry(&mut disk, record, 1, (0x05, next, 2000));
    }
    let table = table(&disk);
    assert_eq!(table.partitions.last().unwrap().number, 255);
    assert!(table.incomplete);
}

#[test]
fn a_partition_does_not_hold_its_own_table() {
    let disk = mbr(&[
        (0, 0, (0x17, 0, 4096)),
        (0, 1, (0xef, 100, 10)),
        (0, 2, (0x05, 0, 4096)),
    ]);
    let table = table(&disk);
    assert_eq!(places(&table), [(2, 100, 10)]);
    assert_eq!(table.notes.len(), 2);
    assert!(table.notes[0].starts_with("partition 1 begins at sector 0"));
    // And if it is the only one, the disk is what the partition would be.
    let disk = mbr(&[(0, 0, (0x17, 0, 4096))]);
    assert!(read(&disk, SectorSize::S512).unwrap().is_none());
}

#[test]
fn boot_sectors_of_filesystems_are_no_tables() {
    let sane = (0, 0, (0x83, 100, 10));
    for name in [b"NTFS    ", b"EXFAT   ", b"-FVE-FS-"] {
        let mut disk = mbr(&[sane]);
        disk[3..11].copy_from_slice(name);
        assert!(read(&disk[..], SectorSize::S512).unwrap().is_none());
    }
    // Boot code where the table would be.
    let mut disk = mbr(&[sane]);
    disk[446 + 16] = b'N';
    assert!(read(&disk[..], SectorSize::S512).unwrap().is_none());
    // Shorter than a record.
    assert!(read(&disk[..511], SectorSize::S512).unwrap().is_none());
    assert!(read(&disk[..0], SectorSize::S512).unwrap().is_none());
}

#[test]
fn of_a_fat_boot_sector_the_whole_table_has_to_make_sense() {
    let fat = |entries: &[(usize, usize, (u8, u32, u32))]| {
        let mut disk = mbr(entries);
        disk[0..3].copy_from_slice(&[0xeb, 0x3c, 0x90]);
        disk[0x0b..0x18].copy_from_slice(&[0, 2, 1, 1, 0, 2, 16, 0, 0, 16, 0xf8, 9, 0]);
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        read(&disk[..], SectorSize::S512).unwrap()
    };
    assert!(fat(&[]).is_none());
    assert!(fat(&[(0, 0, (0x83, 100, 10))]).is_some());
    assert!(fat(&[(0, 0, (0x83, 0, 4096))]).is_none());
    assert!(fat(&[(0, 0, (0x83, 100, 10)), (0, 1, (0x00, 200, 10))]).is_none());
    assert!(fat(&[(0, 0, (0x83, 100, 10)), (0, 1, (0x83, 200, 90_000))]).is_none());
    assert!(fat(&[(0, 0, (0xee, 1, 4095))]).is_none());
}

/// A GPT to be written, its fields free to be wrong.
struct Gpt {
    entries: Vec<(u64, u64)>,
    entry_size: u32,
    count: Option<u32>,
    entries_sector: u64,
}

impl Gpt {
    fn new() -> Self {
        Self {
            entries: vec![(40, 50)],
            entry_size: 128,
            count: None,
            entries_sector: 2,
        }
    }

    fn disk(&self) -> Vec<u8> {
        let mut disk = mbr(&[(0, 0, (0xee, 1, u32::MAX))]);
        let size = self.entry_size as usize;
        let count = self.count.unwrap_or(self.entries.len() as u32);
        let mut array = vec![0; size * self.entries.len()];
        for (index, (first, last)) in self.entries.iter().enumerate() {
            let at = index * size;
            array[at..at + 16].fill(0x11);
            array[at + 32..at + 40].copy_from_slice(&first.to_le_bytes());
            array[at + 40..at + 48].copy_from_slice(&last.to_le_bytes());
            array[at + 56..at + 60].copy_from_slice(b"\x07\0x\0");
        }
        let mut header = [0; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[12] = 92;
        header[24] = 1;
        header[32..40].copy_from_slice(&(DISK as u64 / 512 - 1).to_le_bytes());
        header[40] = 3;
        header[48..56].copy_from_slice(&(DISK as u64 / 512 - 2).to_le_bytes());
        header[72..80].copy_from_slice(&self.entries_sector.to_le_bytes());
        header[80..84].copy_from_slice(&count.to_le_bytes());
        header[84..88].copy_from_slice(&self.entry_size.to_le_bytes());
        header[88..92].copy_from_slice(&crc32fast::hash(&array).to_le_bytes());
        let crc = crc32fast::hash(&header);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        disk[SECTOR..SECTOR + 92].copy_from_slice(&header);
        disk[2 * SECTOR..2 * SECTOR + array.len()].copy_from_slice(&array);
        disk
    }
}

#[test]
fn gpt_entries_are_taken_as_they_are_if_they_can_be() {
    let mut gpt = Gpt::new();
    gpt.entry_size = 256;
    gpt.entries = vec![
        (60, 50),
        (40, 50),
        (4000, 5000),
        (5001, 6000),
        (u64::MAX, u64::MAX),
    ];
    let table = table(&gpt.disk());
    assert_eq!(table.scheme, PartitionScheme::Gpt);
    assert_eq!(places(&table), [(2, 40, 11), (3, 4000, 96)]);
    assert_eq!(table.partitions[0].role.name.as_deref(), Some("\u{fffd}x"));
    for (note, part) in table.notes.iter().zip([
        "the backup GPT is missing at sector 4095",
        "Linux takes no partitions from this GPT: its entries have 256 bytes each",
        "partition 1 ends at sector 50, before its beginning at sector 60",
        "partition 5 lies at sectors",
        "partition 3 reaches past the end",
        "partition 4 begins at byte",
    ]) {
        assert!(note.starts_with(part), "{note}");
    }
    assert_eq!(table.notes.len(), 6);
    assert_eq!(table.partitions[0].held, None);
    let held = table.partitions[1].held.as_deref().unwrap();
    assert!(held.contains("past the end of the disk"), "{held}");
}

#[test]
fn hostile_gpt_headers_are_refused() {
    for (change, cause) in [
        (
            (|gpt: &mut Gpt| gpt.entry_size = 8192) as fn(&mut Gpt),
            "entries have a size",
        ),
        (|gpt| gpt.entry_size = 192, "entries have a size"),
        (|gpt| gpt.count = Some(u32::MAX), "claims more entries"),
        (|gpt| gpt.count = Some(100_000), "outside the disk"),
        (|gpt| gpt.entries_sector = u64::MAX, "outside the disk"),
        (|gpt| gpt.entries_sector = 90, "checksum"),
    ] {
        let mut gpt = Gpt::new();
        change(&mut gpt);
        let error = read(&gpt.disk()[..], SectorSize::S512).unwrap_err();
        assert!(error.to_string().contains(cause), "{error}");
    }
}

#[test]
fn only_so_many_gpt_entries_are_read() {
    let mut gpt = Gpt::new();
    gpt.entries = (0..1030).map(|_| (300, 400)).collect();
    let table = table(&gpt.disk());
    assert_eq!(table.partitions.len(), 1024);
    assert!(table.notes.iter().any(|note| note.contains("1030 entries")));
}

#[test]
fn types_are_called_as_sfdisk_calls_them() {
    let listed = |label: &str| {
        let output = std::process::Command::new("sfdisk")
            .env("LC_ALL", "C")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .args(["--list-types", "--label", label])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let has = |list: &str, code: &str, name: &str| {
        list.lines().any(|line| {
            line.trim()
                .split_once(char::is_whitespace)
                .is_some_and(|(listed, rest)| listed == code && rest.trim() == name)
        })
    };
    let gpt = listed("gpt");
    for (guid, name) in types::GPT_TYPES {
        assert!(has(&gpt, guid, name), "{guid} {name}");
    }
    let bsd = listed("bsd");
    for (byte, name) in types::BSD_TYPES {
        assert!(has(&bsd, &format!("{byte:x}"), name), "{byte:x} {name}");
    }
    let dos = listed("dos");
    for (byte, name) in types::MBR_TYPES {
        assert!(has(&dos, &format!("{byte:x}"), name), "{byte:x} {name}");
    }
}

/// A disk as large as offsets go, each sector the same.
struct Repeated(Vec<u8>);

impl ReadAt for Repeated {
    fn size(&self) -> Bytes {
        Bytes::new(u64::MAX)
    }

    fn read_exact_at(&self, _: Bytes, buffer: &mut [u8]) -> std::io::Result<()> {
        for part in buffer.chunks_mut(self.0.len()) {
            part.copy_from_slice(&self.0[..part.len()]);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_records_are_answered(
        mut record in proptest::collection::vec(any::<u8>(), SECTOR),
        sane in any::<bool>(),
        types in proptest::collection::vec(prop::sample::select(vec![0_u8, 5, 0x83, 0xee]), 4),
    ) {
        record[510..].copy_from_slice(&[0x55, 0xaa]);
        if sane {
            for (index, byte) in types.iter().enumerate() {
                record[446 + index * 16] = 0;
                record[450 + index * 16] = *byte;
            }
        }
        for size in [SectorSize::S512, SectorSize::S4096] {
            let _ = read(&record[..], size);
            let _ = super::read(&Repeated(record.clone()), size);
        }
    }

    /// Wrong bits in a GPT are found by its checksums or leave partitions on the disk.
    #[test]
    fn flipped_bits_are_survived(flips in proptest::collection::vec((0_usize..2048, 0_u8..8), 1..20)) {
        let mut disk = Gpt::new().disk();
        for (at, bit) in flips {
            disk[at] ^= 1 << bit;
        }
        if let Ok(Some(table)) = read(&disk[..], SectorSize::S512) {
            for partition in table.partitions {
                let end = partition.start.checked_add(partition.length).unwrap();
                prop_assert!(partition.length > Bytes::ZERO && end <= Bytes::new(DISK as u64));
            }
        }
    }
}
