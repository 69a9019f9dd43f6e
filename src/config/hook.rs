//! `[hook]`: what libvirt's hook does when guests start and stop.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use crate::config::duration;

/// How long a check before the start may take, unless the file says otherwise.
const TIME_BUDGET: Duration = Duration::from_secs(60);

/// What the hook does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookSettings {
    /// Which guests are checked before they start.
    pub check_before_start: CheckBeforeStart,
    /// Whether guests are checked when they have stopped.
    pub check_after_stop: bool,
    /// How long the start of a guest may wait for its check.
    pub time_budget: Duration,
    /// A check is due when the last one is longer ago; `None` if only the filesystem itself says
    /// when.
    pub max_age: Option<Duration>,
}

impl Default for HookSettings {
    fn default() -> Self {
        Self {
            check_before_start: CheckBeforeStart::Never,
            check_after_stop: false,
            time_budget: TIME_BUDGET,
            max_age: None,
        }
    }
}

/// Which guests are checked before they start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckBeforeStart {
    /// None.
    #[default]
    Never,
    /// Of every guest the filesystems that are due.
    Due,
    /// Every guest.
    Always,
}

/// The table, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Table {
    #[serde(default, alias = "check_before_start")]
    check_before_start: CheckBeforeStart,
    #[serde(default, alias = "check_after_stop")]
    check_after_stop: bool,
    #[serde(alias = "time_budget")]
    time_budget: Option<Spanned<String>>,
    #[serde(alias = "max_age")]
    max_age: Option<Spanned<String>>,
}

impl Table {
    /// What it means.
    ///
    /// # Errors
    /// What is wrong, and at which byte of the file.
    pub(super) fn checked(self) -> Result<HookSettings, (usize, String)> {
        let read = |text: Spanned<String>| {
            duration::parse(text.get_ref()).map_err(|why| (text.span().start, why))
        };
        Ok(HookSettings {
            check_before_start: self.check_before_start,
            check_after_stop: self.check_after_stop,
            time_budget: self
                .time_budget
                .map(read)
                .transpose()?
                .unwrap_or(TIME_BUDGET),
            max_age: self.max_age.map(read).transpose()?,
        })
    }
}
