//! Opening the disks of a domain with an engine, and looking what is inside.

use crate::check::outcome::Verdict;
use crate::engine::session::{DiskToOpen, Session, SessionError};
use crate::engine::shown_disk::{ShownDisk, ShownDisks};
use crate::engine::user::nodes::Access;
use crate::layers::dormant::{Activated, Activation, Opener, Peeled};
use crate::layers::extent::ImageIndex;
use crate::layers::peel::{self, OpenDisk, WholeMirrors};
use crate::layers::tree::Layer;
use crate::ledger::Ledger;
use crate::report::model::{DiskContent, DomainReport};
use crate::run::options::{Action, Run, failed};
use crate::run::reached::Reached;
use crate::units::Bytes;

/// What was found on the disks.
#[derive(Debug, Default)]
pub struct Looked {
    /// The trees of the disks that were opened, in their order.
    pub layers: Vec<Layer>,
    /// For each disk of the domain, its size if it was opened, and what it is.
    pub disks: Vec<(Option<Bytes>, DiskContent)>,
    /// Who has opened the images that come after those of the disks.
    pub opened: Vec<Opener>,
}

impl Looked {
    /// Puts it into the report.
    pub fn tell(&self, report: &mut DomainReport) {
        for ((size, content), disk) in self.disks.iter().zip(&mut report.disks) {
            disk.size = *size;
            disk.content = content.clone();
        }
        report.opened.clone_from(&self.opened);
    }

    /// Whether every disk could be opened that `before` could open.
    pub fn has_all_of(&self, before: &Self) -> bool {
        let both = self.disks.iter().zip(&before.disks);
        both.into_iter()
            .all(|((now, _), (then, _))| now.is_some() || then.is_none())
    }
}

/// Opens the disks and looks what is inside.
///
/// # Errors
/// The verdict if the engine cannot go on.
pub async fn look(
    run: &mut Run<'_>,
    session: &mut Session,
    reached: &mut [Reached<'_>],
) -> Result<Looked, Verdict> {
    let mut shown = ShownDisks::default();
    let mut open = Vec::new();
    let mut looked = Looked::default();
    for (index, disk) in reached.iter_mut().enumerate() {
        let image = ImageIndex(index);
        let opened = match &disk.chain {
            Err(verdict) => Err(verdict.clone()),
            Ok(_) => open_one(run.ledger, session, image, disk, run.options.action).await,
        };
        let size = match &opened {
            Ok(disk_shown) => {
                open.push(OpenDisk {
                    target: disk.disk.target.clone(),
                    image,
                    size: disk_shown.size(),
                    sector_size: disk.disk.sector_size,
                });
                Some(disk_shown.size())
            }
            Err(_) => None,
        };
        let content = DiskContent::NotOpened(match &opened {
            Ok(_) => Verdict::Interrupted,
            Err(verdict) => verdict.clone(),
        });
        looked.disks.push((size, content));
        shown.push(opened.ok());
    }
    let mirrors = match session {
        Session::Kernel(_) if run.options.action.writes() => WholeMirrors::ToBeStarted,
        _ => WholeMirrors::ToBeRead,
    };
    let peeled = peel_all(run.ledger, session, &open, &mut shown, mirrors).await;
    (looked.layers, looked.opened) = peeled.map_err(|error| failed(&error))?;
    for (disk, layer) in open.iter().zip(&looked.layers) {
        if let Some((_, content)) = looked.disks.get_mut(disk.image.0) {
            *content = DiskContent::Opened(layer.clone());
        }
    }
    session.hide(shown).await.map_err(|error| failed(&error))?;
    Ok(looked)
}

/// Peels, and lets LVM and MD open what only they can, until nothing new comes to light. Their images
/// are numbered in the order in which they are opened.
async fn peel_all(
    ledger: &mut Ledger,
    session: &mut Session,
    open: &[OpenDisk],
    shown: &mut ShownDisks,
    mirrors: WholeMirrors,
) -> Result<(Vec<Layer>, Vec<Opener>), SessionError> {
    let mut openers = Vec::new();
    let mut activated = Activated::default();
    loop {
        let known = session.opens_dormant().then_some(&activated);
        let Peeled {
            layers,
            groups,
            arrays,
        } = peel::peel(open, shown, known, mirrors);
        let known = activated.len();
        let mut opened = Vec::new();
        for group in &groups {
            opened.extend(session.activate(ledger, group).await?);
        }
        for array in &arrays {
            opened.extend(session.start_array(ledger, array).await?);
        }
        for (id, activation, disk) in opened {
            if let (Activation::Active { image, .. }, Some(disk)) = (&activation, disk) {
                shown.put(*image, disk);
                openers.push(id.opener());
            }
            activated.insert(id, activation);
        }
        if activated.len() == known {
            return Ok((layers, openers));
        }
    }
}

async fn open_one(
    ledger: &mut Ledger,
    session: &mut Session,
    image: ImageIndex,
    reached: &mut Reached<'_>,
    action: Action,
) -> Result<ShownDisk, Verdict> {
    let only_looked_at = reached.only_looked_at();
    let chain = reached.chain.as_ref().map_err(Clone::clone)?;
    let to_open = DiskToOpen {
        image,
        chain,
        access: Access::of(action.writes() && only_looked_at.is_none()),
        sector_size: reached.disk.sector_size,
        claim: &mut reached.claim,
    };
    let opened = session.open(ledger, to_open).await;
    opened.map_err(|error| not_opened(&error))
}

/// Somebody else has it open, or it cannot be opened.
pub fn not_opened(error: &SessionError) -> Verdict {
    match error.is_in_use() {
        true => Verdict::Refused(error.to_string()),
        false => failed(error),
    }
}
