//! The volume key of a LUKS device, as cryptsetup prints it.

use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

use crate::cmd::{CmdError, Invocation, child};
use crate::crypt::VolumeKey;
use crate::layers::luks::header::LONGEST_KEY;

/// The longest answer of cryptsetup in bytes: a key of [`LONGEST_KEY`] takes three a byte, and a few
/// lines stand before it.
const LONGEST_ANSWER: usize = 16 * 1024;

/// The longest label of the key. No line about a device by its path is as short.
const LONGEST_LABEL: usize = 20;

/// The key in what `cryptsetup luksDump --dump-volume-key` prints: `MK dump:` and pairs of
/// hexadecimal digits, on that line and those that follow.
pub(super) fn parse(answer: &[u8]) -> Option<VolumeKey> {
    let mut lines = answer.split(|byte| *byte == b'\n');
    let first = lines.find_map(after_label)?;
    let mut digits = Zeroizing::new(String::with_capacity(2 * LONGEST_KEY));
    for line in std::iter::once(first).chain(lines) {
        if !line.iter().all(|b| b.is_ascii_hexdigit() || is_blank(*b)) {
            break;
        }
        for digit in line.iter().filter(|byte| !is_blank(**byte)) {
            // Growing would leave a copy behind.
            if digits.len() == 2 * LONGEST_KEY {
                return None;
            }
            digits.push(char::from(*digit));
        }
    }
    VolumeKey::of_digits(&digits).filter(|key| key.length() > 0)
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

/// What follows `MK dump:`; other versions call the key otherwise.
fn after_label(line: &[u8]) -> Option<&[u8]> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (label, rest) = line.split_at_checked(colon)?;
    let is_label = label.len() <= LONGEST_LABEL && label.to_ascii_lowercase().ends_with(b"dump");
    rest.get(1..).filter(|_| is_label)
}

/// Runs a tool that prints a secret; it reads `input`. Nothing of either is left in memory.
///
/// # Errors
/// When it is missing, cannot be started, or ends with anything but 0.
pub(super) async fn secret_output(
    call: &Invocation,
    input: &[u8],
) -> Result<Zeroizing<Vec<u8>>, CmdError> {
    let tool = call.tool.name;
    let system = |source| CmdError::System { tool, source };
    let mut command = call.command()?;
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut running = command.spawn().map_err(system)?;
    let stdin = running.stdin.take();
    let stdout = running.stdout.take();
    let stderr = running.stderr.take();
    let write = async {
        if let Some(mut stdin) = stdin {
            // It may want no more than it has read; how it ends tells whether that was right.
            let _read_or_not = stdin.write_all(input).await;
        }
    };
    let read = async {
        let mut answer = Zeroizing::new(vec![0; LONGEST_ANSWER]);
        let mut length = 0_usize;
        if let Some(mut stdout) = stdout {
            while let Some(room) = answer.get_mut(length..).filter(|room| !room.is_empty()) {
                match stdout.read(room).await? {
                    0 => break,
                    count => length = length.saturating_add(count),
                }
            }
        }
        answer.truncate(length);
        std::io::Result::Ok(answer)
    };
    let words = async {
        match stderr {
            Some(stderr) => child::read_bounded(stderr).await,
            None => String::new(),
        }
    };
    let ((), answer, stderr, status) = tokio::join!(write, read, words, running.wait());
    let status = status.map_err(system)?;
    if !status.success() {
        return Err(CmdError::Failed {
            tool,
            status,
            stderr,
        });
    }
    answer.map_err(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(answer: &str) -> Option<String> {
        parse(answer.as_bytes()).map(|key| key.digits().to_string())
    }

    #[test]
    fn what_cryptsetup_prints() {
        let before = "LUKS header information for /dev/mapper/a dump:ff\nCipher name:   \taes\n\
                      Payload offset:\t4096\nMK bits:       \t64\n";
        for (dump, key) in [
            (
                "MK dump:\tb8 33 7b 06 \n\t\tae b6 ae 9d \n",
                "b8337b06aeb6ae9d",
            ),
            ("MK dump:\tb8 33\r\n", "b833"),
            ("Volume key dump:\n\tB8 33\nUUID: 1\n00\n", "b833"),
            ("VK dump: b8337b06", "b8337b06"),
        ] {
            assert_eq!(parsed(&format!("{before}{dump}")).as_deref(), Some(key));
        }
        let longest = "ab".repeat(LONGEST_KEY);
        assert_eq!(
            parsed(&format!("MK dump: {longest}")),
            Some(longest.clone())
        );
        for none in [
            String::new(),
            before.to_owned(),
            format!("{before}MK dump:\n"),
            format!("{before}MK dump: zz\n"),
            format!("{before}MK dump: b\n"),
            format!("MK dump: {longest}ab"),
            "MK dump".to_owned(),
        ] {
            assert_eq!(parsed(&none), None, "{none}");
        }
    }

    #[tokio::test]
    async fn a_tool_that_prints_a_secret() {
        use crate::cmd::Tool;
        const SH: Tool = Tool {
            name: "sh",
            package: "dash",
        };
        let run = async |script: &str, input: &[u8]| {
            secret_output(&Invocation::new(SH, ["-c", script]), input).await
        };
        assert_eq!(*run("cat", b"MK dump: 00").await.unwrap(), b"MK dump: 00");
        // It reads nothing, and more than a pipe holds is waiting for it.
        assert_eq!(*run("echo a", &vec![0; 1 << 20]).await.unwrap(), b"a\n");
        let failed = run("echo no >&2; exit 2", b"").await.unwrap_err();
        assert_eq!(failed.to_string(), "sh: no");
        let endless = run("head -c 100000 /dev/zero || :", b"").await.unwrap();
        assert_eq!(endless.len(), LONGEST_ANSWER);
    }
}
