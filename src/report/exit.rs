//! The one table from outcome to exit status, after fsck(8) and e2fsck(8).

use crate::check::outcome::Verdict;
use crate::report::model::DomainReport;

/// An exit status: the OR of what was found over all filesystems.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitStatus(u8);

impl ExitStatus {
    /// Everything that could hold a filesystem was checked and is sound.
    pub const CLEAN: Self = Self(0);
    /// Errors were found and corrected.
    pub const CORRECTED: Self = Self(1);
    /// Errors were found and are still there.
    pub const ERRORS_LEFT: Self = Self(4);
    /// Something went wrong that is not an error of a filesystem.
    pub const OPERATIONAL: Self = Self(8);
    /// The arguments cannot be used.
    pub const USAGE: Self = Self(16);
    /// Stopped by a signal.
    pub const INTERRUPTED: Self = Self(32);
    /// Not touched, because somebody may be using it.
    pub const REFUSED: Self = Self(64);
    /// Something that may hold a filesystem was not checked.
    pub const NOT_CHECKED: Self = Self(128);

    /// What one verdict adds.
    pub const fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Clean | Verdict::NothingToCheck(_) => Self::CLEAN,
            Verdict::Corrected => Self::CORRECTED,
            Verdict::ErrorsLeft => Self::ERRORS_LEFT,
            Verdict::Failed(_) => Self::OPERATIONAL,
            Verdict::Interrupted => Self::INTERRUPTED,
            Verdict::Refused(_) => Self::REFUSED,
            Verdict::NotChecked(_) => Self::NOT_CHECKED,
        }
    }

    /// What all verdicts of all domains add up to.
    pub fn of_all<'a>(reports: impl IntoIterator<Item = &'a DomainReport>) -> Self {
        reports
            .into_iter()
            .flat_map(DomainReport::verdicts)
            .fold(Self::CLEAN, |sum, verdict| sum.with(Self::of(verdict)))
    }

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The number for the system.
    pub const fn code(self) -> u8 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_bits() {
        let words = String::new;
        for (verdict, bit) in [
            (Verdict::Clean, 0),
            (Verdict::NothingToCheck(words()), 0),
            (Verdict::Corrected, 1),
            (Verdict::ErrorsLeft, 4),
            (Verdict::Failed(words()), 8),
            (Verdict::Interrupted, 32),
            (Verdict::Refused(words()), 64),
            (Verdict::NotChecked(words()), 128),
        ] {
            assert_eq!(ExitStatus::of(&verdict).code(), bit, "{verdict:?}");
        }
        assert_eq!(
            ExitStatus::CORRECTED.with(ExitStatus::NOT_CHECKED).code(),
            129
        );
    }
}
