//! What one test has: a folder, and domains that end with it.

use std::cell::RefCell;
use std::fs::File;

use crate::namespaces;
use crate::support::lab::Lab;

/// A folder, and domains that end with it.
pub struct Site {
    pub lab: Lab,
    domains: RefCell<Vec<String>>,
    pools: RefCell<Vec<String>>,
}

impl Site {
    /// `None`, and a line that says so, outside the namespaces.
    pub fn new() -> Option<Self> {
        if !namespaces::is_inside() {
            eprintln!("SKIPPED: this test is run by with_a_libvirtd_of_its_own");
            return None;
        }
        namespaces::start_libvirtd();
        Some(Self {
            lab: Lab::new(),
            domains: RefCell::default(),
            pools: RefCell::default(),
        })
    }

    /// The folder's path.
    pub fn folder(&self) -> String {
        self.lab.path().display().to_string()
    }

    /// Runs `virsh LINE`; it must succeed.
    pub fn virsh(&self, line: &str) -> String {
        self.lab.sh(&format!("virsh -q -c qemu:///system {line}"))
    }

    /// Runs `virsh LINE`, which must fail: what it said.
    pub fn virsh_fails(&self, line: &str) -> String {
        let (status, words) = self
            .lab
            .sh_status(&format!("virsh -q -c qemu:///system {line}"));
        assert_eq!(status, Some(1), "virsh {line}: {words}");
        words
    }

    /// A shut-off domain. Each disk is `ATTRIBUTES|INSIDE`, where `@` stands for the folder; the targets are vda,
    /// vdb and so on.
    pub fn define(&self, name: &str, disks: &[&str]) {
        let mut text = String::new();
        for (letter, disk) in ('a'..).zip(disks) {
            let (attributes, inside) = disk.split_once('|').unwrap();
            let inside = inside.replace('@', &self.folder());
            text += &format!(
                "<disk {attributes}>{inside}<target dev='vd{letter}' bus='virtio'/></disk>"
            );
        }
        self.define_with(name, "", &text);
    }

    /// The same with any devices, and memory that other processes may share.
    pub fn define_sharing_memory(&self, name: &str, devices: &str) {
        let shared = "<memoryBacking><access mode='shared'/></memoryBacking>";
        self.define_with(name, shared, devices);
    }

    fn define_with(&self, name: &str, memory: &str, devices: &str) {
        self.lab.write(
            "domain.xml",
            format!(
                "<domain type='qemu'><name>{name}</name><memory unit='MiB'>16</memory>{memory}\
                 <os><type>hvm</type></os><features><acpi/></features>\
                 <devices>{devices}</devices></domain>"
            ),
        );
        self.virsh("define domain.xml");
        self.domains.borrow_mut().push(name.to_owned());
    }

    /// An active domain that does nothing: its processor has never run.
    pub fn start_paused(&self, name: &str) {
        self.virsh(&format!("start --paused {name}"));
    }

    /// A pool of a folder's files.
    pub fn define_pool(&self, name: &str, folder: &str) {
        self.virsh(&format!("pool-define-as {name} dir --target $PWD/{folder}"));
        self.virsh(&format!("pool-start {name}"));
        self.pools.borrow_mut().push(name.to_owned());
    }

    /// A loop device, held open, so that it is gone when the test is, however that ends.
    pub fn loop_device(&self, file: &str) -> (String, File) {
        let device = self.lab.sh(&format!("losetup --find --show {file}"));
        let device = device.trim().to_owned();
        let held = File::open(&device).unwrap();
        self.lab.sh(&format!("losetup --detach {device}"));
        (device, held)
    }

    /// An e2fsck in `tools` that makes `begun.log`, waits for `go-on.log`, and then does its work.
    pub fn has_an_e2fsck_that_waits(&self) {
        let folder = self.folder();
        let script = format!(
            "touch {folder}/begun.log; while [[ ! -e {folder}/go-on.log ]]; do sleep 0.05; done\n\
             exec /sbin/e2fsck \"$@\"\n"
        );
        self.lab.script("tools/e2fsck", &script);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for name in self.domains.get_mut() {
            self.lab.sh(&format!(
                "virsh destroy {name} || :; virsh undefine --managed-save {name} || :"
            ));
        }
        for name in self.pools.get_mut() {
            self.lab.sh(&format!(
                "virsh pool-destroy {name} || :; virsh pool-undefine {name} || :"
            ));
        }
    }
}
