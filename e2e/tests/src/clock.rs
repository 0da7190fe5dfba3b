//! Waiting with a limit; the one place of these tests that looks at the clock.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// A moment of the monotonic clock, `after` from now.
#[expect(clippy::disallowed_methods, reason = "these tests drive real processes, whose time cannot be paused")]
pub fn deadline(after: Duration) -> Instant {
    Instant::now() + after
}

/// Whether the moment has passed.
#[expect(clippy::disallowed_methods, reason = "these tests drive real processes, whose time cannot be paused")]
pub fn passed(deadline: Instant) -> bool {
    Instant::now() >= deadline
}

/// Asks `probe` until it answers `Ok(Some(_))`, at most for `limit`.
///
/// # Errors: the limit passes; the last answer of `probe` says how far it came. `what` names what was waited for.
pub fn eventually<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<T, String>) -> Result<T> {
    let end = deadline(limit);
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(last) if passed(end) => bail!("{what}: not within {} s; last: {last}", limit.as_secs()),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
