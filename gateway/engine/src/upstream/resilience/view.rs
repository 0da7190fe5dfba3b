//! A backend's policy and its state as JSON, for people and for `jq`.

use policy_resilience::Snapshot;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Resilience;

impl Resilience {
    /// The state of every part that there is.
    pub(crate) fn view(&self, now: Instant) -> Value {
        let time = self.time(now);
        json!({
            "breaker": self.breaker.as_ref().map(|breaker| snapshot(&breaker.snapshot(time))),
            "limits": self.bulkhead.as_ref().map(|bulkhead| json!({
                "in_flight": bulkhead.in_flight(),
                "pending": bulkhead.pending(),
            })),
            "adaptive": self.adaptive.as_ref().map(|limit| json!({
                "limit": limit.limit(),
                "in_flight": limit.in_flight(),
            })),
            "retries_left": self.retries.as_ref().and_then(|retries| retries.balance(time)),
        })
    }
}

fn snapshot(snapshot: &Snapshot) -> Value {
    json!({
        "state": snapshot.state.as_str(),
        "transitions": snapshot.transitions,
        "requests": snapshot.calls,
        "failures": snapshot.failures,
        "slow": snapshot.slow_calls,
        "consecutive_failures": snapshot.consecutive_failures,
        "openings": snapshot.openings,
        "probes_in_flight": snapshot.probes_in_flight,
        "probe_successes": snapshot.probe_successes,
        "retry_after_seconds": snapshot.retry_after.map(|wait| wait.as_secs_f64()),
        "admitted_share": snapshot.admitted_share,
    })
}
