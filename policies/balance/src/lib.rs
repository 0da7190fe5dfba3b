//! Load-balancing decisions as pure code: which backend of a weighted set, which of two endpoints.
//!
//! Invariant: no clock and no random source of its own; the caller passes both in. Keeps no list of endpoints.

mod latency;
mod pick;
mod weighted;

pub use latency::LatencyEstimate;
pub use pick::power_of_two_choices;
pub use weighted::WeightedTurns;
