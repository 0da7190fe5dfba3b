//! What a limit counts a request by.

use std::{borrow::Cow, sync::Arc};

use control_plane_model::{KeyPart, Missing};
use gateway_engine::{
    filter::{RequestContext, cookie},
    notes::Identity,
};
use http::HeaderMap;
use policy_rate_limit::{AddressGrouping, Key, KeyBuilder, KeySeed, PartKind};
use serde_json::Value;

/// Stands for a part that is missing where all that lack it share a bucket.
const MISSING: &str = "missing";

/// The parts of a limit's key.
#[derive(Clone, Debug)]
pub(super) struct CompiledKey {
    start: KeyBuilder,
    parts: Arc<[KeyPart]>,
}

impl CompiledKey {
    pub(super) fn new(parts: &[KeyPart], seed: &KeySeed) -> Self {
        let default = [KeyPart::Address { ipv4_prefix: 32, ipv6_prefix: 64 }];
        let parts = if parts.is_empty() { &default[..] } else { parts };
        Self { start: KeyBuilder::new(seed), parts: parts.into() }
    }

    /// Whether it is complete only once it is known who the client is.
    pub(super) fn needs_identity(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, KeyPart::Claim(..)))
    }

    /// The key of a request; `None` where the limit does not count it.
    pub(super) fn of(&self, request: &RequestContext<'_>) -> Option<Key> {
        let mut builder = self.start.clone();
        for part in self.parts.iter() {
            builder = add(builder, part, request)?;
        }
        Some(builder.finish())
    }
}

fn add(builder: KeyBuilder, part: &KeyPart, request: &RequestContext<'_>) -> Option<KeyBuilder> {
    let (kind, name, value, missing) = match part {
        KeyPart::Address { ipv4_prefix, ipv6_prefix } => {
            let grouping = AddressGrouping::new(*ipv4_prefix, *ipv6_prefix).unwrap_or_default();
            return Some(builder.address(request.received.peer.ip(), grouping));
        }
        KeyPart::Shared => return Some(builder),
        KeyPart::Host => return Some(text(builder, PartKind::Host, request.received.host.as_bytes())),
        KeyPart::Route => return Some(text(builder, PartKind::Route, request.route.as_bytes())),
        KeyPart::Header(name, missing) => {
            (PartKind::Header, name.as_str(), header(request.header_map(), name), *missing)
        }
        KeyPart::Cookie(name, missing) => {
            (PartKind::Cookie, &**name, cookie(request.header_map(), name).map(Cow::Borrowed), *missing)
        }
        KeyPart::Query(name, missing) => (PartKind::Query, &**name, request.received.query_parameter(name), *missing),
        KeyPart::Claim(path, missing) => {
            (PartKind::Claim, &**path, request.notes.identity().and_then(|identity| claim(identity, path)), *missing)
        }
    };
    match (value, missing) {
        (Some(value), _) => Some(builder.text(kind, name, Some(&value), "")),
        (None, Missing::Address) => {
            let builder = builder.text(kind, name, None, MISSING);
            Some(builder.address(request.received.peer.ip(), AddressGrouping::default()))
        }
        (None, Missing::Shared) => Some(builder.text(kind, name, None, MISSING)),
        (None, Missing::Skip) => None,
    }
}

fn text(builder: KeyBuilder, kind: PartKind, value: &[u8]) -> KeyBuilder {
    builder.text(kind, "", Some(value), "")
}

/// The value of a field; several are joined as one list (RFC 9110 §5.3).
fn header<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.as_bytes();
    let mut joined = Cow::Borrowed(first);
    for value in values {
        let joined = joined.to_mut();
        joined.extend_from_slice(b", ");
        joined.extend_from_slice(value.as_bytes());
    }
    Some(joined)
}

/// A claim as text: a string's own, anything else as JSON.
fn claim<'a>(identity: &'a Identity, path: &str) -> Option<Cow<'a, [u8]>> {
    match identity.claim(path)? {
        Value::Null => None,
        Value::String(text) => Some(Cow::Borrowed(text.as_bytes())),
        other => Some(Cow::Owned(other.to_string().into_bytes())),
    }
}
