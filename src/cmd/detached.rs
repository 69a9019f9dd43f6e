//! A tool that goes on after virt-fsck has ended.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use crate::cmd::tool::{self, CmdError, Invocation};

impl Invocation {
    /// Starts it in a session of its own. It reads nothing, and what it says goes to `output`, if
    /// there is one; so nobody who waits for virt-fsck's own output waits for it.
    ///
    /// # Errors
    /// [`CmdError::Missing`], or when the system cannot start it.
    pub fn detached(&self, output: Option<File>) -> Result<Child, CmdError> {
        tracing::debug!(target: "virt_fsck::command", "{self}");
        let system = |source| CmdError::System {
            tool: self.tool.name,
            source,
        };
        let (out, error) = match output {
            Some(file) => (
                Stdio::from(file.try_clone().map_err(system)?),
                Stdio::from(file),
            ),
            None => (Stdio::null(), Stdio::null()),
        };
        let mut command = Command::new(self.tool.locate()?);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("LC_ALL", "C")
            .env("PATH", tool::search_path())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(error);
        leave_the_session(&mut command);
        command.spawn().map_err(system)
    }
}

#[expect(
    unsafe_code,
    reason = "code between fork and exec has no safe interface"
)]
fn leave_the_session(command: &mut Command) {
    let leave = || {
        rustix::process::setsid()?;
        io::Result::Ok(())
    };
    // SAFETY: the closure makes one system call and allocates nothing, so it may run between fork
    // and exec.
    unsafe { command.pre_exec(leave) };
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::cmd::Tool;

    #[test]
    fn it_has_a_session_of_its_own_and_speaks_into_the_file() {
        let mut file = tempfile::tempfile().unwrap();
        let script = "read -r x || echo nothing to read; cut -d' ' -f1,6 /proc/$$/stat; echo x >&2";
        let call = Invocation::new(Tool::SH, ["-c", script]);
        let mut child = call.detached(Some(file.try_clone().unwrap())).unwrap();
        let process = child.id();
        assert!(child.wait().unwrap().success());
        let mut said = String::new();
        io::Seek::rewind(&mut file).unwrap();
        file.read_to_string(&mut said).unwrap();
        assert_eq!(said, format!("nothing to read\n{process} {process}\nx\n"));
    }
}
