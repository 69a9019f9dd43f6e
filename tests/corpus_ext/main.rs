//! Every damaged filesystem of e2fsprogs' own test suite, in a partition and in a logical volume of a qcow2 image:
//! `virt-fsck -y` must end as a bare `e2fsck -fy` does, and leave the same bytes behind, in the filesystem and
//! around it.
//!
//!     dir=$(tests/corpus/fetch e2fsprogs)
//!     VIRT_FSCK_CORPUS=$dir cargo test --release --test corpus_ext -- --ignored --nocapture

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may panic, and this one reports figures"
)]

#[path = "../support/binary.rs"]
mod binary;
#[path = "../lvm/lab.rs"]
#[expect(dead_code, reason = "made for more than this test needs")]
mod lab;
mod place;
mod trial;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use place::{Place, Template};
use trial::{Difference, Trial};

/// How many images are checked at a time.
const WORKERS: usize = 2;

/// What is known to differ, and why: (test of e2fsprogs, the difference, the reason).
const EXPLAINED: &[(&str, Difference, &str)] = &[(
    "f_crashdisk",
    Difference::OtherChecker,
    "it is the boot sector of a FAT floppy before a superblock that e2fsck cannot open; blkid takes it for \
     vfat, and so does virt-fsck",
)];

/// One damaged filesystem.
struct Damaged {
    name: String,
    content: Vec<u8>,
}

#[test]
#[ignore = "needs e2fsprogs' source: make corpus"]
fn corpus_of_e2fsprogs() {
    let corpus = std::env::var("VIRT_FSCK_CORPUS").unwrap();
    let images = read_corpus(Path::new(&corpus));
    assert!(!images.is_empty(), "no tests/f_*/image.gz in {corpus}");
    let templates = templates(&images);
    let jobs: Vec<(&Damaged, Place)> = images
        .iter()
        .flat_map(|image| Place::ALL.map(|place| (image, place)))
        .collect();
    let next = Mutex::new(jobs.iter());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let Some((image, place)) = next.lock().unwrap().next() else {
                        break;
                    };
                    let template = &templates[&(*place, place.rounded(image.content.len()))];
                    let trial = Trial::run(&image.content, template);
                    done.lock().unwrap().push((&image.name, *place, trial));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(name, place, _)| (*name, *place));
    report(images.len(), &done);
}

/// Prints the closing figures and insists that every difference is explained, and every explanation needed.
fn report(images: usize, done: &[(&String, Place, Trial)]) {
    let mut endings = BTreeMap::<String, usize>::new();
    let (mut equal, mut new_uuid) = (0, 0);
    let (mut explained, mut unexplained) = (Vec::new(), Vec::new());
    for (name, place, trial) in done {
        let Some(difference) = trial.difference else {
            equal += 1;
            *endings.entry(trial.ending()).or_default() += 1;
            continue;
        };
        if difference == Difference::NewUuid {
            new_uuid += 1;
            *endings.entry(trial.ending()).or_default() += 1;
            continue;
        }
        let line = format!("{name} in a {place}: {difference}: {}", trial.words);
        let known = EXPLAINED
            .iter()
            .find(|(known, kind, _)| known == name && *kind == difference);
        match known {
            Some((.., reason)) => explained.push(format!("{line}\n    because {reason}")),
            None => unexplained.push(line),
        }
    }
    println!(
        "{images} images x {} places: {equal} equal, {new_uuid} equal but for the random UUID that e2fsck gives a \
         filesystem without one, {} explained, {} unexplained",
        Place::ALL.len(),
        explained.len(),
        unexplained.len()
    );
    for (ending, count) in &endings {
        println!("  {count:4} times {ending}");
    }
    for line in &explained {
        println!("  explained: {line}");
    }
    for line in &unexplained {
        println!("  UNEXPLAINED: {line}");
    }
    assert!(unexplained.is_empty(), "see above");
    assert_eq!(
        explained.len(),
        EXPLAINED.len() * Place::ALL.len(),
        "an explanation explains nothing any more"
    );
}

fn read_corpus(corpus: &Path) -> Vec<Damaged> {
    let mut images = Vec::new();
    for entry in std::fs::read_dir(corpus.join("tests")).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let packed = folder.join("image.gz");
        if name.starts_with("f_") && packed.exists() {
            let unpacked = Command::new("gzip").arg("-dc").arg(&packed).output();
            let unpacked = unpacked.unwrap();
            assert!(unpacked.status.success(), "{}", packed.display());
            images.push(Damaged {
                name,
                content: unpacked.stdout,
            });
        }
    }
    images.sort_by(|one, other| one.name.cmp(&other.name));
    images
}

/// A disk for each place and size that occurs.
fn templates(images: &[Damaged]) -> BTreeMap<(Place, usize), Template> {
    let mut templates = BTreeMap::new();
    for image in images {
        for place in Place::ALL {
            let size = place.rounded(image.content.len());
            templates
                .entry((place, size))
                .or_insert_with(|| place.template(size));
        }
    }
    templates
}
