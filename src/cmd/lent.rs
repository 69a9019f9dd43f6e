//! Files in memory that a tool is lent: nobody else can open them, and nothing of them is written to
//! any disk.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use tokio::process::Command;

/// A file in memory. What a tool writes to it stays there.
#[derive(Clone, Debug)]
pub struct LentFile(Arc<File>);

/// It is the same file.
impl PartialEq for LentFile {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for LentFile {}

impl LentFile {
    /// A file with these bytes.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(bytes: &[u8]) -> io::Result<Self> {
        let mut file = File::from(memfd_create("virt-fsck", MemfdFlags::CLOEXEC)?);
        file.write_all(bytes)?;
        Ok(Self(Arc::new(file)))
    }

    /// Where the tool that is lent it finds it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/fd/{}", self.0.as_raw_fd()))
    }
}

/// Lets a child keep the files open; no other child does.
#[expect(
    unsafe_code,
    reason = "code between fork and exec has no safe interface"
)]
pub(super) fn lend(command: &mut Command, files: Vec<LentFile>) {
    if files.is_empty() {
        return;
    }
    let keep_open = move || {
        for file in &files {
            fcntl_setfd(&*file.0, FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: the closure makes one system call a file and allocates nothing, so it may run between
    // fork and exec.
    unsafe { command.pre_exec(keep_open) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::{Invocation, Tool};

    const SH: Tool = Tool {
        name: "sh",
        package: "dash",
    };

    #[tokio::test]
    async fn only_who_is_lent_a_file_has_it() {
        let file = LentFile::new(b"inside").unwrap();
        let path = file.path();
        let script = format!("cat {0} && printf more >>{0}", path.display());
        let call = Invocation::new(SH, ["-c", &script]);
        assert!(call.capture().await.is_err());
        let said = call.lending(&file).capture().await.unwrap();
        assert_eq!(said.stdout, b"inside");
        let kept = std::fs::read(format!("/proc/self/fd/{}", file.0.as_raw_fd())).unwrap();
        assert_eq!(kept, b"insidemore");
    }
}
