//! The program under test.

/// `$VIRT_FSCK_BINARY`, else what cargo built beside the test. The two may differ: cargo builds the
/// latter with every feature that any crate of the tests has switched on.
pub fn virt_fsck() -> String {
    std::env::var("VIRT_FSCK_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_virt-fsck").to_owned())
}
