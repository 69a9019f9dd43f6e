//! One call of `qemu-img check`, and its answer.

use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::io::AsyncReadExt;

use crate::check::image::words::Words;
use crate::check::outcome::Progress;
use crate::cmd::{CmdError, Invocation, Tool, child, watch};
use crate::engine::user::nodes::{self, Access};
use crate::interrupt::Interrupt;
use crate::reach::chain::Link;

/// How often it is asked how far it has come.
const LOOK: Duration = Duration::from_millis(100);
/// The document is one of a dozen numbers.
const LONGEST_DOCUMENT: u64 = 64 * 1024;

/// What is to be repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Clusters that nothing uses are given back.
    Leaks,
    /// And reference counts are made right.
    All,
}

impl Remedy {
    /// The word for `-r`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Leaks => "leaks",
            Self::All => "all",
        }
    }
}

/// What was counted (`ImageCheck` in qapi/block-core.json); what is not there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Counts {
    /// Errors that are left.
    pub corruptions: u64,
    /// Clusters that nothing uses, left.
    pub leaks: u64,
    /// Errors that were repaired.
    pub corruptions_fixed: u64,
    /// Clusters given back.
    pub leaks_fixed: u64,
}

/// How a call ended.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it counted, if it came so far.
    pub counts: Counts,
    /// What it said.
    pub words: Words,
    /// How long it took.
    pub duration: Duration,
    /// It was stopped, because a signal came.
    pub interrupted: bool,
}

/// Who is told how far it has come, if somebody wants to know.
pub type Tell<'t> = Option<&'t mut dyn FnMut(Progress)>;

/// The call that only looks, or repairs. QEMU's locks refuse it while somebody else writes.
pub fn check(link: &Link, remedy: Option<Remedy>) -> Invocation {
    let mut call = Invocation::new(Tool::QEMU_IMG, ["check", "--output=json"]);
    if let Some(remedy) = remedy {
        call.arguments.extend(["-r", remedy.name()].map(Into::into));
    }
    let access = Access::of(remedy.is_some());
    let image = nodes::alone_argument(link, access);
    call.arguments.push(image.into());
    call.with_secrets(nodes::alone_key(link))
}

/// Runs it. With `interrupt` a signal stops it; what repairs is left to end, for qemu-img knows no
/// way to stop in good order, and would leave dirty bitmaps behind that are worth nothing.
///
/// # Errors
/// When it is missing or cannot be started.
pub async fn run(
    call: &Invocation,
    interrupt: Option<&mut Interrupt>,
    mut tell: Tell<'_>,
) -> Result<Answer, CmdError> {
    let tool = call.tool.name;
    let system = |source| CmdError::System { tool, source };
    let begun = Instant::now();
    let mut command = call.command()?;
    let mut running = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(system)?;
    let broken = || system(std::io::ErrorKind::BrokenPipe.into());
    let stdout = running.stdout.take().ok_or_else(broken)?;
    let stderr = running.stderr.take().ok_or_else(broken)?;
    let words = tokio::spawn(Words::read(stderr));
    let document = tokio::spawn(async move {
        let mut document = Vec::new();
        let mut limited = stdout.take(LONGEST_DOCUMENT);
        limited.read_to_end(&mut document).await.map(|_| document)
    });
    let stopped = async {
        match interrupt {
            Some(interrupt) => interrupt.raised().await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(stopped);
    let mut look = tokio::time::interval(LOOK);
    let (status, interrupted) = loop {
        tokio::select! {
            ended = running.wait() => break (ended, false),
            () = &mut stopped => break (child::stop(&mut running).await, true),
            _ = look.tick(), if tell.is_some() => {
                if let (Some(progress), Some(tell)) = (watch::bytes_read(&running), &mut tell) {
                    tell(progress);
                }
            }
        }
    };
    let document = document.await.ok().and_then(Result::ok).unwrap_or_default();
    Ok(Answer {
        status: status.map_err(system)?,
        counts: serde_json::from_slice(&document).unwrap_or_default(),
        words: words.await.unwrap_or_default(),
        duration: begun.elapsed(),
        interrupted,
    })
}
