//! Opening the disks of a domain with an engine, and looking what is inside.

use std::collections::BTreeSet;

use crate::check::outcome::Verdict;
use crate::engine::kernel::activation::Opened;
use crate::engine::session::{DiskToOpen, Session, SessionError};
use crate::engine::shown_disk::{ShownDisk, ShownDisks, ShownImage};
use crate::engine::user::nodes::Access;
use crate::layers::dormant::{
    Activated, Activation, ClosedContainer, Known, OpenedImage, Opener, Peeled, Unlocked, Unlocking,
};
use crate::layers::extent::{ExtentMap, ImageIndex};
use crate::layers::peel::{self, OpenDisk, WholeMirrors};
use crate::layers::tree::{Closed, Layer};
use crate::ledger::Ledger;
use crate::report::model::{DiskContent, DomainReport};
use crate::run::options::{Action, Run, failed};
use crate::run::reached::Reached;
use crate::run::unlock::{Learned, unlock};
use crate::units::Bytes;

/// For how many containers of a domain a key is looked for: each may take minutes, if its guest wants
/// that.
const MOST_CONTAINERS: usize = 128;

/// What was found on the disks.
#[derive(Debug, Default)]
pub struct Looked {
    /// The trees of the disks that were opened, in their order.
    pub layers: Vec<Layer>,
    /// For each disk of the domain, its size if it was opened, and what it is.
    pub disks: Vec<(Option<Bytes>, DiskContent)>,
    /// The images that come after those of the disks.
    pub opened: Vec<OpenedImage>,
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

    /// The disks that a layer lies on at last.
    pub fn disks_of(&self, extents: &ExtentMap) -> Vec<ImageIndex> {
        disks_of(extents, self.disks.len(), &self.opened)
    }

    /// Whether every disk could be opened that `before` could open.
    pub fn has_all_of(&self, before: &Self) -> bool {
        let both = self.disks.iter().zip(&before.disks);
        both.into_iter()
            .all(|((now, _), (then, _))| now.is_some() || then.is_none())
    }
}

/// The disks that these extents lie on, below all that was opened; each once. There are `disks` of
/// them, and the other images follow.
pub fn disks_of(extents: &ExtentMap, disks: usize, opened: &[OpenedImage]) -> Vec<ImageIndex> {
    let mut below = BTreeSet::new();
    for extent in extents.places() {
        match extent.image.0.checked_sub(disks) {
            None => below.extend([extent.image]),
            Some(number) => below.extend(opened.get(number).iter().flat_map(|image| &image.disks)),
        }
    }
    below.into_iter().collect()
}

/// Opens the disks and looks what is inside.
///
/// # Errors
/// The verdict if the engine cannot go on.
pub async fn look(
    run: &mut Run<'_>,
    session: &mut Session,
    reached: &mut [Reached<'_>],
    domain: &str,
    learned: &mut Learned,
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
    let mut opening = Opening {
        session,
        open: &open,
        shown: &mut shown,
        mirrors,
        disks: looked.disks.len(),
        opened: Vec::new(),
        unlocked: Unlocked::default(),
    };
    looked.layers = opening.peel_all(run, domain, learned).await?;
    looked.opened = opening.opened;
    for (disk, layer) in open.iter().zip(&looked.layers) {
        if let Some((_, content)) = looked.disks.get_mut(disk.image.0) {
            *content = DiskContent::Opened(layer.clone());
        }
    }
    session.hide(shown).await.map_err(|error| failed(&error))?;
    Ok(looked)
}

/// The opening of all that is closed on the disks. Its images are numbered in the order in which they
/// are opened.
struct Opening<'a> {
    session: &'a mut Session,
    open: &'a [OpenDisk],
    shown: &'a mut ShownDisks,
    mirrors: WholeMirrors,
    /// How many disks the domain has.
    disks: usize,
    opened: Vec<OpenedImage>,
    unlocked: Unlocked,
}

impl Opening<'_> {
    /// Peels, opens containers, and lets LVM and MD open what only they can, until nothing new comes
    /// to light. Containers come first: what is in them may be missing in a group or an array.
    async fn peel_all(
        &mut self,
        run: &mut Run<'_>,
        domain: &str,
        learned: &mut Learned,
    ) -> Result<Vec<Layer>, Verdict> {
        let mut activated = Activated::default();
        loop {
            let known = Known {
                activated: self.session.opens_dormant().then_some(&activated),
                unlocked: &self.unlocked,
                headers: &run.options.headers,
            };
            let peeled = peel::peel(self.open, self.shown, known, self.mirrors);
            if !peeled.containers.is_empty() {
                self.unlock(run, &peeled.containers, domain, learned)
                    .await?;
                continue;
            }
            let known = activated.len();
            let opened = self.activate(run.ledger, &peeled, &mut activated).await;
            opened.map_err(|error| failed(&error))?;
            if activated.len() == known {
                return Ok(peeled.layers);
            }
        }
    }

    async fn unlock(
        &mut self,
        run: &mut Run<'_>,
        containers: &[ClosedContainer],
        domain: &str,
        learned: &mut Learned,
    ) -> Result<(), Verdict> {
        for closed in containers {
            let unlocking = match self.unlocked.len() < MOST_CONTAINERS {
                true => unlock(run, self.session, self.shown, closed, domain, learned).await?,
                false => Unlocking::Closed(Closed::NoKey(format!(
                    "it is one of more than {MOST_CONTAINERS} containers, and no key was looked for"
                ))),
            };
            if let Unlocking::Open { .. } = unlocking {
                self.opened.push(OpenedImage {
                    by: Opener::Luks,
                    disks: disks_of(&closed.extents, self.disks, &self.opened),
                });
            }
            self.unlocked.insert(closed.path.clone(), unlocking);
        }
        Ok(())
    }

    async fn activate(
        &mut self,
        ledger: &mut Ledger,
        peeled: &Peeled,
        activated: &mut Activated,
    ) -> Result<(), SessionError> {
        for group in &peeled.groups {
            let opened = self.session.activate(ledger, group).await?;
            self.take(opened, &group.members, activated);
        }
        for array in &peeled.arrays {
            let opened = self.session.start_array(ledger, array).await?;
            self.take(opened, &array.members, activated);
        }
        Ok(())
    }

    /// Takes what was opened over these members.
    fn take(
        &mut self,
        opened: impl IntoIterator<Item = Opened>,
        members: &[ExtentMap],
        activated: &mut Activated,
    ) {
        let mut all = ExtentMap::default();
        members.iter().for_each(|member| all.append(member));
        let disks = disks_of(&all, self.disks, &self.opened);
        for (id, activation, disk) in opened {
            if let (Activation::Active { image, .. }, Some(disk)) = (&activation, disk) {
                self.shown.put(*image, ShownImage::Disk(disk));
                self.opened.push(OpenedImage {
                    by: id.opener(),
                    disks: disks.clone(),
                });
            }
            activated.insert(id, activation);
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
