//! libvirt's secrets: the passphrases of encrypted images.

use virt::connect::Connect;
use virt::error::ErrorNumber;
use virt::secret::Secret;
use virt::sys;
use zeroize::Zeroize;

use crate::domain::libvirt::Libvirt;
use crate::domain::model::SecretName;
use crate::keys::Passphrase;

/// libvirt does not give a secret's value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Nobody but libvirt's own drivers may have it.
    #[error(
        "libvirt reveals a private secret to nobody, so give the key by --key, or name a file with it \
         in a [[key]] of /etc/virt-fsck.toml"
    )]
    Private,
    /// There is none of this name.
    #[error("libvirt has no secret {0}; virsh secret-list lists them")]
    Unknown(SecretName),
    /// It was defined, and nobody has given it a value since; an ephemeral one loses it with libvirt.
    #[error("the secret {0} has no value; virsh secret-set-value gives it one")]
    NoValue(SecretName),
    /// libvirt was not asked.
    #[error("connecting to libvirt at {uri} to read it: {words}")]
    Connect {
        /// The URI.
        uri: String,
        /// libvirt's words.
        words: String,
    },
    /// libvirt did not answer.
    #[error("libvirt does not tell the secret {name}: {words}")]
    Asked {
        /// Its name.
        name: SecretName,
        /// libvirt's words.
        words: String,
    },
}

impl Libvirt {
    /// The value of a secret. It takes a connection of its own, since libvirt tells no secret to one
    /// that is read-only.
    ///
    /// # Errors
    /// When there is no such secret, it has no value, or libvirt does not give it.
    pub fn secret_value(&self, name: &SecretName) -> Result<Passphrase, SecretError> {
        let connection = match Connect::open(Some(self.uri())) {
            Ok(connection) => connection,
            Err(error) => {
                return Err(SecretError::Connect {
                    uri: self.uri().to_owned(),
                    words: error.message().to_owned(),
                });
            }
        };
        let found = match name {
            SecretName::Uuid(uuid) => Secret::lookup_by_uuid(&connection, *uuid),
            SecretName::Usage(usage) => {
                let kind = sys::VIR_SECRET_USAGE_TYPE_VOLUME.cast_signed();
                Secret::lookup_by_usage(&connection, kind, usage)
            }
        };
        let asked = |error: &virt::error::Error| SecretError::Asked {
            name: name.clone(),
            words: error.message().to_owned(),
        };
        let secret = found.map_err(|error| match error.code() {
            ErrorNumber::NoSecret => SecretError::Unknown(name.clone()),
            _ => asked(&error),
        })?;
        value(&secret).map_err(|error| match error.code() {
            ErrorNumber::NoSecret => SecretError::NoValue(name.clone()),
            ErrorNumber::InvalidSecret => SecretError::Private,
            _ => asked(&error),
        })
    }
}

/// What `Secret::get_value` gives, which leaves copies of it in memory.
#[expect(unsafe_code, reason = "memory that libvirt hands over")]
fn value(secret: &Secret) -> Result<Passphrase, virt::error::Error> {
    let mut size = 0_usize;
    // SAFETY: the pointer is that of a secret which lives, and the size is written to before the call
    // returns (virSecretGetValue).
    let start = unsafe { sys::virSecretGetValue(secret.as_ptr(), &raw mut size, 0) };
    if start.is_null() {
        return Err(virt::error::Error::last_error());
    }
    // SAFETY: libvirt has allocated so many bytes and nobody else knows of them.
    let bytes = unsafe { std::slice::from_raw_parts_mut(start, size) };
    let value = Passphrase::new(bytes);
    bytes.zeroize();
    // SAFETY: they came from malloc, are the caller's to free, and not used any more.
    unsafe { libc::free(start.cast()) };
    Ok(value)
}
