//! mdadm's map of running arrays (map.c of mdadm): where the host has none, any call of mdadm makes
//! one, with ours in it. Ours are taken out again.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::ArrayError;
use crate::names::ArrayName;

/// Where mdadm keeps it.
pub(super) const FOLDER: &str = "/run/mdadm";

/// Forgets an array: to be called when it is gone. One that was never known is success.
pub(super) fn forget(folder: &Path, name: &ArrayName) -> Result<(), ArrayError> {
    let map = folder.join("map");
    let knows = |text: String| text.lines().any(|line| is_of(line, name));
    if !std::fs::read_to_string(&map).is_ok_and(knows) {
        return Ok(());
    }
    let _lock = Lock::take(folder)?;
    let text = std::fs::read_to_string(&map).map_err(ArrayError::at(&map))?;
    let others: String = text
        .split_inclusive('\n')
        .filter(|line| !is_of(line, name))
        .collect();
    // Had there been a map, ours would not be in it.
    if others.is_empty() {
        return std::fs::remove_file(&map).map_err(ArrayError::at(&map));
    }
    let new = folder.join("map.new");
    std::fs::write(&new, others).map_err(ArrayError::at(&new))?;
    std::fs::rename(&new, &map).map_err(ArrayError::at(&map))
}

fn is_of(line: &str, name: &ArrayName) -> bool {
    line.split(' ').next() == Some(name.as_str())
}

/// mdadm's own lock on its map: a file that whoever holds it removes in the end.
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    fn take(folder: &Path) -> Result<Self, ArrayError> {
        use std::os::unix::fs::MetadataExt as _;
        let path = folder.join("map.lock");
        let locked = || -> io::Result<Option<File>> {
            let mut options = File::options();
            let options = options.read(true).write(true).create(true).truncate(false);
            let file = options.open(&path)?;
            rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
            // Whoever held it before has removed it.
            Ok((file.metadata()?.nlink() > 0).then_some(file))
        };
        loop {
            if let Some(file) = locked().map_err(ArrayError::at(&path))? {
                return Ok(Self { path, _file: file });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Whoever comes next makes it again.
        let _left = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::RunId;

    #[test]
    fn only_ours_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let run = RunId::of_folder(Path::new("/run/virt-fsck-a1B2c3")).unwrap();
        let [ours, other] = [7, 71].map(|number| ArrayName::numbered(&run, number).unwrap());
        let map = folder.join("map");
        forget(folder, &ours).unwrap();
        let line = |name: &str| format!("{name} 1.2 74aa25ba:e5f1903b:feed967e:a4cc4199 /dev/x\n");
        let of_host = line("md0") + &line(other.as_str());
        std::fs::write(&map, line(ours.as_str()) + &of_host).unwrap();
        forget(folder, &ours).unwrap();
        assert_eq!(std::fs::read_to_string(&map).unwrap(), of_host);
        std::fs::write(&map, line(ours.as_str())).unwrap();
        forget(folder, &ours).unwrap();
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
    }
}
