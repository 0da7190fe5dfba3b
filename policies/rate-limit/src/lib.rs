//! Rate limits as pure code: token buckets ([`Bucket`], by key [`Buckets`], several at once [`take_all`]), requests in flight
//! by key ([`InFlight`]), a part of a limit that several processes share ([`Slice`]), what a limit counts by ([`KeyBuilder`])
//! and what a client is told ([`headers`]).
//!
//! Invariant: no clock and no random source of its own; the caller passes the time in, as the time since an origin that all
//! calls share, and the seed of the hash. Memory is bounded by what the caller allows, whatever clients send.

mod bucket;
mod buckets;
mod claims;
pub mod headers;
mod in_flight;
mod key;
mod limit;
mod slice;

pub use bucket::Bucket;
pub use buckets::{Buckets, WAYS};
pub use claims::{Claim, MAX_CLAIMS, Taken, TooManyClaims, take_all};
pub use in_flight::{InFlight, InFlightRefusal, Permit};
pub use key::{AddressGrouping, Key, KeyBuilder, KeySeed, PartKind, PrefixTooLong};
pub use limit::{Decision, LONGEST, Limit, LimitError, Verdict};
pub use slice::{Answer, Ask, AskId, Slice, SliceError, SliceSettings, SliceVerdict};
