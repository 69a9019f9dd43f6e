//! Loop devices of the real kernel; they need root.

use super::*;
use std::io::Write;
use std::os::unix::fs::FileExt;

#[test]
fn structures_are_as_long_as_the_kernels() {
    assert_eq!(size_of::<LoopInfo>(), 232);
    assert_eq!(std::mem::offset_of!(LoopConfig, info), 8);
    assert_eq!(size_of::<LoopConfig>(), 304);
}

/// Whether loop devices can be had here; says so if not.
fn can_loop() -> bool {
    let can = rustix::process::geteuid().is_root() && Path::new("/dev/loop-control").exists();
    if !can {
        eprintln!("SKIPPED: loop devices need root and /dev/loop-control");
    }
    can
}

/// A file of so many sectors, each filled with its own number.
fn image(sectors: u8) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for sector in 0..sectors {
        file.write_all(&[sector; 512]).unwrap();
    }
    file.as_file().sync_all().unwrap();
    file
}

fn read_at(path: &Path, offset: u64) -> u8 {
    let mut byte = [0xEE];
    let read = File::open(path).unwrap().read_at(&mut byte, offset);
    assert_eq!(read.unwrap(), 1, "{} at {offset}", path.display());
    byte[0]
}

fn is_attached(file: &Path) -> bool {
    let entries = std::fs::read_dir("/sys/block").unwrap();
    entries.flatten().any(|entry| {
        std::fs::read_to_string(entry.path().join("loop/backing_file"))
            .is_ok_and(|text| text.trim_end() == file.to_str().unwrap())
    })
}

#[tokio::test]
async fn a_part_of_a_file_is_shown_and_written_and_nothing_is_left() {
    if !can_loop() {
        return;
    }
    let file = image(64);
    let offset = Bytes::kib(4);
    let device = LoopDevice::attach(
        file.path(),
        offset,
        Some(Bytes::kib(8)),
        None,
        Access::Write,
    );
    let device = device.await.unwrap();
    assert_eq!(device.size(), Bytes::kib(8));
    assert_eq!(device.sysfs("queue/logical_block_size").unwrap(), "512");
    assert_eq!(device.sysfs("ro").unwrap(), "0");
    assert_eq!(device.sysfs("loop/autoclear").unwrap(), "1");
    assert_eq!(device.sysfs("loop/partscan").unwrap(), "0");
    assert_eq!(device.sysfs("loop/offset").unwrap(), "4096");
    assert_eq!(device.sysfs("loop/sizelimit").unwrap(), "8192");
    assert_eq!(read_at(device.path(), 0), 8);
    assert_eq!(read_at(device.path(), 8191), 23);
    let writer = File::options().write(true).open(device.path()).unwrap();
    writer.write_all_at(&[0xAB; 512], 512).unwrap();
    assert!(writer.write_all_at(&[0xAB; 512], 8192).is_err());
    drop(writer);
    device.close().await.unwrap();
    assert!(!is_attached(file.path()));
    for (sector, byte) in [(8, 8), (9, 0xAB), (10, 10), (24, 24)] {
        assert_eq!(read_at(file.path(), sector * 512), byte, "sector {sector}");
    }
}

#[tokio::test]
async fn a_read_only_device_takes_no_writes_even_from_root() {
    if !can_loop() {
        return;
    }
    let file = image(16);
    let device = LoopDevice::attach(
        file.path(),
        Bytes::ZERO,
        None,
        Some(SectorSize::S4096),
        Access::ReadOnly,
    );
    let device = device.await.unwrap();
    assert_eq!(device.sysfs("ro").unwrap(), "1");
    assert_eq!(device.sysfs("queue/logical_block_size").unwrap(), "4096");
    let written = File::options()
        .write(true)
        .open(device.path())
        .and_then(|writer| {
            writer.write_all_at(&[1; 4096], 0)?;
            writer.sync_all()
        });
    assert!(written.is_err());
    device.close().await.unwrap();
}

#[tokio::test]
async fn the_tail_of_a_file_is_not_shown_and_a_short_file_is_refused() {
    if !can_loop() {
        return;
    }
    let file = image(16);
    file.as_file().set_len(16 * 512 + 100).unwrap();
    let whole = LoopDevice::attach(file.path(), Bytes::ZERO, None, None, Access::ReadOnly);
    let whole = whole.await.unwrap();
    assert_eq!(whole.size(), Bytes::kib(8));
    whole.close().await.unwrap();
    for (offset, size) in [(0, 17), (8, 9), (16, 1), (100, 1)] {
        let (offset, size) = (Bytes::new(offset * 512), Bytes::new(size * 512));
        let refused = LoopDevice::attach(file.path(), offset, Some(size), None, Access::ReadOnly);
        match refused.await.unwrap_err() {
            LoopError::Short { wanted, .. } => assert_eq!(wanted, size),
            other => panic!("{other}"),
        }
    }
    assert!(!is_attached(file.path()));
}

#[tokio::test]
async fn a_dropped_device_is_gone() {
    if !can_loop() {
        return;
    }
    let file = image(8);
    let device = LoopDevice::attach(file.path(), Bytes::ZERO, None, None, Access::Write);
    let device = device.await.unwrap();
    assert!(is_attached(file.path()));
    drop(device);
    assert!(wait::until(RELEASE, || !is_attached(file.path())).await);
}

#[tokio::test]
async fn udevs_lock_is_held_and_devices_go_onto_each_other() {
    if !can_loop() {
        return;
    }
    let file = image(32);
    let below = LoopDevice::attach(file.path(), Bytes::kib(2), None, None, Access::Write);
    let below = below.await.unwrap();
    let other = File::open(below.path()).unwrap();
    let locked = rustix::fs::flock(&other, FlockOperation::NonBlockingLockShared);
    assert_eq!(locked, Err(Errno::WOULDBLOCK));
    drop(other);
    let above = LoopDevice::attach(below.path(), Bytes::kib(2), None, None, Access::ReadOnly);
    let above = above.await.unwrap();
    assert_eq!(read_at(above.path(), 0), 8);
    above.close().await.unwrap();
    below.close().await.unwrap();
}

#[tokio::test]
async fn who_holds_it_open_is_not_waited_for_without_end() {
    if !can_loop() {
        return;
    }
    let file = image(8);
    let device = LoopDevice::attach(file.path(), Bytes::ZERO, None, None, Access::ReadOnly);
    let device = device.await.unwrap();
    let holder = File::open(device.path()).unwrap();
    let closed = device.close().await;
    assert!(
        matches!(closed, Err(LoopError::StillOpen { .. })),
        "{closed:?}"
    );
    assert!(is_attached(file.path()));
    drop(holder);
    assert!(wait::until(RELEASE, || !is_attached(file.path())).await);
}

#[tokio::test]
async fn many_at_once_get_one_each() {
    if !can_loop() {
        return;
    }
    let threads: Vec<_> = (0_u8..8)
        .map(|number| {
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async move {
                    let file = image(8);
                    file.as_file()
                        .write_all_at(&[number + 100; 512], 0)
                        .unwrap();
                    file.as_file().sync_all().unwrap();
                    for _ in 0..5 {
                        let device =
                            LoopDevice::attach(file.path(), Bytes::ZERO, None, None, Access::Write);
                        let device = device.await.unwrap();
                        assert_eq!(read_at(device.path(), 0), number + 100);
                        device.close().await.unwrap();
                    }
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    if !can_loop() {
        return;
    }
    let missing = Path::new("/nonexistent/image");
    let error = LoopDevice::attach(missing, Bytes::ZERO, None, None, Access::ReadOnly)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "/nonexistent/image cannot be opened");
}
