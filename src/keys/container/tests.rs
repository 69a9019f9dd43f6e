use std::path::Path;

use rustix::termios::LocalModes;

use super::*;
use crate::keys::terminal::tests::Pty;

/// Takes nothing but `right`, and notes what it was given.
async fn trial(
    keys: &mut Keys,
    container: &Container,
    right: &[u8],
) -> (Result<(), KeyError<std::io::Error>>, Vec<String>) {
    let mut interrupt = Interrupt::listen().unwrap();
    let mut given = Vec::new();
    let outcome = keys
        .open(container, &mut interrupt, async |key: &Key| {
            let (bytes, shown) = match key {
                Key::File(file) => (
                    std::fs::read(&file.path).unwrap(),
                    format!("file {}", file.path.file_name().unwrap().display()),
                ),
                Key::Passphrase(passphrase) => {
                    let bytes = passphrase.bytes().to_vec();
                    let shown = String::from_utf8_lossy(&bytes).into_owned();
                    (bytes, shown)
                }
            };
            given.push(shown);
            Ok((bytes == right).then_some(()))
        })
        .await;
    (outcome, given)
}

fn keys(selectors: &[&str], terminal: &Path) -> Keys {
    Keys {
        selectors: selectors.iter().map(|text| text.parse().unwrap()).collect(),
        typed: Vec::new(),
        terminal: Terminal::at(terminal),
    }
}

fn container(file: Option<PathBuf>) -> Container {
    Container {
        shown: "/dev/mapper/cr_hd0 (on /dev/lvg2/lvhd0)".to_owned(),
        ids: vec!["cr_hd0".to_owned(), "/dev/lvg2/lvhd0".to_owned()],
        file: file.map(|path| KeyFile {
            path,
            ..KeyFile::default()
        }),
        elsewhere: None,
    }
}

#[tokio::test]
async fn the_order() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hostkey");
    std::fs::write(&file, "from the host").unwrap();
    let line = folder.path().join("line");
    std::fs::write(&line, "a line\n").unwrap();
    let by_file = format!("/dev/lvg2/lvhd0:file:{}", line.display());
    let selectors = [
        "all:key:for all",
        "other:key:other",
        "cr_hd0:key:named",
        &by_file,
    ];
    let none = folder.path().join("no terminal");
    let order = ["named", "a line", "a line\n", "file hostkey", "for all"];
    for (at, right) in ["named", "a line", "a line\n", "from the host", "for all"]
        .iter()
        .enumerate()
    {
        let mut keys = keys(&selectors, &none);
        let container = container(Some(file.clone()));
        let (outcome, given) = trial(&mut keys, &container, right.as_bytes()).await;
        assert!(outcome.is_ok(), "{right}");
        assert_eq!(given, order[..=at], "{right}");
    }
}

#[tokio::test]
async fn no_key_and_nobody_to_ask() {
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none");
    for (selectors, file, sentence) in [
        (
            &[][..],
            None,
            "there is no key for /dev/mapper/cr_hd0 (on /dev/lvg2/lvhd0); there is no terminal to \
             ask at, so give --key cr_hd0:file:FILE, or name a key file in crypttab",
        ),
        (
            &["all:key:wrong"],
            Some(none.clone()),
            "no key opens /dev/mapper/cr_hd0 (on /dev/lvg2/lvhd0): not the key file NONE, which \
             cannot be read (No such file or directory), not the passphrase of --key all; there \
             is no terminal to ask at, so give --key cr_hd0:file:FILE, or name a key file in \
             crypttab",
        ),
    ] {
        let mut keys = keys(selectors, &none);
        let (outcome, _) = trial(&mut keys, &container(file), b"right").await;
        let said = outcome.unwrap_err().to_string();
        assert_eq!(said.replace(&none.display().to_string(), "NONE"), sentence);
    }
}

#[tokio::test]
async fn the_terminal_is_asked_three_times_and_its_answer_serves_again() {
    let pty = Pty::new();
    let mut keys = keys(&[], &pty.path);
    let typed = pty.types(&["wrong\n", "right\n"]);
    let (outcome, given) = trial(&mut keys, &container(None), b"right").await;
    outcome.unwrap();
    assert_eq!(given, ["wrong", "right"]);
    let shown = typed.join().unwrap();
    let question = "Passphrase for /dev/mapper/cr_hd0 (on /dev/lvg2/lvhd0): ";
    assert_eq!(shown.matches(question).count(), 2);
    assert!(!shown.contains("wrong"), "{shown}");
    assert!(pty.modes().contains(LocalModes::ECHO));

    let (outcome, given) = trial(&mut keys, &container(None), b"right").await;
    outcome.unwrap();
    assert_eq!(given, ["right"]);

    let typed = pty.types(&["a\n", "b\n", "c\n"]);
    let (outcome, given) = trial(&mut keys, &container(None), b"other").await;
    assert_eq!(given, ["right", "a", "b", "c"]);
    let said = outcome.unwrap_err().to_string();
    assert!(said.ends_with("not what was typed 3 times"), "{said}");
    typed.join().unwrap();
}
