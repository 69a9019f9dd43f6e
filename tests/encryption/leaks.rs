//! No key is seen where others can look, while a run goes on and after it.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::containers::KEY;
use crate::support::lab::Lab;

/// Part of every passphrase here; nothing else has it.
const MARKER: &str = "s3cr3t-mark3r";

/// Where a word is found in what other processes can see of all that run, but not of the test itself.
fn seen_in_proc(word: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let own = std::process::id().to_string();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let name = process.file_name().to_string_lossy().into_owned();
        if name == own || !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        for what in ["cmdline", "environ"] {
            let bytes = std::fs::read(process.path().join(what)).unwrap_or_default();
            if contains(&bytes, word) {
                let shown = String::from_utf8_lossy(&bytes).replace('\0', " ");
                found.insert(format!("{what}: {shown}"));
            }
        }
    }
    found
}

fn contains(bytes: &[u8], word: &str) -> bool {
    bytes
        .windows(word.len())
        .any(|part| part == word.as_bytes())
}

/// The files below a folder that have a word in them.
fn files_with(folder: &Path, word: &str, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = path.symlink_metadata() else {
            continue;
        };
        if metadata.is_dir() {
            files_with(&path, word, found);
        } else if metadata.is_file() && metadata.blocks() < 1 << 17 {
            let bytes = std::fs::read(&path).unwrap_or_default();
            if contains(&bytes, word) {
                found.insert(path.display().to_string());
            }
        }
    }
}

/// A checker that takes its time, so that there is something to look at, and then looks itself.
const SLOW: &str = r#"
[[ $* != -V ]] || exec /usr/sbin/e2fsck -V
touch at-work
for i in {1..600}; do [[ -e go-on ]] && break; sleep 0.05; done
exec /usr/sbin/e2fsck "$@"
"#;

#[test]
fn no_key_is_seen_while_a_run_goes_on_or_after_it() {
    let lab = Lab::new();
    lab.damaged_ext4("bad.img");
    lab.encrypt("bad.img", "luks.img", "");
    lab.sh(&format!(
        "printf {MARKER}-1 >first.key; printf {MARKER}-2 >second.key\n\
         cryptsetup luksAddKey -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file {KEY} \
         luks.img first.key\n\
         qemu-img create -q --object secret,id=key,file=second.key -f qcow2 \
         -o encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10 disk.qcow2 16M\n\
         qemu-img convert --object secret,id=key,file=second.key -n bad.img --target-image-opts \
         driver=qcow2,file.filename=disk.qcow2,encrypt.key-secret=key\n\
         rm {KEY}"
    ));
    lab.domain(&[
        "type='file'|<driver name='qemu' type='raw'/><source file='@/luks.img'/>",
        "type='file'|<driver name='qemu' type='qcow2'/><source file='@/disk.qcow2'>\
         <encryption format='luks'/></source>",
    ]);
    lab.script(
        "slow/e2fsck",
        &format!("cd {}\n{SLOW}", lab.path().display()),
    );
    let keys = "--key vda:file:first.key --key vdb:file:second.key";
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut running = lab
        .virt_fsck(&format!("-vv -y --engine user {keys} --xml vm1.xml"))
        .tools_in("slow")
        .start();
    // All the tools that look for a key come before the checker.
    let mut looks = 0;
    while !lab.file("at-work").exists() {
        seen.extend(seen_in_proc(MARKER));
        looks += 1;
        assert!(looks < 100_000, "the checker does not begin");
    }
    assert!(looks > 10, "{looks}");
    seen.extend(seen_in_proc(MARKER));
    running.wait_for("at-work");
    for folder in ["run", "state", "virt-fsck"] {
        files_with(&lab.file(folder), MARKER, &mut found);
    }
    files_with(Path::new("/run/virt-fsck"), MARKER, &mut found);
    lab.write("go-on", "");
    let outcome = running.finish();
    outcome.is(1, &[("vda/luks", "corrected"), ("vdb", "corrected")]);
    assert!(seen.is_empty(), "{seen:?}");
    // What it printed, at its most talkative.
    assert!(!outcome.stdout.contains(MARKER), "{}", outcome.stdout);
    assert!(!outcome.stderr.contains(MARKER), "{}", outcome.stderr);
    files_with(lab.path(), MARKER, &mut found);
    files_with(Path::new("/var/lib/virt-fsck"), MARKER, &mut found);
    let own = ["first.key", "second.key"].map(|name| lab.file(name).display().to_string());
    found.retain(|file| !own.contains(file));
    assert!(found.is_empty(), "{found:?}");
}

/// The search sees what is there to be seen.
#[test]
fn the_search_finds_what_is_shown() {
    let lab = Lab::new();
    let word = format!("{MARKER}-shown");
    let mut child = lab
        .command("sleep")
        .arg("60")
        .env("PASSPHRASE", &word)
        .spawn()
        .unwrap();
    let mut file = std::fs::File::create(lab.file("log")).unwrap();
    writeln!(file, "the key is {word}").unwrap();
    // Its environment is there when it has begun.
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        seen = seen_in_proc(&word);
        if !seen.is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        seen.iter().any(|place| place.starts_with("environ")),
        "{seen:?}"
    );
    let mut found = BTreeSet::new();
    files_with(lab.path(), &word, &mut found);
    assert_eq!(found.len(), 1);
}
