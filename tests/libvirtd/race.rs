//! `virsh start` against a check that repairs, at any moment of each other: never may both have the
//! disk to write to. What they have is read from the kernel, not from what they say.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use std::collections::BTreeMap;

use crate::site::Site;
use crate::support;

/// How many rounds each disk gets: a few here, `make race` asks for more.
const ROUNDS: &str = "RACE_ROUNDS";
const FEW: u64 = 8;

/// The second begins at most this much later than the first, in milliseconds: as long as that one
/// may take to get at the disk.
const LATEST: u64 = 500;

/// The byte of QEMU's lock "I may write" (block/file-posix.c).
const MAY_WRITE: u64 = 101;

/// Who has the disk to write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Guest,
    Check,
}

/// A disk, as the kernel knows it.
struct Disk {
    path: PathBuf,
    is_device: bool,
    number: u64,
    inode: u64,
}

/// An open file of a process.
#[derive(Clone, Debug)]
struct Hold {
    who: Who,
    process: String,
    descriptor: String,
}

impl Disk {
    fn new(path: &Path, is_device: bool) -> Self {
        let found = fs::metadata(path).unwrap();
        Self {
            path: path.to_owned(),
            is_device,
            number: if is_device { found.rdev() } else { found.dev() },
            inode: found.ino(),
        }
    }

    fn is_open_at(&self, descriptor: &Path) -> bool {
        fs::metadata(descriptor).is_ok_and(|found| match self.is_device {
            true => found.rdev() == self.number,
            false => (found.dev(), found.ino()) == (self.number, self.inode),
        })
    }

    /// Whether this is open for writing there. Of a file QEMU finds out only after it has opened it
    /// whether it may write; then it holds the lock that says so. On the nodes of devices these
    /// locks mean nothing.
    fn is_written_by(&self, hold: &Hold) -> bool {
        let folder = Path::new("/proc").join(&hold.process);
        let Ok(information) = fs::read_to_string(folder.join("fdinfo").join(&hold.descriptor))
        else {
            return false;
        };
        let flags = information
            .lines()
            .find_map(|line| line.strip_prefix("flags:"))
            .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
        let may_write = self.is_device
            || information.lines().any(|line| {
                line.starts_with("lock:")
                    && range(line).is_some_and(|(first, last)| (first..=last).contains(&MAY_WRITE))
            });
        flags.is_some_and(|flags| flags & 3 != 0)
            && may_write
            && self.is_open_at(&folder.join("fd").join(&hold.descriptor))
    }

    /// All who have it to write to at this moment.
    fn holds(&self) -> Vec<Hold> {
        let names = |folder: &Path| -> Vec<String> {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries
                .filter_map(|entry| entry.file_name().into_string().ok())
                .collect()
        };
        let mut holds = Vec::new();
        for process in names(Path::new("/proc")) {
            let folder = Path::new("/proc").join(&process);
            let Ok(program) = fs::read_to_string(folder.join("comm")) else {
                continue;
            };
            let who = match program.trim() {
                "qemu-system-x86" => Who::Guest,
                // The rest of them: the daemon of virt-fsck, the checker.
                "qemu-storage-da" | "e2fsck" | "virt-fsck" => Who::Check,
                _ => continue,
            };
            for descriptor in names(&folder.join("fd")) {
                let hold = Hold {
                    who,
                    process: process.clone(),
                    descriptor,
                };
                if self.is_written_by(&hold) {
                    holds.push(hold);
                }
            }
        }
        holds
    }

    /// One of the guest and one of the check, at the same moment: the first is looked at again after
    /// the second.
    fn both(&self, seen: &Seen) -> Option<(Hold, Hold)> {
        let holds = self.holds();
        let of = |who| holds.iter().find(|hold| hold.who == who);
        seen.guest
            .fetch_add(usize::from(of(Who::Guest).is_some()), Ordering::Relaxed);
        seen.check
            .fetch_add(usize::from(of(Who::Check).is_some()), Ordering::Relaxed);
        let (guest, check) = (of(Who::Guest)?, of(Who::Check)?);
        let first_again = self.is_written_by(guest) && self.is_written_by(check);
        (first_again && self.is_written_by(guest)).then(|| (guest.clone(), check.clone()))
    }
}

/// The first and the last byte of a lock; those that lie side by side are one.
fn range(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split_whitespace().rev();
    let last = match words.next()? {
        "EOF" => u64::MAX,
        last => last.parse().ok()?,
    };
    Some((words.next()?.parse().ok()?, last))
}

/// How often the disk was looked at, and seen with one of them.
#[derive(Debug, Default)]
struct Seen {
    looks: AtomicUsize,
    guest: AtomicUsize,
    check: AtomicUsize,
}

/// Pseudo-random numbers (Marsaglia's xorshift), so that a failing race can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// A process that ends with the test.
struct Ends(Child);

impl Ends {
    fn output(mut self) -> Output {
        let read = |pipe: Option<&mut dyn std::io::Read>| {
            let mut bytes = Vec::new();
            pipe.map(|pipe| pipe.read_to_end(&mut bytes).unwrap());
            bytes
        };
        let stdout = read(self.0.stdout.as_mut().map(|pipe| pipe as _));
        let stderr = read(self.0.stderr.as_mut().map(|pipe| pipe as _));
        let status = self.0.wait().unwrap();
        Output {
            status,
            stdout,
            stderr,
        }
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

fn started(mut command: Command) -> Ends {
    let command = command.stdin(Stdio::null());
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Ends(command.spawn().unwrap())
}

/// `virsh start` and the check; the second begins later.
fn round(site: &Site, begins: Who, later: Duration) -> (Output, Output) {
    let virsh = || {
        let mut command = site.lab.command("virsh");
        command.args(["-q", "-c", "qemu:///system", "start", "--paused", "vm"]);
        started(command)
    };
    // Not in namespaces of its own, as the other tests run it: the hook must see its claim.
    let check = || {
        let mut command = site.lab.command(&support::binary::virt_fsck());
        command.args(["-c", "qemu:///system", "-y", "-d", "vm"]);
        command.env("PATH", format!("{}/tools:/usr/bin:/bin", site.folder()));
        started(command)
    };
    let wait = || std::thread::sleep(later);
    match begins {
        Who::Guest => {
            let virsh = virsh();
            wait();
            let check = check();
            (virsh.output(), check.output())
        }
        Who::Check => {
            let check = check();
            wait();
            let virsh = virsh();
            let virsh = virsh.output();
            (virsh, check.output())
        }
    }
}

/// What came of both, in one line.
fn outcome(virsh: &Output, check: &Output) -> String {
    let said = String::from_utf8_lossy(&virsh.stderr);
    let start = match virsh.status.success() {
        true => "started",
        false if said.contains("start refused") => "start refused by the hook",
        false if said.contains("Failed to get") => "start refused by the locks",
        false => panic!("virsh: {said}"),
    };
    let check = match check.status.code().unwrap() {
        1 => "corrected",
        65 => "corrected, and then refused",
        64 => "check refused",
        72 => "check stopped",
        other => panic!("virt-fsck: {other}\n{check:?}"),
    };
    format!("{start}, {check}")
}

fn race(kind: &str, disk_xml: &str, site: &Site, path: &Path, is_device: bool) {
    let rounds = std::env::var(ROUNDS).map_or(FEW, |rounds| rounds.parse().unwrap());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = u64::from(now.subsec_nanos()) | 1 << 32;
    let mut random = Random(seed);
    site.define("vm", &[disk_xml]);
    // One that takes its time, with the disk open around it.
    let slow = "sleep 0.3; exec /sbin/e2fsck \"$@\"\n";
    site.lab.script("tools/e2fsck", slow);
    let disk = Disk::new(path, is_device);
    let (seen, ended) = (Seen::default(), AtomicBool::new(false));
    let violation = Mutex::new(None);
    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                seen.looks.fetch_add(1, Ordering::Relaxed);
                if let Some(both) = disk.both(&seen) {
                    violation.lock().unwrap().get_or_insert(both);
                }
                std::thread::sleep(Duration::from_micros(500));
            }
        });
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..rounds {
                site.lab.sh(&format!(
                    "dd if=damaged of={} bs=1M conv=notrunc status=none",
                    disk.path.display()
                ));
                let begins = [Who::Guest, Who::Check][random.below(2) as usize];
                let later = Duration::from_millis(random.below(LATEST));
                let (virsh, check) = round(site, begins, later);
                *outcomes.entry(outcome(&virsh, &check)).or_default() += 1;
                let is = |file: &str| {
                    let path = disk.path.display();
                    let script = format!("cmp -s {path} {file} && echo yes || :");
                    site.lab.sh(&script).trim() == "yes"
                };
                match check.status.code() {
                    Some(1 | 65) => assert!(is("damaged.repaired"), "{check:?}"),
                    Some(64) => assert!(is("damaged"), "{check:?}"),
                    // Stopped in the middle.
                    _ => {}
                }
                if virsh.status.success() {
                    site.virsh("destroy vm");
                }
                let both = violation.lock().unwrap().take();
                assert!(
                    both.is_none(),
                    "seed {seed}: both write: {both:?}: {check:?}"
                );
            }
        }));
        ended.store(true, Ordering::Relaxed);
        run.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    println!(
        "race on a {kind}: {rounds} rounds in {:.0?}, seed {seed}, never both",
        begun.elapsed()
    );
    for (outcome, count) in outcomes {
        println!("  {count:4} {outcome}");
    }
    println!("  {seen:?}");
    assert!(seen.guest.into_inner() > 0 && seen.check.into_inner() > 0);
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn on_a_file() {
    let Some(site) = Site::new() else {
        return;
    };
    site.lab.damaged_ext4("damaged");
    site.lab.sh("cp damaged disk");
    let disk = "type='file'|<driver type='raw'/><source file='@/disk'/>";
    race("file", disk, &site, &site.lab.file("disk"), false);
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn on_a_block_device() {
    let Some(site) = Site::new() else {
        return;
    };
    site.lab.damaged_ext4("damaged");
    site.lab.sh("cp damaged disk");
    let (device, _held) = site.loop_device("disk");
    let disk = format!("type='block'|<driver type='raw'/><source dev='{device}'/>");
    race("block device", &disk, &site, Path::new(&device), true);
}
