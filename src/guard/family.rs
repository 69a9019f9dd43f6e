//! What shares bytes with an image: what lies on it, and what it lies on, as far as that goes.

use crate::guard::devices::Devices;
use crate::guard::sysfs::{Device, DeviceKind, Sysfs};
use crate::reach::identity::Identity;

/// An image, and all files and devices of this host by which some of its bytes can be reached.
#[derive(Clone, Debug)]
pub struct Family {
    members: Vec<Member>,
}

/// One of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which file or device.
    pub identity: Identity,
    /// Where it stands to the image.
    pub place: Place,
    /// The device; `None` for a file, and for a device that sysfs does not have.
    pub device: Option<Device>,
    /// Its path, as far as one is known.
    path: Option<String>,
}

/// Where a member of a family stands to the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is the image.
    Itself,
    /// It lies on the image: a partition, a loop device, a device-mapper device, an array.
    Above,
    /// The image lies on it.
    Below,
    /// It lies on what the image lies on, and may reach the same bytes: a second loop device.
    Beside,
}

impl Member {
    /// The path of a file, as whoever made a loop device of it gave it.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// What it is, as the subject of a sentence of which the image was the subject before.
    pub fn words(&self) -> String {
        let relation = match self.place {
            Place::Itself => return "it".to_owned(),
            Place::Above => "over it",
            Place::Below => "under it",
            Place::Beside => "over the same storage",
        };
        format!("{} {relation}", self.named())
    }

    /// What it is, and its name.
    pub fn named(&self) -> String {
        let Some(device) = &self.device else {
            return match &self.path {
                Some(path) => format!("the file {path}"),
                None => "a file".to_owned(),
            };
        };
        let node = &device.node;
        match &device.kind {
            DeviceKind::Partition => format!("the partition {node}"),
            DeviceKind::Loop => format!("the loop device {node}"),
            DeviceKind::Mapped { name, .. } if device.is_of_lvm() => {
                format!("the logical volume /dev/mapper/{name}")
            }
            DeviceKind::Mapped { name, .. } => {
                format!("the device-mapper device /dev/mapper/{name}")
            }
            DeviceKind::Array => format!("the array {node}"),
            DeviceKind::Other => format!("the device {node}"),
        }
    }
}

impl Family {
    /// The family of an image among the devices of this host.
    pub fn of(image: Identity, devices: &Devices) -> Self {
        Self::within(image, devices, &|_| false)
    }

    /// The same, without the devices on it that are `ours`, and what lies on those.
    pub fn within(image: Identity, devices: &Devices, ours: &dyn Fn(&Device) -> bool) -> Self {
        let mut walk = Walk {
            devices,
            ours,
            members: vec![member(image, Place::Itself, &devices.sysfs)],
        };
        walk.down(image);
        walk.up(image, Place::Above);
        walk.beside();
        Self {
            members: walk.members,
        }
    }

    /// Whether a file or device shares bytes with the image.
    pub fn contains(&self, identity: &Identity) -> bool {
        self.member(identity).is_some()
    }

    /// The member that a file or device is.
    pub fn member(&self, identity: &Identity) -> Option<&Member> {
        let mut members = self.members.iter();
        members.find(|member| member.identity == *identity)
    }

    /// All of it, the image first.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter()
    }
}

fn member(identity: Identity, place: Place, sysfs: &Sysfs) -> Member {
    let device = match identity {
        Identity::BlockDevice { number } => sysfs.device(number),
        Identity::File { .. } => None,
    };
    Member {
        identity,
        place,
        device,
        path: None,
    }
}

/// A family that is being found.
struct Walk<'w> {
    devices: &'w Devices,
    ours: &'w dyn Fn(&Device) -> bool,
    members: Vec<Member>,
}

impl Walk<'_> {
    /// What lies on a member, and on that. Not what lies on what the image lies on: the other
    /// partitions of its disk are no relatives.
    fn up(&mut self, from: Identity, place: Place) {
        let mut upon: Vec<Device> = self
            .devices
            .loops
            .iter()
            .filter(|looped| looped.behind == from)
            .map(|looped| looped.device.clone())
            .collect();
        if let Some(device) = self.device(from) {
            upon.extend(device.partitions());
            upon.extend(device.holders());
        }
        for device in upon {
            let identity = identity_of(&device);
            if !(self.ours)(&device) && self.add(identity, place, device) {
                self.up(identity, place);
            }
        }
    }

    /// What a member lies on, and what that lies on.
    fn down(&mut self, from: Identity) {
        let Some(device) = self.device(from) else {
            return;
        };
        let mut under = device.slaves();
        // The physical volumes under a volume hold other volumes too.
        if device.is_of_lvm() {
            under.retain(Device::is_of_lvm);
        }
        under.extend(device.whole_disk());
        for device in under {
            let identity = identity_of(&device);
            if self.add(identity, Place::Below, device) {
                self.down(identity);
            }
        }
        let looped = self
            .devices
            .loops
            .iter()
            .find(|looped| identity_of(&looped.device) == from);
        if let Some(looped) = looped.cloned() {
            let mut file = member(looped.behind, Place::Below, &self.devices.sysfs);
            file.path = Some(looped.path.display().to_string());
            if self.add_member(file) {
                self.down(looped.behind);
            }
        }
    }

    /// Loop devices over what the image lies on, and what lies on them.
    fn beside(&mut self) {
        let below = self.members.iter();
        let below: Vec<Identity> = below
            .filter(|member| member.place == Place::Below)
            .map(|member| member.identity)
            .collect();
        for looped in &self.devices.loops {
            let identity = identity_of(&looped.device);
            if below.contains(&looped.behind)
                && !(self.ours)(&looped.device)
                && self.add(identity, Place::Beside, looped.device.clone())
            {
                self.up(identity, Place::Beside);
            }
        }
    }

    fn device(&self, identity: Identity) -> Option<Device> {
        match identity {
            Identity::BlockDevice { number } => self.devices.sysfs.device(number),
            Identity::File { .. } => None,
        }
    }

    /// Whether it is new.
    fn add(&mut self, identity: Identity, place: Place, device: Device) -> bool {
        self.add_member(Member {
            identity,
            place,
            device: Some(device),
            path: None,
        })
    }

    fn add_member(&mut self, member: Member) -> bool {
        let mut known = self.members.iter();
        let is_new = known.all(|known| known.identity != member.identity);
        if is_new {
            self.members.push(member);
        }
        is_new
    }
}

const fn identity_of(device: &Device) -> Identity {
    Identity::BlockDevice {
        number: device.number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::loops::Looped;
    use crate::guard::sysfs::fake::FakeSysfs;

    const fn device(number: u64) -> Identity {
        Identity::BlockDevice { number }
    }

    const FILE: Identity = Identity::File {
        device: 1,
        inode: 2,
    };

    fn looped(fake: &FakeSysfs, number: u64, behind: Identity) -> Looped {
        Looped {
            device: fake.sysfs().device(number).unwrap(),
            behind,
            path: "/images/a".into(),
        }
    }

    fn names(family: &Family) -> Vec<String> {
        family.members().map(Member::words).collect()
    }

    fn family(image: Identity, fake: &FakeSysfs, loops: &[Looped]) -> Family {
        Family::of(image, &fake.devices(loops.to_vec()))
    }

    #[test]
    fn a_partition_has_its_disk_and_not_the_other_partitions() {
        let fake = FakeSysfs::new();
        let disk = fake.add("sda", (8, 0), &[]);
        let first = fake.add("sda/sda1", (8, 1), &[]);
        let second = fake.add("sda/sda2", (8, 2), &[]);
        fake.add("dm-0", (253, 0), &["dm/name=cr_a", "dm/uuid=CRYPT-LUKS2-x"]);
        fake.lay("dm-0", "sda/sda1");
        let of_first = family(device(first), &fake, &[]);
        assert_eq!(
            names(&of_first),
            [
                "it",
                "the device /dev/sda under it",
                "the device-mapper device /dev/mapper/cr_a over it"
            ]
        );
        assert!(!of_first.contains(&device(second)));
        assert_eq!(names(&family(device(disk), &fake, &[])).len(), 4);
    }

    #[test]
    fn a_volume_has_its_parts_and_not_the_disks_of_its_group() {
        let fake = FakeSysfs::new();
        let disk = fake.add("sda", (8, 0), &[]);
        let part = fake.add("dm-0", (253, 0), &["dm/name=vg-lv-real", "dm/uuid=LVM-a"]);
        let volume = fake.add("dm-1", (253, 1), &["dm/name=vg-lv", "dm/uuid=LVM-b"]);
        let snapshot = fake.add("dm-2", (253, 2), &["dm/name=vg-snap", "dm/uuid=LVM-c"]);
        let opened = fake.add("dm-3", (253, 3), &["dm/name=cr", "dm/uuid=CRYPT-x"]);
        fake.lay("dm-0", "sda");
        fake.lay("dm-1", "dm-0");
        fake.lay("dm-2", "dm-0");
        fake.lay("dm-3", "dm-1");
        let of_volume = family(device(volume), &fake, &[]);
        assert!(of_volume.contains(&device(part)));
        assert!(of_volume.contains(&device(opened)));
        assert!(!of_volume.contains(&device(snapshot)));
        assert!(!of_volume.contains(&device(disk)));
        // What is encrypted lies on its volume.
        let of_opened = family(device(opened), &fake, &[]);
        assert!(of_opened.contains(&device(volume)));
        assert!(!of_opened.contains(&device(disk)));
    }

    #[test]
    fn loop_devices_lead_up_down_and_beside() {
        let fake = FakeSysfs::new();
        let zero = fake.add("loop0", (7, 0), &["loop/offset=0"]);
        let one = fake.add("loop1", (7, 1), &["loop/offset=0"]);
        let two = fake.add("loop2", (7, 2), &["loop/offset=0"]);
        let part = fake.add("loop1/loop1p1", (259, 1), &[]);
        let loops = [
            looped(&fake, zero, FILE),
            looped(&fake, one, FILE),
            looped(&fake, two, device(part)),
        ];
        assert_eq!(
            names(&family(FILE, &fake, &loops)),
            [
                "it",
                "the loop device /dev/loop0 over it",
                "the loop device /dev/loop1 over it",
                "the partition /dev/loop1p1 over it",
                "the loop device /dev/loop2 over it"
            ]
        );
        assert_eq!(
            names(&family(device(zero), &fake, &loops)),
            [
                "it",
                "the file /images/a under it",
                "the loop device /dev/loop1 over the same storage",
                "the partition /dev/loop1p1 over the same storage",
                "the loop device /dev/loop2 over the same storage"
            ]
        );
        assert_eq!(
            names(&family(device(two), &fake, &loops)),
            [
                "it",
                "the partition /dev/loop1p1 under it",
                "the loop device /dev/loop1 under it",
                "the file /images/a under it",
                "the loop device /dev/loop0 over the same storage"
            ]
        );
        let ours = |device: &Device| device.node == "/dev/loop1";
        let rest = Family::within(FILE, &fake.devices(loops.to_vec()), &ours);
        assert_eq!(names(&rest), ["it", "the loop device /dev/loop0 over it"]);
    }

    #[test]
    fn arrays_and_rings() {
        let fake = FakeSysfs::new();
        let first = fake.add("sda", (8, 0), &[]);
        let second = fake.add("sdb", (8, 16), &[]);
        let array = fake.add("md0", (9, 0), &["md/level=raid1"]);
        fake.lay("md0", "sda");
        fake.lay("md0", "sdb");
        let of_array = family(device(array), &fake, &[]);
        assert!(of_array.contains(&device(first)) && of_array.contains(&device(second)));
        let of_half = family(device(first), &fake, &[]);
        assert_eq!(names(&of_half), ["it", "the array /dev/md0 over it"]);
        // A mistaken sysfs ends too.
        fake.lay("sda", "md0");
        assert_eq!(names(&family(device(first), &fake, &[])).len(), 3);
    }
}
