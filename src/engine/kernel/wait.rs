//! Waiting for the kernel, which tells of most changes to its devices only when asked.

use std::time::{Duration, Instant};

/// How often a device that is busy is tried again: whoever looks at one that has just appeared is done
/// within moments.
pub const TRIES: u32 = 50;
/// After how long.
pub const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// How often it is asked.
const PAUSE: Duration = Duration::from_millis(5);

/// Asks until the answer is yes, or `bound` is over; whether it was yes.
pub async fn until(bound: Duration, mut asked: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        if asked() {
            return true;
        }
        if begun.elapsed() >= bound {
            return false;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_asks_until_yes_and_no_longer_than_the_bound() {
        let mut left = 3;
        let counted = until(Duration::from_secs(60), || {
            left -= 1;
            left == 0
        });
        assert!(counted.await);
        let begun = Instant::now();
        assert!(!until(Duration::from_millis(30), || false).await);
        assert!(begun.elapsed() >= Duration::from_millis(30));
    }
}
