//! How much a client may ask for (RateLimitPolicy): token buckets and requests in flight.
//!
//! A chain of policies becomes up to two filters: limits that need nothing but the request act before authentication, so that
//! a flood does not reach it; those that need the client's identity act after it. Invariants: in each of the two, all tokens
//! are taken or none; a refused request holds no permit; a bucket is that of (policy, limit, key) and survives an edit.

mod key;
mod state;

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc};

use control_plane_model::{Effective, Mode, Policy, PolicyKey, Quota, RateLimitSettings, Settings as _, merged};
use gateway_engine::{
    filter::{HttpFilter, InvalidPolicy, RequestContext, Stage, Verdict},
    local_reply::{LocalReply, Reason},
    notes::Identity,
};
use http::{HeaderName, HeaderValue, header};
use policy_rate_limit::{
    Claim, Decision, InFlight, Limit, Verdict as Said,
    headers::{self, PolicyName, QuotaUnit, ServiceLimit},
    take_all,
};

pub use self::state::State;
use self::{
    key::CompiledKey,
    state::{CounterId, Table},
};

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The limits of a chain that act in one stage.
#[derive(Clone, Debug)]
pub struct RateLimit {
    stage: Stage,
    mode: Mode,
    limits: Arc<[TokenLimit]>,
    concurrency: Arc<[ConcurrencyLimit]>,
    /// `RateLimit-Policy`, where responses tell how much is left.
    told: Option<HeaderValue>,
}

#[derive(Debug)]
struct TokenLimit {
    /// The policy that it is from.
    policy: PolicyKey,
    name: PolicyName,
    table: Arc<Table>,
    key: CompiledKey,
    limit: Limit,
    tiers: Option<Tiers>,
}

#[derive(Debug)]
struct Tiers {
    claim: Arc<str>,
    limits: BTreeMap<Arc<str>, Limit>,
}

#[derive(Debug)]
struct ConcurrencyLimit {
    policy: PolicyKey,
    name: PolicyName,
    counters: Arc<InFlight>,
    key: CompiledKey,
    limit: NonZeroU32,
}

impl TokenLimit {
    /// The limit for this client.
    fn of(&self, identity: Option<&Arc<Identity>>) -> Limit {
        let tier = || {
            let tiers = self.tiers.as_ref()?;
            tiers.limits.get(identity?.claim(&tiers.claim)?.as_str()?).copied()
        };
        tier().unwrap_or(self.limit)
    }
}

/// The filters that `levels` ask for, where a RateLimitPolicy is among them.
///
/// # Errors: [`InvalidPolicy`] for a quota that cannot be kept or a name that clients cannot be told.
pub fn compile(levels: &[Arc<Policy>], state: &State) -> Result<Vec<RateLimit>, InvalidPolicy> {
    let merged = merged::<RateLimitSettings>(levels.iter().map(|policy| &**policy));
    if merged.settings.is_disabled() {
        return Ok(Vec::new());
    }
    let limits = token_limits(&merged, state)?;
    let concurrency = concurrency_limits(&merged, state)?;
    let (late, early): (Vec<_>, Vec<_>) =
        limits.into_iter().partition(|limit| limit.tiers.is_some() || limit.key.needs_identity());
    let (late_permits, early_permits): (Vec<_>, Vec<_>) =
        concurrency.into_iter().partition(|limit| limit.key.needs_identity());
    let filters = [(Stage::SourceRateLimit, early, early_permits), (Stage::RateLimit, late, late_permits)];
    let filters = filters.into_iter().filter(|(_, limits, permits)| !limits.is_empty() || !permits.is_empty());
    Ok(filters
        .map(|(stage, limits, permits)| RateLimit {
            stage,
            mode: merged.settings.mode(),
            told: if merged.settings.headers.unwrap_or(true) { told(&limits, &permits) } else { None },
            limits: limits.into(),
            concurrency: permits.into(),
        })
        .collect())
}

fn token_limits(merged: &Effective<RateLimitSettings>, state: &State) -> Result<Vec<TokenLimit>, InvalidPolicy> {
    let max_keys = merged.settings.max_keys.unwrap_or(RateLimitSettings::DEFAULT_MAX_KEYS);
    let mut limits = Vec::with_capacity(merged.settings.limits.len());
    for (name, spec) in &merged.settings.limits {
        let Some(policy) = merged.sources.get(&format!("limits.{name}")) else { continue };
        let invalid =
            |message: String| InvalidPolicy { policy: policy.clone(), message: format!("limits.{name}: {message}") };
        let tiers = spec.tiers.as_ref().map(|tiers| {
            let quotas = tiers.quotas.iter().map(|(value, quota)| Ok((value.clone(), limit(*quota)?)));
            let limits = quotas.collect::<Result<_, String>>().map_err(&invalid)?;
            Ok(Tiers { claim: tiers.claim.clone(), limits })
        });
        limits.push(TokenLimit {
            name: PolicyName::new(name).map_err(|error| invalid(error.to_string()))?,
            table: state.table(CounterId { policy: policy.clone(), name: name.clone() }, max_keys),
            key: CompiledKey::new(&spec.key, state.seed()),
            limit: limit(spec.quota).map_err(&invalid)?,
            tiers: tiers.transpose()?,
            policy: policy.clone(),
        });
    }
    Ok(limits)
}

fn concurrency_limits(
    merged: &Effective<RateLimitSettings>,
    state: &State,
) -> Result<Vec<ConcurrencyLimit>, InvalidPolicy> {
    let mut limits = Vec::with_capacity(merged.settings.concurrency.len());
    for (name, spec) in &merged.settings.concurrency {
        let Some(policy) = merged.sources.get(&format!("concurrency.{name}")) else { continue };
        let name_of = PolicyName::new(name).map_err(|error| InvalidPolicy {
            policy: policy.clone(),
            message: format!("concurrency.{name}: {error}"),
        })?;
        limits.push(ConcurrencyLimit {
            name: name_of,
            counters: state.in_flight(CounterId { policy: policy.clone(), name: name.clone() }),
            key: CompiledKey::new(&spec.key, state.seed()),
            limit: spec.limit,
            policy: policy.clone(),
        });
    }
    Ok(limits)
}

fn limit(quota: Quota) -> Result<Limit, String> {
    Limit::new(quota.rate.get().into(), quota.per, quota.burst.get().into()).map_err(|error| error.to_string())
}

/// `RateLimit-Policy`: the limits' own quotas; that of a tier is told by `RateLimit` alone.
fn told(limits: &[TokenLimit], permits: &[ConcurrencyLimit]) -> Option<HeaderValue> {
    let quotas = limits.iter().map(|limit| headers::Policy::Quota {
        name: &limit.name,
        limit: limit.limit,
        unit: QuotaUnit::Requests,
    });
    let permits = permits.iter().map(|limit| headers::Policy::Concurrency { name: &limit.name, limit: limit.limit });
    HeaderValue::try_from(headers::policies(quotas.chain(permits))).ok()
}

impl HttpFilter for RateLimit {
    fn stage(&self) -> Stage {
        self.stage
    }

    async fn on_request(&self, request: &mut RequestContext<'_>) -> Verdict {
        match self.acquire(request) {
            Verdict::Continue => self.take(request),
            refusal => refusal,
        }
    }
}

impl RateLimit {
    /// Counts the request as in flight wherever it is to be.
    fn acquire(&self, request: &mut RequestContext<'_>) -> Verdict {
        let mut permits = Vec::new();
        for limit in self.concurrency.iter() {
            let Some(key) = limit.key.of(request) else { continue };
            let Ok(permit) = limit.counters.acquire(key, limit.limit) else {
                let reply = LocalReply::from(Reason::ConcurrencyLimited)
                    .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
                    .by(&limit.policy);
                self.tell(request, None);
                return request.refuse(&limit.policy, self.mode, reply);
            };
            permits.push(permit);
        }
        if !permits.is_empty() {
            request.notes.hold(permits);
        }
        Verdict::Continue
    }

    /// Takes a token of each bucket, or none.
    fn take(&self, request: &mut RequestContext<'_>) -> Verdict {
        // Most chains have one limit, which needs no list of them.
        if let [only] = &*self.limits {
            let Some(key) = only.key.of(request) else { return Verdict::Continue };
            let limit = only.of(request.notes.identity());
            let decision = only.table.buckets().take(key, &limit, 1, request.now);
            return self.judge(request, &[(only, limit, decision)], decision.verdict);
        }
        let identity = request.notes.identity();
        let mut claims: Vec<Claim<'_>> = Vec::with_capacity(self.limits.len());
        let mut counted: Vec<&TokenLimit> = Vec::with_capacity(self.limits.len());
        for limit in self.limits.iter() {
            if let Some(key) = limit.key.of(request) {
                claims.push(Claim { buckets: limit.table.buckets(), key, limit: limit.of(identity), cost: 1 });
                counted.push(limit);
            }
        }
        // There are at most as many as one call takes: so many limits a chain of policies can have.
        let Ok(taken) = take_all(&claims, request.now) else { return Verdict::Reply(Reason::Internal.into()) };
        let said = counted.into_iter().zip(&claims).zip(taken.decisions());
        let said: Vec<_> = said.map(|((limit, claim), decision)| (limit, claim.limit, *decision)).collect();
        self.judge(request, &said, taken.verdict())
    }

    /// Tells the client how its buckets stand, and refuses it where one of them does.
    fn judge(
        &self,
        request: &mut RequestContext<'_>,
        said: &[(&TokenLimit, Limit, Decision)],
        verdict: Said,
    ) -> Verdict {
        let left = self.told.is_some().then(|| left(said));
        self.tell(request, left.filter(|text| !text.is_empty()));
        let Some((limit, ..)) =
            said.iter().find(|(.., decision)| !decision.is_allowed() && decision.verdict == verdict)
        else {
            return Verdict::Continue;
        };
        let mut reply = LocalReply::from(Reason::RateLimited).by(&limit.policy);
        if let Some(seconds) = headers::retry_after(verdict) {
            reply = reply.with_header(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        request.refuse(&limit.policy, self.mode, reply)
    }

    /// Tells the client how much is left; not of limits that are only reported.
    fn tell(&self, request: &mut RequestContext<'_>, left: Option<String>) {
        let Some(told) = self.told.as_ref().filter(|_| self.mode == Mode::Enforce) else { return };
        request.notes.respond_with(RATELIMIT_POLICY, told.clone());
        if let Some(left) = left.and_then(|left| HeaderValue::try_from(left).ok()) {
            request.notes.respond_with(RATELIMIT, left);
        }
    }
}

/// `RateLimit`.
fn left(said: &[(&TokenLimit, Limit, Decision)]) -> String {
    let items = said.iter().map(|(counted, limit, decision)| ServiceLimit {
        name: &counted.name,
        limit: *limit,
        decision: *decision,
    });
    headers::service_limits(items)
}

#[cfg(test)]
mod tests;
