//! Looking for the key of an image that QEMU encrypts.

use std::ffi::OsString;

use crate::cause;
use crate::check::outcome::Verdict;
use crate::cmd::{CmdError, Invocation, Tool};
use crate::domain::libvirt::Libvirt;
use crate::engine::user::daemon::{DaemonError, is_lock_conflict};
use crate::engine::user::nodes::{self, Access};
use crate::keys::{Container, Key, KeyError, Passphrase, Secret};
use crate::reach::chain::{Chain, Link};
use crate::run::Run;

/// What QEMU says of a wrong passphrase (crypto/block-luks.c).
const WRONG_KEY: &str = "Invalid password";

/// A key could not be tried.
#[derive(Debug, thiserror::Error)]
enum NotTried {
    /// Somebody else has the image open.
    #[error(transparent)]
    InUse(DaemonError),
    /// All else: the sentence.
    #[error("{0}")]
    Failed(String),
}

/// Finds the keys of all images of a disk that QEMU encrypts.
///
/// # Errors
/// The verdict if one is not to be had.
pub async fn find(
    chain: &mut Chain,
    target: &str,
    domain: &str,
    libvirt: Option<&Libvirt>,
    run: &mut Run<'_>,
) -> Result<(), Verdict> {
    for link in chain.links_mut() {
        if link.encryption.is_some() && link.key().is_none() {
            let key = find_one(link, target, domain, libvirt, run).await?;
            if let Some(encryption) = &mut link.encryption {
                encryption.key = Some(key);
            }
        }
    }
    Ok(())
}

async fn find_one(
    link: &Link,
    target: &str,
    domain: &str,
    libvirt: Option<&Libvirt>,
    run: &mut Run<'_>,
) -> Result<Passphrase, Verdict> {
    let wanted = Container {
        secret: secret(link, libvirt),
        ..wanted(link, target, domain)
    };
    let opens = async |key: &Key| {
        let Some(passphrase) = passphrase(key)? else {
            return Ok(None);
        };
        let opened = is_opened_by(link, &passphrase).await?;
        Ok(opened.then_some(passphrase))
    };
    let found = run.host.keys().open(&wanted, run.interrupt, opens).await;
    found.map_err(|error| match error {
        KeyError::NoKey(reason) => Verdict::NotChecked(reason),
        KeyError::Interrupted => Verdict::Interrupted,
        KeyError::Device(NotTried::InUse(error)) => Verdict::Refused(error.to_string()),
        KeyError::Device(error) => Verdict::Failed(error.to_string()),
    })
}

/// What libvirt says of the secret that the XML names.
fn secret(link: &Link, libvirt: Option<&Libvirt>) -> Option<Secret> {
    let declared = link.encryption.as_ref()?.declared.as_ref()?;
    let value = libvirt?.secret_value(declared.secret.as_ref()?);
    Some(match value {
        Ok(passphrase) => Secret::Value(passphrase),
        Err(error) => Secret::Unreadable(error.to_string()),
    })
}

/// Which it is, for the keys.
fn wanted(link: &Link, target: &str, domain: &str) -> Container {
    let path = link.path.display().to_string();
    let uuid = link
        .encryption
        .as_ref()
        .and_then(|known| known.uuid.clone());
    let mut ids = vec![target.to_owned(), path.clone()];
    ids.extend(uuid);
    Container {
        shown: format!("the image {path} ({target} of {domain})"),
        ids,
        ..Container::default()
    }
}

fn passphrase(key: &Key) -> Result<Option<Passphrase>, NotTried> {
    match key {
        Key::Passphrase(passphrase) => Ok(Some(passphrase.clone())),
        Key::File(file) => Passphrase::of_file(&file.path).map(Some).map_err(|error| {
            let path = file.path.display();
            NotTried::Failed(format!("{path}: {}", cause::sentence(&error)))
        }),
        // QEMU knows LUKS1 alone.
        Key::Token => Ok(None),
    }
}

/// Whether a passphrase opens an image: QEMU decrypts its first sector.
async fn is_opened_by(link: &Link, passphrase: &Passphrase) -> Result<bool, NotTried> {
    let mut link = link.clone();
    if let Some(encryption) = &mut link.encryption {
        encryption.key = Some(passphrase.clone());
    }
    let image = nodes::alone_argument(&link, Access::ReadOnly);
    let arguments = [
        "map",
        "--output=json",
        "--start-offset=0",
        "--max-length=512",
    ];
    let arguments = arguments.map(OsString::from).into_iter();
    let call = Invocation::new(Tool::QEMU_IMG, arguments.chain([image.into()]));
    match call.with_secrets(nodes::alone_key(&link)).capture().await {
        Ok(_) => Ok(true),
        Err(CmdError::Failed { stderr, .. }) if stderr.contains(WRONG_KEY) => Ok(false),
        Err(CmdError::Failed { stderr, .. }) if is_lock_conflict(&stderr) => {
            let image = link.path.display().to_string();
            Err(NotTried::InUse(DaemonError::InUse(image)))
        }
        Err(error) => Err(NotTried::Failed(cause::sentence(&error))),
    }
}
