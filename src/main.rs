//! The virt-fsck command: arguments, private mount namespace, runtime, run, exit status.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tracing_subscriber::filter::LevelFilter;

use virt_fsck::check::outcome::Observer;
use virt_fsck::cli::{Cli, Command, HookArguments, OutputFormat};
use virt_fsck::folders;
use virt_fsck::guard::others::Others;
use virt_fsck::guard::watch::Watch;
use virt_fsck::hook::answer::answer;
use virt_fsck::hook::call::Call;
use virt_fsck::hook::install::{install, uninstall};
use virt_fsck::interrupt::Interrupt;
use virt_fsck::layers::dormant::Headers;
use virt_fsck::ledger::Ledger;
use virt_fsck::ledger::recover::{Recovered, recover};
use virt_fsck::reach::host::Host;
use virt_fsck::report::clock::Clock;
use virt_fsck::report::exit::ExitStatus;
use virt_fsck::report::model::DomainReport;
use virt_fsck::report::progress::{Bars, Lines, Quiet};
use virt_fsck::report::style::{Facts, Style, Verbosity};
use virt_fsck::report::{json, list, summary, tree};
use virt_fsck::run::{Action, Options, Run};
use virt_fsck::select::Selection;
use virt_fsck::sweep::Guests;

fn main() -> ExitCode {
    if let Some(call) = Call::of_arguments(std::env::args_os()) {
        return answer(&call);
    }
    virt_fsck::secrecy::keep_memory_private();
    let cli = match Cli::try_parse().and_then(Cli::validated) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    log_commands(cli.output.verbose);
    match run(&cli) {
        Ok(status) => ExitCode::from(status.code()),
        Err(error) => {
            let sentence = virt_fsck::cause::sentence(error.as_ref());
            complain(&format!("virt-fsck: {sentence}\n"));
            ExitCode::from(ExitStatus::OPERATIONAL.code())
        }
    }
}

/// Help and version are no errors; everything else of clap's is a wrong use.
fn usage(error: &clap::Error) -> ExitCode {
    let status = match error.use_stderr() {
        true => ExitStatus::USAGE,
        false => ExitStatus::CLEAN,
    };
    // Nobody is left to tell when the terminal is gone.
    let _gone = error.print();
    ExitCode::from(status.code())
}

fn log_commands(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .with_level(false)
        .with_ansi(false)
        .init();
}

fn run(cli: &Cli) -> anyhow::Result<ExitStatus> {
    match &cli.command {
        Some(Command::Hook(arguments)) => hook(arguments),
        Some(Command::Recover) => apart(async |recovered| Ok(tell_recovered(&recovered))),
        None => apart(async |recovered| {
            recovered.iter().for_each(mention_recovered);
            check(cli).await
        }),
    }
}

/// Does work that opens and closes, in a mount namespace of its own.
fn apart(
    work: impl AsyncFnOnce(Vec<Recovered>) -> anyhow::Result<ExitStatus>,
) -> anyhow::Result<ExitStatus> {
    virt_fsck::namespace::leave_host_mounts().context("leaving the host's mount namespace")?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(async {
            // What a run that was killed has left comes first: it may lie on what is wanted now.
            work(recover(&folders::run_base()).await).await
        })
}

fn hook(arguments: &HookArguments) -> anyhow::Result<ExitStatus> {
    let folder = &arguments.hooks_folder;
    let installed = match arguments.install {
        true => install(folder, &std::env::current_exe()?)?,
        false => uninstall(folder)?,
    };
    print(&format!("{installed}\n"));
    Ok(ExitStatus::CLEAN)
}

async fn check(cli: &Cli) -> anyhow::Result<ExitStatus> {
    let options = options(cli)?;
    let style = style();
    let machine = cli.output.format == OutputFormat::Json;
    let show = |report: &DomainReport| {
        if !machine {
            print(&human(report, &options, style, cli));
        }
    };
    let observer = observer(cli, style);
    let mut host = Host::new(cli.host.config.as_deref(), cli.host.key.clone())?;
    let guests = Guests::find(&cli.target).await?;
    // Until here a signal ends the process; from here there is something to put back.
    let mut interrupt = Interrupt::listen().context("listening for signals")?;
    let mut ledger = Ledger::new(&options.run_base);
    let others = Others::find(guests.uri());
    let uris = guests.uri().into_iter().chain(others.uris());
    let watch = Watch::over(uris.map(str::to_owned).collect());
    let mut run = Run {
        options: &options,
        ledger: &mut ledger,
        host: &mut host,
        interrupt: &mut interrupt,
        others: &others,
        watch: &watch,
        observer: observer.as_ref(),
    };
    let reports = guests.check_each(&mut run, show).await;
    let mut status = ExitStatus::of_all(&reports);
    if let Err(left) = ledger.end().await {
        complain(&format!("virt-fsck: {left}\n"));
        status = status.with(ExitStatus::OPERATIONAL);
    }
    tell(&reports, status, &options, style, cli)?;
    Ok(status)
}

/// What comes after the reports of each domain.
fn tell(
    reports: &[DomainReport],
    status: ExitStatus,
    options: &Options,
    style: Style,
    cli: &Cli,
) -> anyhow::Result<()> {
    if cli.output.format == OutputFormat::Json {
        let listed = options.action == Action::List;
        print(&json::render(reports, status, listed)?);
    } else if matches!(options.action, Action::Check(_)) && !cli.output.quiet {
        print(&summary::summary(reports, style));
    }
    Ok(())
}

/// `virt-fsck recover` was asked for.
fn tell_recovered(recovered: &[Recovered]) -> ExitStatus {
    if recovered.is_empty() {
        print("nothing to clean up: no run was killed\n");
    }
    for run in recovered {
        print(&format!("{run}\n"));
    }
    match recovered.iter().all(|run| run.left.is_empty()) {
        true => ExitStatus::CLEAN,
        false => ExitStatus::OPERATIONAL,
    }
}

/// A run cleans up before it begins.
fn mention_recovered(run: &Recovered) {
    complain(&format!("virt-fsck: {run}\n"));
}

fn options(cli: &Cli) -> anyhow::Result<Options> {
    let mut headers = Headers::new();
    for header in &cli.host.header {
        let read = header.read();
        let read = read.with_context(|| format!("{} cannot be read", header.file.display()))?;
        headers.insert(header.layer.clone(), read);
    }
    Ok(Options {
        headers,
        action: cli.work.action(),
        allowed: cli.work.allow.clone(),
        selection: Selection {
            disks: cli.target.disk.clone(),
            filesystems: cli.target.filesystem.clone(),
            due: None,
        },
        engine: cli.work.engine,
        run_base: folders::run_base(),
        state_base: cli
            .work
            .state_dir
            .clone()
            .unwrap_or_else(folders::default_state_base),
    })
}

fn human(report: &DomainReport, options: &Options, style: Style, cli: &Cli) -> String {
    let verbosity = match (cli.output.quiet, cli.output.verbose) {
        (true, _) => Verbosity::Quiet,
        (false, 0) => Verbosity::Normal,
        (false, _) => Verbosity::Verbose,
    };
    match options.action {
        Action::List | Action::DryRun(_) => list::render(report, style, &Clock::system()),
        Action::Check(_) => tree::render(report, style, verbosity),
    }
}

fn style() -> Style {
    let variable = |name: &str| std::env::var(name).ok();
    let [no_color, term, lc_all, lc_ctype, lang] =
        ["NO_COLOR", "TERM", "LC_ALL", "LC_CTYPE", "LANG"].map(variable);
    Style::detect(&Facts {
        is_terminal: std::io::stdout().is_terminal(),
        no_color: no_color.as_deref(),
        term: term.as_deref(),
        lc_all: lc_all.as_deref(),
        lc_ctype: lc_ctype.as_deref(),
        lang: lang.as_deref(),
    })
}

fn observer(cli: &Cli, style: Style) -> Box<dyn Observer> {
    if cli.output.quiet || cli.output.format == OutputFormat::Json {
        Box::new(Quiet)
    } else if std::io::stderr().is_terminal() && cli.output.verbose == 0 {
        Box::new(Bars::new(style))
    } else {
        Box::new(Lines::stderr(style))
    }
}

fn print(text: &str) {
    // A reader who has gone does not change what was found; the exit status tells it.
    let _gone = std::io::stdout().lock().write_all(text.as_bytes());
}

fn complain(text: &str) {
    let _gone = std::io::stderr().lock().write_all(text.as_bytes());
}
