//! What a domain is doing decides whether it may be touched.

use crate::site::Site;
use crate::support::outcome::Outcome;

const QCOW2: &str = "type='file'|<driver type='qcow2'/><source file='@/disk.qcow2'/>";

fn site_with_a_disk() -> Option<Site> {
    let site = Site::new()?;
    site.lab.ext4("filesystem");
    site.lab
        .sh("qemu-img convert -O qcow2 filesystem disk.qcow2");
    Some(site)
}

/// The names of the domains reported on.
fn domains(outcome: &Outcome) -> Vec<&str> {
    let domains = outcome.json["domains"].as_array().unwrap();
    let names = domains.iter().map(|domain| domain["name"].as_str());
    names.map(Option::unwrap).collect()
}

/// Refused, and not one byte changed, whatever is asked for.
fn is_refused(site: &Site, name: &str, words: &[&str]) {
    for mode in ["-n", "-y", "--list"] {
        site.lab
            .look(&format!("-d {name} {mode}"))
            .is(64, &[("domain", "refused")])
            .says("domain", words);
    }
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn a_shut_off_domain_is_checked_and_repaired() {
    let Some(site) = site_with_a_disk() else {
        return;
    };
    site.define("off", &[QCOW2]);
    let sound = [("vda", "clean")];
    site.lab.look("-d off -n").is(0, &sound);
    let uuid = site.virsh("domuuid off");
    let by_uuid = site.lab.look(&format!("-d {} -n", uuid.trim()));
    by_uuid.is(0, &sound);
    assert_eq!(domains(&by_uuid), ["off"]);
    assert_eq!(
        domains(site.lab.look("--all-inactive -n").is(0, &sound)),
        ["off"]
    );

    site.lab.damaged_ext4("damaged");
    site.lab.sh("qemu-img convert -O qcow2 damaged disk.qcow2");
    site.lab.look("-d off -n").is(4, &[("vda", "errors-left")]);
    site.lab.repair("-d off -y").is(1, &[("vda", "corrected")]);
    site.lab
        .sh("qemu-img convert -O raw disk.qcow2 after; cmp after damaged.repaired");
    site.lab.look("-d off -n").is(0, &sound);
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn a_running_or_paused_domain_is_refused() {
    let Some(site) = site_with_a_disk() else {
        return;
    };
    site.define("busy", &[QCOW2]);
    site.virsh("start busy");
    is_refused(
        &site,
        "busy",
        &["domain busy is running", "virsh shutdown busy"],
    );
    site.virsh("suspend busy");
    is_refused(
        &site,
        "busy",
        &["domain busy is paused", "virsh shutdown busy"],
    );
    let all = site.lab.look("--all-inactive -n");
    assert_eq!(domains(all.is(0, &[])), Vec::<&str>::new());
    site.virsh("destroy busy");
    site.lab.look("-d busy -n").is(0, &[("vda", "clean")]);
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn a_managed_save_is_refused_until_its_memory_is_dropped() {
    let Some(site) = site_with_a_disk() else {
        return;
    };
    site.define("asleep", &[QCOW2]);
    site.start_paused("asleep");
    site.virsh("managedsave asleep");
    let way_out = "virsh start --force-boot --paused asleep, then virsh destroy asleep";
    is_refused(&site, "asleep", &["its memory saved", way_out]);
    // libvirt tells this from a memory image that lies in a file elsewhere no more.
    site.virsh("managedsave-remove asleep");
    assert_eq!(
        site.virsh("domstate --reason asleep").trim(),
        "shut off (saved)"
    );
    is_refused(&site, "asleep", &["its memory was saved", way_out]);
    site.virsh("start --force-boot --paused asleep");
    site.virsh("destroy asleep");
    site.lab.look("-d asleep -n").is(0, &[("vda", "clean")]);
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn a_domain_saved_to_a_file_is_refused_until_it_is_restored() {
    let Some(site) = site_with_a_disk() else {
        return;
    };
    site.define("saved", &[QCOW2]);
    site.start_paused("saved");
    site.virsh("save saved $PWD/memory");
    is_refused(&site, "saved", &["its memory was saved", "virsh restore"]);
    site.virsh("restore --paused $PWD/memory");
    is_refused(&site, "saved", &["domain saved is paused"]);
    site.virsh("destroy saved");
    site.lab.look("-d saved -n").is(0, &[("vda", "clean")]);
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn a_domain_that_libvirt_does_not_know() {
    let Some(site) = Site::new() else {
        return;
    };
    site.lab
        .look("-d nobody -n")
        .is(8, &[("domain", "failed")])
        .says(
            "domain",
            &["there is no domain nobody at qemu:///system", "list --all"],
        );
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn an_internal_snapshot_with_memory_is_told_and_kept() {
    let Some(site) = Site::new() else {
        return;
    };
    site.lab.damaged_ext4("filesystem");
    site.lab
        .sh("qemu-img convert -O qcow2 filesystem disk.qcow2");
    site.define("vm", &[QCOW2]);
    site.start_paused("vm");
    site.virsh("snapshot-create-as vm with-memory");
    site.virsh("destroy vm");
    site.virsh("snapshot-create-as vm without-memory");
    site.lab
        .sh("qemu-img convert -l with-memory -O raw disk.qcow2 then");
    let outcome = site.lab.repair("-d vm -y");
    outcome.is(1, &[("vda", "corrected")]);
    let notes = outcome.json["domains"][0]["notes"].to_string();
    assert!(
        notes.contains("an internal snapshot holds the guest's memory"),
        "{outcome}"
    );
    site.lab.sh(
        "qemu-img convert -l with-memory -O raw disk.qcow2 now; cmp then now\n\
         qemu-img convert -O raw disk.qcow2 after; cmp after filesystem.repaired",
    );
    for name in ["with-memory", "without-memory"] {
        site.virsh(&format!("snapshot-delete vm {name}"));
    }
}

#[test]
#[ignore = "runs inside with_a_libvirtd_of_its_own"]
fn a_guest_that_has_crashed_and_was_kept_is_refused() {
    let Some(site) = site_with_a_disk() else {
        return;
    };
    let panics = "<devices><panic model='isa'><address type='isa' iobase='0x505'/></panic>";
    site.define("crashing", &[QCOW2]);
    site.virsh("dumpxml crashing >crashing.xml");
    site.lab.sh(&format!(
        "sed -i \"s|<devices>|<on_crash>preserve</on_crash>{panics}|; \
         /<on_crash>destroy/d\" crashing.xml; virsh -q -c qemu:///system define crashing.xml"
    ));
    site.start_paused("crashing");
    // The I/O port of pvpanic, as the guest's kernel writes to it when it panics.
    site.virsh("qemu-monitor-command crashing --hmp 'o /b 0x505 1'");
    let state = site.virsh("domstate --reason crashing");
    is_refused(&site, "crashing", &["domain crashing is"]);
    assert!(state.contains("crashed"), "{state}");
    site.virsh("destroy crashing");
    site.lab.look("-d crashing -n").is(0, &[("vda", "clean")]);
}
