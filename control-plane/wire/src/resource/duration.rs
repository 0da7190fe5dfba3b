//! Lengths of time.

use std::time::Duration;

use super::error::{Field as _, InvalidResource};
use crate::proto;

pub(super) fn duration_to_wire(duration: Duration) -> proto::Duration {
    proto::Duration { seconds: duration.as_secs(), nanoseconds: duration.subsec_nanos() }
}

pub(super) fn duration_from_wire(wire: proto::Duration) -> Result<Duration, InvalidResource> {
    if wire.nanoseconds >= 1_000_000_000 {
        let reason = format_args!("{} is a second or more", wire.nanoseconds);
        return Err(InvalidResource::new(reason)).field("nanoseconds");
    }
    Ok(Duration::new(wire.seconds, wire.nanoseconds))
}
