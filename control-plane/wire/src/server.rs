//! The control plane's side: what each Gateway's proxies may see, who they are, and what they refuse.
//!
//! Invariants: no stream is answered before the hub is synced; a proxy sees the scope of the Gateway that its token
//! belongs to and nothing else; a slow proxy costs a set of keys, never a queue of messages.

mod admission;
mod hub;
mod newer;
mod references;
mod serve;
mod service;
mod verdicts;

use std::future::Future;

use control_plane_model::GatewayKey;

pub use hub::{Greeting, Hub, KnownObject, ProxyState, Published, Subscription, Transaction};
pub use serve::{ServeError, serve, serve_plain};
pub use service::DiscoveryService;
pub use verdicts::{Report, Reports};

/// Who a proxy is, as its token says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProxyIdentity {
    /// The Gateway that it serves, and whose configuration it may have.
    pub gateway: GatewayKey,
    /// Its pod.
    pub pod: String,
}

/// Tells who a bearer token belongs to.
pub trait Authenticator: Send + Sync + 'static {
    /// The proxy with this token. Called once for each stream; a stream ends after half an hour, so that a token that was
    /// taken away counts no longer than that.
    ///
    /// # Errors: [`AuthenticationError`]; the stream is refused.
    fn authenticate(&self, token: &str) -> impl Future<Output = Result<ProxyIdentity, AuthenticationError>> + Send;
}

/// Why a token was not accepted. The text reaches the proxy and the logs; it must not hold the token.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AuthenticationError {
    /// It is not valid, or not one of a proxy: UNAUTHENTICATED.
    #[error("token refused: {0}")]
    Invalid(String),
    /// It cannot be checked now (the API server does not answer): UNAVAILABLE, and the proxy tries again.
    #[error("token cannot be checked: {0}")]
    Unavailable(String),
}
