//! One run of virt-fsck, in a mount namespace of its own, and the look around after it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::lab::Lab;
use super::outcome::Outcome;

/// Marks every process of a run in its environment.
const MARK: &str = "E2E_RUN";

/// How long a run, and what it leaves to end by itself, may take.
const LIMIT: Duration = Duration::from_secs(60);

static NUMBER: AtomicUsize = AtomicUsize::new(0);

pub struct Run<'a> {
    lab: &'a Lab,
    arguments: Vec<OsString>,
    mark: String,
    before: String,
    user: Option<u32>,
    stays: bool,
    path: String,
    input: Option<PathBuf>,
    json: bool,
    state: &'static str,
}

/// A run that has not ended.
pub struct Running<'a> {
    lab: &'a Lab,
    mark: String,
    mounts: Vec<String>,
    pub child: Child,
}

impl<'a> Run<'a> {
    pub fn new(lab: &'a Lab, words: &str) -> Self {
        Self {
            lab,
            arguments: words.split_whitespace().map(OsString::from).collect(),
            mark: format!(
                "{}-{}",
                std::process::id(),
                NUMBER.fetch_add(1, Ordering::Relaxed)
            ),
            before: String::new(),
            user: None,
            stays: false,
            path: "/usr/bin:/bin".to_owned(),
            input: None,
            json: true,
            state: "state",
        }
    }

    /// For people, not as JSON.
    pub fn plain(mut self) -> Self {
        self.json = false;
        self
    }

    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub fn input(mut self, file: impl Into<PathBuf>) -> Self {
        self.input = Some(file.into());
        self
    }

    /// The overlays go to another folder of the test's.
    pub fn state_in(mut self, folder: &'static str) -> Self {
        self.state = folder;
        self
    }

    /// Shell commands in the run's own mount namespace, before it. Root only.
    pub fn after(mut self, commands: &str) -> Self {
        self.before.push_str(commands);
        self.before.push('\n');
        self
    }

    /// As a plain user who owns nothing but what the test gave him. Root only.
    #[expect(
        clippy::wrong_self_convention,
        reason = "virt-fsck runs as a user; nothing is converted"
    )]
    pub fn as_user(mut self, user: u32) -> Self {
        self.user = Some(user);
        self
    }

    /// A FUSE that plain users may use, as udev makes it; there may be no udev.
    pub fn with_fuse_for_all(self) -> Self {
        self.after(
            "mount -t tmpfs -o mode=755 none /mnt; mknod -m 666 /mnt/fuse c 10 229\n\
             mount --bind /mnt/fuse /dev/fuse; umount /mnt",
        )
    }

    /// Looks into the run's mount namespace after it has ended: a plain user's mounts are made
    /// there, and not in a namespace that ends with virt-fsck.
    pub fn in_a_namespace_that_stays(mut self) -> Self {
        self.stays = true;
        self
    }

    /// Tools of the test's own, found before all others.
    pub fn tools_in(mut self, folder: &str) -> Self {
        self.path = format!("{}:{}", self.lab.file(folder).display(), self.path);
        self
    }

    pub fn changing_nothing(self) -> Outcome {
        let lab = self.lab;
        let before = lab.checksums();
        let outcome = self.changing_images();
        assert_eq!(before, lab.checksums(), "{outcome}");
        outcome
    }

    pub fn changing_images(self) -> Outcome {
        self.start().finish()
    }

    pub fn start(self) -> Running<'a> {
        let binary = super::binary::virt_fsck();
        let run = self.lab.file("run");
        let mut command = if rustix::process::geteuid().is_root() {
            let mut script = format!(
                "set -e; cd {folder}; mkdir -p /run/virt-fsck; mount --bind run /run/virt-fsck\n\
                 exec 3</dev/null\n{before}\n",
                folder = self.lab.path().display(),
                before = self.before,
            );
            let mut program = "\"$@\"".to_owned();
            if let Some(user) = self.user {
                // Its folder may be one that only root can enter.
                script += "touch virt-fsck; mount --bind \"$1\" virt-fsck; shift\n\
                           set -- \"$PWD/virt-fsck\" \"$@\"\n";
                program = format!("setpriv --reuid={user} --regid={user} --clear-groups \"$@\"");
            }
            if self.stays {
                script += &format!(
                    "{program} && status=0 || status=$?\n\
                     sleep 0.2; grep -F ' fuse' /proc/self/mountinfo | grep -F \"$PWD\" >&2 || :\n\
                     exit $status\n"
                );
            } else {
                script += &format!("exec {program}\n");
            }
            let mut command = self.lab.command("unshare");
            // What another test unmounts meanwhile must not stay mounted here.
            let namespace = ["--mount", "--propagation", "slave"];
            command
                .args(namespace)
                .args(["bash", "-c", &script, "bash", &binary]);
            command
        } else {
            assert!(self.before.is_empty() && self.user.is_none(), "needs root");
            self.lab.command(&binary)
        };
        command
            .args(["--state-dir".into(), self.lab.file(self.state)])
            .args(if self.json {
                &["--format", "json"][..]
            } else {
                &[]
            })
            .args(&self.arguments)
            .env("PATH", &self.path)
            .env("XDG_RUNTIME_DIR", &run)
            .env_remove("LIBVIRT_DEFAULT_URI")
            .env(MARK, &self.mark)
            .stdin(match &self.input {
                Some(file) => Stdio::from(std::fs::File::open(self.lab.path().join(file)).unwrap()),
                None => Stdio::null(),
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Running {
            mounts: mounts(self.lab),
            lab: self.lab,
            mark: self.mark,
            child: command.spawn().unwrap(),
        }
    }
}

impl Running<'_> {
    /// Waits until a file of the test's folder is there.
    pub fn wait_for(&mut self, name: &str) {
        let file = self.lab.file(name);
        until(&format!("{name} to be there"), || {
            assert_eq!(self.child.try_wait().unwrap(), None, "it ended early");
            file.exists()
        });
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> rustix::process::Pid {
        let pid = i32::try_from(self.child.id()).unwrap();
        rustix::process::Pid::from_raw(pid).unwrap()
    }

    /// The end of it, and nothing left behind.
    pub fn finish(self) -> Outcome {
        let (lab, mark, mounts) = (self.lab, self.mark.clone(), self.mounts.clone());
        let outcome = Outcome::of(self.child.wait_with_output().unwrap());
        assert_eq!(processes(&mark), Vec::<String>::new(), "{outcome}");
        lab.nothing_is_left(&mounts, &outcome);
        outcome
    }

    /// The end of it, while another run goes on.
    pub fn finish_beside_another(self) -> Outcome {
        let outcome = Outcome::of(self.child.wait_with_output().unwrap());
        assert_eq!(processes(&self.mark), Vec::<String>::new(), "{outcome}");
        outcome
    }

    /// After SIGKILL of virt-fsck itself: what it had started ends by itself.
    pub fn kill(self) -> Vec<String> {
        self.signal(rustix::process::Signal::KILL);
        let (lab, mark, mounts) = (self.lab, self.mark.clone(), self.mounts.clone());
        let outcome = Outcome::of(self.child.wait_with_output().unwrap());
        until("its children to end", || processes(&mark).is_empty());
        assert_eq!(mounts, super::run::mounts(lab), "{outcome}");
        let left = lab.sh("find run state -mindepth 1");
        left.lines().map(str::to_owned).collect()
    }
}

impl Lab {
    fn nothing_is_left(&self, mounts: &[String], outcome: &Outcome) {
        assert_eq!(mounts, super::run::mounts(self), "{outcome}");
        assert_eq!(
            self.sh(
                "find run state -mindepth 1 -not -name virt-fsck-65534 -not -name virt-fsck.claims"
            ),
            "",
            "{outcome}"
        );
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LIMIT, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The mounts of this namespace that virt-fsck may have made.
fn mounts(lab: &Lab) -> Vec<String> {
    let folder = lab.path().display().to_string();
    std::fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .filter(|line| line.contains(&folder))
        .map(str::to_owned)
        .collect()
}

/// The command lines of all living processes that carry the mark.
fn processes(mark: &str) -> Vec<String> {
    let wanted = format!("{MARK}={mark}");
    let carries_it = |environment: Vec<u8>| {
        environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == wanted.as_bytes())
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        if std::fs::read(entry.path().join("environ")).is_ok_and(carries_it) {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&command).replace('\0', " "));
        }
    }
    found
}

/// A process of the test that ends with it.
pub struct Helper(Child);

impl Helper {
    pub fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    pub fn wait_for(&self, lab: &Lab, name: &str) {
        let file = lab.file(name);
        until(name, || file.exists());
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}
