//! Tokens of LUKS2: what else than a passphrase can open a container, by who knows how.
//!
//! Those that cryptsetup has a plugin for (systemd-tpm2, systemd-fido2, luks2-keyring) open the
//! container only as a whole, and give nothing away. In a copy of the header they may add a passphrase
//! of ours, and that finds the volume key; the container itself stays as it is. Clevis tells the
//! passphrase.

use std::ffi::OsString;

use crate::cause;
use crate::cmd::{CmdError, Invocation, LentFile, Tool};
use crate::engine::overlay_key;
use crate::keys::cryptsetup::CRYPTSETUP;
use crate::keys::passphrase::Passphrase;
use crate::keys::volume_key::secret_output;

/// Clevis's tool for LUKS.
const CLEVIS: Tool = Tool {
    name: "clevis",
    package: "clevis-luks",
};

/// The passphrases that the tokens in a copy of a header lead to, each of which may open the copy.
/// Why there are none is logged: a token whose device is not there is nothing unusual.
pub(super) async fn passphrases(header: &LentFile) -> Vec<Passphrase> {
    let mut found = Vec::new();
    match added_by_token(header).await {
        Ok(passphrase) => found.push(passphrase),
        Err(reason) => tracing::debug!("tokens of cryptsetup: {reason}"),
    }
    if found.is_empty() && CLEVIS.locate().is_ok() {
        match by_clevis(header).await {
            Ok(passphrases) => found.extend(passphrases),
            Err(reason) => tracing::debug!("tokens of Clevis: {reason}"),
        }
    }
    found
}

/// A passphrase that cryptsetup has put into a slot of the copy, by any token of the header.
async fn added_by_token(header: &LentFile) -> Result<Passphrase, String> {
    let random = overlay_key::random().map_err(|error| cause::sentence(&error))?;
    let added = Passphrase::new(random.as_bytes());
    let words = ["luksAddKey", "--batch-mode", "--token-only"];
    // As random as this passphrase is, it is not strengthened.
    let quick = [
        "--pbkdf",
        "pbkdf2",
        "--pbkdf-force-iterations",
        "1000",
        "--",
    ];
    let mut arguments: Vec<OsString> = words.into_iter().chain(quick).map(Into::into).collect();
    arguments.extend([header.path().into(), "-".into()]);
    let call = Invocation::new(CRYPTSETUP, arguments)
        .without_udev()
        .lending(header)
        .harmless();
    match call.capture_with_input(added.bytes()).await {
        Ok(_) => Ok(added),
        Err(CmdError::Failed { stderr, status, .. }) if stderr.trim().is_empty() => {
            Err(format!("cryptsetup opens none of them ({status})"))
        }
        Err(error) => Err(cause::sentence(&error)),
    }
}

/// What Clevis tells for each slot that it knows.
async fn by_clevis(header: &LentFile) -> Result<Vec<Passphrase>, String> {
    let call = |words: &[&str]| {
        let words = words.iter().map(OsString::from);
        let device = ["-d".into(), OsString::from(header.path())];
        Invocation::new(
            CLEVIS,
            ["luks".into()].into_iter().chain(words).chain(device),
        )
        .lending(header)
        .harmless()
    };
    let listed = call(&["list"]).capture().await;
    let listed = listed.map_err(|error| cause::sentence(&error))?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let slots = text.lines().filter_map(|line| line.split_once(':'));
    let mut found = Vec::new();
    let mut reason = "it has no slot of Clevis".to_owned();
    for (slot, _) in slots {
        match secret_output(&call(&["pass", "-s", slot.trim()]), b"").await {
            Ok(answer) => found.extend(Passphrase::new(&answer).line_or_whole()),
            Err(error) => reason = cause::sentence(&error),
        }
    }
    match found.is_empty() {
        true => Err(reason),
        false => Ok(found),
    }
}
