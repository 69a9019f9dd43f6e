//! Domains that cannot be read.

use crate::support::lab::Lab;

#[test]
fn xml_that_is_none() {
    let lab = Lab::new();
    lab.sh("mkdir folder; printf '\\xff\\xfe' >binary.xml; : >empty.xml; echo hello >text.xml");
    lab.write("malformed.xml", "<domain><name>vm1</name");
    lab.write("other.xml", "<network><name>default</name></network>");
    lab.write("bomb.xml", "<".repeat(100_000));
    lab.write("deep.xml", "<a>".repeat(100_000));
    for (file, words) in [
        ("missing.xml", "No such file"),
        ("folder", "directory"),
        ("binary.xml", "binary.xml"),
        ("empty.xml", "empty.xml"),
        ("text.xml", "text.xml"),
        ("malformed.xml", "line 1"),
        ("other.xml", "network"),
        ("bomb.xml", "bomb.xml"),
        ("deep.xml", "deep.xml"),
    ] {
        lab.look(&format!("-y --xml {file}"))
            .complains(&[file, words]);
    }
    let from_input = lab
        .virt_fsck("-n --xml -")
        .input("malformed.xml")
        .changing_nothing();
    from_input.complains(&["line 1"]);
}

#[test]
fn a_domain_without_disks() {
    let lab = Lab::new();
    lab.domain(&[]);
    let outcome = lab.look("-n --xml vm1.xml");
    outcome.is(0, &[]);
    assert_eq!(outcome.json["domains"][0]["name"], "vm1");
    let from_input = lab
        .virt_fsck("-n --xml -")
        .input("vm1.xml")
        .changing_nothing();
    from_input.is(0, &[]);
    let people = lab.virt_fsck("-n --xml vm1.xml").plain().changing_nothing();
    assert!(people.stdout.contains("no disks"), "{people}");
}

#[test]
fn a_libvirt_that_is_not_there() {
    let lab = Lab::new();
    lab.look("-y -d vm1 -c qemu+unix:///system?socket=/nowhere/sock")
        .complains(&["connecting", "/nowhere/sock"]);
    lab.look("-y -d vm1 -c nonsense://")
        .complains(&["nonsense"]);
    // libvirt's test driver prints a line of its own before.
    let no_file = lab.look("-y --all-inactive -c test:///nowhere.xml");
    no_file.is(8, &[]);
    assert!(
        no_file.stderr.contains("virt-fsck: connecting"),
        "{no_file}"
    );
}

#[test]
fn domains_that_libvirt_does_not_know_or_that_are_running() {
    let lab = Lab::new();
    lab.look("-y -d vm1 -c test:///default")
        .is(8, &[("domain", "failed")])
        .says(
            "domain",
            &["no domain vm1", "test:///default", "list --all"],
        );
    // The test driver's only domain is running.
    lab.look("-y -d test -c test:///default")
        .is(64, &[("domain", "refused")])
        .says("domain", &["test", "running", "virsh shutdown test"]);
    lab.look("-n -d test -c test:///default").is(64, &[]);
    let both = lab.look("-n -d test -d vm1 -d test -c test:///default");
    both.is(72, &[]);
    assert_eq!(both.json["domains"].as_array().unwrap().len(), 2);
    let none = lab.look("-n --all-inactive -c test:///default");
    none.is(0, &[]);
    assert_eq!(none.json["domains"].as_array().unwrap().len(), 0);
}
