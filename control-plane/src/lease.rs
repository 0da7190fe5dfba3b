//! Leader election with a coordination.k8s.io Lease: one replica at a time writes status and runs the proxies.
//!
//! Who holds the Lease renews it every [`RENEW`]. A standby takes it over once it has not changed for the whole
//! [`DURATION`] by the standby's own monotonic clock, so that clocks of different machines need not agree. Every write
//! carries the version that was read: of two that want the Lease one gets it.
//! Invariant: a leader steps down [`DEADLINE`] after it *began* the last renewal that succeeded, whatever it is waiting for
//! then. A standby cannot have seen that renewal any earlier, and waits longer.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kit_process::{clock::Clock, drain::Drain};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::{
    sync::watch,
    time::{Instant, error::Elapsed},
};

use crate::kubernetes::{describe, is_status};

/// Name of the Lease, in the control plane's namespace.
pub const NAME: &str = "nebula-control-plane";
/// How long a Lease counts without being renewed.
pub const DURATION: Duration = Duration::from_secs(15);
/// How often the holder renews.
pub const RENEW: Duration = Duration::from_secs(5);
/// How long the holder goes on without having renewed.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// How often a standby looks, and how soon a leader tries again that could not renew.
const LOOK: Duration = Duration::from_secs(2);

/// What a replica does next about the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is ours: renew.
    Renew,
    /// It is nobody's, or its holder is gone: take it.
    Take,
    /// Someone else holds it.
    Wait,
}

/// When the Lease was last seen to change.
#[derive(Debug, Default)]
struct Sight(Option<(String, Instant)>);

impl Sight {
    /// Decides what `me` does about `lease` as read at `now`.
    fn decide(&mut self, lease: &Lease, me: &str, now: Instant) -> Step {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.0 {
            Some((seen, since)) if *seen == version => *since,
            _ => {
                self.0 = Some((version, now));
                now
            }
        };
        let spec = lease.spec.as_ref();
        match spec.and_then(|spec| spec.holder_identity.as_deref()) {
            None | Some("") => Step::Take,
            Some(holder) if holder == me => Step::Renew,
            Some(_) => {
                let seconds = spec.and_then(|spec| spec.lease_duration_seconds);
                let valid =
                    seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(DURATION, Duration::from_secs);
                if now.duration_since(since) > valid { Step::Take } else { Step::Wait }
            }
        }
    }
}

/// Tells whether this replica leads. Clones watch the same election.
pub type Leadership = watch::Receiver<bool>;

/// One replica's part in the election.
pub struct Elector {
    leases: Api<Lease>,
    me: String,
    clock: Arc<dyn Clock>,
    leading: watch::Sender<bool>,
    sight: Sight,
    renewed: Option<Instant>,
    /// Why the last turn failed, so that the same is said once.
    failure: Option<String>,
}

impl Elector {
    /// For the replica called `me`; the Lease is in `namespace`.
    pub fn new(client: Client, namespace: &str, me: &str, clock: Arc<dyn Clock>) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            me: me.to_owned(),
            clock,
            leading: watch::Sender::new(false),
            sight: Sight::default(),
            renewed: None,
            failure: None,
        }
    }

    /// Tells whether this replica leads, from now on.
    pub fn leadership(&self) -> Leadership {
        self.leading.subscribe()
    }

    /// Takes part until the drain, then gives the Lease back, so that a standby need not wait for it to expire.
    pub async fn run(mut self, drain: Drain) {
        loop {
            let begun = Instant::now();
            let deadline = self.deadline();
            // The deadline goes first: after a pause of the whole process both may be over.
            let outcome = tokio::select! {
                biased;
                () = passed(deadline) => None,
                outcome = tokio::time::timeout(RENEW, self.turn()) => Some(outcome),
                () = drain.signaled() => break,
            };
            let Some(outcome) = outcome else {
                self.lead(false);
                continue;
            };
            let wait = self.note(outcome, begun);
            tokio::select! {
                biased;
                () = passed(self.deadline()) => self.lead(false),
                () = tokio::time::sleep(wait) => {}
                () = drain.signaled() => break,
            }
        }
        self.release().await;
    }

    /// When this replica stops leading unless it renews before; `None` where it does not lead.
    fn deadline(&self) -> Option<Instant> {
        self.renewed.filter(|_| *self.leading.borrow()).map(|renewed| renewed + DEADLINE)
    }

    /// Takes the outcome of a turn that was begun then. Returns how long to wait before the next one.
    fn note(&mut self, outcome: Result<kube::Result<bool>, Elapsed>, begun: Instant) -> Duration {
        if matches!(outcome, Ok(Ok(_))) && self.failure.take().is_some() {
            tracing::info!("lease can be read and written again");
        }
        match outcome {
            Ok(Ok(true)) => {
                self.renewed = Some(begun);
                self.lead(begun.elapsed() < DEADLINE);
                return RENEW;
            }
            Ok(Ok(false)) => self.lead(false),
            Ok(Err(error)) => self.failed(describe(&error)),
            Err(_) => self.failed("the API server does not answer".to_owned()),
        }
        LOOK
    }

    fn failed(&mut self, error: String) {
        if self.failure.as_ref() != Some(&error) {
            tracing::warn!(error, "lease cannot be read or written: trying again");
            self.failure = Some(error);
        }
    }

    fn lead(&self, leads: bool) {
        let changed = self.leading.send_if_modified(|current| std::mem::replace(current, leads) != leads);
        if changed {
            tracing::info!(replica = self.me, leads, "leadership changed");
        }
    }

    /// One look and at most one write. Tells whether the Lease is ours.
    async fn turn(&mut self) -> kube::Result<bool> {
        let Some(lease) = self.leases.get_opt(NAME).await? else {
            let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(None)) };
            return won(self.leases.create(&PostParams::default(), &lease).await);
        };
        match self.sight.decide(&lease, &self.me, Instant::now()) {
            Step::Wait => Ok(false),
            Step::Renew | Step::Take => {
                let spec = Some(self.spec(lease.spec.as_ref()));
                let lease = Lease { spec, ..lease };
                won(self.leases.replace(NAME, &PostParams::default(), &lease).await)
            }
        }
    }

    fn now(&self) -> MicroTime {
        // A clock outside jiff's range (the years -9999 to 9999) reads as 1970; the field is only shown to people.
        MicroTime(Timestamp::try_from(self.clock.now()).unwrap_or(Timestamp::UNIX_EPOCH))
    }

    /// The Lease as ours, after `previous`.
    fn spec(&self, previous: Option<&LeaseSpec>) -> LeaseSpec {
        let same_holder = previous.and_then(|spec| spec.holder_identity.as_deref()) == Some(&self.me);
        let transitions = previous.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            renew_time: Some(self.now()),
            acquire_time: previous
                .filter(|_| same_holder)
                .map_or_else(|| Some(self.now()), |spec| spec.acquire_time.clone()),
            lease_transitions: Some(if same_holder || previous.is_none() { transitions } else { transitions + 1 }),
            ..LeaseSpec::default()
        }
    }

    async fn release(&self) {
        if !self.leading.send_replace(false) {
            return;
        }
        let given_back = async {
            let mut lease = self.leases.get(NAME).await?;
            let ours = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&self.me));
            if let Some(spec) = ours {
                spec.holder_identity = Some(String::new());
                self.leases.replace(NAME, &PostParams::default(), &lease).await?;
            }
            kube::Result::Ok(())
        };
        match tokio::time::timeout(RENEW, given_back).await {
            Ok(Ok(())) => tracing::info!("lease given back"),
            Ok(Err(error)) => tracing::warn!(error = describe(&error), "lease not given back: it will expire"),
            Err(_) => tracing::warn!("lease not given back in time: it will expire"),
        }
    }
}

/// Waits for the deadline; for ever where there is none. Cancel-safe.
async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Whether a write went through; `false` when another replica's came first.
fn won(written: kube::Result<Lease>) -> kube::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(error) if is_status(&error, 409) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(version: &str, holder: Option<&str>) -> Lease {
        Lease {
            metadata: ObjectMeta { resource_version: Some(version.to_owned()), ..ObjectMeta::default() },
            spec: Some(LeaseSpec {
                holder_identity: holder.map(str::to_owned),
                lease_duration_seconds: Some(15),
                ..LeaseSpec::default()
            }),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_foreign_lease_is_taken_only_after_it_stood_still_for_its_whole_duration() {
        let mut sight = Sight::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(sight.decide(&lease("1", Some("other")), "me", start), Step::Wait);
        assert_eq!(sight.decide(&lease("1", Some("other")), "me", after(14)), Step::Wait);
        assert_eq!(sight.decide(&lease("2", Some("other")), "me", after(16)), Step::Wait);
        assert_eq!(sight.decide(&lease("2", Some("other")), "me", after(31)), Step::Wait);
        assert_eq!(sight.decide(&lease("2", Some("other")), "me", after(32)), Step::Take);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_given_back_is_taken_at_once_and_ours_is_renewed() {
        let mut sight = Sight::default();
        assert_eq!(sight.decide(&lease("1", Some("")), "me", Instant::now()), Step::Take);
        assert_eq!(sight.decide(&lease("2", None), "me", Instant::now()), Step::Take);
        assert_eq!(sight.decide(&lease("3", Some("me")), "me", Instant::now()), Step::Renew);
    }
}
