//! What a rule or a backend reference changes in requests and responses (`HTTPRouteFilter`, `GRPCRouteFilter`).

use std::{num::NonZeroU16, sync::Arc};

use http::{HeaderName, HeaderValue, StatusCode};

/// One filter. Order among them is the proxy's, by stage, not the user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Changes what the backend sees.
    RequestHeaderModifier(HeaderModifier),
    /// Changes what the client sees.
    ResponseHeaderModifier(HeaderModifier),
    /// Answers with a redirect; the rule has no backend then.
    RequestRedirect(RequestRedirect),
    /// Rewrites host and path for the backend.
    UrlRewrite(UrlRewrite),
}

/// Header changes, applied in this order: set, add, remove. Never names a header that frames the message
/// or that the gateway owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderModifier {
    /// Replaces every value.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Adds a value to those that are there.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Removes every value.
    pub remove: Vec<HeaderName>,
}

/// Where a redirect points; what is `None` stays as in the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRedirect {
    /// The scheme.
    pub scheme: Option<RedirectScheme>,
    /// The host, without port.
    pub hostname: Option<Arc<str>>,
    /// The path.
    pub path: Option<PathRewrite>,
    /// The port. `None`: the scheme's well-known port where the scheme is set, else the listener's port.
    /// A scheme's own well-known port is left out of `Location`.
    pub port: Option<NonZeroU16>,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

/// Scheme of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectScheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

/// What the backend sees in place of the client's host and path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlRewrite {
    /// The host.
    pub hostname: Option<Arc<str>>,
    /// The path.
    pub path: Option<PathRewrite>,
}

/// A new path. Begins with `/` once applied; the query stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// In place of the whole path.
    Full(Arc<str>),
    /// In place of the prefix that the rule matched; needs a rule whose matches are all prefixes.
    Prefix(Arc<str>),
}
