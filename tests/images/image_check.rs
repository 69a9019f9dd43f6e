//! Images whose own format is damaged. What qemu-img alone makes of a copy is the truth.

use std::os::unix::fs::FileExt;

use serde_json::Value;

use crate::support::lab::{Lab, Loop, is_root};
use crate::support::outcome::Outcome;
use crate::support::run::Helper;

const CLUSTER: u64 = 64 * 1024;

/// A qcow2, and the places of its tables.
struct Qcow2 {
    lab: Lab,
    refcounts: u64,
    first_entry: u64,
    clusters: u64,
}

impl Qcow2 {
    /// The image is `disk.qcow2`, what the guest sees of it `disk.img`: swap space, which no checker
    /// changes.
    fn new(options: &str) -> Self {
        let lab = Lab::new();
        lab.sh("head -c 1M /dev/urandom >disk.img; truncate -s 16M disk.img; mkswap -q disk.img");
        Self::of(lab, options)
    }

    fn of(lab: Lab, options: &str) -> Self {
        lab.sh(&format!(
            "qemu-img convert -f raw -O qcow2 -o {options} disk.img disk.qcow2"
        ));
        Self::places(lab)
    }

    /// docs/interop/qcow2.rst: the header's tables, with clusters of 64 KiB and counts of 16 bits.
    fn places(lab: Lab) -> Self {
        let file = std::fs::File::open(lab.file("disk.qcow2")).unwrap();
        let at = |offset| {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, offset).unwrap();
            u64::from_be_bytes(bytes) & 0x00ff_ffff_ffff_fe00
        };
        let refcounts = at(at(48));
        let first_entry = at(at(40));
        let clusters = file.metadata().unwrap().len().div_ceil(CLUSTER);
        Self {
            lab,
            refcounts,
            first_entry,
            clusters,
        }
    }

    /// The count of a cluster; 0 is free.
    fn count(&self, cluster: u64, count: u16) {
        let offset = self.refcounts + 2 * cluster;
        self.lab.patch("disk.qcow2", offset, &count.to_be_bytes());
    }

    /// Three clusters at the end that nothing uses.
    fn leak(&self) {
        let length = (self.clusters + 3) * CLUSTER;
        self.lab.sh(&format!("truncate -s {length} disk.qcow2"));
        for cluster in self.clusters..self.clusters + 3 {
            self.count(cluster, 1);
        }
    }

    fn features(&self, bits: u8) {
        self.lab.patch("disk.qcow2", 79, &[bits]);
    }

    fn look(&self, mode: &str) -> Outcome {
        self.lab.look(&format!("{mode} -a disk.qcow2"))
    }

    fn repair(&self, mode: &str) -> Outcome {
        self.lab.repair(&format!("{mode} -a disk.qcow2"))
    }

    /// qemu-img's own word on it now.
    fn qemu_img_says(&self, status: i32) {
        let (said, text) = self.lab.sh_status("qemu-img check -f qcow2 disk.qcow2");
        assert_eq!(said, Some(status), "{text}");
    }

    fn guest_sees_the_same(&self) {
        self.lab
            .sh("qemu-img compare -f raw -F qcow2 disk.img disk.qcow2");
    }
}

fn image(outcome: &Outcome) -> &Value {
    &outcome.disks().next().unwrap()["image_check"]
}

fn notes(outcome: &Outcome) -> String {
    let notes = image(outcome)["notes"].as_array().unwrap();
    let notes: Vec<_> = notes.iter().filter_map(Value::as_str).collect();
    notes.join("\n")
}

#[track_caller]
fn is(outcome: &Outcome, status: i32, verdict: &str, words: &[&str]) {
    outcome.is(status, &[]);
    assert_eq!(image(outcome)["verdict"], verdict, "{outcome}");
    for word in words {
        assert!(notes(outcome).contains(word), "{word}: {outcome}");
    }
}

#[test]
fn leaked_clusters_are_found_and_given_back() {
    for (mode, remedy) in [("-p", "leaks"), ("-y", "all")] {
        let disk = Qcow2::new("compat=1.1");
        is(&disk.look("-n"), 0, "clean", &[]);
        disk.leak();
        disk.qemu_img_says(3);
        let found = disk.look("-n");
        is(&found, 4, "errors-left", &["3 clusters", "-p"]);
        found.is(4, &[("sda", "nothing-to-check")]);
        assert_eq!(image(&found)["exit_code"], 3);
        let words = image(&found)["output"].as_str().unwrap();
        assert!(words.contains("Leaked cluster"), "{found}");
        let person = disk.lab.virt_fsck("-n -a disk.qcow2").plain();
        let person = person.changing_nothing();
        for words in [
            "image: ERRORS LEFT",
            "3 clusters",
            "1 image with ERRORS LEFT",
        ] {
            assert!(person.stdout.contains(words), "{words}: {person}");
        }

        disk.lab.sh(&format!(
            "cp disk.qcow2 truth.qcow2; qemu-img check -q -f qcow2 -r {remedy} truth.qcow2"
        ));
        let repaired = disk.repair(mode);
        is(&repaired, 1, "corrected", &["3 clusters", "given back"]);
        assert_eq!(
            disk.lab.checksum("disk.qcow2"),
            disk.lab.checksum("truth.qcow2")
        );
        disk.qemu_img_says(0);
        disk.guest_sees_the_same();
        is(&disk.look("-n"), 0, "clean", &[]);
    }
}

#[test]
fn wrong_reference_counts_stop_writing_until_they_are_right() {
    let lab = Lab::new();
    lab.damaged_ext4("disk.img");
    lab.sh("mv disk.img.repaired repaired.img");
    let disk = Qcow2::of(lab, "compat=1.1");
    disk.count(disk.clusters - 1, 0);
    disk.qemu_img_says(2);
    for mode in ["-n", "-p"] {
        let found = disk.look(mode);
        is(
            &found,
            4,
            "errors-left",
            &["reference counts are wrong", "-y"],
        );
        found.is(4, &[("sda", "errors-left")]);
    }
    let preened = disk.look("-p");
    assert!(
        preened.notes("sda").contains("image has errors"),
        "{preened}"
    );

    let repaired = disk.repair("-y");
    is(&repaired, 1, "corrected", &["made right"]);
    repaired.is(1, &[("sda", "corrected")]);
    disk.qemu_img_says(0);
    disk.lab
        .sh("qemu-img compare -f raw -F qcow2 repaired.img disk.qcow2");
    is(&disk.look("-n"), 0, "clean", &[]);
}

#[test]
fn clusters_that_are_used_twice_are_told() {
    let disk = Qcow2::new("compat=1.1");
    // The second entry in use shows what the first does.
    let file = std::fs::File::open(disk.lab.file("disk.qcow2")).unwrap();
    let mut entries = vec![0; 8 * 256];
    file.read_exact_at(&mut entries, disk.first_entry).unwrap();
    let used: Vec<_> = (0..256_usize)
        .filter(|number| entries[8 * number..8 * number + 8] != [0; 8])
        .collect();
    let [first, second] = [used[0], used[1]];
    disk.lab.patch(
        "disk.qcow2",
        disk.first_entry + 8 * second as u64,
        &entries[8 * first..8 * first + 8],
    );
    let found = disk.look("-n");
    assert_ne!(found.status, Some(0));
    assert_eq!(image(&found)["verdict"], "errors-left", "{found}");
    assert!(
        notes(&found).contains("1 cluster is used at more than one place"),
        "{found}"
    );
}

#[test]
fn damaged_tables_are_not_touched_in_any_mode() {
    for entry in [
        // Not at a cluster's begin; behind the end of the file; reserved bits.
        0x8000_0000_0005_0200_u64,
        0x8000_0000_1005_0000,
        0x8f00_0000_0005_0000,
    ] {
        let disk = Qcow2::new("compat=1.1");
        disk.lab
            .patch("disk.qcow2", disk.first_entry, &entry.to_be_bytes());
        disk.qemu_img_says(2);
        for mode in ["-n", "-p", "-y", "--list"] {
            let outcome = disk.look(mode);
            outcome
                .is(8, &[("sda", "failed")])
                .says("sda", &["disk.qcow2", "damaged", "repair a copy"]);
            if mode != "--list" {
                assert_eq!(image(&outcome)["verdict"], "failed", "{outcome}");
                assert!(
                    image(&outcome)["output"]
                        .as_str()
                        .unwrap()
                        .contains("ERROR")
                );
            }
        }
    }
}

#[test]
fn the_mark_for_a_corrupt_image_stops_writing() {
    let lab = Lab::new();
    lab.damaged_ext4("disk.img");
    lab.sh("mv disk.img.repaired repaired.img");
    let disk = Qcow2::of(lab, "compat=1.1");
    disk.features(2);
    disk.lab
        .sh("qemu-img info disk.qcow2 | grep -q 'corrupt: true'");
    for mode in ["-n", "-p"] {
        let found = disk.look(mode);
        is(&found, 4, "errors-left", &["mark for a corrupt one", "-y"]);
        found.is(4, &[("sda", "errors-left")]);
    }
    let repaired = disk.repair("-y");
    is(&repaired, 1, "corrected", &["mark", "taken off"]);
    disk.lab
        .sh("qemu-img info disk.qcow2 | grep -q 'corrupt: false'");
    disk.lab
        .sh("qemu-img compare -f raw -F qcow2 repaired.img disk.qcow2");
}

/// As a crash of the host leaves it.
fn not_closed() -> Qcow2 {
    let disk = Qcow2::new("lazy_refcounts=on");
    disk.lab
        .sh("qemu-io -f qcow2 -c 'write -P 7 12M 1M' -c abort disk.qcow2 >/dev/null 2>&1 || :");
    disk.lab
        .sh("qemu-img convert -f qcow2 -O raw disk.qcow2 disk.img");
    disk.lab
        .sh("qemu-img info disk.qcow2 >info.log; qemu-img check disk.qcow2 >said.log 2>&1 || :");
    disk
}

#[test]
fn an_image_that_was_not_closed_is_brought_up_to_date() {
    for mode in ["-p", "-y"] {
        let disk = not_closed();
        disk.qemu_img_says(2);
        let found = disk.look("-n");
        is(&found, 4, "errors-left", &["not closed", "-p"]);
        let repaired = disk.repair(mode);
        is(&repaired, 1, "corrected", &["up to date now"]);
        disk.qemu_img_says(0);
        disk.guest_sees_the_same();
        is(&disk.look("-n"), 0, "clean", &[]);
    }
}

#[test]
fn what_may_not_be_written_is_not_repaired() {
    let disk = Qcow2::new("compat=1.1");
    disk.leak();
    let of = "type='file'|<driver name='qemu' type='qcow2'/><source file='@/disk.qcow2'/>";
    disk.lab.domain(&[&format!("{of}<readonly/>")]);
    let outcome = disk.lab.look("-y --xml vm1.xml");
    is(&outcome, 4, "errors-left", &["3 clusters"]);
    assert!(!notes(&outcome).contains("-p"), "{outcome}");
    // Nor what was not asked for, and then nothing is told of it.
    disk.lab.sh("cp disk.img other.img");
    let other = "type='file'|<driver name='qemu' type='raw'/><source file='@/other.img'/>";
    disk.lab.domain(&[of, other]);
    let outcome = disk.lab.look("-y --xml vm1.xml --disk vdb");
    outcome.is(0, &[("vdb", "nothing-to-check")]);
    assert!(image(&outcome).is_null(), "{outcome}");
    // Nor with --list and --dry-run, which tell.
    for mode in ["--list", "-y --dry-run"] {
        let outcome = disk.lab.look(&format!("{mode} --xml vm1.xml"));
        outcome.is(0, &[]);
        let told = outcome.disks().next().unwrap()["notes"].to_string();
        assert!(told.contains("3 clusters"), "{outcome}");
    }
}

#[test]
fn the_calls_of_a_dry_run_can_be_pasted() {
    let disk = Qcow2::new("compat=1.1");
    disk.leak();
    for (mode, remedy, status) in [
        ("-n", None, 3),
        ("-p", Some("leaks"), 0),
        ("-y", Some("all"), 0),
    ] {
        let planned = disk.look(&format!("{mode} --dry-run"));
        planned.is(0, &[]);
        let plan = planned.json["domains"][0]["plan"].as_array().unwrap();
        let calls: Vec<_> = plan
            .iter()
            .filter_map(Value::as_str)
            .filter(|call| call.starts_with("qemu-img check"))
            .collect();
        let last = calls.last().unwrap();
        assert_eq!(calls.len(), 1 + usize::from(remedy.is_some()));
        if let Some(remedy) = remedy {
            assert!(last.contains(&format!("-r {remedy} ")), "{last}");
        }
        disk.lab.sh("cp disk.qcow2 kept");
        let (ended, said) = disk.lab.sh_status(last);
        assert_eq!(ended, Some(status), "{last}: {said}");
        disk.lab.sh("mv kept disk.qcow2");
    }
}

#[test]
fn images_under_it_are_never_written() {
    let disk = Qcow2::new("compat=1.1");
    disk.lab.sh(
        "qemu-img create -q -f qcow2 -b disk.qcow2 -F qcow2 top.qcow2\n\
         qemu-io -f qcow2 -c 'write -z 15M 64k' top.qcow2 >/dev/null",
    );
    disk.leak();
    let before = disk.lab.checksum("disk.qcow2");
    let with = "-a top.qcow2 --image-format qcow2";
    let leaks = disk.lab.repair(&format!("-y {with}"));
    is(&leaks, 0, "clean", &["disk.qcow2", "3 clusters"]);
    disk.count(disk.clusters - 1, 0);
    disk.qemu_img_says(2);
    let errors = disk.lab.repair(&format!("-y {with}"));
    is(&errors, 4, "errors-left", &["disk.qcow2", "never written"]);
    disk.count(disk.clusters - 1, 1);
    assert_eq!(disk.lab.checksum("disk.qcow2"), before);
}

#[test]
fn with_internal_snapshots_and_a_data_file() {
    let disk = Qcow2::new("compat=1.1");
    disk.lab.sh("qemu-img snapshot -c one disk.qcow2");
    let disk = Qcow2::places(disk.lab);
    disk.leak();
    is(&disk.repair("-p"), 1, "corrected", &["3 clusters"]);
    disk.qemu_img_says(0);
    disk.lab.sh(
        "qemu-img convert -q -f qcow2 -l one -O raw disk.qcow2 then.img; cmp then.img disk.img",
    );

    let disk = Qcow2::new("data_file=data,data_file_raw=on");
    disk.leak();
    let outcome = disk.lab.repair("-p -a disk.qcow2 --image-format qcow2");
    is(&outcome, 1, "corrected", &["3 clusters"]);
    disk.qemu_img_says(0);
    disk.lab.sh("cmp data disk.img");
}

#[test]
fn on_a_device_without_room() {
    if !is_root() {
        return;
    }
    let disk = Qcow2::new("compat=1.1");
    disk.leak();
    // All clusters are in use: a new table of counts has no place.
    disk.count(disk.clusters - 1, 0);
    let device = Loop::attach(&disk.lab, "", "disk.qcow2");
    disk.lab.domain(&[&format!(
        "type='block'|<driver name='qemu' type='qcow2'/><source dev='{}'/>",
        device.device
    )]);
    disk.lab.sh(&format!(
        "cp disk.qcow2 truth.qcow2; blockdev --flushbufs {}",
        device.device
    ));
    let found = disk.lab.look("-n --xml vm1.xml");
    is(&found, 4, "errors-left", &["reference counts"]);
    let outcome = disk.lab.repair("-y --xml vm1.xml");
    match outcome.status {
        Some(1) => is(&outcome, 1, "corrected", &[]),
        _ => {
            outcome
                .is(8, &[("vda", "failed")])
                .says("vda", &["could not repair", "No space left"]);
        }
    }
    disk.guest_sees_the_same();
}

#[test]
fn somebody_has_it_open() {
    let disk = Qcow2::new("compat=1.1");
    disk.leak();
    let other = Helper::start(
        disk.lab
            .command("qemu-nbd")
            .args(["-r", "-t", "-k"])
            .arg(disk.lab.file("socket"))
            .args(["-f", "qcow2", "disk.qcow2"]),
    );
    other.wait_for(&disk.lab, "socket");
    // Who only reads does not keep others from looking, but from writing.
    let outcome = disk.repair("-y");
    drop(other);
    outcome
        .is(64, &[("sda", "refused")])
        .says("sda", &["in use", "lsof"]);
    disk.qemu_img_says(3);
}

#[test]
fn a_signal_waits_for_a_repair_and_ends_a_look() {
    let lab = Lab::new();
    lab.ext4("disk.img");
    let disk = Qcow2::of(lab, "compat=1.1");
    disk.leak();
    disk.lab.script(
        "tools/qemu-img",
        "if [[ $* == *'-r leaks'* ]]; then touch repairing; sleep 2; fi\n\
         exec /usr/bin/qemu-img \"$@\"\n",
    );
    let mut running = disk
        .lab
        .virt_fsck("-p -a disk.qcow2")
        .tools_in("tools")
        .start();
    running.wait_for("repairing");
    running.signal(rustix::process::Signal::INT);
    let outcome = running.finish();
    assert_eq!(image(&outcome)["verdict"], "corrected", "{outcome}");
    assert_eq!(outcome.status, Some(33), "{outcome}");
    disk.qemu_img_says(0);

    disk.leak();
    disk.lab.script(
        "tools/qemu-img",
        "if [[ $1 == check ]]; then touch looking; exec sleep 600; fi\n\
         exec /usr/bin/qemu-img \"$@\"\n",
    );
    let mut running = disk
        .lab
        .virt_fsck("-p -a disk.qcow2")
        .tools_in("tools")
        .start();
    running.wait_for("looking");
    running.signal(rustix::process::Signal::INT);
    running.finish().is(32, &[("sda", "interrupted")]);
    disk.qemu_img_says(3);
}

/// CRC-32C, as VHDX uses it.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0x82f6_3b78 * (sum & 1))
        })
    })
}

/// Puts an entry into the log of a VHDX (MS-VHDX, 2.3) that has not reached its place: 4096 zeros for
/// the end of the file, where there are zeros already.
fn with_a_log(lab: &Lab, name: &str) {
    let mut image = std::fs::read(lab.file(name)).unwrap();
    let end = image.len() as u64;
    let long = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().unwrap());
    let header = match long(65_536 + 8) > long(131_072 + 8) {
        true => 65_536,
        false => 131_072,
    };
    let log = usize::try_from(long(header + 72)).unwrap();
    let guid = [7; 16];
    let mut entry = [0; 4096];
    let fields: [(usize, &[u8]); 10] = [
        (0, b"loge"),
        (8, &4096_u32.to_le_bytes()),
        (16, &1_u64.to_le_bytes()),
        (24, &1_u32.to_le_bytes()),
        (32, &guid),
        (48, &end.to_le_bytes()),
        (56, &end.to_le_bytes()),
        (64, b"zero"),
        (72, &4096_u64.to_le_bytes()),
        (80, &(end - 4096).to_le_bytes()),
    ];
    for (at, bytes) in fields {
        entry[at..at + bytes.len()].copy_from_slice(bytes);
    }
    entry[88..96].copy_from_slice(&1_u64.to_le_bytes());
    let sum = crc32c(&entry);
    entry[4..8].copy_from_slice(&sum.to_le_bytes());
    image[log..log + 4096].copy_from_slice(&entry);
    image[header + 48..header + 64].copy_from_slice(&guid);
    image[header + 4..header + 8].fill(0);
    let sum = crc32c(&image[header..header + 4096]);
    image[header + 4..header + 8].copy_from_slice(&sum.to_le_bytes());
    lab.write(name, image);
}

#[test]
fn the_log_of_a_vhdx_is_replayed_where_something_may_be_written() {
    let lab = Lab::new();
    lab.sh(
        "head -c 1M /dev/urandom >disk.img; truncate -s 16M disk.img; mkswap -q disk.img\n\
         qemu-img convert -f raw -O vhdx disk.img disk.vhdx",
    );
    with_a_log(&lab, "disk.vhdx");
    let (status, said) = lab.sh_status("qemu-img check -f vhdx disk.vhdx");
    assert_eq!(status, Some(1), "{said}");
    for mode in ["-n", "--list"] {
        lab.look(&format!("{mode} -a disk.vhdx --image-format vhdx"))
            .is(8, &[("sda", "failed")])
            .says("sda", &["disk.vhdx", "not closed", "-p"]);
    }
    let repaired = lab.repair("-p -a disk.vhdx --image-format vhdx");
    is(&repaired, 1, "corrected", &["log was replayed"]);
    lab.sh("qemu-img check -f vhdx disk.vhdx; qemu-img compare -f raw -F vhdx disk.img disk.vhdx");
    let clean = lab.look("-n -a disk.vhdx --image-format vhdx");
    is(&clean, 0, "clean", &[]);
}
