//! Load-balancing decisions as pure code: which backend of a weighted set, which of two endpoints, which endpoint for a key.
//!
//! Invariant: no clock and no random source of its own; the caller passes both in. A table for keys is made for one list of
//! endpoints and never changes; nothing else keeps a list of endpoints.

mod latency;
mod maglev;
mod pick;
mod ring;
mod weighted;

pub use latency::LatencyEstimate;
pub use maglev::Maglev;
pub use pick::power_of_two_choices;
pub use ring::HashRing;
pub use weighted::WeightedTurns;
