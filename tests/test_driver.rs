//! virt-fsck against libvirt's built-in test driver: no daemon, no rights, any state a domain can be in.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod support;

use support::lab::Lab;
use support::outcome::Outcome;

/// `virDomainState` (include/libvirt/libvirt-domain.h).
const RUNNING: u32 = 1;
const SHUTOFF: u32 = 5;

/// A domain of a test node.
struct Guest<'a> {
    name: &'a str,
    state: u32,
    disk: &'a str,
    more: &'a str,
}

const fn guest<'a>(name: &'a str, state: u32, disk: &'a str) -> Guest<'a> {
    Guest {
        name,
        state,
        disk,
        more: "",
    }
}

fn uuid(index: usize) -> String {
    format!("d0000001-0000-4000-8000-{index:012}")
}

/// A node of these domains; what `-c` takes.
fn node(lab: &Lab, guests: &[Guest<'_>]) -> String {
    let folder = lab.path().display();
    let mut text = "<node xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>\n".to_owned();
    for (index, guest) in guests.iter().enumerate() {
        text += &format!(
            "<domain type='test'><name>{}</name><uuid>{}</uuid><memory>4096</memory><os><type>hvm</type></os>
             <devices><disk type='file' device='disk'><driver name='qemu' type='raw'/>
             <source file='{folder}/{}'/><target dev='vda' bus='virtio'/></disk></devices>
             <test:runstate>{}</test:runstate>{}</domain>\n",
            guest.name,
            uuid(index),
            guest.disk,
            guest.state,
            guest.more
        );
    }
    let file = lab.write("node.xml", text + "</node>\n");
    format!("test://{}", file.display())
}

/// A folder with the image `disk`.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.ext4("disk");
    lab
}

/// Name and verdict of each domain; the verdict of its disk vda where it has none of its own.
fn domains(outcome: &Outcome) -> Vec<(&str, &str)> {
    let domains = outcome.json["domains"].as_array().unwrap();
    domains
        .iter()
        .map(|domain| {
            let name = domain["name"].as_str().unwrap();
            let inside = &domain["disks"][0]["layer"]["result"]["verdict"];
            let verdict = domain["verdict"].as_str().or(inside.as_str());
            (name, verdict.unwrap())
        })
        .collect()
}

#[test]
fn only_a_shut_off_domain_is_touched() {
    let lab = lab();
    for (state, words) in [
        (1, "is running"),
        (2, "is running"),
        (3, "is paused"),
        (4, "is still shutting down"),
        (5, ""),
        (6, "is crashed"),
        (7, "is suspended to memory"),
    ] {
        let uri = node(&lab, &[guest("vm", state, "disk")]);
        for mode in ["-n", "-y", "--list"] {
            let run = format!("-c {uri} -d vm {mode}");
            if state == SHUTOFF {
                lab.repair(&run).is(0, &[]);
            } else {
                lab.look(&run)
                    .is(64, &[("domain", "refused")])
                    .says("domain", &["domain vm", words, "; "]);
            }
        }
    }
}

#[test]
fn a_managed_save_is_refused() {
    let lab = lab();
    let mut saved = guest("vm", SHUTOFF, "disk");
    saved.more = "<test:hasmanagedsave>true</test:hasmanagedsave>";
    let uri = node(&lab, &[saved]);
    lab.look(&format!("-c {uri} -d vm -y"))
        .is(64, &[("domain", "refused")])
        .says(
            "domain",
            &["with its memory saved", "virsh start --force-boot"],
        );
}

#[test]
fn a_disk_of_an_active_domain_is_refused() {
    let lab = lab();
    lab.sh("ln disk same");
    let uri = node(
        &lab,
        &[guest("off", SHUTOFF, "disk"), guest("on", RUNNING, "same")],
    );
    lab.look(&format!("-c {uri} -d off -y"))
        .is(64, &[("vda", "refused")])
        .says(
            "vda",
            &[
                "/disk is in use by the active domain on (its disk vda)",
                "virsh shutdown on",
            ],
        );
}

#[test]
fn domains_are_named_by_name_or_uuid_and_done_once() {
    let lab = lab();
    lab.sh("cp disk disk2");
    let uri = node(
        &lab,
        &[
            guest("one", SHUTOFF, "disk"),
            guest("two", SHUTOFF, "disk2"),
        ],
    );
    let (first, second) = (uuid(0), uuid(1));
    let both = [("two", "clean"), ("one", "clean")];
    for (asked, told) in [
        ("-d one", &both[1..]),
        ("-d two -d one", &both),
        ("-d one -d one", &both[1..]),
        (&format!("-d {second} -d one -d two -d {first}"), &both),
    ] {
        let outcome = lab.look(&format!("-c {uri} -n {asked}"));
        assert_eq!(domains(outcome.is(0, &[])), told, "{asked}");
    }
}

#[test]
fn a_domain_called_like_the_uuid_of_another() {
    let lab = lab();
    lab.sh("cp disk disk2");
    let name = uuid(1);
    let uri = node(
        &lab,
        &[
            guest(&name, SHUTOFF, "disk"),
            guest("two", SHUTOFF, "disk2"),
        ],
    );
    // As virsh finds it: the name counts first.
    let outcome = lab.look(&format!("-c {uri} -n -d {name}"));
    assert_eq!(domains(outcome.is(0, &[])), [(name.as_str(), "clean")]);
}

#[test]
fn an_unknown_domain_does_not_stop_the_others() {
    let lab = lab();
    let uri = node(&lab, &[guest("one", SHUTOFF, "disk")]);
    let outcome = lab.look(&format!("-c {uri} -n -d nobody -d one"));
    outcome.is(8, &[("domain", "failed")]).says(
        "domain",
        &[
            &format!("there is no domain nobody at {uri}"),
            &format!("virsh -c {uri} list --all"),
        ],
    );
    assert_eq!(domains(&outcome), [("nobody", "failed"), ("one", "clean")]);
}

#[test]
fn all_inactive_is_what_is_shut_off() {
    let lab = lab();
    lab.sh("for n in 2 3 4; do cp disk disk$n; done");
    let uri = node(
        &lab,
        &[
            guest("zulu", SHUTOFF, "disk"),
            guest("running", RUNNING, "disk2"),
            guest("paused", 3, "disk3"),
            guest("alpha", SHUTOFF, "disk4"),
        ],
    );
    let outcome = lab.look(&format!("-c {uri} -n --all-inactive"));
    assert_eq!(
        domains(outcome.is(0, &[])),
        [("alpha", "clean"), ("zulu", "clean")]
    );
}

#[test]
fn the_default_node_has_one_running_domain() {
    let lab = Lab::new();
    lab.look("-c test:///default -d test -n")
        .is(64, &[("domain", "refused")])
        .says("domain", &["domain test is running", "virsh shutdown test"]);
    let outcome = lab.look("-c test:///default --all-inactive -n");
    assert_eq!(domains(outcome.is(0, &[])), []);
}

#[test]
fn no_libvirt_is_one_sentence() {
    let lab = Lab::new();
    for uri in ["qemu:///system?socket=/no/such/socket", "nonsense:///x"] {
        lab.look(&format!("-c {uri} -d vm -n"))
            .complains(&["libvirt", uri]);
    }
}
