//! The one place of this program that looks at the clock: how long a step took, and waiting with a limit.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Measures from its creation, on the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts to measure.
    #[expect(clippy::disallowed_methods, reason = "a tool that times other programs, with no time to fake in tests")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

impl std::fmt::Display for Stopwatch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.elapsed().as_secs_f64();
        if seconds < 100.0 {
            write!(formatter, "{seconds:.1} s")
        } else {
            write!(formatter, "{:.1} min", seconds / 60.0)
        }
    }
}

/// Asks `done` until it answers true, at most for `limit`, with a short pause between two questions.
///
/// # Errors: `done` fails, or the limit passes; `what` names what was waited for.
pub fn wait_for(what: &str, limit: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let watch = Stopwatch::start();
    while !done()? {
        if watch.elapsed() > limit {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    Ok(())
}
