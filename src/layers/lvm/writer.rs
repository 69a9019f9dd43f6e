//! Writes physical volumes for tests, byte by byte as LVM does.

use std::io;

use super::identity::PhysicalVolumeId;
use super::raw::checksum;
use crate::layers::read::ReadAt;
use crate::units::Bytes;

/// Bytes in memory as a layer.
pub(super) struct Memory<'a>(pub &'a [u8]);

impl ReadAt for Memory<'_> {
    fn size(&self) -> Bytes {
        self.0.size()
    }

    fn read_exact_at(&self, offset: Bytes, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(offset, buffer)
    }
}

/// 1 MiB in sectors, where LVM starts the extents by default.
const START_SECTORS: u64 = 2048;

pub(in crate::layers) struct PhysicalVolumeImage {
    pub letter: char,
    pub size: Bytes,
    pub label_sector: u64,
    pub areas: Vec<MetadataArea>,
}

pub(in crate::layers) struct MetadataArea {
    pub offset: u64,
    pub size: u64,
    pub slot: Slot,
}

pub(in crate::layers) enum Slot {
    Empty,
    Ignored,
    Text { offset: u64, text: String },
}

impl PhysicalVolumeImage {
    /// A volume of 64 KiB without a group, whose UUID is the letter again and again.
    pub fn new(letter: char) -> Self {
        Self {
            letter,
            size: Bytes::kib(64),
            label_sector: 1,
            areas: vec![MetadataArea {
                offset: 4096,
                size: 8192,
                slot: Slot::Empty,
            }],
        }
    }

    /// The same with a group's text in its metadata area.
    pub fn with_text(letter: char, text: String) -> Self {
        let mut image = Self::new(letter);
        image.areas[0].slot = Slot::Text { offset: 512, text };
        image
    }

    pub fn build(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.size.get()).unwrap()];
        let label = self.label();
        let at = usize::try_from(self.label_sector).unwrap() * 512;
        bytes[at..at + 512].copy_from_slice(&label);
        for area in &self.areas {
            area.write(&mut bytes);
        }
        bytes
    }

    fn label(&self) -> Vec<u8> {
        let mut header = vec![];
        header.extend(b"LABELONE");
        header.extend(self.label_sector.to_le_bytes());
        header.extend(0_u32.to_le_bytes());
        header.extend(32_u32.to_le_bytes());
        header.extend(b"LVM2 001");
        header.extend(id_text(self.letter).bytes());
        header.extend(self.size.get().to_le_bytes());
        for number in [START_SECTORS * 512, 0, 0, 0] {
            header.extend(number.to_le_bytes());
        }
        for area in &self.areas {
            header.extend(area.offset.to_le_bytes());
            header.extend(area.size.to_le_bytes());
        }
        header.resize(512, 0);
        seal_label(&mut header);
        header
    }
}

impl MetadataArea {
    fn write(&self, image: &mut [u8]) {
        let mut header = vec![];
        header.extend(0_u32.to_le_bytes());
        header.extend(b" LVM2 x[5A%r0N*>");
        header.extend(1_u32.to_le_bytes());
        header.extend(self.offset.to_le_bytes());
        header.extend(self.size.to_le_bytes());
        let start = usize::try_from(self.offset).unwrap();
        match &self.slot {
            Slot::Empty => {}
            Slot::Ignored => {
                header.extend([0; 20]);
                header.extend(1_u32.to_le_bytes());
            }
            Slot::Text { offset, text } => {
                let text = [text.as_bytes(), b"\0"].concat();
                header.extend(offset.to_le_bytes());
                header.extend((text.len() as u64).to_le_bytes());
                header.extend(checksum(&[&text]).to_le_bytes());
                header.extend(0_u32.to_le_bytes());
                for (index, byte) in text.iter().enumerate() {
                    let ring = self.size - 512;
                    let at = (offset - 512 + index as u64) % ring + 512;
                    image[start + usize::try_from(at).unwrap()] = *byte;
                }
            }
        }
        header.resize(512, 0);
        seal_area(&mut header);
        image[start..start + 512].copy_from_slice(&header);
    }
}

/// Sets the checksum of a label sector.
pub(super) fn seal_label(sector: &mut [u8]) {
    let sum = checksum(&[&sector[20..512]]);
    sector[16..20].copy_from_slice(&sum.to_le_bytes());
}

/// Sets the number and the checksum of a label sector.
pub(super) fn set_label_sector(sector: &mut [u8], number: u64) {
    sector[8..16].copy_from_slice(&number.to_le_bytes());
    seal_label(sector);
}

/// Sets the checksum of a metadata area's header.
pub(super) fn seal_area(header: &mut [u8]) {
    let sum = checksum(&[&header[4..512]]);
    header[..4].copy_from_slice(&sum.to_le_bytes());
}

/// The UUID that is the letter again and again.
pub(super) fn uuid(letter: char) -> PhysicalVolumeId {
    PhysicalVolumeId::parse(&id_text(letter)).unwrap()
}

pub(super) fn id_text(letter: char) -> String {
    letter.to_string().repeat(32)
}

/// The text of a group with extents of 4 MiB. Volumes are letters of UUIDs and counts of extents.
pub(in crate::layers) fn group_text(
    name: &str,
    letter: char,
    sequence: u32,
    physical: &[(char, u32)],
    logical: &str,
) -> String {
    let mut volumes = String::new();
    for (index, (letter, count)) in physical.iter().enumerate() {
        let id = id_text(*letter);
        volumes += &format!(
            "pv{index} {{\nid = \"{id}\"\ndevice = \"/dev/sd{letter}\"\n\
             status = [\"ALLOCATABLE\"]\nflags = [\"PV\"]\n\
             pe_start = {START_SECTORS}\npe_count = {count}\n}}\n"
        );
    }
    let id = id_text(letter);
    format!(
        "{name} {{\nid = \"{id}\"\nseqno = {sequence}\nformat = \"lvm2\"\n\
         status = [\"RESIZEABLE\", \"READ\", \"WRITE\"]\nflags = []\nextent_size = 8192\n\
         physical_volumes {{\n{volumes}}}\nlogical_volumes {{\n{logical}}}\n}}\n\
         contents = \"Text Format Volume Group\"\nversion = 1\n"
    )
}

/// A visible logical volume; a segment is its first extent, its count and the rest of its text.
pub(in crate::layers) fn volume(name: &str, letter: char, segments: &[(u32, u32, &str)]) -> String {
    let id = id_text(letter);
    let mut text = format!(
        "{name} {{\nid = \"{id}\"\nstatus = [\"READ\", \"WRITE\", \"VISIBLE\"]\nflags = []\n\
         segment_count = {}\n",
        segments.len()
    );
    for (index, (start, count, rest)) in segments.iter().enumerate() {
        text += &format!(
            "segment{} {{\nstart_extent = {start}\nextent_count = {count}\n{rest}\n}}\n",
            index + 1
        );
    }
    text + "}\n"
}

/// A visible linear volume; a segment is its first extent, its count, a volume and an extent there.
pub(in crate::layers) fn linear(
    name: &str,
    letter: char,
    segments: &[(u32, u32, &str, u32)],
) -> String {
    let rests: Vec<String> = segments
        .iter()
        .map(|(_, _, on, at)| {
            format!("type = \"striped\"\nstripe_count = 1\nstripes = [\"{on}\", {at}]")
        })
        .collect();
    let segments: Vec<_> = segments
        .iter()
        .zip(&rests)
        .map(|((start, count, ..), rest)| (*start, *count, rest.as_str()))
        .collect();
    volume(name, letter, &segments)
}

/// A hidden one, a part of another volume, with all its extents in one run.
pub(in crate::layers) fn part(name: &str, letter: char, count: u32, on: &str, at: u32) -> String {
    linear(name, letter, &[(0, count, on, at)]).replace(", \"VISIBLE\"", "")
}

/// A visible `raid1` volume of two copies, with all it is made of, over two physical volumes: on each the
/// superblock on the first extent and the data on the following ones.
pub(in crate::layers) fn raid1(name: &str, letter: char, count: u32) -> String {
    let legs = ["0", "1"].map(|leg| format!("\"{name}_rmeta_{leg}\", \"{name}_rimage_{leg}\""));
    let rest = format!(
        "type = \"raid1\"\ndevice_count = 2\nregion_size = 4096\nraids = [{}]",
        legs.join(", ")
    );
    let mut text = volume(name, letter, &[(0, count, &rest)]);
    for (leg, [meta, data]) in [['1', '2'], ['3', '4']].into_iter().enumerate() {
        let on = format!("pv{leg}");
        text += &part(&format!("{name}_rmeta_{leg}"), meta, 1, &on, 0);
        text += &part(&format!("{name}_rimage_{leg}"), data, count, &on, 1);
    }
    text
}
