//! One canonical form of each request: host, path and fields as matching, filters, logs and the backend see them.
//! What can be read in more than one way is refused. `docs/strictness.md` lists each decision.
//!
//! What hyper 1.12 leaves for us (its `proto/h1/role.rs`): it refuses differing or non-numeric `Content-Length`,
//! `Transfer-Encoding` that does not end in `chunked` or comes in HTTP/1.0, obsolete folding, and a space before a
//! colon. But it merges equal `Content-Length` fields, drops `Content-Length` beside `Transfer-Encoding` (and closes
//! after the answer), drops a fragment from the target, and accepts a bare LF as line end, all before [`canonicalise`]
//! can see them. [`raw`] therefore looks at the bytes before hyper does.

mod fields;
mod forwarding;
mod host;
mod path;
pub mod raw;

use std::{borrow::Cow, net::SocketAddr};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header,
    request::Parts,
    uri::{self, PathAndQuery},
};

pub use self::{
    fields::{
        X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_REQUEST_ID, clean_response, clean_trailers,
        is_protected, request_id,
    },
    forwarding::{Forwarding, Origin},
    host::Authority,
    path::canonical_path,
};
use crate::{limits::Limits, local_reply::Reason};

/// The scheme of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// 80 or 443.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// What a request's connection says about it.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// Its scheme; `:scheme` and an absolute target's scheme are not trusted.
    pub scheme: Scheme,
}

/// What [`canonicalise`] found out, beside the head that it brought into canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canonical {
    /// Lower case, no port, no trailing dot; IPv6 in brackets and compressed (RFC 5952). Never empty.
    pub host: Box<str>,
    /// The port that the client named, unless it is the scheme's own.
    pub port: Option<u16>,
    /// The protocol that the client wants to change to.
    pub upgrade: Option<Upgrade>,
    /// What the request said about whom it is forwarded for; `None` where it said nothing.
    pub forwarding: Option<Box<Forwarding>>,
}

/// A wanted change of protocol (HTTP/1.1 `Upgrade`). The fields are gone from the head: whoever forwards the request
/// writes `connection: upgrade` and `upgrade` anew. No byte behind the head may reach the backend before its 101, and
/// the connection closes when there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// WebSocket (RFC 6455).
    WebSocket,
    /// Another protocol, as the client wrote it.
    Other(HeaderValue),
}

impl Upgrade {
    /// The value of `Upgrade`.
    pub fn token(&self) -> HeaderValue {
        match self {
            Self::WebSocket => HeaderValue::from_static("websocket"),
            Self::Other(token) => token.clone(),
        }
    }
}

/// Brings `parts` into canonical form: `uri` becomes origin-form with the canonical path and the query as it is
/// (or `*`), `Host` the canonical authority; hop-by-hop fields, fields that `Connection` nominates, `Expect`, and
/// fields that only the gateway may set are removed; cookie crumbs are joined.
///
/// # Errors: the [`Reason`] for which the request must be refused; `parts` is half changed then.
pub fn canonicalise(parts: &mut Parts, connection: &Connection, limits: &Limits) -> Result<Canonical, Reason> {
    let present = fields::check(parts, limits)?;
    let authority = authority(parts, connection.scheme)?;
    let target = target(parts, limits)?;
    let upgrade = fields::upgrade(parts, present)?;
    fields::remove_hop_by_hop(&mut parts.headers, present, limits)?;
    let forwarding = fields::remove_owned(&mut parts.headers, present);
    fields::join_cookies(&mut parts.headers, present);
    parts.uri = target;
    set_host(&mut parts.headers, &authority)?;
    Ok(Canonical { host: authority.host, port: authority.port, upgrade, forwarding })
}

/// The one host that the request names, without the scheme's own port.
fn authority(parts: &Parts, scheme: Scheme) -> Result<Authority, Reason> {
    let parse = |text: &[u8]| -> Result<Authority, Reason> {
        let Authority { host, port } = Authority::parse(text)?;
        Ok(Authority { host, port: port.filter(|port| *port != scheme.default_port()) })
    };
    let mut fields = parts.headers.get_all(header::HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(Reason::DuplicateHost);
    }
    let field = field.map(|value| parse(value.as_bytes())).transpose()?;
    let target = parts.uri.authority().map(|value| parse(value.as_str().as_bytes())).transpose()?;
    match (field, target) {
        // RFC 9112 §3.2: HTTP/1.1 names the host in the field, whatever the target.
        (None, Some(_)) if parts.version == Version::HTTP_11 => Err(Reason::MissingHost),
        (None, Some(authority)) | (Some(authority), None) => Ok(authority),
        (Some(field), Some(target)) if field == target => Ok(field),
        (Some(_), Some(_)) => Err(Reason::HostMismatch),
        (None, None) => Err(Reason::MissingHost),
    }
}

/// Makes `Host` the canonical authority, unless it is that already.
fn set_host(headers: &mut HeaderMap, authority: &Authority) -> Result<(), Reason> {
    let Authority { host, port } = authority;
    let is_canonical = |value: &HeaderValue| match (value.as_bytes().strip_prefix(host.as_bytes()), port) {
        (Some([]), None) => true,
        (Some([b':', digits @ ..]), Some(port)) => digits == itoa::Buffer::new().format(*port).as_bytes(),
        _ => false,
    };
    if headers.get(header::HOST).is_some_and(is_canonical) {
        return Ok(());
    }
    let text = match port {
        None => Cow::Borrowed(&**host),
        Some(port) => Cow::Owned(format!("{host}:{port}")),
    };
    headers.insert(header::HOST, HeaderValue::from_str(&text).map_err(|_| Reason::InvalidHost)?);
    Ok(())
}

/// The target in origin-form (RFC 9112 §3.2), or `*`.
fn target(parts: &Parts, limits: &Limits) -> Result<Uri, Reason> {
    if parts.method == Method::CONNECT {
        return Err(Reason::ConnectRefused);
    }
    if let Some(scheme) = parts.uri.scheme()
        && *scheme != uri::Scheme::HTTP
        && *scheme != uri::Scheme::HTTPS
    {
        return Err(Reason::InvalidTarget);
    }
    // Authority-form belongs to CONNECT alone.
    let Some(path_and_query) = parts.uri.path_and_query() else { return Err(Reason::InvalidTarget) };
    if path_and_query.as_str().len() > limits.max_uri_bytes {
        return Err(Reason::UriTooLong);
    }
    if path_and_query.as_str() == "*" {
        return if parts.method == Method::OPTIONS { Ok(Uri::from_static("*")) } else { Err(Reason::InvalidTarget) };
    }
    match canonical_path(path_and_query.path())? {
        Cow::Borrowed(_) => Ok(Uri::from(path_and_query.clone())),
        Cow::Owned(mut text) => {
            if let Some(query) = path_and_query.query() {
                text.push('?');
                text.push_str(query);
            }
            PathAndQuery::try_from(text).map(Uri::from).map_err(|_| Reason::InvalidPath)
        }
    }
}

/// Tells the backend where the request comes from: `x-forwarded-for`, `x-forwarded-proto` and `x-forwarded-host`.
/// The client's own were removed by [`canonicalise`], so that each holds one value that the gateway vouches for.
///
/// `asked_for` is what a trusted proxy says that the client asked for; else it is what the request is for.
pub fn forwarding_headers(
    headers: &mut HeaderMap,
    client: &HeaderValue,
    scheme: Scheme,
    asked_for: Option<&HeaderValue>,
) {
    headers.insert(X_FORWARDED_FOR, client.clone());
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme.as_str()));
    if let Some(host) = asked_for.or_else(|| headers.get(header::HOST)).cloned() {
        headers.insert(X_FORWARDED_HOST, host);
    }
}

/// A client's address as `x-forwarded-for` has it; the same for all requests of a connection.
pub fn forwarded_for(peer: SocketAddr) -> HeaderValue {
    // An address is made of digits, letters, dots and colons, which a field may hold.
    HeaderValue::from_str(&peer.ip().to_canonical().to_string()).unwrap_or(HeaderValue::from_static("unknown"))
}

/// A field's name as a constant.
const fn name(text: &'static str) -> HeaderName {
    HeaderName::from_static(text)
}

#[cfg(test)]
mod tests;
