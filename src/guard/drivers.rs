//! The libvirt drivers of this host that have disks to tell of, besides the one that was asked for:
//! a guest of another driver, or of a user's session, may use the same file.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::domain::libvirt::Libvirt;

/// Where the daemons of the system listen for who only reads (src/remote/remote_sockets.c of
/// libvirt): those of one driver each, and the one of all.
const SYSTEM_FOLDER: &str = "/run/libvirt";

/// Where the folders of users that are logged in lie.
const USERS: &str = "/run/user";

const QEMU: &str = "qemu:///system";

/// The drivers whose domains have `<disk>`s on this host, and their own daemons' sockets. Containers
/// of LXC have filesystems, which their host mounts: those are seen as its mounts.
const SYSTEM: [(&str, &str); 3] = [
    (QEMU, "virtqemud-sock-ro"),
    ("xen:///system", "virtxend-sock-ro"),
    ("ch:///system", "virtchd-sock-ro"),
];

/// The socket of the daemon of all drivers.
const ALL_DRIVERS: &str = "libvirt-sock-ro";

/// The sockets in a user's folder; there is none for who only reads.
const SESSION: [&str; 2] = ["virtqemud-sock", "libvirt-sock"];

/// The other drivers.
#[derive(Debug, Default)]
pub struct Drivers {
    /// Those that answer.
    pub answering: Vec<Libvirt>,
    /// Why others do not.
    pub silent: Vec<String>,
}

/// A driver that may be there.
#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    uri: String,
    socket: PathBuf,
    /// The daemon at this socket serves no other driver, so it is there when the daemon is.
    is_certain: bool,
}

impl Drivers {
    /// Asks every daemon that listens. None is started but by a socket of systemd's: one that does not
    /// run has no active domain, and plain users' daemons would stay behind.
    ///
    /// `own` is the URI that is asked anyway.
    pub fn find(own: Option<&str>) -> Self {
        let mut drivers = Self::default();
        for candidate in candidates(Path::new(SYSTEM_FOLDER), &session_folders()) {
            if own == Some(candidate.uri.as_str()) {
                continue;
            }
            match UnixStream::connect(&candidate.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    let socket = candidate.socket.display();
                    let words = format!("{socket} may not be opened");
                    drivers.silent.push(words);
                    continue;
                }
                // Nobody is behind it any more.
                Err(_) => continue,
            }
            match Libvirt::connect(&candidate.uri) {
                Ok(libvirt) => drivers.answering.push(libvirt),
                Err(error) if candidate.is_certain => drivers.silent.push(error.to_string()),
                Err(_) => {}
            }
        }
        drivers
    }
}

/// What may answer.
fn candidates(system: &Path, sessions: &[PathBuf]) -> Vec<Candidate> {
    let of_system = SYSTEM.into_iter().filter_map(|(uri, socket)| {
        let own = system.join(socket);
        let is_certain = own.exists() || uri == QEMU;
        let mut sockets = [own, system.join(ALL_DRIVERS)].into_iter();
        Some(Candidate {
            uri: uri.to_owned(),
            socket: sockets.find(|socket| socket.exists())?,
            is_certain,
        })
    });
    let sockets = sessions.iter().flat_map(|folder| {
        let sockets = SESSION.iter().map(|socket| folder.join(socket));
        sockets.filter(|socket| socket.exists())
    });
    let of_sessions = sockets.filter_map(|socket| {
        Some(Candidate {
            uri: format!("qemu:///session?socket={}", socket.to_str()?),
            socket,
            is_certain: true,
        })
    });
    of_system.chain(of_sessions).collect()
}

/// Our own session's folder; for root those of all users.
fn session_folders() -> Vec<PathBuf> {
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let mut folders: Vec<PathBuf> = own
        .filter(|folder| folder.is_absolute())
        .into_iter()
        .collect();
    if rustix::process::geteuid().is_root() {
        let users = std::fs::read_dir(USERS).into_iter().flatten().flatten();
        folders.extend(users.map(|user| user.path()));
    }
    folders.sort();
    folders.dedup();
    folders
        .iter()
        .map(|folder| folder.join("libvirt"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touched(folder: &Path, files: &[&str]) {
        std::fs::create_dir_all(folder).unwrap();
        for file in files {
            std::fs::write(folder.join(file), "").unwrap();
        }
    }

    #[test]
    fn only_daemons_that_listen_are_asked() {
        let root = tempfile::tempdir().unwrap();
        let system = root.path().join("system");
        let user = root.path().join("user");
        let found = |system: &Path, sessions: &[PathBuf]| -> Vec<(String, bool)> {
            let found = candidates(system, sessions).into_iter();
            found.map(|one| (one.uri, one.is_certain)).collect()
        };
        let uri = |uri: &str, is_certain| (uri.to_owned(), is_certain);
        assert!(candidates(&system, std::slice::from_ref(&user)).is_empty());
        touched(&system, &["virtqemud-sock-ro", "virtqemud-sock"]);
        assert_eq!(found(&system, &[]), [uri("qemu:///system", true)]);
        touched(&system, &["libvirt-sock-ro"]);
        assert_eq!(
            found(&system, &[]),
            [
                uri("qemu:///system", true),
                uri("xen:///system", false),
                uri("ch:///system", false)
            ]
        );
        touched(&user, &["libvirt-sock"]);
        let session = format!("qemu:///session?socket={}/libvirt-sock", user.display());
        assert_eq!(
            found(Path::new("/nowhere"), std::slice::from_ref(&user)),
            [uri(&session, true)]
        );
    }
}
