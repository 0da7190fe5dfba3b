//! Validated proxy configuration: what a listener, a route and a backend are once every rule of the API was checked.
//!
//! Invariant: a value of these types is valid by itself. References between objects (a route's backend, a listener's
//! certificate) are keys and may dangle; the proxy answers what the Gateway API says for a missing object.
//! Does no IO and knows neither serde nor Kubernetes.

mod backend;
mod certificate;
mod filter;
mod gateway;
mod host;
mod key;
mod listener;
mod matching;
mod network;
mod policy;
mod route;
mod snapshot;

pub use backend::{Backend, BackendProtocol, Endpoint, Endpoints};
pub use certificate::Certificate;
pub use filter::{Filter, HeaderModifier, PathRewrite, RedirectScheme, RequestRedirect, UrlRewrite};
pub use gateway::{AccessLog, Gateway, InvalidSampling, SamplingRatio, Tracing};
pub use host::{HostPattern, InvalidHost};
pub use key::{
    BackendKey, CertificateKey, GatewayKey, InvalidKey, ListenerKey, ObjectName, ResourceKey, RouteKey, RouteKind,
};
pub use listener::{Listener, ListenerProtocol, TlsTermination};
pub use matching::{HeaderMatch, InvalidRegex, PathMatch, QueryMatch, Regex, RouteMatch, ValueMatch};
pub use network::{InvalidNetwork, Network};
pub use policy::{
    AdaptiveLimit, ApiKey, ApiKeys, Audiences, AuthenticationSettings, BackendOptions, BackendSettings,
    BackendTimeouts, Balance, Basic, BreakerWindow, CircuitBreaker, ClaimToHeader, ConcurrencyLimit, ConcurrencyLimits,
    Effective, Ejection, FailurePercentage, Failures, Fallback, FallbackResponse, HalfOpen, HashKey, HealthCheck,
    HealthProbe, HttpsUrl, IdentityProvider, Inherited, InvalidBackendSettings, InvalidHash, InvalidRemoteKeys,
    InvalidUrl, JwtRules, KeyLocation, KeyPart, KeySource, Leveled, ListEncoding, LocalFailure, Missing, Mode,
    OpenTime, OutlierDetection, PasswordHash, Policy, PolicyKey, PolicyKind, PolicySpec, ProofSettings, ProviderUse,
    Quota, RateLimit, RateLimitSettings, RemoteKeys, Retries, RetryBudget, Settings, SigningAlgorithm, SlowCalls,
    StatusRange, SuccessRate, TextEncoding, Tiers, TokenSource, ValidationSettings, effective, merged, sources,
    validation,
};
pub use policy::{
    CipherSuite, ClientAddress, ClientLimits, ClientSettings, ClientTimeouts, ClientTls, ForwardingHeader,
    HttpProtocol, ProxyProtocol, TlsVersion, TransferRate, Trust, effective_client,
};
pub use route::{
    AttachedHost, Attachment, BackendTarget, Route, Rule, RuleAction, Timeouts, Unavailable, WeightedBackend,
};
pub use snapshot::{Delta, Resource, Revision, Snapshot};
