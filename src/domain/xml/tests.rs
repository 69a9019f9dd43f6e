//! Hostile and broken texts: each ends in a sentence, none in a panic, an overflow or a long wait.

use proptest::prelude::*;

use super::error::{DiskProblem, Place};
use super::{XmlError, parse};
use crate::domain::model::{Backing, Domain, SecretName};

fn domain(devices: &str) -> String {
    format!("<domain><name>d</name><devices>{devices}</devices></domain>")
}

fn chain(length: usize) -> String {
    let begin = "<backingStore type='file'><format type='raw'/><source file='/a'/>";
    let (begin, end) = (begin.repeat(length), "</backingStore>".repeat(length));
    domain(&format!(
        "<disk><source file='/top'/>{begin}{end}<target dev='vda'/></disk>"
    ))
}

/// Reads and drops on a stack far smaller than any thread that does so in earnest.
fn parse_on_small_stack(xml: String) -> Result<Domain, XmlError> {
    std::thread::Builder::new()
        .stack_size(256 << 10)
        .spawn(move || parse(&xml).inspect(|domain| drop(domain.clone())))
        .expect("a thread")
        .join()
        .expect("no panic")
}

fn malformed_what(xml: &str) -> String {
    match parse(xml) {
        Err(XmlError::Malformed { what, .. }) => what,
        other => panic!("{xml:.60}: {other:?}"),
    }
}

#[test]
fn a_chain_is_read_up_to_its_bound() {
    let read = parse_on_small_stack(chain(200)).unwrap();
    let mut backing = &read.disks[0].backing;
    let mut length = 0;
    while let Backing::Given(under) = backing {
        backing = &under.backing;
        length += 1;
    }
    assert_eq!((length, backing), (200, &Backing::AsRecorded));

    assert_eq!(
        parse_on_small_stack(chain(201)),
        Err(XmlError::Disk {
            disk: "vda".into(),
            line: 1,
            problem: DiskProblem::ChainTooLong { limit: 200 },
        })
    );
}

#[test]
fn the_destination_of_a_block_job() {
    let destination = |xml: &str| {
        let disk = &parse(&domain(xml)).unwrap().disks[0];
        let mirror = disk.mirror.as_ref().unwrap();
        mirror.destination.as_ref().map(ToString::to_string)
    };
    let block = "<disk><mirror type='block' job='copy' ready='yes'><format type='raw'/>\
        <source dev='/dev/vg/copy' index='3'/></mirror><source file='/a'/></disk>";
    assert_eq!(destination(block).as_deref(), Some("/dev/vg/copy"));
    let old = "<disk><mirror file='/copy' format='raw'/><source file='/a'/></disk>";
    assert_eq!(destination(old).as_deref(), Some("/copy"));
    assert_eq!(
        destination("<disk><mirror/><source file='/a'/></disk>"),
        None
    );
}

#[test]
fn a_shared_base_of_transient_changes() {
    let disk = |xml: &str| parse(&domain(xml)).unwrap().disks.remove(0);
    let shared = disk("<disk><source file='/a'/><transient shareBacking='yes'/></disk>");
    assert!(shared.transient && shared.shares_backing);
    let own = disk("<disk><source file='/a'/><transient/></disk>");
    assert!(own.transient && !own.shares_backing);
}

#[test]
fn a_chain_is_read_in_any_order_and_only_once() {
    let xml = "<disk><mirror><backingStore type='file'><format type='raw'/><source file='/m'/>\
        </backingStore></mirror><backingStore type='file'><backingStore type='file'><backingStore/>\
        <source file='/c'/><format type='raw'/></backingStore><format type='qcow2'/>\
        <future><backingStore/></future><source file='/b'/>\
        </backingStore><source file='/a'/></disk>";
    let read = parse(&domain(xml)).unwrap();
    let mut paths = Vec::new();
    let mut backing = &read.disks[0].backing;
    while let Backing::Given(under) = backing {
        paths.push(under.image.source.as_ref().unwrap().to_string());
        backing = &under.backing;
    }
    assert_eq!(paths, ["/b", "/c"]);
    assert_eq!(backing, &Backing::None);

    for forked in [
        "<disk><backingStore/><backingStore/></disk>",
        "<disk><backingStore type='file'><format type='raw'/><source file='/b'/><backingStore/>\
         <backingStore/></backingStore></disk>",
    ] {
        match parse(&domain(forked)) {
            Err(XmlError::Disk { problem, .. }) => assert_eq!(problem, DiskProblem::Forked),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn nesting_is_bounded_anywhere() {
    for (begin, end) in [
        ("<backingStore>", "</backingStore>"),
        ("<disk><x>", "</x></disk>"),
        ("<f:x>", "</f:x>"),
    ] {
        let deep = |count| domain(&format!("{}{}", begin.repeat(count), end.repeat(count)));
        let read = parse_on_small_stack(deep(100));
        assert!(read.is_ok(), "{begin}: {read:?}");
        let error = parse_on_small_stack(deep(100_000)).unwrap_err();
        assert!(
            matches!(error, XmlError::TooDeep { limit: 256, .. }),
            "{begin}: {error}"
        );
    }
    let error = parse_on_small_stack(chain(10_000)).unwrap_err();
    assert!(
        matches!(error, XmlError::TooDeep { limit: 256, .. }),
        "{error}"
    );
}

#[test]
fn length_disks_and_attributes_are_bounded() {
    let long = domain(&" ".repeat(4 << 20));
    assert_eq!(
        parse(&long),
        Err(XmlError::TooLong {
            size: long.len(),
            limit: 4 << 20,
        })
    );

    let disk = "<disk><target dev='vda'/></disk>\n";
    let read = parse(&domain(&disk.repeat(4096))).unwrap();
    assert_eq!(read.disks[4095].target, "vda#4096");
    assert_eq!(
        parse(&domain(&disk.repeat(4097))),
        Err(XmlError::TooManyDisks { limit: 4096 })
    );

    let attributes: String = (0..300_000)
        .map(|number| format!(" a{number}=''"))
        .collect();
    assert_eq!(
        malformed_what(&format!("<domain{attributes}/>")),
        "in <domain>: more than 256 attributes"
    );
}

#[test]
fn what_is_not_well_formed_is_refused() {
    for (xml, what) in [
        (
            "<domain>\0</domain>",
            "the character U+0000, which XML does not allow",
        ),
        (
            "<domain>&#27;</domain>",
            "the character U+001B, which XML does not allow",
        ),
        (
            "<domain a='&#27;'/>",
            "in <domain>: the character U+001B, which XML does not allow",
        ),
        (
            "<domain>&#0;</domain>",
            "invalid character reference: 0x0 character is not permitted in XML",
        ),
        ("<domain>&vm;</domain>", "the entity &vm; is not defined"),
        (
            "<domain a='&'/>",
            "in <domain>: expected ; after &, or &amp; for a bare &",
        ),
        (
            "<domain a='<'/>",
            "in <domain>: expected &lt; for a bare < in a value",
        ),
        (
            "<domain a='1' b/>",
            "in <domain>: expected = after the attribute's name",
        ),
        (
            "<domain a=1/>",
            "in <domain>: expected a quote before the value",
        ),
        (
            "<domain>&lt</domain>",
            "entity or character reference not closed: `;` not found before end of input",
        ),
        (
            "<domain><!-- a -- b --></domain>",
            "forbidden string `--` was found in a comment",
        ),
        ("<domain><></domain>", "an element without a name"),
        (
            "<domain a='1",
            "attribute value not closed: `'` not found before end of input",
        ),
        (
            "<domain/>x",
            "expected the end of the text, found other text",
        ),
        (
            "</domain>",
            "close tag `</domain>` does not match any open tag",
        ),
        ("", "expected <domain>, found the end of the text"),
    ] {
        assert_eq!(malformed_what(xml), what, "{xml}");
    }
}

#[test]
fn places_count_characters_from_one() {
    let text = "äö\nxß<";
    for (offset, line, column) in [(0, 1, 1), (2, 1, 2), (5, 2, 1), (8, 2, 3), (99, 2, 4)] {
        assert_eq!(Place::of(text, offset), Place { line, column }, "{offset}");
    }
}

#[test]
fn a_byte_order_mark_and_white_space_in_values_are_taken_as_by_libvirt() {
    let read = parse(&format!(
        "\u{feff}{}",
        domain("<disk><source file='/a\tb\r\nc'/></disk>")
    ))
    .unwrap();
    let path = read.disks[0].image.source.as_ref().unwrap().to_string();
    assert_eq!(path, "/a b c");
}

#[test]
fn uuids_are_read_as_by_libvirt() {
    let digits = "0123456789abcdef0123456789ABCDEF";
    for (text, expected) in [
        (digits.to_owned(), true),
        ("01234567-89ab-cdef-0123-456789abcdef".to_owned(), true),
        (" 01 23-456789abcdef-0123456789abcdef\n".to_owned(), true),
        (digits[1..].to_owned(), false),
        (format!("{digits}0"), false),
        (format!("+{}", &digits[1..]), false),
        (format!("{{{digits}}}"), false),
        (String::new(), false),
    ] {
        let read = parse(&format!(
            "<domain><name>d</name><uuid>{text}</uuid></domain>"
        ));
        assert_eq!(read.is_ok(), expected, "{text}: {read:?}");
    }
}

#[test]
fn pci_addresses_are_numbers_as_in_c() {
    for (address, expected) in [
        (
            "domain='0x10000' bus='0xff' slot='31' function='7'",
            Some("10000:ff:1f.7"),
        ),
        ("bus='010'", Some("0000:08:00.0")),
        ("bus='0x100'", None),
        ("slot='32'", None),
        ("function='8'", None),
        ("bus='-1'", None),
        ("bus=''", None),
        ("bus='08'", None),
    ] {
        let read = parse(&domain(&format!(
            "<disk type='nvme'><source type='pci' namespace='4294967295'><address {address}/></source></disk>"
        )));
        let told = read
            .ok()
            .map(|domain| domain.disks[0].image.source.as_ref().unwrap().to_string());
        let expected = expected.map(|address| format!("nvme {address} namespace 4294967295"));
        assert_eq!(told, expected, "{address}");
    }
}

#[test]
fn secrets_have_one_name() {
    let uuid = "0a81f5b2-8403-7b23-c8d6-21ccc2f80d6f";
    let by_uuid = || Ok(Some(SecretName::Uuid(uuid.parse().unwrap())));
    let by_usage = |usage: &str| Ok(Some(SecretName::Usage(usage.to_owned())));
    for (secret, expected) in [
        (format!("uuid='{uuid}'"), by_uuid()),
        (
            "uuid='0A81F5B284037B23C8D621CCC2F80D6F'".to_owned(),
            by_uuid(),
        ),
        (
            "usage='/images/a.img'".to_owned(),
            by_usage("/images/a.img"),
        ),
        ("usage=''".to_owned(), by_usage("")),
        ("uuid='0a81f5b2'".to_owned(), Err("a UUID that is none")),
        (
            format!("uuid='{uuid}' usage='a'"),
            Err("both a UUID and a usage"),
        ),
        (String::new(), Err("neither a UUID nor a usage")),
    ] {
        let text = format!(
            "<encryption format='luks'><secret type='future'/><secret type='passphrase' {secret}/>\
             <secret type='passphrase' usage='next'/></encryption>"
        );
        for disk in [
            format!("<disk><source file='/a'/>{text}</disk>"),
            format!("<disk><source file='/a'>{text}</source></disk>"),
        ] {
            let read = match parse(&domain(&disk)) {
                Ok(read) => Ok(read.disks[0].image.encryption.clone().unwrap().secret),
                Err(XmlError::Disk {
                    problem: DiskProblem::Secret(what),
                    ..
                }) => Err(what),
                Err(other) => panic!("{other}"),
            };
            assert_eq!(read, expected, "{disk}");
        }
    }
    let none = "<disk><source file='/a'/><encryption format='luks'/></disk>";
    let read = parse(&domain(none)).unwrap();
    assert_eq!(
        read.disks[0].image.encryption.as_ref().unwrap().secret,
        None
    );
}

const SAMPLE: &str = "<domain type='kvm'><name>d&amp;</name><uuid>0123456789abcdef0123456789abcdef</uuid><devices>\
    <disk type='block' device='disk'><driver type='qcow2'/><source dev='/dev/a'><slices><slice type='storage' \
    offset='1' size='2'/></slices><encryption format='luks'><secret type='passphrase' usage='u'/></encryption></source><backingStore type='file'>\
    <format type='raw'/>\
    <source file='/b'/><backingStore/></backingStore><target dev='vda'/><readonly/><blockio \
    logical_block_size='4096'/></disk></devices></domain>";

proptest! {
    #[test]
    fn nothing_panics(text in ".{0,200}") {
        let _ = parse(&text).map_err(|error| error.to_string());
    }

    #[test]
    fn no_damage_panics(at in 0..SAMPLE.len(), length in 0..40_usize, with in "[<>/&;'=a ]{0,3}") {
        let mut text = SAMPLE.to_owned();
        let end = at.saturating_add(length).min(text.len());
        text.replace_range(at..end, &with);
        let _ = parse(&text).map_err(|error| error.to_string());
    }

    /// What stands in a path comes out as it went in, whatever needs escaping.
    #[test]
    fn paths_survive_escaping(path in "[ -~äß磁]{1,30}") {
        let escaped = quick_xml::escape::escape(&path);
        let read = parse(&domain(&format!("<disk><source file=\"{escaped}\"/></disk>"))).unwrap();
        prop_assert_eq!(read.disks[0].image.source.as_ref().unwrap().to_string(), path);
    }
}
