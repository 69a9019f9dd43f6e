//! `virt-fsck hook --install` and `--uninstall`: the script that libvirt runs.

use std::fs::{DirBuilder, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where libvirt looks for its qemu hooks, since 6.5.0.
pub const FOLDER: &str = "/etc/libvirt/hooks/qemu.d";

/// The script's name there.
const NAME: &str = "virt-fsck";

/// The line by which a script is known as ours.
const MARK: &str = "# Written by virt-fsck hook --install; virt-fsck hook --uninstall removes it.";

/// It was not installed, or not removed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Somebody else's script lies there.
    #[error("{} was not written by virt-fsck, and is left as it is; move it away first", .0.display())]
    NotOurs(PathBuf),
    /// The program's path cannot stand in a script.
    #[error(
        "the path of this program, {0:?}, cannot be written into a script; install it at another"
    )]
    Program(PathBuf),
    /// The system refuses.
    #[error("{path} cannot be {what}")]
    System {
        /// The file or folder.
        path: PathBuf,
        /// Read, written or removed.
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Installed {
    /// This script is there now.
    Written(PathBuf),
    /// It was there already.
    AlreadyThere(PathBuf),
    /// It is gone.
    Removed(PathBuf),
    /// It was not there.
    NotThere(PathBuf),
}

/// What the user is told.
impl std::fmt::Display for Installed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Written(path) => write!(
                f,
                "{} is written: libvirt runs it when guests start and stop.\n\
                 libvirt looks for hooks when it starts: if it had none for QEMU, restart it \
                 (systemctl restart libvirtd, or virtqemud); guests go on running meanwhile.",
                path.display()
            ),
            Self::AlreadyThere(path) => write!(
                f,
                "{} is there already; nothing was changed.",
                path.display()
            ),
            Self::Removed(path) => write!(f, "{} is removed.", path.display()),
            Self::NotThere(path) => write!(f, "{} is not there.", path.display()),
        }
    }
}

/// Writes the script that runs `program`.
///
/// # Errors
/// When somebody else's lies there, or it cannot be written.
pub fn install(folder: &Path, program: &Path) -> Result<Installed, InstallError> {
    let text = script(program)?;
    let path = folder.join(NAME);
    match there(&path)? {
        Some(there) if there == text && is_executable(&path) => {
            return Ok(Installed::AlreadyThere(path));
        }
        Some(there) if !is_ours(&there) => return Err(InstallError::NotOurs(path)),
        _ => {}
    }
    let failed = |source| InstallError::System {
        path: path.clone(),
        what: "written",
        source,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(folder)
        .map_err(failed)?;
    write(folder, &path, &text).map_err(failed)?;
    Ok(Installed::Written(path))
}

/// Removes the script.
///
/// # Errors
/// When it is somebody else's, or cannot be removed.
pub fn uninstall(folder: &Path) -> Result<Installed, InstallError> {
    let path = folder.join(NAME);
    match there(&path)? {
        None => return Ok(Installed::NotThere(path)),
        Some(there) if !is_ours(&there) => return Err(InstallError::NotOurs(path)),
        Some(_) => {}
    }
    match std::fs::remove_file(&path) {
        Ok(()) => Ok(Installed::Removed(path)),
        Err(source) => Err(InstallError::System {
            path,
            what: "removed",
            source,
        }),
    }
}

/// The script. Only the exit status that refuses a start is handed on: a program that is gone,
/// cannot be loaded or was killed keeps no guest from starting, and, when the daemon is restarted,
/// ends none that runs.
fn script(program: &Path) -> Result<String, InstallError> {
    let path = program
        .to_str()
        .filter(|path| !path.contains(char::is_control));
    let path = path.ok_or_else(|| InstallError::Program(program.to_owned()))?;
    let path = path.replace('\'', r"'\''");
    Ok(format!(
        "#!/bin/sh\n\
         {MARK}\n\
         virt_fsck='{path}'\n\
         [ -x \"$virt_fsck\" ] || exit 0\n\
         \"$virt_fsck\" hook \"$@\"\n\
         [ $? -ne 1 ]\n"
    ))
}

fn is_ours(text: &str) -> bool {
    text.lines().any(|line| line == MARK)
}

fn is_executable(path: &Path) -> bool {
    let found = std::fs::metadata(path);
    found.is_ok_and(|found| found.permissions().mode() & 0o111 == 0o111)
}

/// What lies there; `None` if nothing does.
fn there(path: &Path) -> Result<Option<String>, InstallError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => Ok(None),
        Err(source) => Err(InstallError::System {
            path: path.to_owned(),
            what: "read",
            source,
        }),
    }
}

/// libvirt, which may look at any moment, sees the whole script or none.
fn write(folder: &Path, path: &Path, text: &str) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file()
        .set_permissions(Permissions::from_mode(0o755))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &str = "/usr/bin/virt-fsck";

    #[test]
    fn it_is_written_once_and_removed_once() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("hooks/qemu.d");
        let path = folder.join("virt-fsck");
        let program = Path::new(PROGRAM);
        assert_eq!(
            uninstall(&folder).unwrap(),
            Installed::NotThere(path.clone())
        );
        assert_eq!(
            install(&folder, program).unwrap(),
            Installed::Written(path.clone())
        );
        let there = Installed::AlreadyThere(path.clone());
        assert_eq!(install(&folder, program).unwrap(), there);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        let elsewhere = Path::new("/usr/local/bin/virt-fsck");
        assert_eq!(
            install(&folder, elsewhere).unwrap(),
            Installed::Written(path.clone())
        );
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(
            install(&folder, elsewhere).unwrap(),
            Installed::Written(path.clone())
        );
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        assert_eq!(uninstall(&folder).unwrap(), Installed::Removed(path));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn what_others_wrote_is_left() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("virt-fsck");
        let theirs = "#!/bin/sh\nexec virt-fsck hook \"$@\"\n";
        std::fs::write(&path, theirs).unwrap();
        let refused = install(base.path(), Path::new(PROGRAM)).unwrap_err();
        assert!(
            refused.to_string().contains("was not written by virt-fsck"),
            "{refused}"
        );
        assert!(matches!(
            uninstall(base.path()),
            Err(InstallError::NotOurs(_))
        ));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), theirs);
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        assert!(install(base.path(), Path::new(PROGRAM)).is_err());
        assert!(path.is_symlink());
    }

    #[test]
    fn a_path_that_a_script_cannot_hold() {
        let base = tempfile::tempdir().unwrap();
        let odd = Path::new("/a\n/virt-fsck");
        assert!(matches!(
            install(base.path(), odd),
            Err(InstallError::Program(_))
        ));
        assert!(
            script(Path::new("/it's/virt-fsck"))
                .unwrap()
                .contains(r"='/it'\''s/virt-fsck'")
        );
    }
}
