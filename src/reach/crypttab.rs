//! The encrypted devices that the host knows: crypttab(5), as Debian's cryptsetup and systemd read
//! it.

use std::path::{Path, PathBuf};

use crate::reach::lines::{self, Origin};

/// A device that can be opened under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CryptEntry {
    /// Its name in /dev/mapper when it is open.
    pub name: String,
    /// The encrypted device or file, as the table names it.
    pub device: String,
    /// Where its key comes from.
    pub key: KeySource,
    /// How it is opened.
    pub options: CryptOptions,
    /// Where this is said.
    pub origin: Origin,
}

/// Where a key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// From whoever sits at the terminal.
    Ask,
    /// From a file.
    File(PathBuf),
    /// From somewhere virt-fsck cannot get it from: where, as a part of a sentence.
    Unsupported(String),
}

/// How a device is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CryptOptions {
    /// Never for writing.
    pub read_only: bool,
    /// Discards are passed on to the device.
    pub discard: bool,
    /// Only this key slot is tried.
    pub key_slot: Option<u32>,
    /// Where in the key file the key begins, in bytes.
    pub key_file_offset: Option<u64>,
    /// How long the key is, in bytes.
    pub key_file_size: Option<u64>,
    /// The LUKS header, if it does not lie in the device.
    pub header: Option<PathBuf>,
    /// An option that says that this is not LUKS.
    pub other_type: Option<String>,
}

/// The entries of a crypttab. Lines that name no device are left out, as at boot.
pub fn parse(text: &str, file: &Path) -> Vec<CryptEntry> {
    lines::fields(text)
        .filter_map(|(line, fields)| {
            let mut fields = fields.into_iter();
            let name = fields.next()?;
            let device = fields.next()?;
            let key = fields.next().unwrap_or_default();
            let written = fields.next().unwrap_or_default();
            Some(CryptEntry {
                name,
                device,
                key: key_source(&key, &written),
                options: options(&written),
                origin: Origin {
                    file: file.to_owned(),
                    line,
                },
            })
        })
        .collect()
}

/// Where the key comes from, by the third field and the options.
pub fn key_source(key: &str, options: &str) -> KeySource {
    const TOKENS: [(&str, &str); 3] = [
        ("pkcs11-uri", "a PKCS#11 token"),
        ("fido2-device", "a FIDO2 token"),
        ("tpm2-device", "the TPM"),
    ];
    let named = |wanted: &str| {
        split(options).find_map(|(name, value)| (name == wanted).then_some(value.unwrap_or("")))
    };
    if let Some(script) = named("keyscript") {
        return KeySource::Unsupported(format!("the keyscript {script}"));
    }
    if let Some((_, token)) = TOKENS.iter().find(|(option, _)| named(option).is_some()) {
        return KeySource::Unsupported((*token).to_owned());
    }
    match key {
        "" | "none" | "-" => KeySource::Ask,
        "/dev/urandom" | "/dev/random" | "/dev/hwrng" => {
            KeySource::Unsupported(format!("{key}, so nothing in it outlasts a boot"))
        }
        // systemd: a file on another device.
        key if on_other_device(key) => KeySource::Unsupported(format!("another device ({key})")),
        key if key.starts_with('/') => KeySource::File(PathBuf::from(key)),
        key => KeySource::Unsupported(format!("{key}, which is no absolute path")),
    }
}

fn on_other_device(key: &str) -> bool {
    key.split_once(':')
        .is_some_and(|(_, device)| lines::device_path(device).is_some())
}

/// The options of the fourth field. Those that say when and how often to open, and those for other
/// ciphers, are of no concern here.
pub fn options(written: &str) -> CryptOptions {
    let mut options = CryptOptions::default();
    for (name, value) in split(written) {
        let number = || value.and_then(|value| value.parse().ok());
        match name {
            "readonly" | "read-only" => options.read_only = true,
            "discard" | "allow-discards" => options.discard = true,
            "key-slot" | "keyslot" => {
                options.key_slot = value.and_then(|value| value.parse().ok());
            }
            "keyfile-offset" => options.key_file_offset = number(),
            "keyfile-size" => options.key_file_size = number(),
            "header" => options.header = value.map(PathBuf::from),
            "plain" | "bitlk" | "swap" | "tmp" => options.other_type = Some(name.to_owned()),
            name if name.starts_with("tcrypt") => options.other_type = Some(name.to_owned()),
            _ => {}
        }
    }
    options
}

fn split(options: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    options
        .split(',')
        .map(str::trim)
        .filter(|option| !option.is_empty())
        .map(|option| match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> CryptEntry {
        let mut entries = parse(line, Path::new("/etc/crypttab"));
        assert_eq!(entries.len(), 1, "{line}");
        entries.remove(0)
    }

    #[test]
    fn a_table() {
        let text = "# <name> <device> <key> <options>\n\
                    cr_hd0\t/dev/lvg2/lvhd0   none  luks,discard\n\
                    \n\
                    lonely\n\
                    cr\\0401 UUID=abc /etc/keys/a\\040b luks,keyslot=3,keyfile-offset=512,keyfile-size=64\n\
                    short /dev/sdb1\n";
        let entries = parse(text, Path::new("/etc/crypttab"));
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["cr_hd0", "cr 1", "short"]);
        let [first, second, third] = entries.as_slice() else {
            panic!("{entries:?}");
        };
        assert_eq!(first.device, "/dev/lvg2/lvhd0");
        assert_eq!(first.key, KeySource::Ask);
        assert!(first.options.discard && !first.options.read_only);
        assert_eq!(first.origin.to_string(), "/etc/crypttab, line 2");
        assert_eq!(second.key, KeySource::File("/etc/keys/a b".into()));
        assert_eq!(
            second.options,
            CryptOptions {
                key_slot: Some(3),
                key_file_offset: Some(512),
                key_file_size: Some(64),
                ..CryptOptions::default()
            }
        );
        assert_eq!(third.key, KeySource::Ask);
        assert_eq!(third.options, CryptOptions::default());
        assert_eq!(third.origin.line, 6);
    }

    #[test]
    fn what_is_not_luks() {
        for (options, other) in [
            ("plain,cipher=aes-xts-plain64", Some("plain")),
            ("tcrypt-hidden,tcrypt-veracrypt", Some("tcrypt-veracrypt")),
            ("swap", Some("swap")),
            ("tmp=ext4", Some("tmp")),
            ("bitlk", Some("bitlk")),
            ("luks,noauto,nofail,x-systemd.device-timeout=5", None),
        ] {
            let entry = one(&format!("x /dev/sda1 none {options}"));
            assert_eq!(entry.options.other_type.as_deref(), other, "{options}");
        }
    }

    #[test]
    fn keys_that_cannot_be_got() {
        for (line, part) in [
            (
                "x /dev/sda1 a luks,keyscript=/lib/decrypt_derived",
                "/lib/decrypt_derived",
            ),
            ("x /dev/sda1 /dev/urandom swap", "/dev/urandom"),
            ("x /dev/sda1 /key:UUID=77", "another device"),
            ("x /dev/sda1 - luks,tpm2-device=auto", "TPM"),
            ("x /dev/sda1 key luks", "no absolute path"),
        ] {
            match one(line).key {
                KeySource::Unsupported(what) => assert!(what.contains(part), "{what}"),
                other => panic!("{line}: {other:?}"),
            }
        }
        let by_colon = one("x /dev/sda1 /keys/12:30 luks");
        assert_eq!(by_colon.key, KeySource::File("/keys/12:30".into()));
    }
}
