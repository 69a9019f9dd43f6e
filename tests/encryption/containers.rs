//! Making containers, and decrypting them, without virt-fsck.

use crate::support::lab::Lab;

/// The passphrase of all containers, and the file of it that each test has.
pub const SECRET: &str = "correct horse";
pub const KEY: &str = "secret.key";

/// What makes a key slot quick to open.
const QUICK: &str = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000";

impl Lab {
    /// Encrypts a file as a whole with LUKS2; `options` are cryptsetup's. 16 MiB for the header come
    /// before its bytes.
    pub fn encrypt(&self, plain: &str, to: &str, options: &str) {
        self.write(KEY, SECRET);
        self.sh(&format!(
            "cp {plain} {to}; truncate -s +32M {to}\n\
             cryptsetup reencrypt -q --encrypt --type luks2 {options} {QUICK} --reduce-device-size 32M \
             --key-file {KEY} {to}\n\
             truncate -s -16M {to}"
        ));
    }

    /// The same with LUKS1, by QEMU; `options` are those of its format, such as `cipher-alg=serpent-256`.
    pub fn encrypt_with_luks1(&self, plain: &str, to: &str, options: &str) {
        self.write(KEY, SECRET);
        self.sh(&format!(
            "qemu-img convert --object secret,id=key,file={KEY} -f raw -O luks \
             -o key-secret=key,iter-time=10{options} {plain} {to}"
        ));
    }

    /// What is in such a container: QEMU or cryptsetup decrypts a copy.
    pub fn decrypted(&self, container: &str, to: &str) {
        self.sh(&format!(
            "if cryptsetup isLuks --type luks1 {container}; then\n\
             qemu-img convert --object secret,id=key,file={KEY} -O raw --image-opts \
             driver=luks,file.filename={container},key-secret=key {to}\n\
             else\n\
             cp {container} {to}\n\
             cryptsetup reencrypt -q --decrypt --force-offline-reencrypt --header {to}.header --key-file {KEY} {to}\n\
             rm -f {to}.header\n\
             fi"
        ));
    }
}
