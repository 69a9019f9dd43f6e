//! The backing chain of a disk: every file it reads, with a format that nobody guessed.
//!
//! Formats come from the XML and from the images' headers, never from probing: a guest can write
//! any header it likes into a raw disk (CVE-2008-2004 and its kind).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::cmd::{CmdError, Invocation, Tool};
use crate::domain::model::{Backing, BackingImage, Disk, Encryption, Format, Image, Slice, Source};
use crate::keys::Passphrase;
use crate::reach::identity::{self, Identity, IdentityError, Kind};
use crate::reach::image_encryption::{ImageEncryption, Method};
use crate::reach::information::ImageInformation;
use crate::units::SectorSize;

/// The longest chain that is followed; libvirt stops at 200 (src/storage_file, since 10.1).
const LONGEST_CHAIN: usize = 200;

/// One image of a chain, found on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its path.
    pub path: PathBuf,
    /// A file or a block device.
    pub kind: Kind,
    /// Which one.
    pub identity: Identity,
    /// How its bytes are to be read.
    pub format: Format,
    /// The part of the file that is the image; all of it if `None`.
    pub slice: Option<Slice>,
    /// qcow2's external data file.
    pub data_file: Option<DataFile>,
    /// How QEMU encrypts it, if it does.
    pub encryption: Option<ImageEncryption>,
}

/// A file that holds the guest's data for a qcow2 image that holds only metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// Its path.
    pub path: PathBuf,
    /// A file or a block device.
    pub kind: Kind,
    /// Which one.
    pub identity: Identity,
}

/// A disk's images: the one the guest writes, and those under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// What the guest reads and writes.
    pub top: Link,
    /// What lies under it, nearest first. Only ever read.
    pub under: Vec<Link>,
}

impl Chain {
    /// What the guest writes to: the top image and its data file.
    pub fn written(&self) -> impl Iterator<Item = Identity> {
        self.top.identities()
    }

    /// Whether one of its files ends within a sector.
    pub fn ends_within_a_sector(&self) -> bool {
        let files = self.links().flat_map(|link| {
            let data = link.data_file.as_ref().map(|file| &file.path);
            std::iter::once(&link.path).chain(data)
        });
        let mut lengths = files.filter_map(|path| Some(path.metadata().ok()?.len()));
        lengths.any(|length| !length.is_multiple_of(SectorSize::S512.get().into()))
    }

    /// All images, the one that the guest writes first.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        std::iter::once(&self.top).chain(&self.under)
    }

    /// The same, to be changed.
    pub fn links_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        std::iter::once(&mut self.top).chain(&mut self.under)
    }

    /// Everything the disk reads.
    pub fn all(&self) -> impl Iterator<Item = Identity> {
        self.under
            .iter()
            .fold(
                self.top.identities().collect::<Vec<_>>(),
                |mut all, link| {
                    all.extend(link.identities());
                    all
                },
            )
            .into_iter()
    }
}

impl Link {
    /// Whether its bytes are the disk's as they are.
    pub fn is_plain(&self) -> bool {
        self.format == Format::Raw && self.encryption.is_none()
    }

    /// The key of an image that QEMU encrypts, once it was found.
    pub fn key(&self) -> Option<&Passphrase> {
        self.encryption.as_ref()?.key.as_ref()
    }

    /// The files or devices that hold it: its own, and its data file.
    pub fn files(&self) -> impl Iterator<Item = (&Path, Identity)> {
        let data = self.data_file.as_ref();
        let data = data.map(|file| (file.path.as_path(), file.identity));
        std::iter::once((self.path.as_path(), self.identity)).chain(data)
    }

    /// The same, without the paths.
    pub fn identities(&self) -> impl Iterator<Item = Identity> {
        self.files().map(|(_, identity)| identity)
    }
}

/// A chain cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// A file of it is not there or no image.
    #[error(transparent)]
    File(#[from] IdentityError),
    /// qemu-img could not read an image's header.
    #[error(transparent)]
    Header(#[from] CmdError),
    /// qemu-img's answer has a form this version does not know.
    #[error("qemu-img info {path} gave an answer that cannot be read: {cause}")]
    Answer {
        /// The image.
        path: String,
        /// The cause.
        cause: serde_json::Error,
    },
    /// The source or format is one that this version cannot open: the reason, with the way out.
    #[error("{0}")]
    CannotOpen(String),
    /// The chain does not end.
    #[error("the backing chain of {0} is longer than {LONGEST_CHAIN} images, or a loop")]
    TooLong(String),
}

/// Follows the chain of a disk's image.
///
/// # Errors
/// When a file is missing, an image's header is damaged, or a format cannot be told or opened.
pub async fn follow(disk: &Disk) -> Result<Chain, ChainError> {
    let mut links = Vec::new();
    let mut image = &disk.image;
    let mut backing = &disk.backing;
    loop {
        if links.len() >= LONGEST_CHAIN {
            return Err(ChainError::TooLong(disk.target.clone()));
        }
        let link = found(image)?;
        match backing {
            Backing::None => {
                links.push(link);
                break;
            }
            Backing::Given(given) => {
                links.push(link);
                let BackingImage {
                    image: next,
                    backing: under,
                } = given.as_ref();
                image = next;
                backing = under;
            }
            Backing::AsRecorded if records_backing(&link.format) => {
                links.extend(recorded(link).await?);
                break;
            }
            Backing::AsRecorded => {
                links.push(link);
                break;
            }
        }
    }
    let mut links = links.into_iter();
    let top = links
        .next()
        .ok_or_else(|| ChainError::CannotOpen("there is no image".to_owned()))?;
    Ok(Chain {
        top,
        under: links.collect(),
    })
}

/// Gives an image that the XML names another path. Tells whether there was such an image.
pub fn rename(disk: &mut Disk, from: &Path, to: &Path) -> bool {
    let renamed = |image: &mut Image| {
        let is_it = image.source.as_ref().and_then(Source::path) == Some(from);
        if is_it {
            image.source = Some(Source::Block(to.to_owned()));
        }
        is_it
    };
    if renamed(&mut disk.image) {
        return true;
    }
    let mut backing = &mut disk.backing;
    while let Backing::Given(under) = backing {
        if renamed(&mut under.image) {
            return true;
        }
        backing = &mut under.backing;
    }
    false
}

/// The formats whose header can name an image under theirs.
pub const fn records_backing(format: &Format) -> bool {
    matches!(
        format,
        Format::Qcow2 | Format::Qcow | Format::Qed | Format::Vmdk
    )
}

fn found(image: &Image) -> Result<Link, ChainError> {
    let cannot = |reason: String| ChainError::CannotOpen(reason);
    let encryption = match &image.encryption {
        Some(declared) => Some(encryption(declared)?),
        None => None,
    };
    let path = match &image.source {
        Some(Source::File(path) | Source::Block(path)) => path,
        Some(source) => return Err(cannot(unreachable_source(source))),
        None => return Err(cannot("there is no medium".to_owned())),
    };
    if let Format::Other(name) = &image.format {
        return Err(cannot(format!("images of format {name} cannot be opened")));
    }
    let (identity, kind) = identity::identify(path)?;
    Ok(Link {
        path: path.clone(),
        kind,
        identity,
        format: image.format.clone(),
        slice: image.slice,
        data_file: None,
        encryption,
    })
}

/// What the XML says of an image's encryption, if QEMU does it by itself.
fn encryption(declared: &Encryption) -> Result<ImageEncryption, ChainError> {
    let by_qemu = declared
        .engine
        .as_deref()
        .is_none_or(|engine| engine == "qemu");
    match Method::named(&declared.format) {
        Some(method) if by_qemu => Ok(ImageEncryption::new(method, Some(declared.clone()))),
        _ => {
            let engine = declared.engine.as_deref().unwrap_or("qemu");
            Err(ChainError::CannotOpen(format!(
                "its encryption ({}, by {engine}) is none that QEMU has for a local image",
                declared.format
            )))
        }
    }
}

/// Why a source has no file on this host.
pub fn unreachable_source(source: &Source) -> String {
    match source {
        Source::Network { protocol, .. } => {
            format!("a network disk ({protocol}); map it to a local device and check that with -a")
        }
        Source::Directory(_) => {
            "a host directory shown as a FAT disk: it has no filesystem of its own".to_owned()
        }
        Source::Nvme { .. } => {
            "an NVMe device that is taken from the host's kernel for the guest; give it back with \
             virsh nodedev-reattach and check it with -a"
                .to_owned()
        }
        Source::VhostUser(_) => "another process serves this disk (vhost-user)".to_owned(),
        Source::VhostVdpa(_) => "a vDPA device serves this disk".to_owned(),
        Source::Volume { .. } => {
            "it is a volume of a storage pool, and libvirt is asked only with --domain".to_owned()
        }
        Source::File(_) | Source::Block(_) => "it cannot be opened".to_owned(),
        Source::Other { kind } => {
            format!("a disk of type {kind}, which this version does not know")
        }
    }
}

/// The link and all under it, as the images' headers tell.
async fn recorded(top: Link) -> Result<Vec<Link>, ChainError> {
    let shown = top.path.display().to_string();
    let information = Invocation::new(
        Tool::QEMU_IMG,
        [
            "info".into(),
            "--output=json".into(),
            "--backing-chain".into(),
            "--force-share".into(),
            "--image-opts".into(),
            image_options(&top),
        ],
    )
    .capture()
    .await?;
    let infos: Vec<ImageInformation> =
        serde_json::from_slice(&information.stdout).map_err(|cause| ChainError::Answer {
            path: shown.clone(),
            cause,
        })?;
    if infos.len() > LONGEST_CHAIN {
        return Err(ChainError::TooLong(shown));
    }
    links(&top, &infos)
}

/// The image for `qemu-img --image-opts`: no probing, and no protocol read out of a file name.
fn image_options(link: &Link) -> OsString {
    let escape = |path: &Path| path.to_string_lossy().replace(',', ",,");
    let driver = match link.kind {
        Kind::File => "file",
        Kind::BlockDevice => "host_device",
    };
    let format = link.format.name();
    let path = escape(&link.path);
    match link.slice {
        None => format!("driver={format},file.driver={driver},file.filename={path}").into(),
        Some(slice) => format!(
            "driver={format},file.driver=raw,file.offset={},file.size={},\
             file.file.driver={driver},file.file.filename={path}",
            slice.offset.get(),
            slice.size.get()
        )
        .into(),
    }
}

/// The format that a header or qemu-img calls by this name; QEMU's names for files and devices
/// stand for what lies in them as it is.
pub fn format_named(name: &str) -> Format {
    match name {
        "host_device" | "file" => Format::Raw,
        other => Format::named(other),
    }
}

/// What the headers tell, checked: each backing file is local and its format is recorded, or is
/// raw anyway (what libvirt accepts too: src/storage_file/storage_source.c).
fn links(top: &Link, infos: &[ImageInformation]) -> Result<Vec<Link>, ChainError> {
    let mut links: Vec<Link> = Vec::new();
    for (position, info) in infos.iter().enumerate() {
        let mut link = match position.checked_sub(1).and_then(|above| infos.get(above)) {
            None => top.clone(),
            Some(above) => below(above, info)?,
        };
        if info.encrypted {
            let method = info.encryption().and_then(Method::named).ok_or_else(|| {
                let image = &info.filename;
                ChainError::CannotOpen(format!("{image} is encrypted in an unknown way"))
            })?;
            let known = link
                .encryption
                .get_or_insert(ImageEncryption::new(method, None));
            known.method = method;
            known.uuid = info.encryption_uuid().map(str::to_owned);
        }
        if let Some(file) = info.data_file() {
            let path = beside(&link.path, file);
            let (identity, kind) = identity::identify(&path)?;
            link.data_file = Some(DataFile {
                path,
                kind,
                identity,
            });
        }
        links.push(link);
    }
    Ok(links)
}

fn below(above: &ImageInformation, info: &ImageInformation) -> Result<Link, ChainError> {
    let name = above
        .full_backing_filename
        .as_ref()
        .or(above.backing_filename.as_ref())
        .unwrap_or(&info.filename);
    let format = match &above.backing_filename_format {
        Some(format) => format_named(format),
        None if info.format == "raw" => Format::Raw,
        None => {
            return Err(ChainError::CannotOpen(format!(
                "{} does not record the format of its backing file {name}; record it with \
                 qemu-img rebase -u -F {} -b {name} {}",
                above.filename, info.format, above.filename
            )));
        }
    };
    let path = PathBuf::from(name);
    if !path.is_absolute() {
        return Err(ChainError::CannotOpen(format!(
            "the backing file {name} is not a file of this host"
        )));
    }
    let (identity, kind) = identity::identify(&path)?;
    let (format, encryption) = raw_or_encrypted(format);
    Ok(Link {
        path,
        kind,
        identity,
        format,
        slice: None,
        data_file: None,
        encryption,
    })
}

/// QEMU calls a raw image that it encrypts a format of its own.
fn raw_or_encrypted(format: Format) -> (Format, Option<ImageEncryption>) {
    match &format {
        Format::Other(name) if name == Method::Luks.name() => {
            (Format::Raw, Some(ImageEncryption::new(Method::Luks, None)))
        }
        _ => (format, None),
    }
}

fn beside(image: &Path, file: &str) -> PathBuf {
    image.parent().unwrap_or(Path::new("/")).join(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(json: &str) -> ImageInformation {
        serde_json::from_str(json).unwrap()
    }

    fn top() -> Link {
        Link {
            path: "/images/top.qcow2".into(),
            kind: Kind::File,
            identity: Identity::File {
                device: 1,
                inode: 2,
            },
            format: Format::Qcow2,
            slice: None,
            data_file: None,
            encryption: None,
        }
    }

    #[test]
    fn a_backing_format_that_is_not_recorded_is_not_guessed() {
        let above = info(
            r#"{"filename": "/i/top", "format": "qcow2", "backing-filename": "base",
                "full-backing-filename": "/proc/version"}"#,
        );
        let guessed = info(r#"{"filename": "/proc/version", "format": "qcow2"}"#);
        let error = below(&above, &guessed).unwrap_err().to_string();
        assert!(
            error.contains("qemu-img rebase -u -F qcow2 -b /proc/version /i/top"),
            "{error}"
        );
        let raw = info(r#"{"filename": "/proc/version", "format": "raw"}"#);
        assert_eq!(below(&above, &raw).unwrap().format, Format::Raw);
    }

    #[test]
    fn a_backing_file_elsewhere_is_not_opened() {
        for name in ["nbd://host/x", "json:{}", "ssh://host/image"] {
            let above = info(&format!(
                r#"{{"filename": "/i/top", "format": "qcow2", "backing-filename": "{name}",
                    "backing-filename-format": "raw"}}"#
            ));
            let under = info(r#"{"filename": "x", "format": "raw"}"#);
            let error = below(&above, &under).unwrap_err().to_string();
            assert!(error.contains("not a file of this host"), "{error}");
        }
    }

    #[test]
    fn commas_in_a_file_name_are_doubled() {
        let mut link = top();
        link.path = "/images/a,b:c".into();
        assert_eq!(
            image_options(&link),
            "driver=qcow2,file.driver=file,file.filename=/images/a,,b:c"
        );
    }
}
