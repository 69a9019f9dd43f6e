//! The check of a guest before it starts: from its XML alone, for a limited time.

use std::ffi::OsStr;
use std::io;
use std::time::Duration;

use crate::allow::Allowance;
use crate::check::checker::Mode;
use crate::check::outcome::Verdict;
use crate::cmd::tool::quoted;
use crate::config::{CheckBeforeStart, ConfigError, HookSettings};
use crate::domain::model::Domain;
use crate::engine::choice::EngineChoice;
use crate::folders;
use crate::guard::others::Others;
use crate::guard::watch::Watch;
use crate::interrupt::Interrupt;
use crate::layers::dormant::Headers;
use crate::layers::filesystem::{Filesystem, FilesystemKind};
use crate::layers::tree::{Content, Layer};
use crate::ledger::Ledger;
use crate::ledger::recover::recover;
use crate::namespace;
use crate::reach::host::Host;
use crate::report::clock::Clock;
use crate::report::model::{DiskContent, DomainReport};
use crate::report::progress::Quiet;
use crate::report::text::Charset;
use crate::run::{Action, Options, Origin, Run};
use crate::secrecy;
use crate::select::{Due, Selection};
use crate::sweep::Guests;

/// Where the domain was read from, for a report that nobody reads.
const ORIGIN: &str = "libvirt's hook";

/// A check could not be begun.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The system refuses something it needs.
    #[error(transparent)]
    System(#[from] io::Error),
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Checks a guest that is about to boot, and makes the repairs that are safe. A shareable disk is
/// left out: another host may have it mounted. Everything is closed again when it returns. Must be
/// called while there is only one thread.
///
/// # Errors
/// When it could not be begun; no disk was touched then.
pub fn before_start(
    domain: &Domain,
    settings: &HookSettings,
) -> Result<Vec<DomainReport>, CheckError> {
    secrecy::keep_memory_private();
    namespace::leave_host_mounts()?;
    let time = settings.time_budget;
    let mut own = domain.clone();
    own.disks.retain(|disk| !disk.shareable);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(check(own, &options(settings), time))
}

async fn check(
    domain: Domain,
    options: &Options,
    time: Duration,
) -> Result<Vec<DomainReport>, CheckError> {
    let mut interrupt = Interrupt::listen_until(tokio::time::sleep(time))?;
    recover(&options.run_base).await;
    let mut host = Host::new(None, Vec::new())?;
    let guests = Guests::One(domain, Origin::XmlFile(ORIGIN.to_owned()));
    let mut ledger = Ledger::new(&options.run_base);
    // libvirt waits for the hook, and would not answer.
    let (others, watch) = (Others::default(), Watch::over(Vec::new()));
    let mut run = Run {
        options,
        ledger: &mut ledger,
        host: &mut host,
        interrupt: &mut interrupt,
        others: &others,
        watch: &watch,
        observer: &Quiet,
    };
    let reports = guests.check_each(&mut run, |_| {}).await;
    // What is left open stands in the ledger, for the next run.
    let _left = ledger.end().await;
    Ok(reports)
}

fn options(settings: &HookSettings) -> Options {
    let due = match settings.check_before_start {
        CheckBeforeStart::Due => Some(Due {
            now: Clock::system().now(),
            max_age: settings.max_age,
        }),
        CheckBeforeStart::Always | CheckBeforeStart::Never => None,
    };
    Options {
        action: Action::Check(Mode::Preen),
        allowed: Vec::new(),
        selection: Selection {
            due,
            ..Selection::default()
        },
        headers: Headers::new(),
        engine: EngineChoice::Auto,
        run_base: folders::run_base(),
        state_base: folders::default_state_base(),
    }
}

/// Why the guest must not start, with the way out; `None` if it may.
///
/// Only errors that are left keep it, and of these only those that a repair on this host mends: of
/// the others the guest may rid itself, and nobody else can.
pub fn refusal(domain: &Domain, reports: &[DomainReport]) -> Option<String> {
    let mut left: Vec<(String, bool)> = Vec::new();
    for report in reports {
        let images = report.disks.iter().filter(|disk| {
            let result = disk.image.as_ref();
            result.is_some_and(|result| result.verdict == Verdict::ErrorsLeft)
                && !is_read_only(domain, &disk.target)
        });
        left.extend(images.map(|disk| (format!("the image of {}", disk.target), false)));
        let layers = report.disks.iter().filter_map(|disk| match &disk.content {
            DiskContent::Opened(root) => Some(root.walk()),
            DiskContent::NotOpened(_) => None,
        });
        for layer in layers.flatten() {
            let result = report.results.get(&layer.path);
            let Content::Filesystem(filesystem) = &layer.content else {
                continue;
            };
            if result.is_some_and(|result| result.verdict == Verdict::ErrorsLeft)
                && can_be_repaired(domain, layer, filesystem)
            {
                let what = format!("{} ({})", layer.path.as_str(), filesystem.kind.name());
                left.push((what, filesystem.kind == FilesystemKind::Btrfs));
            }
        }
    }
    let names: Vec<&str> = left.iter().map(|(name, _)| name.as_str()).collect();
    let clean = |text: &str| Charset::Unicode.clean(text).into_owned();
    let mut command = format!("virt-fsck {} -y", named(&domain.name));
    if left.iter().any(|(_, is_btrfs)| *is_btrfs) {
        command += &format!(" --allow {}", Allowance::BtrfsRepair.name());
    }
    (!names.is_empty()).then(|| {
        format!(
            "start refused: {} of {} has errors that the repairs made before a start do not mend; \
             mend them with: {command}",
            clean(&names.join(", ")),
            clean(&domain.name),
        )
    })
}

/// The arguments that name a domain, which may be called like an option.
fn named(domain: &str) -> String {
    let name = quoted(OsStr::new(domain));
    match domain.starts_with('-') {
        true => format!("--domain={name}"),
        false => format!("-d {name}"),
    }
}

fn is_read_only(domain: &Domain, target: &str) -> bool {
    let mut disks = domain.disks.iter();
    disks.any(|disk| disk.target == target && disk.read_only)
}

/// Whether `-y` repairs this; what is only ever looked at it leaves as it is.
fn can_be_repaired(domain: &Domain, layer: &Layer, filesystem: &Filesystem) -> bool {
    let disk = layer.path.as_str().split('/').next().unwrap_or_default();
    let has_repairs = filesystem.kind != FilesystemKind::Ntfs
        && filesystem.record.devices.is_none_or(|devices| devices < 2);
    has_repairs && layer.read_only.is_none() && !is_read_only(domain, disk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::outcome::LayerResult;
    use crate::domain::xml;
    use crate::layers::extent::ExtentMap;
    use crate::layers::filesystem::CheckRecord;
    use crate::layers::tree::LayerPath;
    use crate::report::model::DiskReport;
    use crate::run::not_looked_at;

    fn domain(name: &str, read_only: &str) -> Domain {
        let xml = format!(
            "<domain type='kvm'><name>{name}</name><devices><disk type='file'>\
             <driver type='qcow2'/><source file='/a'/><target dev='vda'/>{read_only}</disk>\
             </devices></domain>"
        );
        xml::parse(&xml).unwrap()
    }

    fn report(kind: FilesystemKind, verdict: Verdict, image: Verdict) -> DomainReport {
        let mut report = not_looked_at("vm1", "hook", Verdict::Interrupted);
        report.verdict = None;
        let layer = Layer {
            path: LayerPath::disk("vda"),
            extents: ExtentMap::default(),
            role: None,
            read_only: None,
            content: Content::Filesystem(Filesystem {
                kind,
                uuid: None,
                label: None,
                size: None,
                record: CheckRecord::default(),
            }),
            notes: Vec::new(),
            children: Vec::new(),
        };
        let result = LayerResult::without_checker(verdict);
        report.results.insert(layer.path.clone(), result);
        report.disks.push(DiskReport {
            target: "vda".to_owned(),
            source: None,
            format: "qcow2".to_owned(),
            size: None,
            notes: Vec::new(),
            image: Some(LayerResult::without_checker(image)),
            content: DiskContent::Opened(layer),
        });
        report
    }

    #[test]
    fn errors_that_are_left_keep_a_guest_from_starting() {
        let vm1 = domain("vm1", "");
        let said = |kind, verdict, image| refusal(&vm1, &[report(kind, verdict, image)]);
        assert_eq!(
            said(FilesystemKind::Ext4, Verdict::ErrorsLeft, Verdict::Clean).unwrap(),
            "start refused: vda (ext4) of vm1 has errors that the repairs made before a start do \
             not mend; mend them with: virt-fsck -d vm1 -y"
        );
        let btrfs = said(FilesystemKind::Btrfs, Verdict::ErrorsLeft, Verdict::Clean).unwrap();
        assert!(btrfs.ends_with("-d vm1 -y --allow btrfs-repair"), "{btrfs}");
        let image = said(FilesystemKind::Ext4, Verdict::Clean, Verdict::ErrorsLeft).unwrap();
        assert!(
            image.contains("refused: the image of vda of vm1"),
            "{image}"
        );
        let words = String::new;
        for verdict in [
            Verdict::Clean,
            Verdict::Corrected,
            Verdict::NotChecked(words()),
            Verdict::Failed(words()),
            Verdict::NothingToCheck(words()),
            Verdict::Refused(words()),
            Verdict::Interrupted,
        ] {
            assert_eq!(said(FilesystemKind::Ext4, verdict.clone(), verdict), None);
        }
    }

    #[test]
    fn what_no_repair_here_mends_keeps_no_guest() {
        let (errors, clean) = (Verdict::ErrorsLeft, Verdict::Clean);
        let ntfs = report(FilesystemKind::Ntfs, errors.clone(), clean.clone());
        assert_eq!(refusal(&domain("vm1", ""), &[ntfs]), None);
        let read_only = report(FilesystemKind::Ext4, errors.clone(), errors.clone());
        assert_eq!(refusal(&domain("vm1", "<readonly/>"), &[read_only]), None);
        let mut several = report(FilesystemKind::Btrfs, errors, clean);
        if let DiskContent::Opened(layer) = &mut several.disks[0].content
            && let Content::Filesystem(filesystem) = &mut layer.content
        {
            filesystem.record.devices = Some(2);
        }
        assert_eq!(refusal(&domain("vm1", ""), &[several]), None);
    }

    #[test]
    fn the_way_out_can_be_pasted_whatever_the_guest_is_called() {
        let way_out = |name: &str| {
            let left = report(FilesystemKind::Ext4, Verdict::ErrorsLeft, Verdict::Clean);
            let said = refusal(&domain(name, ""), &[left]).unwrap();
            said.rsplit_once(": virt-fsck ").unwrap().1.to_owned()
        };
        assert_eq!(way_out("a b"), "-d 'a b' -y");
        assert_eq!(way_out("--help"), "--domain=--help -y");
    }
}
