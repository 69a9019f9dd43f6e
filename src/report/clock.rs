//! What time it is, and how people read it.

use jiff::tz::TimeZone;

use crate::layers::filesystem::Timestamp;

/// The present moment and the reader's time zone.
#[derive(Clone, Debug)]
pub struct Clock {
    now: Timestamp,
    zone: TimeZone,
}

impl Clock {
    /// The system's clock, and the time zone of `TZ` or `/etc/localtime`; UTC where neither tells.
    pub fn system() -> Self {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        Self {
            now: Timestamp(now),
            zone: TimeZone::system(),
        }
    }

    /// A given moment, with times in UTC.
    pub const fn utc(now: Timestamp) -> Self {
        Self {
            now,
            zone: TimeZone::UTC,
        }
    }

    /// The present moment.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// The reader's wall clock: `2026-11-20 14:03`.
    pub fn local(&self, time: Timestamp) -> String {
        match calendar(time) {
            Some(moment) => moment
                .to_zoned_datetime(self.zone.clone())
                .strftime("%Y-%m-%d %H:%M")
                .to_string(),
            None => format!("second {} since 1970", time.0),
        }
    }
}

/// RFC 3339 in UTC: `2026-11-20T14:03:07Z`; `None` past the year 9999.
pub fn rfc3339(time: Timestamp) -> Option<String> {
    calendar(time).map(|moment| moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn calendar(time: Timestamp) -> Option<jiff::Timestamp> {
    i64::try_from(time.0)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_and_scripts_read_them() {
        let clock = Clock::utc(Timestamp(0));
        // date -u -d '2026-11-20 14:03:07' +%s
        assert_eq!(clock.local(Timestamp(1_795_183_387)), "2026-11-20 14:03");
        assert_eq!(
            rfc3339(Timestamp(1_795_183_387)).as_deref(),
            Some("2026-11-20T14:03:07Z")
        );
        assert_eq!(
            rfc3339(Timestamp(0)).as_deref(),
            Some("1970-01-01T00:00:00Z")
        );
        assert_eq!(rfc3339(Timestamp(u64::MAX)), None);
        assert_eq!(
            clock.local(Timestamp(u64::MAX)),
            "second 18446744073709551615 since 1970"
        );
    }

    #[test]
    fn local_time_is_of_the_zone() {
        let clock = Clock {
            now: Timestamp(0),
            zone: TimeZone::fixed(jiff::tz::offset(-5)),
        };
        assert_eq!(clock.local(Timestamp(1_795_183_387)), "2026-11-20 09:03");
    }
}
