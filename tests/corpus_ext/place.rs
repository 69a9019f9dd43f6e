//! Where in a disk a filesystem lies.

use std::fmt;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::lab::{Lab, number};

const MIB: usize = 1 << 20;
const SECTOR: usize = 512;
/// Small, so that a volume is hardly larger than its filesystem.
const EXTENT: usize = 4096;

/// Where in a disk a filesystem lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The one partition of a GPT.
    Partition,
    /// The one logical volume of a physical volume that fills the disk.
    LogicalVolume,
}

/// A disk with room for a filesystem of one size.
pub struct Template {
    /// The bytes of the disk.
    pub disk: Vec<u8>,
    /// Where the room begins.
    pub offset: usize,
    /// How much there is.
    pub size: usize,
    /// The name of its layer.
    pub layer: &'static str,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Partition => "partition",
            Self::LogicalVolume => "logical volume",
        })
    }
}

impl Place {
    pub const ALL: [Self; 2] = [Self::Partition, Self::LogicalVolume];

    /// How large the place for so many bytes has to be.
    pub fn rounded(self, size: usize) -> usize {
        size.next_multiple_of(match self {
            Self::Partition => SECTOR,
            Self::LogicalVolume => EXTENT,
        })
    }

    /// A disk that has such a place, with nothing in it.
    pub fn template(self, size: usize) -> Template {
        match self {
            Self::Partition => partitioned(size),
            Self::LogicalVolume => with_a_volume_group(size),
        }
    }
}

fn partitioned(size: usize) -> Template {
    let file = tempfile::NamedTempFile::new().unwrap();
    let length = (2 * MIB + size).next_multiple_of(SECTOR);
    file.as_file().set_len(length as u64).unwrap();
    let mut sfdisk = Command::new("sfdisk")
        .arg("--quiet")
        .arg(file.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let sectors = size / SECTOR;
    let script = format!("label: gpt\nstart=2048, size={sectors}, type=linux\n");
    let mut stdin = sfdisk.stdin.take().unwrap();
    stdin.write_all(script.as_bytes()).unwrap();
    drop(stdin);
    assert!(sfdisk.wait().unwrap().success());
    Template {
        disk: std::fs::read(file.path()).unwrap(),
        offset: MIB,
        size,
        layer: "sda/p1",
    }
}

/// LVM's own doing; where the volume begins is its word too.
fn with_a_volume_group(size: usize) -> Template {
    let mib = size.div_ceil(MIB) as u64 + 2;
    let lab = Lab::new(&[mib]).unwrap();
    lab.lvm("pvcreate @0");
    lab.lvm("vgcreate -s 4k vg @0");
    let extents = size / EXTENT;
    lab.lvm(&format!("lvcreate -an -Zn -Wn -n fs -l {extents} vg @0"));
    let start = number(&lab.report("pvs -o pe_start")[0], "pe_start");
    let segments = lab.report("lvs --segments -o seg_pe_ranges,seg_size vg");
    assert_eq!(segments.len(), 1);
    assert_eq!(number(&segments[0], "seg_size"), size as u64);
    let ranges = segments[0]["seg_pe_ranges"].as_str().unwrap();
    assert_eq!(ranges, format!("{}:0-{}", lab.device(0), extents - 1));
    lab.image(0);
    Template {
        disk: std::fs::read(&lab.loops[0].image).unwrap(),
        offset: usize::try_from(start).unwrap(),
        size,
        layer: "sda/vg/fs",
    }
}
