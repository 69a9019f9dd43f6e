//! An array's folder in sysfs.

use std::io;
use std::path::{Path, PathBuf};

use crate::names::ArrayName;

pub(super) struct Array {
    device: PathBuf,
}

impl Array {
    pub(super) fn of(name: &ArrayName) -> Self {
        Self {
            device: Path::new("/sys/block").join(name.as_str()),
        }
    }

    pub(super) fn is_there(&self) -> bool {
        self.device.join("md/array_state").exists()
    }

    /// Changes a setting, in one write as MD wants it.
    pub(super) fn set(&self, setting: &str, value: &str) -> io::Result<()> {
        use std::io::Write as _;
        let path = self.device.join("md").join(setting);
        let mut file = std::fs::File::options().write(true).open(path)?;
        file.write_all(value.as_bytes())
    }

    /// The nodes of the devices that lie on it.
    pub(super) fn holders(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.device.join("holders"));
        let entries = entries.into_iter().flatten().flatten();
        entries
            .map(|holder| format!("/dev/{}", holder.file_name().to_string_lossy()))
            .collect()
    }
}
