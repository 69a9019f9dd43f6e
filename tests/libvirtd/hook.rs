//! The hook, called by libvirt itself; it was installed before the daemon started.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use virt_fsck::engine::user::nodes::Access;
use virt_fsck::guard::claim::{Claim, Claimed};

use crate::site::Site;
use crate::support;

const RAW: &str = "type='file'|<driver type='raw'/><source file='@/disk'/>";
const QCOW2: &str = "type='file'|<driver type='qcow2'/><source file='@/disk.qcow2'/>";

const CONFIG: &str = "/etc/virt-fsck.toml";
const ALWAYS: &str = "check-before-start = \"always\"\n";

const LIMIT: Duration = Duration::from_secs(30);

/// A configuration that ends with the test.
struct Config;

impl Config {
    fn new(settings: &str) -> Self {
        std::fs::write(CONFIG, format!("[hook]\n{settings}")).unwrap();
        Self
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(CONFIG);
    }
}

/// A guest whose filesystem has an error that the repairs at boot mend.
fn site(name: &str, disk: &str) -> Option<Site> {
    let site = Site::new()?;
    site.lab.ext4("disk");
    site.lab.sh(
        "debugfs -w -R 'sif /d/f9 links_count 4' disk; qemu-img convert -f raw -O qcow2 disk disk.qcow2",
    );
    site.define(name, &[disk]);
    Some(site)
}

fn is_sound(site: &Site, disk: &str) -> bool {
    let script = format!("qemu-img convert -O raw {disk} after; e2fsck -fn after");
    let (status, said) = site.lab.sh_status(&script);
    assert!(matches!(status, Some(0 | 4)), "{said}");
    status == Some(0)
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LIMIT, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until what is told is as wanted; in vain, it is shown.
fn until_told(what: &str, told: impl Fn() -> String, is_so: impl Fn(&str) -> bool) {
    let begun = Instant::now();
    while !is_so(&told()) {
        assert!(
            begun.elapsed() < LIMIT,
            "waited in vain for {what}: {:?}",
            told()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn output(site: &Site, name: &str) -> PathBuf {
    let uuid = site.virsh(&format!("domuuid {name}"));
    Path::new("/run/virt-fsck/virt-fsck.after-stop").join(uuid.trim())
}

/// virt-fsck itself, which ends with the test.
struct Check(Child);

impl Check {
    /// Where the hook looks for its claim.
    fn start(site: &Site, name: &str) -> Self {
        let mut command = site.lab.command(&support::binary::virt_fsck());
        let path = format!("{}/tools:/usr/bin:/bin", site.folder());
        let output = std::fs::File::create(site.lab.file("check.log")).unwrap();
        command
            .args(["-c", "qemu:///system", "-n", "-d", name])
            .env("PATH", path)
            .stdout(output);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn a_guest_does_not_start_while_it_is_checked() {
    let Some(site) = site("claimed", RAW) else {
        return;
    };
    site.has_an_e2fsck_that_waits();
    let mut check = Check::start(&site, "claimed");
    until("the check", || site.lab.file("begun.log").exists());
    let said = site.virsh_fails("start --paused claimed");
    let process = format!("another virt-fsck (process {})", check.0.id());
    for words in [
        "Hook script",
        "start refused: ",
        &process,
        "the disks of claimed;",
    ] {
        assert!(said.contains(words), "{words:?}: {said}");
    }
    site.lab.write("go-on.log", "");
    assert_eq!(check.0.wait().unwrap().code(), Some(4));
    site.start_paused("claimed");
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn a_guest_is_mended_before_it_starts_or_does_not_start() {
    let Some(site) = site("mended", RAW) else {
        return;
    };
    site.start_paused("mended");
    site.virsh("destroy mended");
    assert!(!is_sound(&site, "disk"), "nothing is checked by default");
    let _config = Config::new(ALWAYS);
    site.start_paused("mended");
    assert_eq!(site.virsh("domstate mended").trim(), "paused");
    site.virsh("destroy mended");
    assert!(is_sound(&site, "disk"));
    site.lab.damaged_ext4("disk");
    let said = site.virsh_fails("start --paused mended");
    for words in [
        "Hook script",
        "vda (ext4) of mended has errors",
        "virt-fsck -d mended -y",
    ] {
        assert!(said.contains(words), "{words:?}: {said}");
    }
    assert_eq!(site.virsh("domstate mended").trim(), "shut off");
    site.lab.sh("cp disk.repaired disk");
    site.start_paused("mended");
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn a_guest_is_checked_after_it_was_stopped() {
    let Some(site) = site("stopped", RAW) else {
        return;
    };
    site.start_paused("stopped");
    let _config = Config::new("check-after-stop = true\n");
    let begun = Instant::now();
    site.virsh("destroy stopped");
    assert!(begun.elapsed() < Duration::from_secs(3), "libvirt waited");
    let output = output(&site, "stopped");
    let told = || std::fs::read_to_string(&output).unwrap_or_default();
    // All of it, or the image may still be locked.
    until_told("its report", told, |told| told.contains("FIXED"));
    assert!(is_sound(&site, "disk"), "{}", told());
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn a_guest_that_was_saved_is_not_checked_after_that() {
    let Some(site) = site("kept", RAW) else {
        return;
    };
    site.start_paused("kept");
    let _config = Config::new("check-after-stop = true\n");
    let before = site.lab.checksum("disk");
    site.virsh("save kept $PWD/memory");
    let output = output(&site, "kept");
    let told = || std::fs::read_to_string(&output).unwrap_or_default();
    until_told("its refusal", told, |told| {
        told.contains("its memory was saved")
    });
    assert_eq!(before, site.lab.checksum("disk"));
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn a_guest_that_goes_on_with_saved_memory_is_not_touched() {
    let Some(site) = site("saved", RAW) else {
        return;
    };
    let before = site.lab.checksum("disk");
    for (save, go_on) in [
        ("save saved $PWD/memory", "restore --paused $PWD/memory"),
        ("managedsave saved", "start --paused saved"),
    ] {
        site.start_paused("saved");
        site.virsh(save);
        let config = Config::new(ALWAYS);
        site.virsh(go_on);
        assert_eq!(site.virsh("domstate saved").trim(), "paused");
        assert_eq!(before, site.lab.checksum("disk"), "{save}");
        assert_eq!(notes(), 0, "{save}");
        drop(config);
        site.virsh("destroy saved");
    }
    // The same guest, when it boots.
    let _config = Config::new(ALWAYS);
    site.start_paused("saved");
    site.virsh("destroy saved");
    assert!(is_sound(&site, "disk"));
}

/// How many guests' memory is said to be on its way.
fn notes() -> usize {
    let folder = std::fs::read_dir("/run/virt-fsck/virt-fsck.incoming");
    folder.into_iter().flatten().count()
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn a_guest_that_has_a_snapshot_with_memory_is_not_touched() {
    let Some(site) = site("snapped", QCOW2) else {
        return;
    };
    site.virsh("start snapped");
    site.virsh("snapshot-create-as snapped with-memory");
    site.virsh("destroy snapped");
    let _config = Config::new(ALWAYS);
    site.virsh("snapshot-revert snapped with-memory --paused");
    site.virsh("destroy snapped");
    site.start_paused("snapped");
    site.virsh("destroy snapped");
    assert!(!is_sound(&site, "disk.qcow2"));
    site.virsh("snapshot-delete snapped with-memory");
    site.virsh("snapshot-create-as snapped without-memory");
    site.start_paused("snapped");
    site.virsh("destroy snapped");
    assert!(is_sound(&site, "disk.qcow2"));
    site.virsh("snapshot-delete snapped without-memory");
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn a_guest_goes_on_when_the_daemon_is_restarted() {
    let Some(site) = site("running", RAW) else {
        return;
    };
    site.start_paused("running");
    let _config = Config::new(&format!("{ALWAYS}check-after-stop = true\n"));
    let before = site.lab.checksum("disk");
    site.lab
        .sh("daemon=$(cat /run/libvirtd.pid); kill $daemon\n\
         while [[ -e /proc/$daemon/exe ]]; do sleep 0.02; done; libvirtd -d");
    assert_eq!(site.virsh("domstate running").trim(), "paused");
    assert_eq!(before, site.lab.checksum("disk"));
}

/// A second host: another libvirtd, with files of its own, under another name. Both see the folder `$1`, below /run,
/// but for the disk: the second one's is a copy, so that it sees as little of who has it open on the first as over a
/// network.
const SECOND_HOST: &str = "set -e; hostname second; cd \"$1\"; mkdir second; cp disk second; cp -a /etc/libvirt second/etc
     echo \"host_uuid = '$(cat /proc/sys/kernel/random/uuid)'\" >>second/etc/libvirtd.conf
     mount --bind second/etc /etc/libvirt
     mkdir second/run; mount -t tmpfs tmpfs second/run; mkdir second/\"$1\"; mount --bind . second/\"$1\"
     touch second/run/virt-fsck-program; mount --bind /run/virt-fsck-program second/run/virt-fsck-program
     mount --rbind second/run /run; mount --bind \"$1/second/disk\" \"$1/disk\"
     for folder in lib cache log; do mount -t tmpfs tmpfs /var/$folder/libvirt; done
     virtlogd -d; libvirtd -d; cat /run/libvirtd.pid";

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn a_guest_that_is_migrated_is_not_touched() {
    let Some(site) = site("moved", RAW) else {
        return;
    };
    let folder = site.folder();
    assert!(folder.starts_with("/run/"), "{folder}");
    site.lab.write("second-host.log", SECOND_HOST);
    let daemon = site
        .lab
        .sh("unshare --mount --uts bash second-host.log $PWD");
    let daemon = daemon.trim();
    let there = |line: &str| {
        site.lab.sh(&format!(
            "nsenter --target {daemon} --mount virsh -q -c qemu:///system {line}"
        ))
    };
    site.start_paused("moved");
    let _config = Config::new(ALWAYS);
    let before = site.lab.checksum("second/disk");
    let second = format!("qemu+unix:///system?socket=/proc/{daemon}/root/run/libvirt/libvirt-sock");
    site.virsh(&format!(
        "migrate --unsafe --persistent moved '{second}' --migrateuri tcp://127.0.0.1"
    ));
    assert_eq!(there("domstate moved").trim(), "paused");
    assert_eq!(before, site.lab.checksum("second/disk"));
    there("destroy moved");
    assert_eq!(before, site.lab.checksum("second/disk"));
    // There it boots now, and is checked.
    there("start --paused moved");
    there("destroy moved");
    assert!(is_sound(&site, "second/disk"));
    there("undefine moved");
    site.lab.sh(&format!("kill {daemon}"));
}

/// libvirt starts the hooks of a user's daemon without the variables by which everything of this user is found.
#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn a_user_s_guest_does_not_start_while_it_is_claimed() {
    let Some(site) = Site::new() else { return };
    let uuid = site.lab.sh("cat /proc/sys/kernel/random/uuid");
    site.lab.write(
        "domain.xml",
        format!(
            "<domain type='qemu'><name>his</name><uuid>{uuid}</uuid><memory unit='MiB'>16</memory>\
             <os><type>hvm</type></os><features><acpi/></features><devices/></domain>"
        ),
    );
    site.lab.sh(
        "chmod 711 .; install -d -o 65534 -g 65534 -m 700 home; install -d -m 755 /run/user\n\
         install -d -o 65534 -g 65534 -m 700 /run/user/65534",
    );
    let as_user = "setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=$PWD/home \
                   XDG_RUNTIME_DIR=/run/user/65534";
    let virsh = |line: &str| {
        let call = format!("{as_user} virsh -q -c qemu:///session {line}");
        site.lab.sh_status(&call)
    };
    let runs = |line: &str| assert_eq!(virsh(line).0, Some(0), "{line}: {}", virsh(line).1);
    runs("define domain.xml");
    let claimed = Claimed::Domain(uuid.trim().parse().unwrap());
    for folder in ["/run/user/65534", "/run/virt-fsck"] {
        let claim = Claim::take(Path::new(folder), claimed, Access::Write, "his").unwrap();
        let (status, said) = virsh("start --paused his");
        drop(claim);
        assert_eq!(status, Some(1), "{folder}: {said}");
        assert!(said.contains("start refused: another virt-fsck"), "{said}");
    }
    runs("start --paused his");
    runs("destroy his");
    runs("undefine his");
}
