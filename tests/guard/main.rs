//! What this host, or another that shares its storage, may be doing with an image outside of
//! libvirt: it is refused by name, and not one byte changes.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may panic, and says what it skips"
)]

#[path = "../support/mod.rs"]
mod support;

mod kernel_users;
mod lock_manager;
mod processes;
mod shared_storage;

use support::lab::Lab;

const MODES: [&str; 5] = ["-n", "-p", "-y", "--list", "--dry-run"];

/// The image, which is damaged, is refused with these words in every mode.
fn is_refused(lab: &Lab, image: &str, words: &[&str]) {
    let begins = format!("{image} is in use by this host: ");
    for mode in MODES {
        let outcome = lab.look(&format!("{mode} -a {image} --image-format raw"));
        outcome
            .is(64, &[("sda", "refused")])
            .says("sda", &[&begins])
            .says("sda", words);
    }
}

/// It is not refused any longer.
fn is_free(lab: &Lab, image: &str) {
    lab.look(&format!("-n -a {image} --image-format raw"))
        .is(4, &[("sda", "errors-left")]);
}
