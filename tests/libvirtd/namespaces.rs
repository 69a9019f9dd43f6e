//! A place for a libvirtd of its own: no process, mount, network or cgroup of this machine is reached from it, and
//! it ends with its first process.

use std::fs::read_link;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use crate::support;

/// Names the PID namespace that was left, so that nothing is ever started in it.
const OUTSIDE: &str = "LIBVIRTD_TEST_OUTSIDE";

/// How long all tests inside may take, in seconds, unless this variable says otherwise.
const LIMIT: &str = "LIBVIRTD_TEST_LIMIT";
const USUAL_LIMIT: u64 = 300;

/// Which of the tests inside are run; all, if it is not set.
const ONLY: &str = "LIBVIRTD_TEST_ONLY";

/// What a libvirtd keeps; each gets an empty filesystem in its place.
const ITS_FOLDERS: [&str; 4] = [
    "/run",
    "/var/lib/libvirt",
    "/var/cache/libvirt",
    "/var/log/libvirt",
];

fn pid_namespace() -> PathBuf {
    read_link("/proc/self/ns/pid").unwrap()
}

/// Whether this process runs inside.
pub fn is_inside() -> bool {
    std::env::var_os(OUTSIDE).is_some_and(|outside| Path::new(&outside) != pid_namespace())
}

/// Runs this program's ignored tests inside.
pub fn run_the_ignored_tests_inside() {
    // The shell is there to collect the children of daemons, which become its own; a libvirtd waits for that.
    let tests = "\"$0\" --ignored --test-threads=1 --color=never --show-output \"$@\"; exit $?";
    let limit = std::env::var(LIMIT).map_or(USUAL_LIMIT, |limit| limit.parse().unwrap());
    let limit = Duration::from_secs(limit);
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "unshare"])
        .args([
            "--mount",
            "--net",
            "--ipc",
            "--uts",
            "--pid",
            "--mount-proc",
        ])
        .args(["--fork", "--kill-child", "bash", "-c", tests])
        .arg(std::env::current_exe().unwrap())
        .args(std::env::var(ONLY).ok())
        .env(OUTSIDE, pid_namespace())
        .env("TMPDIR", "/run")
        .stdin(Stdio::null());
    let mut child = command.spawn().unwrap();
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > limit {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the tests inside took longer than {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(status.success(), "a test inside failed: see above");
}

/// Starts libvirtd, at the first call.
pub fn start_libvirtd() {
    static STARTED: Once = Once::new();
    assert!(is_inside(), "this would touch the machine's own libvirtd");
    STARTED.call_once(|| {
        for folder in ITS_FOLDERS {
            std::fs::create_dir_all(folder).unwrap();
            run("mount", &["-t", "tmpfs", "tmpfs", folder]);
        }
        // Without cgroups in sight libvirtd makes none.
        if Path::new("/sys/fs/cgroup/cgroup.procs").exists()
            || Path::new("/sys/fs/cgroup/unified").exists()
        {
            run("umount", &["--recursive", "--lazy", "/sys/fs/cgroup"]);
        }
        // The daemons' own settings, but no network, pool or domain that starts with them; and virt-fsck's hook, by a
        // path that every user can reach.
        let script = "cp -a /etc /run/etc && mount --bind /run/etc /etc && cd /etc/libvirt && \
                      find . -mindepth 1 -maxdepth 1 -not -name '*.conf' -exec rm -r {} + && \
                      rm -f /etc/virt-fsck.toml && \
                      printf '%s\\n' 'security_driver = \"none\"' 'user = \"root\"' 'group = \"root\"' \
                      >>qemu.conf && touch /run/virt-fsck-program && mount --bind \"$0\" /run/virt-fsck-program && \
                      /run/virt-fsck-program hook --install && \
                      virtlogd -d && libvirtd -d && ip link set lo up";
        run("bash", &["-c", script, &support::binary::virt_fsck()]);
    });
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
}
