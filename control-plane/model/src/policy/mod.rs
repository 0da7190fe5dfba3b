//! Policies: what is asked of requests beside where they go, attached to Gateways, listeners, routes, rules and backends.
//!
//! Invariants: a policy is a setting or nothing, field by field; [`effective`] is the only place where several of them become
//! one. Whoever a policy is attached to lists its key, so that a policy that is missing is known to be missing
//! (`docs/adr/0006-policy-attachment.md`).

mod authentication;
mod backend;
mod client;
mod merge;
mod rate_limit;
pub mod validation;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

pub use authentication::{
    ApiKey, ApiKeys, Audiences, AuthenticationSettings, Basic, ClaimToHeader, HttpsUrl, IdentityProvider, InvalidHash,
    InvalidRemoteKeys, InvalidUrl, JwtRules, KeyLocation, KeySource, ListEncoding, PasswordHash, ProofSettings,
    ProviderUse, RemoteKeys, SigningAlgorithm, TextEncoding, TokenSource,
};
pub use backend::{
    AdaptiveLimit, BackendOptions, BackendSettings, BackendTimeouts, Balance, BreakerWindow, CircuitBreaker,
    ConcurrencyLimits, Ejection, FailurePercentage, Failures, Fallback, FallbackResponse, HalfOpen, HashKey,
    HealthCheck, HealthProbe, InvalidBackendSettings, LocalFailure, OpenTime, OutlierDetection, Retries, RetryBudget,
    SlowCalls, StatusRange, SuccessRate,
};
pub use client::{
    CipherSuite, ClientAddress, ClientLimits, ClientSettings, ClientTimeouts, ClientTls, ForwardingHeader,
    HttpProtocol, ProxyProtocol, TlsVersion, TransferRate, Trust,
};
use merge::plain;
pub use merge::{Effective, Leveled, Settings, effective};
pub use rate_limit::{ConcurrencyLimit, KeyPart, Missing, Quota, RateLimit, RateLimitSettings, Tiers};

pub use validation::ValidationSettings;

use crate::ObjectName;

/// Declares the kinds of policy: their word in keys, metrics and logs, the kind of their custom resource, and what they say.
/// Those that are inherited merge along a chain of Gateway, listener, route and rule; the others count alone.
macro_rules! policies {
    (
        inherited { $($(#[$doc:meta])* $kind:ident $word:literal $resource:literal $settings:ty;)* }
        alone { $($(#[$alone_doc:meta])* $alone:ident $alone_word:literal $alone_resource:literal $content:ty;)* }
    ) => {
        /// The kinds of policy.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum PolicyKind {
            $($(#[$doc])* $kind,)*
            $($(#[$alone_doc])* $alone,)*
        }

        impl PolicyKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)* $(Self::$alone,)*];

            /// The word for it in keys, metrics and logs.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $word,)*
                    $(Self::$alone => $alone_word,)*
                }
            }

            /// The kind of its custom resource.
            pub fn resource_kind(self) -> &'static str {
                match self {
                    $(Self::$kind => $resource,)*
                    $(Self::$alone => $alone_resource,)*
                }
            }
        }

        /// What a policy says.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum PolicySpec {
            /// It cannot be honoured as it is written: what it is attached to answers 500.
            Invalid,
            $($(#[$doc])* $kind(Leveled<$settings>),)*
            $($(#[$alone_doc])* $alone($content),)*
        }

        impl PolicySpec {
            /// Whether the policy says that it is switched off, at its own level.
            pub fn is_disabled(&self) -> bool {
                match self {
                    $(Self::$kind(levels) => levels.settings.is_disabled(),)*
                    _ => false,
                }
            }

            /// The fields that it keeps those below from setting.
            pub fn overridden_fields(&self) -> BTreeSet<String> {
                match self {
                    $(Self::$kind(levels) => levels.overrides.as_ref().map_or_else(BTreeSet::new, fields),)*
                    _ => BTreeSet::new(),
                }
            }

            /// The fields that it sets, its overrides aside, by their paths in the custom resource.
            pub fn fields(&self) -> BTreeSet<String> {
                match self {
                    $(Self::$kind(levels) => fields(&levels.settings),)*
                    _ => BTreeSet::new(),
                }
            }
        }

        $(impl Inherited for $settings {
            fn of(spec: &PolicySpec) -> Option<&Leveled<Self>> {
                match spec {
                    PolicySpec::$kind(levels) => Some(levels),
                    _ => None,
                }
            }
        })*

        /// The policy that each field is from, for what has these policies of `kind` on its way, the least specific first.
        /// Empty for a kind that is not inherited.
        pub fn sources<'a>(
            kind: PolicyKind,
            chain: impl IntoIterator<Item = &'a Policy>,
        ) -> BTreeMap<String, PolicyKey> {
            match kind {
                $(PolicyKind::$kind => merged::<$settings>(chain).sources,)*
                $(PolicyKind::$alone => BTreeMap::new(),)*
            }
        }
    };
}

policies! {
    inherited {
        /// RateLimitPolicy: how much a client may ask for.
        RateLimit "rate-limit" "RateLimitPolicy" RateLimitSettings;
        /// AuthenticationPolicy: who a client is.
        Authentication "authentication" "AuthenticationPolicy" AuthenticationSettings;
        /// RequestValidationPolicy: what requests must be.
        RequestValidation "request-validation" "RequestValidationPolicy" ValidationSettings;
    }
    alone {
        /// BackendPolicy: what protects a backend. Boxed, as it is large.
        Backend "backend" "BackendPolicy" Box<BackendSettings>;
        /// ClientPolicy: what a listener grants its clients. Nothing is below a listener, so it has no overrides; see
        /// [`effective_client`].
        Client "client" "ClientPolicy" ClientSettings;
    }
}

impl PolicyKind {
    /// The kind that [`Self::as_str`] spells so.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == word)
    }
}

/// Settings of a kind that is inherited.
pub trait Inherited: Settings {
    /// What a policy says of this kind; `None` for one of another kind, or an invalid one.
    fn of(spec: &PolicySpec) -> Option<&Leveled<Self>>;
}

/// Merges the policies of one kind in `chain`, the least specific first.
pub fn merged<'a, S: Inherited + 'a>(chain: impl IntoIterator<Item = &'a Policy>) -> Effective<S> {
    let levels: Vec<(&PolicyKey, &Leveled<S>)> =
        chain.into_iter().filter_map(|policy| Some((&policy.key, S::of(&policy.spec)?))).collect();
    effective(levels.into_iter())
}

fn fields<S: Settings>(settings: &S) -> BTreeSet<String> {
    let mut fields = BTreeSet::new();
    S::default().lay(settings, &mut |path| {
        fields.insert(path);
    });
    fields
}

/// What the ClientPolicies among `chain` say together, the least specific first.
pub fn effective_client<'a>(chain: impl IntoIterator<Item = &'a Policy>) -> Effective<ClientSettings> {
    plain(chain.into_iter().filter_map(|policy| match &policy.spec {
        PolicySpec::Client(settings) => Some((&policy.key, settings)),
        _ => None,
    }))
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

/// What a policy does with a request that it would refuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Refuses it.
    #[default]
    Enforce,
    /// Lets it pass, and says so in log, metrics and trace.
    Report,
}
