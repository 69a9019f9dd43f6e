//! The report: what was found for each domain, as plain data.

use std::time::Duration;

use crate::check::outcome::{LayerResult, Results, Verdict};
use crate::layers::dormant::OpenedImage;
use crate::layers::tree::Layer;
use crate::units::Bytes;

/// What came of one domain.
#[derive(Clone, Debug)]
pub struct DomainReport {
    /// The domain's name; for a bare image its path.
    pub domain: String,
    /// The domain's UUID, where it has one.
    pub uuid: Option<uuid::Uuid>,
    /// Where it was read from: a libvirt URI, an XML file, "image".
    pub origin: String,
    /// The answer for the domain as a whole, where no disk was looked at: refused, failed,
    /// interrupted. `None` if its disks have answers of their own.
    pub verdict: Option<Verdict>,
    /// Its disks, in the order of the XML; empty where the domain as a whole was refused early.
    pub disks: Vec<DiskReport>,
    /// Who has opened the images that come after those of its disks.
    pub opened: Vec<OpenedImage>,
    /// The results of the layers, by path. With `--list` there are none.
    pub results: Results,
    /// What a reader should know of the domain as a whole.
    pub notes: Vec<String>,
    /// The steps that a check would take, as commands that can be pasted; only with `--dry-run`.
    pub plan: Vec<String>,
    /// From the first look to the last close.
    pub duration: Duration,
}

/// What came of one disk.
#[derive(Clone, Debug)]
pub struct DiskReport {
    /// `<target dev=>`: `vda`.
    pub target: String,
    /// Where its image is, as people write it; `None` for an empty drive.
    pub source: Option<String>,
    /// Its format: `qcow2`.
    pub format: String,
    /// Its size as the guest sees it, in bytes; `None` if it was not opened.
    pub size: Option<Bytes>,
    /// What a reader should know of it.
    pub notes: Vec<String>,
    /// What came of the check of the image format itself; `None` where it has none, or nobody came
    /// so far.
    pub image: Option<LayerResult>,
    /// Its layers, or why there are none.
    pub content: DiskContent,
}

/// A disk's layers, or why there are none.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one a disk, and most disks are opened"
)]
pub enum DiskContent {
    /// It was opened: its layers.
    Opened(Layer),
    /// It was not opened: nothing to check, not checked, failed or refused.
    NotOpened(Verdict),
}

impl DomainReport {
    /// Every verdict of the domain: its own, its disks', its layers'.
    pub fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        let of_disks = self.disks.iter().filter_map(|disk| match &disk.content {
            DiskContent::NotOpened(verdict) => Some(verdict),
            DiskContent::Opened(_) => None,
        });
        let of_images = self.disks.iter().filter_map(|disk| disk.image.as_ref());
        let of_layers = self
            .results
            .values()
            .chain(of_images)
            .map(|result: &LayerResult| &result.verdict);
        self.verdict.iter().chain(of_disks).chain(of_layers)
    }
}
