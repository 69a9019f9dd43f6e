//! The checkers' words that carry a meaning of their own, as patterns.
//!
//! The tools run with `LC_ALL=C`, so these are the words of their sources.

use std::sync::LazyLock;

use regex::Regex;

/// A pattern that a test below has seen to compile; one that does not would match nothing. None
/// uses classes such as `\d`, which compile only with some features of the crate: the tests are
/// built with more of them than the program.
type Pattern = LazyLock<Option<Regex>>;

/// The first line of e2fsck (`e2fsck 1.47.0 (5-Feb-2023)`) and fsck.fat: only their version.
static BANNER: Pattern = LazyLock::new(|| Regex::new(r"^(e2fsck|fsck\.fat) [0-9]").ok());

/// e2fsck names the features it does not know before it asks for a newer version of itself
/// (e2fsck/unix.c).
static UNSUPPORTED_FEATURES: Pattern =
    LazyLock::new(|| Regex::new(r"has unsupported feature\(s\): *([^\n]*[^\n ])").ok());

/// xfs_repair on a log whose changes are not in the filesystem yet (repair/phase2.c). The words
/// are broken over lines, at a place that has moved between versions.
static DIRTY_LOG: Pattern = LazyLock::new(|| {
    Regex::new(r"valuable[ \n]+metadata[ \n]+changes[ \n]+in[ \n]+a[ \n]+log").ok()
});

/// e2fsck where neither the superblock nor a backup that it tried can be used (e2fsck/unix.c).
static NO_SUPERBLOCK: Pattern =
    LazyLock::new(|| Regex::new(r"superblock could not be read or does not describe a valid").ok());

pub(super) fn is_banner(line: &str) -> bool {
    BANNER.as_ref().is_some_and(|banner| banner.is_match(line))
}

pub(super) fn unsupported_features(output: &str) -> Option<&str> {
    let found = UNSUPPORTED_FEATURES.as_ref()?.captures(output)?;
    found.get(1).map(|features| features.as_str())
}

pub(super) fn has_dirty_log(output: &str) -> bool {
    DIRTY_LOG
        .as_ref()
        .is_some_and(|words| words.is_match(output))
}

pub(super) fn has_no_superblock(output: &str) -> bool {
    let words = NO_SUPERBLOCK.as_ref();
    words.is_some_and(|words| words.is_match(output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn banners_are_told_from_what_the_tools_say() {
        assert!(is_banner("e2fsck 1.47.0 (5-Feb-2023)"));
        assert!(is_banner("fsck.fat 4.2 (2021-01-31)"));
        assert!(!is_banner("e2fsck: aborted"));
        assert!(!is_banner("xfs_repair 6.1"));
    }

    #[test]
    fn a_superblock_that_cannot_be_used_is_told() {
        assert!(has_no_superblock(
            "vda:\nThe superblock could not be read or does not describe a valid ext2/ext3/ext4\n"
        ));
        assert!(!has_no_superblock("vda: clean\n"));
    }

    #[test]
    fn unsupported_features_are_named() {
        let output = "x has unsupported feature(s): FEATURE_C12 FEATURE_R30\ne2fsck: Get a newer version of e2fsck!\n";
        assert_eq!(
            unsupported_features(output),
            Some("FEATURE_C12 FEATURE_R30")
        );
        assert_eq!(unsupported_features("x: clean"), None);
    }

    #[test]
    fn a_dirty_log_is_seen_across_a_line_break() {
        for words in [
            "ALERT: The filesystem has valuable metadata changes in a log which is being\n",
            "ERROR: The filesystem has valuable metadata\nchanges in a log which needs to\n",
        ] {
            assert!(has_dirty_log(words));
        }
        assert!(!has_dirty_log("Phase 2 - using internal log\n"));
    }
}
