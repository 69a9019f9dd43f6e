//! Images on filesystems that other hosts may have too.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use fuser::{
    Config, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, INodeNo, LockOwner, OpenFlags,
    ReplyAttr, ReplyData, ReplyEmpty, ReplyOpen, ReplyWrite, Request, Session, SessionACL,
    WriteFlags,
};

use crate::support::lab::{Lab, is_root};

/// A file that is served over FUSE, as the daemon of a network filesystem would.
struct Served(File);

impl Served {
    fn attributes(&self) -> FileAttr {
        let size = self.0.metadata().unwrap().len();
        let made = SystemTime::UNIX_EPOCH;
        FileAttr {
            ino: INodeNo::ROOT,
            size,
            blocks: size.div_ceil(512),
            atime: made,
            mtime: made,
            ctime: made,
            crtime: made,
            kind: FileType::RegularFile,
            perm: 0o600,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Served {
    fn getattr(&self, _: &Request, _: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&Duration::ZERO, &self.attributes());
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut bytes = vec![0; usize::try_from(size).unwrap()];
        let read = self.0.read_at(&mut bytes, offset).unwrap();
        bytes.truncate(read);
        reply.data(&bytes);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.0.write_all_at(data, offset).unwrap();
        reply.written(u32::try_from(data.len()).unwrap());
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}

/// A filesystem of any name, over a file; taken back when dropped, also by a failing test.
struct Network {
    image: PathBuf,
}

impl Network {
    /// Shows `file` as `image`; `None`, and a line that says so, where the kernel cannot.
    #[expect(unsafe_code, reason = "fuser mounts under no other name than fuse")]
    fn mount(lab: &Lab, kind: &str, file: &str, image: &str) -> Option<Self> {
        let Ok(device) = File::options().read(true).write(true).open("/dev/fuse") else {
            eprintln!("SKIPPED: there is no FUSE");
            return None;
        };
        let served = lab.file(file);
        let served = File::options().read(true).write(true).open(served).unwrap();
        let image = lab.write(image, "");
        let text = |words: &str| CString::new(words).unwrap();
        let options = format!(
            "fd={},rootmode=100600,user_id=0,group_id=0,allow_other",
            device.as_raw_fd()
        );
        let (source, place) = (text("server:/images"), text(image.to_str().unwrap()));
        let (kind, options) = (text(kind), text(&options));
        // SAFETY: all four are texts that end with a zero, and outlive the call.
        let mounted = unsafe {
            libc::mount(
                source.as_ptr(),
                place.as_ptr(),
                kind.as_ptr(),
                libc::MS_NOSUID | libc::MS_NODEV,
                options.as_ptr().cast(),
            )
        };
        assert_eq!(mounted, 0, "{}", std::io::Error::last_os_error());
        let mounted = Self { image };
        let mut config = Config::default();
        config.n_threads = Some(2);
        let device = OwnedFd::from(device);
        let session = Session::from_fd(Served(served), device, SessionACL::All, config);
        // It ends with the mount.
        let _session = std::mem::ManuallyDrop::new(session.unwrap().spawn().unwrap());
        Some(mounted)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let taken_back = Command::new("/bin/umount").arg(&self.image).status();
        if !taken_back.is_ok_and(|status| status.success()) {
            eprintln!("{} is left mounted", self.image.display());
        }
    }
}

/// All that is said of the disk.
fn notes(outcome: &crate::support::outcome::Outcome) -> String {
    let disk = outcome.disks().next().unwrap();
    disk["notes"].to_string()
}

#[test]
fn it_is_read_with_a_note_and_written_by_leave() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    // What the mount shows is compared by what lies behind it.
    let Some(network) = Network::mount(&lab, "fuse.glusterfs", "bad.img", "image.log") else {
        return;
    };
    let lies = format!(
        "{image} lies on fuse.glusterfs ({image})",
        image = network.image.display()
    );
    for (mode, status) in [("-n", 4), ("--list", 0), ("-y --dry-run", 0)] {
        let outcome = lab.look(&format!("{mode} -a image.log --image-format raw"));
        outcome.is(status, &[]);
        let words = format!("other hosts were not asked and could not be: {lies}");
        assert!(notes(&outcome).contains(&words), "{outcome}");
    }
    for mode in ["-p", "-y", "-y --allow shared-lvm"] {
        lab.look(&format!("{mode} -a image.log --image-format raw"))
            .is(64, &[("sda", "refused")])
            .says(
                "sda",
                &[
                    "may be in use on another host, which cannot be asked",
                    &lies,
                    "if no host uses it: --allow shared-nfs",
                ],
            );
    }
    let repaired = lab.repair("-y --allow shared-nfs -a image.log --image-format raw");
    repaired.is(1, &[("sda", "corrected")]);
    let words =
        format!("WRITTEN WITHOUT ASKING OTHER HOSTS, as --allow shared-nfs wants it: {lies}");
    assert!(notes(&repaired).contains(&words), "{repaired}");
    assert_eq!(lab.checksum("bad.img"), lab.checksum("bad.img.repaired"));
}

/// What lies under an image is written by nobody who knows what he does, so it is only told.
#[test]
fn a_base_that_other_hosts_have_too() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    let Some(network) = Network::mount(&lab, "fuse.sshfs", "bad.img", "base.log") else {
        return;
    };
    lab.sh("qemu-img create -q -f qcow2 -F raw -b $PWD/base.log top.qcow2");
    let base = lab.checksum("bad.img");
    let repaired = lab.repair("-y -a top.qcow2 --image-format qcow2");
    repaired.is(1, &[("sda", "corrected")]);
    let lies = format!("{} lies on fuse.sshfs", network.image.display());
    assert!(notes(&repaired).contains(&lies), "{repaired}");
    assert_eq!(lab.checksum("bad.img"), base);
}

/// Also where it is a loop device by now.
#[test]
fn a_loop_device_over_it() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    let Some(_network) = Network::mount(&lab, "fuse.glusterfs", "bad.img", "image.log") else {
        return;
    };
    let looped = crate::support::lab::Loop::attach(&lab, "", "image.log");
    lab.look(&format!("-y -a {}", looped.device))
        .is(64, &[("sda", "refused")])
        .says("sda", &["lies on fuse.glusterfs", "--allow shared-nfs"]);
}

/// FUSE alone is no network.
#[test]
fn other_filesystems_need_no_leave() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    let Some(_local) = Network::mount(&lab, "fuse.mergerfs", "bad.img", "image.log") else {
        return;
    };
    let repaired = lab.repair("-y -a image.log --image-format raw");
    repaired.is(1, &[("sda", "corrected")]);
    assert!(!notes(&repaired).contains("other hosts"), "{repaired}");
}

#[test]
fn leave_is_for_writing() {
    let lab = Lab::new();
    lab.ext4("good.img");
    for words in ["-n", "--list"] {
        for allowance in ["shared-nfs", "shared-lvm"] {
            let outcome = lab
                .virt_fsck(&format!("{words} --allow {allowance} -a good.img"))
                .plain()
                .changing_nothing();
            assert_eq!(outcome.status, Some(16), "{outcome}");
            let says = format!("--allow {allowance} is of no use");
            assert!(outcome.stderr.contains(&says), "{outcome}");
        }
    }
}
