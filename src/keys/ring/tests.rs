use std::path::Path;

use rustix::termios::LocalModes;

use super::*;
use crate::config::KeyEntry;
use crate::keys::container::KeyFile;
use crate::keys::terminal::tests::Pty;
use crate::reach::lines::Origin;

const UUID: &str = "0a1b2c3d-0000-4000-8000-00000000abcd";

/// Takes nothing but `right`, and notes what it was given.
async fn trial(
    keys: &mut Keys,
    container: &Container,
    right: &str,
) -> (Result<(), KeyError<std::io::Error>>, Vec<String>) {
    let mut interrupt = Interrupt::listen().unwrap();
    let mut given = Vec::new();
    let outcome = keys
        .open(container, &mut interrupt, async |key: &Key| {
            let shown = match key {
                Key::File(file) => std::fs::read_to_string(&file.path).unwrap(),
                Key::Passphrase(key) => String::from_utf8(key.bytes().to_vec()).unwrap(),
                Key::Token => "TOKEN".to_owned(),
            };
            given.push(shown.clone());
            Ok((shown == right).then_some(()))
        })
        .await;
    (outcome, given)
}

/// A folder of key files.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    fn keys(&self, selectors: &[&str]) -> Keys {
        Keys {
            selectors: selectors.iter().map(|text| text.parse().unwrap()).collect(),
            terminal: Terminal::at(&self.path("no terminal")),
            ..Keys::default()
        }
    }
}

fn entry(id: &str, file: &Path) -> KeyEntry {
    KeyEntry {
        id: id.to_owned(),
        file: file.to_owned(),
        origin: Origin {
            file: "/etc/virt-fsck.toml".into(),
            line: 7,
        },
    }
}

fn container() -> Container {
    Container {
        shown: "/dev/mapper/cr_hd0 (on /dev/lvg2/lvhd0)".to_owned(),
        ids: ["cr_hd0", "/dev/lvg2/lvhd0", UUID]
            .map(str::to_owned)
            .into(),
        ..Container::default()
    }
}

fn askpass(script: &str) -> Vec<String> {
    ["sh", "-c", script, "sh"].map(str::to_owned).into()
}

/// One of each source, and what each gives, in the order in which they are to be tried.
fn everything(files: &Files, pty: &Pty) -> (Keys, Container, Vec<&'static str>) {
    let line = files.file("line", "a line\n");
    let mut keys = files.keys(&[
        "all:key:selected for all",
        "other:key:of another",
        "cr_hd0:key:selected",
        &format!("/dev/lvg2/lvhd0:file:{}", line.display()),
    ]);
    keys.terminal = Terminal::at(&pty.path);
    keys.config.keys = vec![
        entry("all", &files.file("5", "configured for all")),
        entry("vdb/p1", &files.file("6", "of another")),
        entry(&UUID.to_uppercase(), &files.file("7", "configured")),
    ];
    keys.config.askpass = askpass("echo program");
    keys.credentials = Some(files.path("credentials"));
    for (name, content) in [
        ("cryptsetup.passphrase", "credential of systemd"),
        ("virt-fsck.key", "credential\n"),
        ("virt-fsck.key.other", "of another"),
        (&format!("virt-fsck.key.{UUID}"), "credential of its own"),
    ] {
        files.file(&format!("credentials/{name}"), content);
    }
    keys.answered = ["answer 1", "answer 2"]
        .map(|answer| Passphrase::new(answer.as_bytes()))
        .into();
    let container = Container {
        file: Some(KeyFile {
            path: files.file("host", "of the host"),
            ..KeyFile::default()
        }),
        secret: Some(Secret::Value(Passphrase::new(b"secret"))),
        tokens: vec!["clevis".to_owned()],
        ..container()
    };
    let order = vec![
        "selected",
        "a line",
        "a line\n",
        "of the host",
        "configured",
        "secret",
        "TOKEN",
        "credential of its own",
        "credential",
        "credential\n",
        "credential of systemd",
        "selected for all",
        "configured for all",
        "answer 1",
        "answer 2",
        "program",
        "typed",
    ];
    (keys, container, order)
}

#[tokio::test]
async fn the_order() {
    let pty = Pty::new();
    for at in 0..17 {
        let files = Files::new();
        let (mut keys, container, order) = everything(&files, &pty);
        assert_eq!(order.len(), 17);
        let typed = (order[at] == "typed").then(|| pty.types(&["typed\n"]));
        let (outcome, given) = trial(&mut keys, &container, order[at]).await;
        assert!(outcome.is_ok(), "{}: {outcome:?}", order[at]);
        assert_eq!(given, order[..=at]);
        typed.map(|typed| typed.join().unwrap());
        // What somebody has answered is kept for others; nothing else is.
        let kept = keys.answered.len();
        assert_eq!(kept == 3, ["program", "typed"].contains(&order[at]));
    }
}

#[tokio::test]
async fn all_that_failed_is_told_and_no_key_is() {
    let files = Files::new();
    let pty = Pty::new();
    let (mut keys, mut container, _) = everything(&files, &pty);
    keys.terminal = Terminal::at(&files.path("no terminal"));
    keys.selectors.push("cr_hd0:clevis".parse().unwrap());
    std::fs::remove_file(files.path("7")).unwrap();
    container.secret = Some(Secret::Unreadable("it is private".to_owned()));
    container.elsewhere = Some("the TPM".to_owned());
    let (outcome, _) = trial(&mut keys, &container, "none").await;
    let said = outcome.unwrap_err().to_string();
    let said = said.replace(&files.0.path().display().to_string(), "DIR");
    assert_eq!(
        said,
        format!(
            "no key opens /dev/mapper/cr_hd0 (on /dev/lvg2/lvhd0): not the passphrase of --key \
             cr_hd0, not DIR/line of --key /dev/lvg2/lvhd0, not the token of --key cr_hd0:clevis, \
             not the key file DIR/host, not DIR/7 of [[key]] in /etc/virt-fsck.toml, line 7, which \
             cannot be read (No such file or directory), not the secret of libvirt, which cannot \
             be read (it is private), not what its tokens give (clevis), not the credential \
             DIR/credentials/virt-fsck.key.{UUID}, not the credential \
             DIR/credentials/virt-fsck.key, not the credential \
             DIR/credentials/cryptsetup.passphrase, not the passphrase of --key all, not DIR/5 of \
             [[key]] in /etc/virt-fsck.toml, line 7, not what was typed for others before, not what \
             sh gave; the host takes its key from the TPM, and virt-fsck cannot; there is no \
             terminal to ask at, so give --key cr_hd0:file:FILE, or name a key file for it in \
             /etc/virt-fsck.toml"
        )
    );
}

#[tokio::test]
async fn no_key_and_nobody_to_ask() {
    let files = Files::new();
    let (outcome, given) = trial(&mut files.keys(&[]), &container(), "right").await;
    assert_eq!(
        outcome.unwrap_err().to_string(),
        "there is no key for /dev/mapper/cr_hd0 (on /dev/lvg2/lvhd0); there is no terminal to ask \
         at, so give --key cr_hd0:file:FILE, or name a key file for it in /etc/virt-fsck.toml"
    );
    assert!(given.is_empty());
    let (outcome, given) = trial(&mut files.keys(&["all:clevis"]), &container(), "TOKEN").await;
    let said = outcome.unwrap_err().to_string();
    let wanted = "not the token of --key all:clevis, which cannot be read (it has none);";
    assert!(said.contains(wanted), "{said}");
    assert!(given.is_empty());
}

#[tokio::test]
async fn a_uuid_may_be_written_in_any_way() {
    let files = Files::new();
    for (id, opens) in [
        (UUID.to_owned(), true),
        (UUID.to_uppercase(), true),
        (UUID.replace('-', ""), true),
        (format!("UUID={UUID}"), true),
        (UUID.replace('a', "b"), false),
        ("CR_HD0".to_owned(), false),
        ("lvhd0".to_owned(), false),
    ] {
        let mut keys = files.keys(&[&format!("{id}:key:right")]);
        let (outcome, _) = trial(&mut keys, &container(), "right").await;
        assert_eq!(outcome.is_ok(), opens, "{id}");
    }
}

#[tokio::test]
async fn the_terminal_is_asked_three_times_and_its_answer_serves_again() {
    let files = Files::new();
    let pty = Pty::new();
    let mut keys = files.keys(&[]);
    keys.terminal = Terminal::at(&pty.path);
    let typed = pty.types(&["wrong\n", "right\n"]);
    let (outcome, given) = trial(&mut keys, &container(), "right").await;
    outcome.unwrap();
    assert_eq!(given, ["wrong", "right"]);
    let shown = typed.join().unwrap();
    let question = "Passphrase for /dev/mapper/cr_hd0 (on /dev/lvg2/lvhd0): ";
    assert_eq!(shown.matches(question).count(), 2);
    assert!(!shown.contains("wrong"), "{shown}");
    assert!(pty.modes().contains(LocalModes::ECHO));

    let (outcome, given) = trial(&mut keys, &container(), "right").await;
    outcome.unwrap();
    assert_eq!(given, ["right"]);

    let typed = pty.types(&["a\n", "b\n", "c\n"]);
    let (outcome, given) = trial(&mut keys, &container(), "other").await;
    assert_eq!(given, ["right", "a", "b", "c"]);
    let said = outcome.unwrap_err().to_string();
    let wanted = "not what was typed for others before, not what was typed at the terminal";
    assert!(said.ends_with(wanted), "{said}");
    typed.join().unwrap();
}

#[tokio::test]
async fn a_program_is_asked_before_the_terminal() {
    let files = Files::new();
    let pty = Pty::new();
    let count = files.file("count", "");
    let counting = |script: &str| askpass(&format!("echo >> {}; {script}", count.display()));
    let asked = || std::fs::read_to_string(&count).unwrap().lines().count();
    let mut keys = files.keys(&[]);
    keys.terminal = Terminal::at(&pty.path);

    // Another answer each time, as of a person who mistypes.
    keys.config.askpass = counting(&format!("wc -l < {}", count.display()));
    let typed = pty.types(&["typed\n"]);
    let (outcome, given) = trial(&mut keys, &container(), "typed").await;
    outcome.unwrap();
    assert_eq!(given, ["1", "2", "3", "typed"]);
    typed.join().unwrap();

    // One that always says the same is not asked again for it.
    keys.answered.clear();
    keys.config.askpass = counting("echo wrong");
    let typed = pty.types(&["typed\n"]);
    let (outcome, given) = trial(&mut keys, &container(), "typed").await;
    outcome.unwrap();
    assert_eq!(given, ["wrong", "typed"]);
    assert_eq!(asked(), 5);
    typed.join().unwrap();

    keys.answered.clear();
    keys.config.askpass = askpass("echo \"$1\"; test \"$1\" = no");
    let typed = pty.types(&["\u{4}"]);
    let (outcome, given) = trial(&mut keys, &container(), "typed").await;
    assert!(given.is_empty());
    let said = outcome.unwrap_err().to_string();
    let wanted = "not what sh gave, which cannot be read (it ended with exit status 1); no \
                  passphrase was typed, so give";
    assert!(said.contains(wanted), "{said}");
    typed.join().unwrap();

    keys.config.askpass = askpass("echo \"$1\"");
    let question = "Passphrase for /dev/mapper/cr_hd0 (on /dev/lvg2/lvhd0):";
    let (outcome, given) = trial(&mut keys, &container(), question).await;
    outcome.unwrap();
    assert_eq!(given, [question]);
}

thread_local! {
    static LOGGED: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// The log of this thread.
struct Log;

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOGGED.with_borrow_mut(|logged| logged.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Logs for the whole process, each thread for itself. A subscriber of one thread only misses
/// the events that a thread without one comes upon first:
/// <https://github.com/tokio-rs/tracing/issues/3611>.
fn log_by_thread() {
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(|| Log)
        .with_ansi(false)
        .without_time()
        .init();
    tracing::callsite::rebuild_interest_cache();
}

#[tokio::test]
async fn the_log_names_the_sources_and_never_a_key() {
    let files = Files::new();
    log_by_thread();
    let pty = Pty::new();
    let (mut keys, mut container, order) = everything(&files, &pty);
    keys.config.askpass.clear();
    container.tokens.clear();
    container.secret = Some(Secret::Unreadable("it is private".to_owned()));
    let permissions = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(files.path("7"), permissions).unwrap();
    for private in ["host", "5"] {
        let permissions = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(files.path(private), permissions).unwrap();
    }
    let typed = pty.types(&["typed\n"]);
    let (outcome, _) = trial(&mut keys, &container, "typed").await;
    outcome.unwrap();
    typed.join().unwrap();
    let text = String::from_utf8(LOGGED.take()).unwrap();
    let text = text.replace(&files.0.path().display().to_string(), "DIR");
    let named = "key for /dev/mapper/cr_hd0 (on /dev/lvg2/lvhd0): ";
    for said in [
        "the passphrase of --key cr_hd0: wrong",
        "the key file DIR/host: wrong",
        "the secret of libvirt: cannot be read: it is private",
        "DIR/5 of [[key]] in /etc/virt-fsck.toml, line 7: wrong",
        "what was typed at the terminal: right",
    ] {
        assert!(text.contains(&format!("{named}{said}\n")), "{said}: {text}");
    }
    let warned: Vec<_> = text.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].contains("others can read the key file DIR/7"));
    // Of each key one word that stands in no name of a source.
    for secret in [
        "selected for",
        "a line",
        "of the host",
        "configured for",
        "of its own",
        "answer 1",
    ] {
        assert!(order.iter().any(|key| key.contains(secret)));
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}
