use std::collections::{HashMap, HashSet};

use super::*;
use crate::reach::crypttab;
use crate::reach::fstab;

#[derive(Debug, Default)]
struct Tree {
    there: HashSet<PathBuf>,
    links: HashMap<PathBuf, PathBuf>,
}

impl Files for Tree {
    fn exists(&self, path: &Path) -> bool {
        self.there.contains(&resolved(path, self))
    }

    fn link(&self, path: &Path) -> Option<PathBuf> {
        self.links.get(path).cloned()
    }
}

struct World {
    crypttab: &'static str,
    fstab: &'static str,
    groups: Vec<GroupEntry>,
    mounted: &'static str,
    volumes: Option<Vec<HostVolume>>,
    files: Tree,
}

fn world(crypttab: &'static str, fstab: &'static str, there: &[&str]) -> World {
    World {
        crypttab,
        fstab,
        groups: Vec::new(),
        mounted: "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n",
        volumes: Some(Vec::new()),
        files: Tree {
            there: there.iter().map(PathBuf::from).collect(),
            links: HashMap::new(),
        },
    }
}

fn lv(group: &str, name: &str, attributes: &str) -> HostVolume {
    let active = if attributes.chars().nth(4) == Some('a') {
        "active"
    } else {
        ""
    };
    let text = format!(
        r#"{{"report":[{{"lv":[{{"vg_name":"{group}","vg_uuid":"{group}","vg_attr":"wz--n-",
        "lv_name":"{name}","lv_active":"{active}","lv_path":"/dev/{group}/{name}",
        "lv_dm_path":"/dev/mapper/{}","lv_attr":"{attributes}"}}]}}]}}"#,
        volumes::dm_name(group, name)
    );
    volumes::parse(text.as_bytes()).unwrap().remove(0)
}

fn group(name: &str, devices: &[&str]) -> GroupEntry {
    GroupEntry {
        name: name.to_owned(),
        devices: devices.iter().map(|device| (*device).to_owned()).collect(),
        origin: Origin {
            file: "/etc/virt-fsck.toml".into(),
            line: 9,
        },
    }
}

impl World {
    fn plan(&self, path: &str) -> Result<Plan, PlanError> {
        plan(
            Path::new(path),
            Facts {
                crypts: &crypttab::parse(self.crypttab, Path::new("/etc/crypttab")),
                mounts: &fstab::parse(self.fstab, Path::new("/etc/fstab")),
                groups: &self.groups,
                mounted: &mounts::parse(self.mounted),
                volumes: self.volumes.as_deref(),
                files: &self.files,
            },
        )
    }

    /// The plan in a line, or the error.
    fn told(&self, path: &str) -> String {
        match self.plan(path) {
            Ok(Plan::AskLvm) => "ask LVM".to_owned(),
            Ok(Plan::Open(openings)) => {
                let word = |opening: &Opening| match opening {
                    Opening::Crypt(entry) => format!("crypt {}", entry.name),
                    Opening::Mount(entry) => format!("mount {}", entry.target.display()),
                    Opening::Volume { group, volume } => format!("volume {group}/{volume}"),
                };
                openings.iter().map(word).collect::<Vec<_>>().join(", ")
            }
            Err(error) => error.to_string(),
        }
    }
}

const CRYPTTAB: &str = "# name device key options\n\
    cr_hd0 /dev/lvg2/lvhd0 none luks\n\
    cr_kvmos /dev/lvg2/lvkvmos none luks\n";
const FSTAB: &str = "/dev/mapper/cr_kvmos /kvm/os ext4 noauto 0 0\n/dev/sda9 /kvm xfs noauto 0 0\n";

#[test]
fn an_encrypted_volume() {
    let mut world = world(CRYPTTAB, "", &["/dev/lvg2/lvhd0"]);
    assert_eq!(world.told("/dev/mapper/cr_hd0"), "crypt cr_hd0");
    assert_eq!(world.told("/dev/disk/by-id/dm-name-cr_hd0"), "crypt cr_hd0");
    assert_eq!(world.told("/dev/lvg2/lvhd0"), "");
    assert_eq!(
        world.told("/dev/mapper/cr_kvmos"),
        "/etc/crypttab, line 3 names /dev/lvg2/lvkvmos for cr_kvmos, which does not exist; correct \
         it, or say in virt-fsck.toml what cr_kvmos is"
    );
    world.volumes = None;
    assert_eq!(world.told("/dev/mapper/cr_kvmos"), "ask LVM");
    world.volumes = Some(vec![lv("lvg2", "lvkvmos", "-wi-------")]);
    assert_eq!(
        world.told("/dev/mapper/cr_kvmos"),
        "volume lvg2/lvkvmos, crypt cr_kvmos"
    );
    assert_eq!(
        world.told("/dev/mapper/lvg2-lvkvmos"),
        "volume lvg2/lvkvmos"
    );
    assert_eq!(world.told("/dev/lvg2/lvkvmos"), "volume lvg2/lvkvmos");
    assert_eq!(
        world.told("/dev/lvg2/none"),
        "/dev/lvg2/none does not exist"
    );
}

#[test]
fn a_file_below_mounts() {
    let mut world = world(CRYPTTAB, FSTAB, &["/dev/lvg2/lvkvmos", "/dev/sda9", "/kvm"]);
    let file = "/kvm/os/os43.qcow2";
    assert_eq!(
        world.told(file),
        "mount /kvm, crypt cr_kvmos, mount /kvm/os"
    );
    world.mounted = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:9 / /kvm rw - xfs /dev/sda9 rw\n";
    assert_eq!(world.told(file), "crypt cr_kvmos, mount /kvm/os");
    world.mounted = "2 1 8:9 / /kvm rw - xfs a rw\n3 2 8:9 / /kvm/os rw - xfs b rw\n";
    assert_eq!(world.told(file), "/kvm/os/os43.qcow2 does not exist");
    assert_eq!(world.told("/elsewhere/x"), "/elsewhere/x does not exist");
    world.files.there.insert(file.into());
    assert_eq!(world.told(file), "");
}

#[test]
fn links_are_followed_to_where_they_would_lead() {
    let mut world = world(CRYPTTAB, FSTAB, &["/dev/lvg2/lvkvmos", "/dev/sda9"]);
    world.mounted = "2 1 8:9 / /kvm rw - xfs /dev/sda9 rw\n";
    for (link, target) in [
        ("/images", "kvm/./x/../os"),
        ("/var/disk", "../images/os43.qcow2"),
        ("/round", "/round"),
        ("/dev/by/name", "/dev/mapper/cr_kvmos"),
    ] {
        world.files.links.insert(link.into(), target.into());
    }
    assert_eq!(world.told("/var/disk"), "crypt cr_kvmos, mount /kvm/os");
    assert_eq!(world.told("/dev/by/name"), "crypt cr_kvmos");
    assert_eq!(world.told("/round/x"), "/round/x does not exist");
}

#[test]
fn a_group_on_an_encrypted_device() {
    let mut world = world("cr_pv /dev/sdb none luks\n", "", &["/dev/sdb"]);
    world.volumes = None;
    world.groups = vec![group("my-vg", &["/dev/mapper/cr_pv"])];
    let wanted = "crypt cr_pv, volume my-vg/a";
    assert_eq!(world.told("/dev/my-vg/a"), wanted);
    assert_eq!(world.told("/dev/mapper/my--vg-a"), wanted);
    // Seen only in part before.
    world.volumes = Some(vec![lv("my-vg", "a", "-wi-----p-")]);
    assert_eq!(world.told("/dev/my-vg/a"), wanted);
    world.files.there.insert("/dev/mapper/cr_pv".into());
    let missing = world.told("/dev/my-vg/a");
    assert!(missing.contains("devices are missing"), "{missing}");
    world.groups = vec![group("my-vg", &["/dev/sdz"])];
    assert_eq!(
        world.told("/dev/my-vg/a"),
        "/etc/virt-fsck.toml, line 9 names /dev/sdz for my-vg, which does not exist; correct it, or \
         say in virt-fsck.toml what my-vg is"
    );
}

#[test]
fn volumes_that_stay_closed() {
    let mut world = world("", "", &[]);
    let mut other = lv("two", "b", "-wi-------");
    other.group_uuid = "another".to_owned();
    world.volumes = Some(vec![
        lv("one", "snap", "swi---s---"),
        lv("one", "on", "-wi-a-----"),
        lv("two", "a", "-wi-------"),
        other,
    ]);
    for (path, part) in [
        ("/dev/one/snap", "the volume one/snap is a snapshot"),
        (
            "/dev/one/on",
            "is active, but there is no /dev/mapper/one-on",
        ),
        ("/dev/two/a", "two volume groups have this name"),
        ("/dev/mapper/two-b", "two volume groups have this name"),
    ] {
        let told = world.told(path);
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn what_is_not_supported() {
    let crypttab = "p /dev/sda1 /dev/urandom swap\nq /dev/sda1 none tcrypt\n";
    let fstab = "server:/x /nfs nfs defaults\n/srv/a /bound none bind\n/a.img /looped ext4 loop\n\
                 UUID=77 /lost ext4 defaults\n";
    let world = world(crypttab, fstab, &["/dev/sda1"]);
    for (path, part) in [
        (
            "/dev/mapper/p",
            "/etc/crypttab, line 1: p has the option swap, and only LUKS",
        ),
        (
            "/dev/mapper/q",
            "/etc/crypttab, line 2: q has the option tcrypt",
        ),
        (
            "/nfs/x",
            "/etc/fstab, line 1: /nfs is mounted from server:/x",
        ),
        ("/bound/x", "/etc/fstab, line 2: /bound is no filesystem"),
        ("/looped/x", "/etc/fstab, line 3: /looped is no filesystem"),
        (
            "/lost/x",
            "/etc/fstab, line 4 names UUID=77 for /lost, which does not exist",
        ),
    ] {
        let told = world.told(path);
        assert!(told.contains(part), "{path}: {told}");
    }
}

#[test]
fn circles_end() {
    let world = world(
        "a /dev/mapper/b\nb /x/file\n",
        "/dev/mapper/a /x ext4\n",
        &[],
    );
    let told = world.told("/dev/mapper/a");
    assert!(
        told.starts_with("/dev/mapper/a needs /dev/mapper/b needs /x/file needs /dev/mapper/a: "),
        "{told}"
    );
    let line = |number: usize| format!("c{number} /dev/mapper/c{}\n", number + 1);
    let deep: String = (0..100).map(line).collect();
    let world = World {
        crypttab: deep.leak(),
        ..world
    };
    let told = world.told("/dev/mapper/c0");
    assert!(told.contains("/dev/mapper/c0 lies deeper"), "{told}");
}
