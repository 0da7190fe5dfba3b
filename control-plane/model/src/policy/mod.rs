//! Policies: what is asked of requests beside where they go, attached to Gateways, listeners, routes, rules and backends.
//!
//! Invariants: a policy is a setting or nothing, field by field; [`effective`] is the only place where several of them become
//! one. Whoever a policy is attached to lists its key, so that a policy that is missing is known to be missing
//! (`docs/adr/0006-policy-attachment.md`).

mod client;
mod merge;
mod rate_limit;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

pub use client::{
    CipherSuite, ClientAddress, ClientLimits, ClientSettings, ClientTimeouts, ClientTls, ForwardingHeader,
    HttpProtocol, ProxyProtocol, TlsVersion, TransferRate, Trust,
};
use merge::plain;
pub use merge::{Effective, Leveled, Settings, effective};
pub use rate_limit::{ConcurrencyLimit, KeyPart, Missing, Quota, RateLimit, RateLimitSettings, Tiers};

use crate::ObjectName;

/// The kinds of policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// RateLimitPolicy.
    RateLimit,
    /// ClientPolicy.
    Client,
}

impl PolicyKind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::RateLimit, Self::Client];

    /// The word for it in keys, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RateLimit => "rate-limit",
            Self::Client => "client",
        }
    }

    /// The kind that [`Self::as_str`] spells so.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// The kind of its custom resource.
    pub fn resource_kind(self) -> &'static str {
        match self {
            Self::RateLimit => "RateLimitPolicy",
            Self::Client => "ClientPolicy",
        }
    }
}

/// A policy object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey {
    /// Its kind.
    pub kind: PolicyKind,
    /// The object.
    pub name: ObjectName,
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.kind.as_str(), self.name)
    }
}

/// One policy, as its owner wrote it: not merged with any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name; the kind is that of `spec`, unless that is invalid.
    pub key: PolicyKey,
    /// What it says.
    pub spec: PolicySpec,
}

/// What a policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicySpec {
    /// It cannot be honoured as it is written: what it is attached to answers 500.
    Invalid,
    /// How much a client may ask for.
    RateLimit(Leveled<RateLimitSettings>),
    /// What a listener grants its clients. Has no overrides, as nothing is below a listener.
    Client(ClientSettings),
}

impl PolicySpec {
    /// Whether the policy says that it is switched off, at its own level.
    pub fn is_disabled(&self) -> bool {
        match self {
            Self::Invalid => false,
            Self::RateLimit(levels) => levels.settings.is_disabled(),
            Self::Client(settings) => settings.is_disabled(),
        }
    }

    /// The fields that it keeps those below from setting.
    pub fn overridden_fields(&self) -> BTreeSet<String> {
        match self {
            Self::Invalid | Self::Client(_) => BTreeSet::new(),
            Self::RateLimit(levels) => levels.overrides.as_ref().map_or_else(BTreeSet::new, fields),
        }
    }

    /// The fields that it sets, its overrides aside, by their paths in the custom resource.
    pub fn fields(&self) -> BTreeSet<String> {
        match self {
            Self::Invalid => BTreeSet::new(),
            Self::RateLimit(levels) => fields(&levels.settings),
            Self::Client(settings) => fields(settings),
        }
    }
}

fn fields<S: Settings>(settings: &S) -> BTreeSet<String> {
    let mut fields = BTreeSet::new();
    S::default().lay(settings, &mut |path| {
        fields.insert(path);
    });
    fields
}

/// The policy that each field is from, for what has these policies of `kind` on its way, the least specific first.
pub fn sources<'a>(kind: PolicyKind, chain: impl IntoIterator<Item = &'a Policy>) -> BTreeMap<String, PolicyKey> {
    let chain = chain.into_iter().filter(|policy| policy.key.kind == kind);
    match kind {
        PolicyKind::RateLimit => {
            let levels = chain.filter_map(|policy| match &policy.spec {
                PolicySpec::RateLimit(level) => Some((&policy.key, level)),
                _ => None,
            });
            effective(levels.collect::<Vec<_>>().into_iter()).sources
        }
        PolicyKind::Client => effective_client(chain).sources,
    }
}

/// What the ClientPolicies among `chain` say together, the least specific first.
pub fn effective_client<'a>(chain: impl IntoIterator<Item = &'a Policy>) -> Effective<ClientSettings> {
    plain(chain.into_iter().filter_map(|policy| match &policy.spec {
        PolicySpec::Client(settings) => Some((&policy.key, settings)),
        _ => None,
    }))
}

/// What a policy does with a request that it would refuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Refuses it.
    #[default]
    Enforce,
    /// Lets it pass, and says so in log, metrics and trace.
    Report,
}
