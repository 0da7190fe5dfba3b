//! A histogram of durations that costs two relaxed additions an observation.
//!
//! Invariant: counts only grow. A scrape may see an observation's bucket before its sum; the next one sees both.
//! (`prometheus_client`'s own histogram takes a lock for each observation.)

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use prometheus_client::encoding::{MetricEncoder, NoLabelSet};

/// Counts durations in `N` buckets and one above them.
#[derive(Debug)]
pub struct AtomicHistogram<const N: usize> {
    bounds: &'static [Duration; N],
    buckets: [AtomicU64; N],
    above: AtomicU64,
    sum_nanoseconds: AtomicU64,
}

impl<const N: usize> AtomicHistogram<N> {
    /// An empty histogram whose buckets end at `bounds` (inclusive), which rise.
    pub fn new(bounds: &'static [Duration; N]) -> Self {
        Self {
            bounds,
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            above: AtomicU64::new(0),
            sum_nanoseconds: AtomicU64::new(0),
        }
    }

    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let bucket = self.bounds.iter().zip(&self.buckets).find(|(bound, _)| duration <= **bound);
        bucket.map_or(&self.above, |(_, count)| count).fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        let within: u64 = self.buckets.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        within + self.above.load(Ordering::Relaxed)
    }

    /// Writes the histogram in seconds.
    ///
    /// # Errors: those of the writer.
    pub fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let within = self.bounds.iter().zip(&self.buckets);
        let mut buckets: Vec<(f64, u64)> =
            within.map(|(bound, count)| (bound.as_secs_f64(), count.load(Ordering::Relaxed))).collect();
        buckets.push((f64::INFINITY, self.above.load(Ordering::Relaxed)));
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_nanos(self.sum_nanoseconds.load(Ordering::Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static BOUNDS: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(100)];

    #[test]
    fn a_bound_belongs_to_its_own_bucket_and_what_is_longer_to_the_last() {
        let histogram = AtomicHistogram::new(&BOUNDS);
        for milliseconds in [0, 10, 11, 100, 101, 5_000] {
            histogram.observe(Duration::from_millis(milliseconds));
        }
        let counts: Vec<u64> = histogram.buckets.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        assert_eq!(counts, [2, 2]);
        assert_eq!(histogram.count(), 6);
        assert_eq!(histogram.sum_nanoseconds.load(Ordering::Relaxed), 5_222_000_000);
    }
}
