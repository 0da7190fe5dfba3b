//! What the router looks at in a request, and how conditions are held against it.

use control_plane_model::{HeaderMatch, QueryMatch, ValueMatch};
use http::{HeaderMap, Method, header};
use std::borrow::Cow;

/// The canonical request, as the router sees it.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// Lower case, no port.
    pub host: &'a str,
    /// The canonical path.
    pub path: &'a str,
    /// The query without `?`; empty where there is none.
    pub query: &'a str,
    /// The method.
    pub method: &'a Method,
    /// The fields.
    pub headers: &'a HeaderMap,
    /// Whether it is gRPC; only such requests match a GRPCRoute.
    pub is_grpc: bool,
}

impl RequestView<'_> {
    /// Whether a header's condition holds. Repeated fields are joined by commas, cookies by `; `.
    pub(super) fn has_header(&self, wanted: &HeaderMatch) -> bool {
        let mut values = self.headers.get_all(&wanted.name).iter();
        let Some(first) = values.next() else { return false };
        let Ok(first) = std::str::from_utf8(first.as_bytes()) else { return false };
        let Some(second) = values.next() else { return wanted.value.matches(first) };
        let separator = if wanted.name == header::COOKIE { "; " } else { "," };
        let mut joined = first.to_owned();
        for value in std::iter::once(second).chain(values) {
            let Ok(value) = std::str::from_utf8(value.as_bytes()) else { return false };
            joined.push_str(separator);
            joined.push_str(value);
        }
        wanted.value.matches(&joined)
    }

    /// Whether a query parameter's condition holds. The first of a name counts; names and values are decoded as
    /// `application/x-www-form-urlencoded` (WHATWG URL §5.1).
    pub(super) fn has_query(&self, wanted: &QueryMatch) -> bool {
        let mut parameters = self.query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let Some((_, value)) = parameters.find(|(name, _)| decoded(name).eq(wanted.name.bytes())) else { return false };
        match &wanted.value {
            ValueMatch::Exact(text) => decoded(value).eq(text.bytes()),
            ValueMatch::Regex(regex) => {
                let value = if value.contains(['%', '+']) {
                    String::from_utf8(decoded(value).collect()).map(Cow::Owned).ok()
                } else {
                    Some(Cow::Borrowed(value))
                };
                value.is_some_and(|value| regex.is_match(&value))
            }
        }
    }
}

/// The value of the first parameter `name` of a query, decoded as [`RequestView::has_query`] does.
pub(crate) fn query_parameter<'a>(query: &'a str, name: &str) -> Option<Cow<'a, [u8]>> {
    let mut parameters = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let (_, value) = parameters.find(|(found, _)| decoded(found).eq(name.bytes()))?;
    Some(if value.contains(['%', '+']) { decoded(value).collect() } else { value.as_bytes().into() })
}

/// The bytes of a percent-encoded text; `+` is a space, a broken encoding stands for itself.
fn decoded(text: &str) -> impl Iterator<Item = u8> + '_ {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        if let [b'%', high, low, behind @ ..] = rest
            && let (Some(high), Some(low)) = (char::from(*high).to_digit(16), char::from(*low).to_digit(16))
        {
            rest = behind;
            return u8::try_from(high << 4 | low).ok();
        }
        let (byte, behind) = rest.split_first()?;
        rest = behind;
        Some(if *byte == b'+' { b' ' } else { *byte })
    })
}
