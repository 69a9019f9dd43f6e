//! Every domain in libvirt's own test suite, read here and by `tests/corpus/xpath_disks.py`: both must
//! tell the same disks.
//!
//!     dir=$(tests/corpus/fetch libvirt)
//!     python3 tests/corpus/xpath_disks.py "$dir" >truth.tsv
//!     VIRT_FSCK_CORPUS=$dir VIRT_FSCK_CORPUS_TRUTH=truth.tsv cargo test --test corpus_xml -- --ignored --nocapture

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::path::Path;

use quick_xml::Reader;
use quick_xml::events::Event;
use virt_fsck::domain::model::{Disk, Source};
use virt_fsck::domain::xml::{XmlError, parse};

/// Domains that libvirt's own tests expect its reader to refuse, and that are refused here: (file name, sentence).
const REFUSED: &[(&str, &str)] = &[(
    // a PARSE_ERROR of libvirt's tests for the QEMU driver
    "luks-disks-source-both.xml",
    "disk vda (line 17): it has an <encryption> of its own and another under its source",
)];

/// One file, as the other reader tells it.
struct Expected {
    path: String,
    kind: String,
    /// For each domain the type and source of each disk.
    domains: Vec<Vec<(String, String)>>,
}

#[test]
#[ignore = "needs libvirt's source: make corpus"]
fn corpus_of_libvirt() {
    let variable = |name| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let corpus = variable("VIRT_FSCK_CORPUS");
    let truth = std::fs::read_to_string(variable("VIRT_FSCK_CORPUS_TRUTH")).expect("the truth");
    let files = read_truth(&truth);

    let mut problems = Vec::new();
    let (mut domains, mut disks, mut with_disks, mut refused) = (0, 0, 0, 0);
    for expected in &files {
        let text =
            std::fs::read_to_string(Path::new(&corpus).join(&expected.path)).expect(&expected.path);
        let texts = match expected.kind.as_str() {
            "domain" => vec![text],
            "disk" => vec![wrapped(&text)],
            "nested" => {
                check_refused_as_whole(&text, &expected.path, &mut problems);
                domains_in(&text)
            }
            "malformed" => {
                if parse(&text).is_ok() {
                    problems.push(format!(
                        "{}: malformed, but not seen as such",
                        expected.path
                    ));
                }
                continue;
            }
            other => panic!("unknown kind {other}"),
        };
        if texts.len() != expected.domains.len() {
            problems.push(format!("{}: {} domains", expected.path, texts.len()));
        }
        with_disks += usize::from(expected.domains.iter().any(|disks| !disks.is_empty()));
        for (text, expected_disks) in texts.iter().zip(&expected.domains) {
            match parse(text) {
                Ok(domain) => {
                    let found: Vec<_> = domain.disks.iter().map(told).collect();
                    if &found != expected_disks {
                        problems.push(format!(
                            "{}:\n  read     {found:?}\n  expected {expected_disks:?}",
                            expected.path
                        ));
                    }
                    domains += 1;
                    disks += found.len();
                }
                Err(error) if is_listed(&expected.path, &error) => {
                    println!("refused, as by libvirt: {}: {error}", expected.path);
                    refused += 1;
                }
                Err(error) => problems.push(format!("{}: {error}", expected.path)),
            }
        }
    }
    assert!(
        problems.is_empty(),
        "{} differ:\n{}",
        problems.len(),
        problems.join("\n")
    );
    assert_eq!(
        refused,
        REFUSED.len(),
        "the list of refused files is out of date"
    );
    assert!(
        disks > 2000,
        "only {disks} disks: this is not libvirt's test suite"
    );
    println!(
        "{} files, {with_disks} of them with disks; {domains} domains, {disks} disks: all equal; {refused} refused",
        files.len()
    );
}

fn is_listed(path: &str, error: &XmlError) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    REFUSED.contains(&(name, error.to_string().as_str()))
}

fn read_truth(text: &str) -> Vec<Expected> {
    let mut files: Vec<Expected> = Vec::new();
    for line in text.lines() {
        let fields: Vec<_> = line.split('\t').map(unescaped).collect();
        match fields[0].as_str() {
            "file" => files.push(Expected {
                path: fields[1].clone(),
                kind: fields[2].clone(),
                domains: Vec::new(),
            }),
            "domain" => files.last_mut().unwrap().domains.push(Vec::new()),
            "disk" => {
                let file = files.last_mut().unwrap();
                let disks = file.domains.last_mut().unwrap();
                disks.push((fields[1].clone(), fields[2].clone()));
            }
            other => panic!("unknown record {other}"),
        }
    }
    files
}

fn unescaped(field: &str) -> String {
    let mut characters = field.chars();
    let mut text = String::new();
    while let Some(character) = characters.next() {
        text.push(match character {
            '\\' => match characters.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some(other) => other,
                None => panic!("a lone backslash"),
            },
            other => other,
        });
    }
    text
}

/// Type and source of a disk, in the words of the other reader.
fn told(disk: &Disk) -> (String, String) {
    let Some(source) = &disk.image.source else {
        return ("-".into(), String::new());
    };
    let path = || source.path().unwrap().to_str().unwrap().to_owned();
    let (kind, text) = match source {
        Source::File(_) => ("file", path()),
        Source::Block(_) => ("block", path()),
        Source::Directory(_) => ("dir", path()),
        Source::VhostUser(_) => ("vhostuser", path()),
        Source::VhostVdpa(_) => ("vhostvdpa", path()),
        Source::Volume { pool, volume } => ("volume", format!("{pool}/{volume}")),
        Source::Network { protocol, name } => (
            "network",
            format!("{protocol}:{}", name.as_deref().unwrap_or_default()),
        ),
        Source::Nvme { address, namespace } => ("nvme", format!("{address}/{namespace}")),
        Source::Other { kind } => (kind.as_str(), String::new()),
    };
    (kind.to_owned(), text)
}

/// A lone `<disk>` in the smallest domain that has one.
fn wrapped(disk: &str) -> String {
    let element = disk.find("<disk").expect("a disk");
    format!(
        "<domain><name>d</name><devices>{}</devices></domain>",
        &disk[element..]
    )
}

/// The text around a domain is refused for what it is, with a sentence of its own.
fn check_refused_as_whole(text: &str, path: &str, problems: &mut Vec<String>) {
    match parse(text) {
        Err(
            XmlError::RunningDomain
            | XmlError::Snapshot
            | XmlError::Checkpoint
            | XmlError::Backup
            | XmlError::NotADomain { .. },
        ) => {}
        other => problems.push(format!("{path}: as a whole: {other:?}")),
    }
}

/// Each `<domain>` that has a `<name>`, cut out of the text around it.
fn domains_in(text: &str) -> Vec<String> {
    let mut reader = Reader::from_str(text);
    let mut found = Vec::new();
    loop {
        let begin = usize::try_from(reader.buffer_position()).unwrap();
        match reader.read_event().unwrap() {
            Event::Start(start) if start.name().into_inner() == "domain" => {
                reader.read_to_end(start.name()).unwrap();
                let end = usize::try_from(reader.buffer_position()).unwrap();
                if text[begin..end].contains("<name>") {
                    found.push(text[begin..end].to_owned());
                }
            }
            Event::Eof => return found,
            _ => {}
        }
    }
}
