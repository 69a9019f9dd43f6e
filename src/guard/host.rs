//! The host itself: who on it has an image in use, outside of libvirt.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use crate::guard::devices::Devices;
use crate::guard::family::Family;
use crate::guard::kernel_users::KernelUsers;
use crate::guard::processes::{Processes, Writer};
use crate::guard::sysfs::{Device, DeviceKind};
use crate::names::{ArrayName, MappingName};
use crate::reach::chain::Chain;
use crate::reach::identity::{Identity, Kind};

/// When the host is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before an engine opens the disks: nothing that lies on them is ours.
    BeforeOpening,
    /// While an engine has them open.
    Meanwhile,
}

/// Why the host, as far as libvirt knows nothing of it, keeps each of these disks from being touched;
/// the sentence begins with the image, and ends with the way out. The host is asked once for all.
///
/// The image that the guest writes must not be used by anybody; nobody may write what lies under
/// it.
pub fn refusals<'c>(
    chains: impl IntoIterator<Item = &'c Chain>,
    devices: &Devices,
    moment: Moment,
) -> Vec<Option<String>> {
    let processes = Processes::of_this_host();
    let held = held_by_us();
    let ours = |device: &Device| is_ours(device, moment, &held);
    let disks: Vec<Vec<Asked<'_>>> = chains
        .into_iter()
        .map(|chain| images_of(chain, devices, &ours))
        .collect();
    let kernel = KernelUsers::now(&processes, &devices.sysfs);
    let members = disks.iter().flatten().flat_map(|one| one.family.members());
    let wanted: HashSet<Identity> = members.map(|member| member.identity).collect();
    let writers = processes.writers(&wanted);
    let refusals = disks
        .iter()
        .map(|images| used_by_kernel(images, &kernel).or_else(|| written_by(images, &writers)));
    refusals.collect()
}

fn images_of<'c>(
    chain: &'c Chain,
    devices: &Devices,
    ours: &dyn Fn(&Device) -> bool,
) -> Vec<Asked<'c>> {
    let top = std::iter::once((&chain.top, false));
    let links = top.chain(chain.under.iter().map(|link| (link, true)));
    let images = links.flat_map(|(link, for_writers_only)| {
        link.files().map(move |(path, identity)| Asked {
            path,
            family: Family::within(identity, devices, ours),
            for_writers_only,
        })
    });
    images.collect()
}

fn used_by_kernel(images: &[Asked<'_>], kernel: &KernelUsers) -> Option<String> {
    images.iter().find_map(|image| {
        let mut uses = kernel.uses(&image.family).into_iter();
        let found = uses.find(|one| one.writes || !image.for_writers_only)?;
        Some(image.is_in_use(&found.words))
    })
}

fn written_by(images: &[Asked<'_>], writers: &[Writer]) -> Option<String> {
    writers.iter().find_map(|writer| {
        images.iter().find_map(|image| {
            let member = image.family.member(&writer.what)?;
            let way_out = match writer.program.as_str() {
                // As long as a domain has it.
                "virtlockd" => "shut down the domain that it is locked for",
                _ => "end that first",
            };
            Some(image.is_in_use(&format!(
                "{} {} in process {} ({}); {way_out}",
                member.words(),
                writer.how.words(),
                writer.process,
                writer.program
            )))
        })
    })
}

/// An image that is asked for.
struct Asked<'c> {
    path: &'c Path,
    family: Family,
    /// It is only read, as by everybody who has an image on it.
    for_writers_only: bool,
}

impl Asked<'_> {
    fn is_in_use(&self, words: &str) -> String {
        format!("{} is in use by this host: {words}", self.path.display())
    }
}

/// Whether an engine has made a device. Those of other runs are told from ours by the time: before
/// we have opened anything, none is ours, and after that no other run gets in.
fn is_ours(device: &Device, moment: Moment, held: &HashSet<u64>) -> bool {
    let name = device.node.trim_start_matches("/dev/");
    match &device.kind {
        DeviceKind::Loop => held.contains(&device.number),
        DeviceKind::Mapped { uuid, .. } => {
            moment == Moment::Meanwhile && MappingName::is_uuid_of_ours(uuid)
        }
        DeviceKind::Array => moment == Moment::Meanwhile && ArrayName::is_ours(name),
        DeviceKind::Partition | DeviceKind::Other => false,
    }
}

/// The numbers of the devices that this process has open.
fn held_by_us() -> HashSet<u64> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
    let opened = entries.flatten().filter_map(|entry| {
        let found = std::fs::metadata(entry.path()).ok()?;
        (found.rdev() != 0).then(|| found.rdev())
    });
    opened.collect()
}

/// Devices held so that the host can neither mount them nor build upon them meanwhile.
#[derive(Debug, Default)]
#[must_use = "the claim ends when it is dropped"]
pub struct HostClaim {
    devices: Vec<File>,
}

impl HostClaim {
    /// Lets go of the devices, for an engine that holds them in a way of its own from here on.
    pub fn release(&mut self) {
        self.devices.clear();
    }
}

/// Claims what the guest may write, for as long as the claim is kept.
///
/// A block device opened with `O_EXCL` is the kernel's own way to ask: it fails while the device,
/// or a partition of it, is mounted in any mount namespace, swapped to, or part of a
/// device-mapper or MD device, and it keeps the kernel from doing so until it is closed (open(2)).
/// QEMU opens devices without it, so a running guest is not seen here.
///
/// # Errors
/// Why it must not be touched, with the way out.
pub fn claim(chain: &Chain) -> Result<HostClaim, String> {
    let top = std::iter::once((&chain.top.path, chain.top.kind));
    let data = chain.top.data_file.iter();
    let data = data.map(|file| (&file.path, file.kind));
    let mut claim = HostClaim::default();
    for (path, kind) in top.chain(data) {
        if kind == Kind::BlockDevice {
            claim.devices.extend(exclusive(path)?);
        }
    }
    Ok(claim)
}

fn exclusive(path: &Path) -> Result<Option<File>, String> {
    let flags = i32::try_from(OFlags::EXCL.bits()).unwrap_or_default();
    match File::options().read(true).custom_flags(flags).open(path) {
        Ok(device) => Ok(Some(device)),
        Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => Err(format!(
            "{path} is in use by this host: it is mounted, swap, or part of another device; \
             lsblk {path} shows of which",
            path = path.display()
        )),
        // Without the right to open it, what comes next says so.
        Err(_) => Ok(None),
    }
}
