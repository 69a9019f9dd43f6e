//! What is shown while checkers run. On standard error, so that the report stays alone on
//! standard output; whatever cannot be written is dropped, for a check must not stop because
//! nobody watches it.

use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::check::outcome::{Event, LayerResult, Observer, Progress};
use crate::layers::tree::LayerPath;
use crate::report::style::{Paint, Style};
use crate::report::words;
use crate::units::Bytes;

/// How far e2fsck is, in percent of all, when each of its passes 1 to 5 ends, as e2fsck itself
/// counts (e2fsck/unix.c, `e2fsck_tbl`).
const PASS_ENDS: [f32; 5] = [70.0, 90.0, 92.0, 95.0, 100.0];

/// How often the elapsed time is drawn anew while a checker says nothing.
const TICK: Duration = Duration::from_millis(200);

const BAR: &str = "{prefix}  [{bar:24}] {msg}, {elapsed}";
const SPINNER: &str = "{prefix}  {spinner} {msg}, {elapsed}";

/// Percent of a whole run of e2fsck; `pass` from 1 to 5, `percent` of that pass.
fn of_all_passes(pass: u8, percent: f32) -> f32 {
    let Some(number) = usize::from(pass).checked_sub(1) else {
        return 0.0;
    };
    let Some(end) = PASS_ENDS.get(number) else {
        return 100.0;
    };
    let begin = number
        .checked_sub(1)
        .and_then(|before| PASS_ENDS.get(before))
        .copied()
        .unwrap_or(0.0);
    // False for what is no number, too.
    let share = if percent > 0.0 {
        percent.min(100.0) / 100.0
    } else {
        0.0
    };
    begin + (end - begin) * share
}

fn locked<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is being checked: `vm1: vda/p3/lvg1/lvroot (ext4, 2.0 GiB)`.
fn subject(domain: &str, path: &LayerPath, about: Option<(&str, Bytes)>) -> String {
    let mut text = String::new();
    if !domain.is_empty() {
        text.push_str(domain);
        text.push_str(": ");
    }
    text.push_str(path.as_str());
    if let Some((kind, size)) = about {
        text.push_str(&format!(" ({kind}, {size})"));
    }
    text
}

/// Shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Observer for Quiet {
    fn notice(&self, _event: &Event<'_>) {}
}

/// For terminals: one bar for the running check, gone when it has ended.
#[derive(Debug)]
pub struct Bars {
    style: Style,
    state: Mutex<Running>,
    target: fn() -> ProgressDrawTarget,
}

#[derive(Debug, Default)]
struct Running {
    domain: String,
    bar: Option<ProgressBar>,
    /// A checker has the terminal until it ends.
    aside: bool,
}

impl Bars {
    /// Bars on standard error.
    pub const fn new(style: Style) -> Self {
        Self::drawn_on(style, ProgressDrawTarget::stderr)
    }

    const fn drawn_on(style: Style, target: fn() -> ProgressDrawTarget) -> Self {
        Self {
            style,
            state: Mutex::new(Running {
                domain: String::new(),
                bar: None,
                aside: false,
            }),
            target,
        }
    }

    fn begin(&self, state: &Running, path: &LayerPath, kind: &str, size: Bytes) -> ProgressBar {
        let subject = subject(&state.domain, path, Some((kind, size)));
        let subject = self.style.charset().clean(&subject).into_owned();
        let bar = ProgressBar::with_draw_target(Some(100), (self.target)())
            .with_style(self.template(SPINNER))
            .with_prefix(subject)
            .with_message("checking");
        bar.enable_steady_tick(TICK);
        bar
    }

    /// The template, in the characters that can be shown.
    fn template(&self, template: &str) -> ProgressStyle {
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        if self.style.unicode {
            style.progress_chars("█▉▊▋▌▍▎▏ ").tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
        } else {
            style.progress_chars("=> ").tick_chars("|/-\\ ")
        }
    }

    fn advance(&self, bar: &ProgressBar, progress: Progress) {
        match progress {
            Progress::Pass { pass, percent } => {
                let all = of_all_passes(pass, percent);
                bar.set_style(self.template(BAR));
                // 0 to 100, so nothing is lost.
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "0 to 100"
                )]
                bar.set_position(all as u64);
                bar.set_message(format!("{all:.0}%, pass {pass}/{}", PASS_ENDS.len()));
            }
            Progress::Read(bytes) => bar.set_message(format!("{bytes} read")),
        }
    }
}

impl Observer for Bars {
    fn wants_progress(&self) -> bool {
        true
    }

    fn notice(&self, event: &Event<'_>) {
        let mut state = locked(&self.state);
        match *event {
            Event::DomainStarted { domain } => domain.clone_into(&mut state.domain),
            Event::CheckStarted { path, kind, size } => {
                if let Some(before) = state.bar.take() {
                    before.finish_and_clear();
                }
                if !state.aside {
                    state.bar = Some(self.begin(&state, path, kind, size));
                }
            }
            Event::CheckAdvanced { progress, .. } => {
                if let Some(bar) = &state.bar {
                    self.advance(bar, progress);
                }
            }
            Event::CheckFinished { .. } => {
                state.aside = false;
                if let Some(bar) = state.bar.take() {
                    bar.finish_and_clear();
                }
            }
        }
    }

    fn step_aside(&self) {
        let mut state = locked(&self.state);
        state.aside = true;
        if let Some(bar) = state.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// For logs and pipes: a line when a check begins and one when it has ended.
#[derive(Debug)]
pub struct Lines<W> {
    style: Style,
    state: Mutex<Written<W>>,
}

#[derive(Debug)]
struct Written<W> {
    domain: String,
    /// What is known of the check that is running.
    about: Option<(LayerPath, String, Bytes)>,
    to: W,
}

impl Lines<std::io::Stderr> {
    /// Lines on standard error.
    pub fn stderr(style: Style) -> Self {
        Self::new(style, std::io::stderr())
    }
}

impl<W: Write> Lines<W> {
    /// Lines written to `to`.
    pub const fn new(style: Style, to: W) -> Self {
        Self {
            style,
            state: Mutex::new(Written {
                domain: String::new(),
                about: None,
                to,
            }),
        }
    }

    fn write(&self, to: &mut W, subject: &str, rest: &str) {
        let line = self
            .style
            .paint(Paint::Plain, &format!("{subject}: {rest}"));
        // One write for a line, so that lines of others do not get in between.
        let _ = to.write_all(format!("{line}\n").as_bytes());
    }

    fn ended(result: &LayerResult) -> String {
        let mut text = result.verdict.words().to_owned();
        if result.checker.is_some() {
            text.push_str(", ");
            text.push_str(&words::duration(result.duration));
        }
        if let Some(reason) = result.verdict.reason() {
            text.push_str(": ");
            text.push_str(reason);
        }
        text
    }
}

impl<W: Write> Observer for Lines<W> {
    fn notice(&self, event: &Event<'_>) {
        let mut guard = locked(&self.state);
        let state = &mut *guard;
        match *event {
            Event::DomainStarted { domain } => domain.clone_into(&mut state.domain),
            Event::CheckStarted { path, kind, size } => {
                let subject = subject(&state.domain, path, Some((kind, size)));
                state.about = Some((path.clone(), kind.to_owned(), size));
                self.write(&mut state.to, &subject, "checking");
            }
            Event::CheckAdvanced { .. } => {}
            Event::CheckFinished { path, result } => {
                let begun = state.about.take().filter(|(begun, ..)| begun == path);
                let about = begun.as_ref().map(|(_, kind, size)| (kind.as_str(), *size));
                let subject = subject(&state.domain, path, about);
                self.write(&mut state.to, &subject, &Self::ended(result));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::outcome::Verdict;
    use crate::report::samples::{checked, path};

    #[test]
    fn percent_as_e2fsck_counts() {
        for (pass, percent, all) in [
            (0, 50.0, 0.0),
            (1, 0.0, 0.0),
            (1, 50.0, 35.0),
            (1, 100.0, 70.0),
            (2, 50.0, 80.0),
            (3, 50.0, 91.0),
            (4, 100.0, 95.0),
            (5, 20.0, 96.0),
            (5, 1000.0, 100.0),
            (6, 0.0, 100.0),
            (2, -5.0, 70.0),
            (2, f32::NAN, 70.0),
        ] {
            let counted = of_all_passes(pass, percent);
            assert!((counted - all).abs() < 0.001, "{pass} {percent}: {counted}");
        }
    }

    fn run(observer: &impl Observer, progress: &[Progress], result: &LayerResult) {
        let at = path("vda/p3/lvg1/lvroot");
        observer.notice(&Event::DomainStarted { domain: "vm1" });
        observer.notice(&Event::CheckStarted {
            path: &at,
            kind: "ext4",
            size: Bytes::mib(2048),
        });
        for &progress in progress {
            observer.notice(&Event::CheckAdvanced {
                path: &at,
                progress,
            });
        }
        observer.notice(&Event::CheckFinished { path: &at, result });
    }

    #[test]
    fn lines_for_logs() {
        let lines = Lines::new(Style::PLAIN, Vec::new());
        let pass = Progress::Pass {
            pass: 1,
            percent: 7.0,
        };
        run(&lines, &[pass], &checked(Verdict::Clean, 0, 1_240, ""));
        run(
            &lines,
            &[],
            &LayerResult::without_checker(Verdict::Failed("no\x1b checker".to_owned())),
        );
        let swap = LayerResult::without_checker(Verdict::NotChecked("why".to_owned()));
        lines.notice(&Event::CheckFinished {
            path: &path("vda/p2"),
            result: &swap,
        });
        let written = lines.state.into_inner().unwrap().to;
        assert_eq!(
            String::from_utf8(written).unwrap(),
            "vm1: vda/p3/lvg1/lvroot (ext4, 2.0 GiB): checking\n\
             vm1: vda/p3/lvg1/lvroot (ext4, 2.0 GiB): clean, 1.2 s\n\
             vm1: vda/p3/lvg1/lvroot (ext4, 2.0 GiB): checking\n\
             vm1: vda/p3/lvg1/lvroot (ext4, 2.0 GiB): FAILED: no\\x1b checker\n\
             vm1: vda/p2: not checked: why\n"
        );
    }

    #[test]
    fn nobody_listening_stops_nothing() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
        }
        run(
            &Lines::new(Style::PLAIN, Closed),
            &[],
            &checked(Verdict::Clean, 0, 1, ""),
        );
        run(&Quiet, &[], &checked(Verdict::Clean, 0, 1, ""));
    }

    /// A terminal that keeps all lines ever drawn.
    #[derive(Debug, Default)]
    struct Paper(Mutex<Vec<String>>);

    impl indicatif::TermLike for &'static Paper {
        fn width(&self) -> u16 {
            120
        }
        fn move_cursor_up(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> std::io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> std::io::Result<()> {
            locked(&self.0).push(text.trim_end().to_owned());
            Ok(())
        }
        fn clear_line(&self) -> std::io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bars_for_terminals() {
        static PAPER: Paper = Paper(Mutex::new(Vec::new()));
        let bars = Bars::drawn_on(Style::PLAIN, || {
            ProgressDrawTarget::term_like_with_hz(Box::new(&PAPER), 255)
        });
        let at = path("vda/p1");
        let wait = || std::thread::sleep(TICK * 2);
        let drawn = |what: &str| locked(&PAPER.0).iter().any(|line| line.contains(what));
        let size = Bytes::mib(64);

        bars.notice(&Event::DomainStarted { domain: "vm\x1b1" });
        bars.notice(&Event::CheckStarted {
            path: &at,
            kind: "ext4",
            size,
        });
        wait();
        assert!(drawn("vm\\x1b1: vda/p1 (ext4, 64.0 MiB)  "));
        let progress = Progress::Pass {
            pass: 2,
            percent: 50.0,
        };
        bars.notice(&Event::CheckAdvanced {
            path: &at,
            progress,
        });
        wait();
        assert!(
            drawn("[===================>    ] 80%, pass 2/5, "),
            "{:?}",
            PAPER.0
        );
        let progress = Progress::Read(Bytes::mib(3));
        bars.notice(&Event::CheckAdvanced {
            path: &at,
            progress,
        });
        wait();
        assert!(drawn("3.0 MiB read, "));

        // From here on the checker has the terminal.
        bars.step_aside();
        locked(&PAPER.0).clear();
        bars.notice(&Event::CheckStarted {
            path: &at,
            kind: "ext4",
            size,
        });
        bars.notice(&Event::CheckAdvanced {
            path: &at,
            progress,
        });
        wait();
        assert!(
            locked(&PAPER.0).iter().all(String::is_empty),
            "{:?}",
            PAPER.0
        );
        let result = checked(Verdict::Clean, 0, 1, "");
        bars.notice(&Event::CheckFinished {
            path: &at,
            result: &result,
        });
        bars.notice(&Event::CheckStarted {
            path: &at,
            kind: "ext4",
            size,
        });
        wait();
        assert!(drawn("checking, "));
        bars.notice(&Event::CheckFinished {
            path: &at,
            result: &result,
        });
    }
}
