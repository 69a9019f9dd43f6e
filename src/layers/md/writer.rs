//! Writes members of arrays for tests, field by field as MD does.

use std::io;

use super::assemble::FoundMember;
use super::superblock::{Role, Superblock, Version};
use super::{find, version_0, version_1};
use crate::layers::extent::{ExtentMap, ImageIndex};
use crate::layers::read::{ReadImages, read_one_of};
use crate::layers::tree::LayerPath;
use crate::units::Bytes;

/// Members in memory as images.
pub(in crate::layers) struct Images(pub Vec<Vec<u8>>);

impl ReadImages for Images {
    fn read_image(&self, index: ImageIndex, offset: Bytes, buffer: &mut [u8]) -> io::Result<()> {
        read_one_of(&self.0, index, offset, buffer)
    }
}

/// A member whose fields can be set. Sizes are in sectors.
#[derive(Clone)]
pub(in crate::layers) struct MemberImage {
    pub version: Version,
    pub sectors: u64,
    pub level: i32,
    pub layout: Option<u32>,
    pub chunk: u32,
    pub devices: u32,
    pub component: u64,
    pub number: u32,
    pub roles: Vec<Role>,
    pub name: &'static str,
    pub data_offset: u64,
    pub data_size: u64,
    pub events: u64,
    pub resync_offset: u64,
    pub features: u32,
    pub uuid: u8,
}

impl MemberImage {
    /// Device `number` of an array that has `devices` of one size: 1 MiB, its data from 128 KiB in
    /// metadata 1.1 and 1.2.
    pub fn new(version: Version, level: i32, number: u32, devices: u32) -> Self {
        let sectors = 2048;
        let (data_offset, data_size) = match version {
            Version::V0_90 => (0, sectors - 128),
            Version::V1_0 => (0, sectors - 16),
            Version::V1_1 | Version::V1_2 => (256, sectors - 256),
        };
        Self {
            version,
            sectors,
            level,
            layout: None,
            chunk: 8,
            devices,
            component: match level {
                -1 | 0 => 0,
                _ => 1024,
            },
            number,
            roles: (0..devices).map(Role::Active).collect(),
            name: "host:data",
            data_offset,
            data_size,
            events: 10,
            resync_offset: u64::MAX,
            features: 0,
            uuid: 0x11,
        }
    }

    pub fn size(&self) -> Bytes {
        Bytes::new(self.sectors * 512)
    }

    /// The same with as many sectors, the data reaching to where they can.
    pub fn sized(mut self, sectors: u64) -> Self {
        self.data_size = self.data_size + sectors - self.sectors;
        self.sectors = sectors;
        self
    }

    pub fn superblock(&self) -> Vec<u8> {
        match self.version {
            Version::V0_90 => self.version_0(),
            _ => self.version_1(),
        }
    }

    pub fn build(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.sectors * 512).unwrap()];
        let at = self.version.superblock_at(self.size()).unwrap();
        let at = usize::try_from(at.get()).unwrap();
        bytes[at..at + 4096].copy_from_slice(&self.superblock());
        bytes
    }

    pub fn read(&self) -> Superblock {
        find::read(&self.build()).unwrap().unwrap()
    }

    /// As found on the image of that number.
    pub fn found(&self, path: &str, image: usize) -> FoundMember {
        FoundMember {
            path: LayerPath::disk(path),
            extents: ExtentMap::whole(ImageIndex(image), self.size()),
            superblock: self.read(),
        }
    }

    fn version_1(&self) -> Vec<u8> {
        let mut block = vec![0; 4096];
        let mut set = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        let at = self.version.superblock_at(self.size()).unwrap();
        let layout = match (self.level, self.layout) {
            (0, Some(_)) => 4096,
            _ => 0,
        };
        set(0, &0xa92b_4efc_u32.to_le_bytes());
        set(4, &1_u32.to_le_bytes());
        set(8, &(self.features | layout).to_le_bytes());
        set(16, &[self.uuid; 16]);
        set(32, self.name.as_bytes());
        set(64, &1_700_000_000_u64.to_le_bytes());
        set(72, &self.level.to_le_bytes());
        set(76, &self.layout.unwrap_or(0).to_le_bytes());
        set(80, &self.component.to_le_bytes());
        set(88, &self.chunk.to_le_bytes());
        set(92, &self.devices.to_le_bytes());
        set(128, &self.data_offset.to_le_bytes());
        set(136, &self.data_size.to_le_bytes());
        set(144, &(at.get() / 512).to_le_bytes());
        set(160, &self.number.to_le_bytes());
        set(168, &[u8::try_from(self.number).unwrap(); 16]);
        set(192, &1_700_000_100_u64.to_le_bytes());
        set(200, &self.events.to_le_bytes());
        set(208, &self.resync_offset.to_le_bytes());
        set(220, &u32::try_from(self.roles.len()).unwrap().to_le_bytes());
        for (number, role) in self.roles.iter().enumerate() {
            let raw: u16 = match role {
                Role::Active(role) => u16::try_from(*role).unwrap(),
                Role::Spare => 0xffff,
                Role::Faulty => 0xfffe,
                Role::Journal => 0xfffd,
            };
            set(256 + 2 * number, &raw.to_le_bytes());
        }
        seal(&mut block);
        block
    }

    fn version_0(&self) -> Vec<u8> {
        let mut block = vec![0; 4096];
        let mut set = |word: usize, value: u32| {
            block[word * 4..word * 4 + 4].copy_from_slice(&value.to_le_bytes());
        };
        let high = |number: u64| u32::try_from(number >> 32).unwrap();
        let low = |number: u64| u32::try_from(number & u64::from(u32::MAX)).unwrap();
        set(0, 0xa92b_4efc);
        set(2, 90);
        for word in [5, 13, 14, 15] {
            set(word, u32::from_be_bytes([self.uuid; 4]));
        }
        set(6, 1_700_000_000);
        set(7, u32::from_ne_bytes(self.level.to_ne_bytes()));
        set(8, u32::try_from(self.component / 2).unwrap());
        set(10, self.devices);
        set(11, 3);
        set(32, 1_700_000_100);
        set(33, u32::from(self.resync_offset == u64::MAX));
        set(39, low(self.events));
        set(40, high(self.events));
        set(64, self.layout.unwrap_or(0));
        set(65, self.chunk * 512);
        for (number, role) in self.roles.iter().enumerate() {
            let (role, state) = match role {
                Role::Active(role) => (*role, 6),
                Role::Spare | Role::Journal => (u32::try_from(number).unwrap(), 0),
                Role::Faulty => (u32::try_from(number).unwrap(), 1),
            };
            let descriptor = 128 + 32 * number;
            set(descriptor, u32::try_from(number).unwrap());
            set(descriptor + 3, role);
            set(descriptor + 4, state);
        }
        set(992, self.number);
        seal(&mut block);
        block
    }
}

/// Sets the checksum right.
pub(in crate::layers) fn seal(block: &mut [u8]) {
    if block[4] == 1 {
        if let Some(sum) = version_1::checksum(block) {
            block[216..220].copy_from_slice(&sum.to_le_bytes());
        }
    } else {
        let sum = version_0::sealed(block);
        block[152..156].copy_from_slice(&sum.to_le_bytes());
    }
}
