//! The calls and words of qemu-nbd; and, on a machine that is made for it, the real kernel.

use super::*;
use crate::cmd::CmdError;
use crate::engine::user::nodes::Access;
use serde_json::{Value, json};
use std::os::unix::fs::FileExt;
use std::process::Command;

fn node(path: &Path, access: Access) -> Value {
    let read_only = access == Access::ReadOnly;
    json!({
        "driver": "qcow2",
        "read-only": read_only,
        "file": {
            "driver": "file",
            "filename": path,
            "locking": "on",
            "read-only": read_only,
        },
    })
}

#[test]
fn the_call_keeps_it_in_the_foreground_and_its_socket_private() {
    let node = json!({"driver": "raw"});
    for (access, option) in [(Access::Write, ""), (Access::ReadOnly, " --read-only")] {
        let image = Image {
            node: &node,
            keys: &[],
            access,
            name: "x",
        };
        let call = server::serving(Path::new("/dev/nbd3"), image, Path::new("/run/v/nbd1.pid"));
        assert_eq!(
            call.to_string(),
            format!(
                "qemu-nbd --verbose --connect=/dev/nbd3 --socket=/run/v/nbd1.socket \
                 --pid-file=/run/v/nbd1.pid --cache=writeback --discard=unmap{option} -- \
                 'json:{{\"driver\":\"raw\"}}'"
            )
        );
    }
}

#[test]
fn its_words_are_kept_and_its_echo_is_not() {
    for (said, kept) in [
        (
            "qemu-nbd: Failed to blk_new_open 'json:{\"a\":{\"b\":\"}': \"}}': Block node is read-only\n",
            "Block node is read-only\n",
        ),
        (
            "qemu-nbd: Failed to set NBD socket\n",
            "qemu-nbd: Failed to set NBD socket\n",
        ),
        ("", ""),
    ] {
        assert_eq!(server::without_node(said), kept);
    }
}

/// Whether nbd devices may be used here; they are nobody else's on a machine made for it only.
fn can_connect() -> bool {
    let can = std::env::var_os("VIRT_FSCK_TEST_NBD").is_some() && !devices().is_empty();
    if !can {
        eprintln!(
            "SKIPPED: it uses nbd devices; set VIRT_FSCK_TEST_NBD on a machine that has them"
        );
    }
    can
}

fn tool(name: &str, arguments: &[&str], path: &Path) -> String {
    let output = Command::new(name)
        .args(arguments)
        .arg(path)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{name} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A guest's disk: lazy reference counts, a persistent bitmap, a partition table.
struct Lab {
    folder: tempfile::TempDir,
    image: PathBuf,
    pid_file: PathBuf,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk.qcow2");
        let raw = folder.path().join("raw");
        File::create(&raw).unwrap().set_len(64 << 20).unwrap();
        let table = folder.path().join("table");
        std::fs::write(&table, "label: gpt\n,16M\n,\n").unwrap();
        let status = Command::new("sfdisk")
            .arg("-q")
            .arg(&raw)
            .stdin(File::open(&table).unwrap())
            .status();
        assert!(status.unwrap().success());
        let lazy = [
            "convert",
            "-f",
            "raw",
            "-O",
            "qcow2",
            "-o",
            "lazy_refcounts=on",
        ];
        let arguments: Vec<_> = lazy.into_iter().chain(raw.to_str()).collect();
        tool("qemu-img", &arguments, &image);
        let status = Command::new("qemu-img")
            .args(["bitmap", "--add"])
            .arg(&image)
            .arg("b0")
            .status();
        assert!(status.unwrap().success());
        Self {
            pid_file: folder.path().join("nbd1.pid"),
            folder,
            image,
        }
    }

    async fn connect(&self, access: Access) -> Result<Nbd, NbdError> {
        let node = node(&self.image, access);
        let image = Image {
            node: &node,
            keys: &[],
            access,
            name: "disk.qcow2",
        };
        Nbd::connect(image, &self.pid_file, |_| Ok(())).await
    }

    /// Closed well: nothing to repair, nothing marked dirty, the bitmap of use.
    fn is_sound(&self) {
        tool("qemu-img", &["check", "-q"], &self.image);
        let information = tool("qemu-img", &["info", "--output=json"], &self.image);
        let information: Value = serde_json::from_str(&information).unwrap();
        assert_eq!(information["dirty-flag"], false);
        let bitmaps = &information["format-specific"]["data"]["bitmaps"];
        assert_eq!(bitmaps[0]["name"], "b0");
        assert_eq!(bitmaps[0]["flags"], json!(["auto"]), "in use, so lost");
        assert!(!self.pid_file.exists());
        assert!(!server::socket(&self.pid_file).exists());
    }

    /// What the guest would read at `offset`.
    fn byte_at(&self, offset: u64) -> u8 {
        let raw = self.folder.path().join("out");
        let arguments = ["convert", "-O", "raw", self.image.to_str().unwrap()];
        tool("qemu-img", &arguments, &raw);
        let mut byte = [0];
        File::open(raw)
            .unwrap()
            .read_exact_at(&mut byte, offset)
            .unwrap();
        byte[0]
    }
}

/// Everything of a device that somebody could be disturbed by.
fn is_as_new(device: &Path) -> bool {
    is_free(&sysfs(device)) && partitions::of(&sysfs(device)).is_empty()
}

#[tokio::test]
async fn an_image_is_shown_written_and_closed_well() {
    if !can_connect() {
        return;
    }
    let lab = Lab::new();
    for round in 1..=3_u8 {
        let begun = Instant::now();
        let nbd = lab.connect(Access::Write).await.unwrap();
        let connected = begun.elapsed();
        let device = nbd.path().to_owned();
        assert_eq!(size(&sysfs(&device)) * 512, 64 << 20);
        assert!(partitions::of(&sysfs(&device)).is_empty());
        let other = File::open(&device).unwrap();
        let locked = rustix::fs::flock(&other, FlockOperation::NonBlockingLockShared);
        assert_eq!(locked, Err(Errno::WOULDBLOCK), "udev would look at it");
        drop(other);
        let writer = File::options().write(true).open(&device).unwrap();
        // Not synced: that is for disconnect.
        writer
            .write_all_at(&[0xA0 + round; 4096], 40 << 20)
            .unwrap();
        drop(writer);
        let begun = Instant::now();
        nbd.disconnect().await.unwrap();
        eprintln!(
            "connected in {connected:?}, disconnected in {:?}",
            begun.elapsed()
        );
        assert!(is_as_new(&device));
        lab.is_sound();
        assert_eq!(lab.byte_at(40 << 20), 0xA0 + round);
    }
}

#[tokio::test]
async fn a_read_only_image_stays_as_it_is() {
    if !can_connect() {
        return;
    }
    let lab = Lab::new();
    let before = std::fs::read(&lab.image).unwrap();
    let nbd = lab.connect(Access::ReadOnly).await.unwrap();
    let device = nbd.path().to_owned();
    let ro = std::fs::read_to_string(sysfs(&device).join("ro")).unwrap();
    assert_eq!(ro.trim(), "1");
    // The same image may be read twice, at two devices.
    let second = Image {
        node: &node(&lab.image, Access::ReadOnly),
        keys: &[],
        access: Access::ReadOnly,
        name: "disk.qcow2",
    };
    let pid_file = lab.folder.path().join("nbd2.pid");
    let mut told = Vec::new();
    let second = Nbd::connect(second, &pid_file, |device| {
        told.push(device.to_owned());
        Ok::<_, NbdError>(())
    });
    let second = second.await.unwrap();
    assert_ne!(second.path(), device);
    assert_eq!(told, [second.path().to_owned()]);
    second.disconnect().await.unwrap();
    nbd.disconnect().await.unwrap();
    assert!(is_as_new(&device));
    assert_eq!(std::fs::read(&lab.image).unwrap(), before);
}

#[tokio::test]
async fn an_image_that_somebody_has_open_is_in_use() {
    if !can_connect() {
        return;
    }
    let lab = Lab::new();
    let nbd = lab.connect(Access::Write).await.unwrap();
    let pid_file = lab.folder.path().join("nbd2.pid");
    for access in [Access::ReadOnly, Access::Write] {
        let node = node(&lab.image, access);
        let image = Image {
            node: &node,
            keys: &[],
            access,
            name: "disk.qcow2",
        };
        let error = Nbd::connect(image, &pid_file, |_| Ok::<_, NbdError>(())).await;
        assert!(matches!(error, Err(NbdError::InUse(name)) if name == "disk.qcow2"));
    }
    nbd.disconnect().await.unwrap();
    lab.is_sound();
}

#[tokio::test]
async fn what_cannot_be_opened_is_told_in_qemus_words() {
    if !can_connect() {
        return;
    }
    let lab = Lab::new();
    std::fs::write(&lab.image, "no image").unwrap();
    let error = lab.connect(Access::Write).await.unwrap_err();
    let NbdError::Serve { image, source } = &error else {
        panic!("{error}");
    };
    assert_eq!(image, "disk.qcow2");
    assert!(matches!(source, CmdError::Failed { .. }));
    assert_eq!(source.to_string(), "qemu-nbd: Image is not in qcow2 format");
    assert!(devices().iter().all(|device| is_as_new(device)));
}

#[tokio::test]
async fn devices_of_others_are_passed_over() {
    if !can_connect() {
        return;
    }
    let lab = Lab::new();
    let locked = File::open("/dev/nbd0").unwrap();
    rustix::fs::flock(&locked, FlockOperation::NonBlockingLockExclusive).unwrap();
    let others = Lab::new();
    let node = node(&others.image, Access::Write);
    let image = Image {
        node: &node,
        keys: &[],
        access: Access::Write,
        name: "theirs",
    };
    // Not by us: without udev's lock.
    let theirs = server::serving(Path::new("/dev/nbd1"), image, &others.pid_file);
    let mut theirs = Command::new("qemu-nbd")
        .args(&theirs.arguments)
        .spawn()
        .unwrap();
    assert!(
        wait::until(Duration::from_secs(20), || !is_free(&sysfs(Path::new(
            "/dev/nbd1"
        ))))
        .await
    );
    let nbd = lab.connect(Access::Write).await.unwrap();
    assert_eq!(nbd.path(), Path::new("/dev/nbd2"));
    // Neither is somebody else's taken for ours.
    release_leftover(Path::new("/dev/nbd1"), &lab.folder.path().join("other.pid"))
        .await
        .unwrap();
    assert!(theirs.try_wait().unwrap().is_none());
    nbd.disconnect().await.unwrap();
    // But a leftover of ours is ended, and its image closed well.
    release_leftover(Path::new("/dev/nbd1"), &others.pid_file)
        .await
        .unwrap();
    theirs.wait().unwrap();
    assert!(is_as_new(Path::new("/dev/nbd1")));
    others.is_sound();
    // Twice is as good as once.
    release_leftover(Path::new("/dev/nbd1"), &others.pid_file)
        .await
        .unwrap();
    release_leftover(Path::new("/dev/nbd99"), &others.pid_file)
        .await
        .unwrap();
}

#[tokio::test]
async fn who_keeps_the_device_open_is_told_of() {
    if !can_connect() {
        return;
    }
    let lab = Lab::new();
    let nbd = lab.connect(Access::Write).await.unwrap();
    let device = nbd.path().to_owned();
    let holder = File::open(&device).unwrap();
    let error = nbd.disconnect().await.unwrap_err();
    assert!(matches!(error, NbdError::StillOpen { .. }), "{error}");
    lab.is_sound();
    drop(holder);
    assert!(wait::until(RELEASE, || is_as_new(&device)).await);
}

#[tokio::test]
async fn a_dropped_device_has_its_image_closed_well() {
    if !can_connect() {
        return;
    }
    let lab = Lab::new();
    let nbd = lab.connect(Access::Write).await.unwrap();
    let device = nbd.path().to_owned();
    drop(nbd);
    assert!(wait::until(Duration::from_secs(20), || is_as_new(&device)).await);
    // Its pid file lies in the folder of the run, which goes as a whole.
    let _gone = std::fs::remove_file(&lab.pid_file);
    lab.is_sound();
}

/// Not a test: what the next one runs as a process of its own.
#[tokio::test]
#[ignore = "the next test runs it"]
async fn a_run_that_is_killed() {
    let image = std::env::var_os("VIRT_FSCK_TEST_IMAGE")
        .map(PathBuf::from)
        .unwrap();
    let pid_file = image.with_file_name("nbd1.pid");
    let node = node(&image, Access::Write);
    let image = Image {
        node: &node,
        keys: &[],
        access: Access::Write,
        name: "disk.qcow2",
    };
    let nbd = Nbd::connect(image, &pid_file, |_| Ok::<_, NbdError>(()))
        .await
        .unwrap();
    let writer = File::options().write(true).open(nbd.path()).unwrap();
    writer.write_all_at(&[0xEE; 4096], 40 << 20).unwrap();
    writer.sync_all().unwrap();
    std::fs::write(
        pid_file.with_extension("ready"),
        nbd.path().to_str().unwrap(),
    )
    .unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_run_leaves_no_device_and_a_sound_image() {
    if !can_connect() {
        return;
    }
    let lab = Lab::new();
    let mut run = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "engine::kernel::nbd::tests::a_run_that_is_killed",
        ])
        .env("VIRT_FSCK_TEST_IMAGE", &lab.image)
        .spawn()
        .unwrap();
    let ready = lab.pid_file.with_extension("ready");
    assert!(wait::until(Duration::from_secs(30), || ready.exists()).await);
    assert!(
        wait::until(RELEASE, || std::fs::read_to_string(&ready)
            .is_ok_and(|text| !text.is_empty()))
        .await
    );
    let device = PathBuf::from(std::fs::read_to_string(&ready).unwrap());
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(wait::until(Duration::from_secs(20), || is_as_new(&device)).await);
    release_leftover(&device, &lab.pid_file).await.unwrap();
    lab.is_sound();
    assert_eq!(lab.byte_at(40 << 20), 0xEE);
}

#[tokio::test]
async fn qemu_nbd_keeps_udevs_lock_when_the_run_is_gone() {
    if !can_connect() {
        return;
    }
    let lab = Lab::new();
    let Nbd { server, reserved } = lab.connect(Access::Write).await.unwrap();
    let device = reserved.path.clone();
    drop(reserved);
    let other = File::open(&device).unwrap();
    let locked = rustix::fs::flock(&other, FlockOperation::NonBlockingLockShared);
    assert_eq!(locked, Err(Errno::WOULDBLOCK));
    server.end(false).await.unwrap();
    rustix::fs::flock(&other, FlockOperation::NonBlockingLockShared).unwrap();
    drop(other);
    assert!(wait::until(RELEASE, || is_as_new(&device)).await);
    lab.is_sound();
}
