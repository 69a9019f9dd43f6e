//! cryptsetup(8): by a key that opens one of a container's slots it finds the key that the
//! container's bytes are encrypted with.

use std::ffi::OsString;
use std::path::Path;

use crate::cause;
use crate::cmd::{CmdError, Invocation, LentFile, Tool};
use crate::crypt::VolumeKey;
use crate::keys::container::{Key, KeyFile};
use crate::keys::token;
use crate::keys::volume_key::{parse, secret_output};

/// The tool.
pub const CRYPTSETUP: Tool = Tool {
    name: "cryptsetup",
    package: "cryptsetup-bin",
};

/// The exit status of cryptsetup(8) for a wrong key, and what it says where one of several slots is
/// for something else.
const WRONG_KEY: i32 = 2;
const NO_SLOT: &str = "No usable keyslot";

/// What it says where it cannot decrypt a key slot: it knows some ciphers itself, asks the kernel for the
/// others, and tries device-mapper at last.
const NO_DEVICE_MAPPER: &str = "Cannot initialize device-mapper";
const NO_CIPHER: &str = "cryptsetup needs the kernel's cipher for its key slots, and this kernel has neither that nor \
                         device-mapper (modprobe algif_skcipher, modprobe dm-crypt)";

/// Where the key slots of a container are.
#[derive(Clone, Copy, Debug)]
pub enum KeySlots<'a> {
    /// On a device, or a file in its place.
    Device {
        /// It.
        device: &'a Path,
        /// The file with its header, if it does not lie in the device.
        header: Option<&'a Path>,
    },
    /// In a copy of its header, so that what cryptsetup writes (it mends a damaged copy of LUKS2's
    /// metadata when it reads one) does not reach the container.
    Copy(&'a LentFile),
}

impl KeySlots<'_> {
    /// The volume key, if the key is right; it has one of the lengths `sizes`, in bytes. Tokens are
    /// asked only where there is a copy: they open a slot for what they do not tell.
    ///
    /// # Errors
    /// Why that cannot be said, as a part of a sentence.
    pub async fn volume_key(
        &self,
        sizes: &[usize],
        key: &Key,
    ) -> Result<Option<VolumeKey>, String> {
        match (key, self) {
            (Key::Passphrase(passphrase), _) => {
                self.opened_by(sizes, key, passphrase.bytes()).await
            }
            (Key::File(_), _) => self.opened_by(sizes, key, &[]).await,
            (Key::Token, Self::Device { .. }) => Ok(None),
            (Key::Token, Self::Copy(copy)) => {
                for passphrase in token::passphrases(copy).await {
                    let input = passphrase.clone();
                    let key = Key::Passphrase(passphrase);
                    let found = self.opened_by(sizes, &key, input.bytes()).await?;
                    if found.is_some() {
                        return Ok(found);
                    }
                }
                Ok(None)
            }
        }
    }

    async fn opened_by(
        &self,
        sizes: &[usize],
        key: &Key,
        input: &[u8],
    ) -> Result<Option<VolumeKey>, String> {
        let call = self.dump("--dump-volume-key", Some(key));
        let answer = match secret_output(&call, input).await {
            Ok(answer) => answer,
            Err(CmdError::Failed { status, stderr, .. })
                if status.code() == Some(WRONG_KEY) || stderr.contains(NO_SLOT) =>
            {
                return Ok(None);
            }
            Err(CmdError::Failed { stderr, .. }) if stderr.contains(NO_DEVICE_MAPPER) => {
                return Err(NO_CIPHER.to_owned());
            }
            Err(error) => return Err(cause::sentence(&error)),
        };
        let key = parse(&answer);
        let key = key.ok_or("cryptsetup gives its volume key in an unknown form")?;
        if !sizes.contains(&key.length()) {
            let length = key.length();
            return Err(format!(
                "its volume key has {length} bytes, which is not what its header says"
            ));
        }
        Ok(Some(key))
    }

    /// The call that tells of it. No slot is named: a slot may be for another key than that of the
    /// encrypted bytes, and cryptsetup looks for one that is for theirs only where it may choose.
    pub fn dump(&self, what: &str, key: Option<&Key>) -> Invocation {
        let mut arguments: Vec<OsString> =
            ["luksDump", "--batch-mode", what].map(Into::into).into();
        if let Self::Device {
            header: Some(header),
            ..
        } = self
        {
            arguments.extend(["--header".into(), header.into()]);
        }
        match key {
            None | Some(Key::Token) => {}
            Some(Key::Passphrase(_)) => arguments.extend(["--key-file".into(), "-".into()]),
            Some(Key::File(file)) => arguments.extend(of_key_file(file)),
        }
        let invocation = |device: &Path| {
            arguments.extend(["--".into(), device.into()]);
            Invocation::new(CRYPTSETUP, arguments).without_udev()
        };
        match self {
            Self::Device { device, .. } => invocation(device),
            Self::Copy(file) => invocation(&file.path()).lending(file).harmless(),
        }
    }
}

/// The arguments for a key in a file.
pub fn of_key_file(file: &KeyFile) -> Vec<OsString> {
    let mut arguments = vec!["--key-file".into(), file.path.clone().into()];
    if let Some(offset) = file.offset {
        arguments.extend(["--keyfile-offset".into(), offset.to_string().into()]);
    }
    if let Some(size) = file.size {
        arguments.extend(["--keyfile-size".into(), size.to_string().into()]);
    }
    arguments
}
