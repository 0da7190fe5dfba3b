//! Fields of a request: which are refused, which end at this hop, and which only the gateway may set.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header, request::Parts};

use super::{Forwarding, Upgrade, name};
use crate::{
    limits::Limits,
    local_reply::{Reason, X_NEBULA_REASON},
};

/// The request's identity in logs, traces and replies.
pub const X_REQUEST_ID: HeaderName = name("x-request-id");
/// The client's address.
pub const X_FORWARDED_FOR: HeaderName = name("x-forwarded-for");
/// The scheme of the client's connection.
pub const X_FORWARDED_PROTO: HeaderName = name("x-forwarded-proto");
/// The authority that the client asked for.
pub const X_FORWARDED_HOST: HeaderName = name("x-forwarded-host");

const KEEP_ALIVE: HeaderName = name("keep-alive");
const PROXY_CONNECTION: HeaderName = name("proxy-connection");
const HTTP2_SETTINGS: HeaderName = name("http2-settings");

/// Fields that frame the message, name its host, or belong to one hop. No client may nominate them in `Connection`,
/// spell them with `_`, or have a filter change them.
const FRAMING: [HeaderName; 9] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    KEEP_ALIVE,
    PROXY_CONNECTION,
];

/// Further fields that `Connection` must not nominate: a backend without them would decide otherwise (CVE-2026-39858).
const END_TO_END: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CACHE_CONTROL,
    header::ORIGIN,
    header::EXPECT,
    header::FORWARDED,
];

/// Which fields a head has of those that need a further look. Found in the one pass that every head gets: most heads have
/// few of them, and to look each one up costs more than this pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Present(u16);

impl Present {
    const CONNECTION: Self = Self(1);
    const CONTENT_LENGTH: Self = Self(1 << 1);
    const COOKIE: Self = Self(1 << 2);
    const EXPECT: Self = Self(1 << 3);
    const TE: Self = Self(1 << 4);
    const TRANSFER_ENCODING: Self = Self(1 << 5);
    const UPGRADE: Self = Self(1 << 6);
    /// The others of [`ENDS_HERE`].
    const OF_THIS_HOP: Self = Self(1 << 7);
    /// What only the gateway may set.
    const OWNED: Self = Self(1 << 8);

    fn add(&mut self, name: &str) {
        let present = match name {
            "connection" => Self::CONNECTION,
            "content-length" => Self::CONTENT_LENGTH,
            "cookie" => Self::COOKIE,
            "expect" => Self::EXPECT,
            "te" => Self::TE,
            "transfer-encoding" => Self::TRANSFER_ENCODING,
            "upgrade" => Self::UPGRADE,
            "keep-alive" | "proxy-connection" | "http2-settings" => Self::OF_THIS_HOP,
            name if is_owned(name) => Self::OWNED,
            _ => return,
        };
        self.0 |= present.0;
    }

    fn has(self, wanted: Self) -> bool {
        self.0 & wanted.0 != 0
    }
}

/// What ends at this hop whatever `Connection` says, beside itself and `TE`.
const ENDS_HERE: [HeaderName; 6] =
    [header::UPGRADE, header::TRANSFER_ENCODING, header::EXPECT, KEEP_ALIVE, PROXY_CONNECTION, HTTP2_SETTINGS];

/// Whether filters must leave the field alone.
pub fn is_protected(name: &HeaderName) -> bool {
    FRAMING.contains(name) || *name == X_REQUEST_ID || name.as_str().starts_with("x-nebula-")
}

/// Whether only the gateway may set the field, in any spelling with `_` for `-`.
fn is_owned(name: &str) -> bool {
    // Nearly every field leaves here.
    if !name.starts_with('x') && !name.starts_with('f') {
        return false;
    }
    let starts = |prefix: &str| {
        name.len() >= prefix.len()
            && name.bytes().zip(prefix.bytes()).all(|(byte, wanted)| byte == wanted || byte == b'_' && wanted == b'-')
    };
    starts("x-forwarded-")
        || starts("x-nebula-")
        || name == "forwarded"
        || name != X_REQUEST_ID.as_str() && name.len() == X_REQUEST_ID.as_str().len() && starts("x-request-id")
}

/// Counts the fields and refuses those that no request may have.
pub(super) fn check(parts: &Parts, limits: &Limits) -> Result<Present, Reason> {
    if parts.headers.len() > limits.max_headers {
        return Err(Reason::TooManyHeaders);
    }
    let mut bytes = 0;
    let mut present = Present::default();
    for (name, value) in &parts.headers {
        // RFC 9113 §6.5.2 counts 32 bytes for each field beside its name and value.
        bytes += name.as_str().len() + value.len() + 32;
        present.add(name.as_str());
        if name.as_str().contains('_') && poses_as_framing(name.as_str()) {
            return Err(Reason::InvalidHeader);
        }
    }
    if bytes > limits.max_head_bytes {
        return Err(Reason::HeadersTooLarge);
    }
    if present.has(Present::EXPECT)
        && let Some(expectation) = parts.headers.get(header::EXPECT)
        && !expectation.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(Reason::ExpectationFailed);
    }
    if present.has(Present::TRANSFER_ENCODING) {
        check_transfer_encoding(parts)?;
    } else if present.has(Present::CONTENT_LENGTH)
        && let Some(Err(reason)) = content_lengths(&parts.headers)
    {
        return Err(reason);
    }
    Ok(present)
}

fn poses_as_framing(name: &str) -> bool {
    FRAMING.iter().any(|framing| {
        framing.as_str().len() == name.len()
            && name
                .bytes()
                .zip(framing.as_str().bytes())
                .all(|(byte, wanted)| byte == wanted || byte == b'_' && wanted == b'-')
    })
}

fn check_transfer_encoding(parts: &Parts) -> Result<(), Reason> {
    let mut values = parts.headers.get_all(header::TRANSFER_ENCODING).iter();
    let chunked = values.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"));
    // HTTP/2 has no transfer codings (RFC 9113 §8.2.2), HTTP/1.0 neither.
    if parts.version != Version::HTTP_11 || !chunked || values.next().is_some() {
        return Err(Reason::InvalidTransferEncoding);
    }
    if parts.headers.contains_key(header::CONTENT_LENGTH) {
        return Err(Reason::ConflictingLength);
    }
    Ok(())
}

/// The length that the fields announce; an error for several of them, a list, or anything but digits.
fn content_lengths(headers: &HeaderMap) -> Option<Result<u64, Reason>> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let value = values.next()?;
    let digits = !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit);
    let length = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|_| digits);
    Some(match (length, values.next()) {
        (Some(length), None) => Ok(length),
        _ => Err(Reason::InvalidContentLength),
    })
}

/// The protocol that an HTTP/1.1 request asks for. `h2c` is ignored, as RFC 9113 has withdrawn it.
pub(super) fn upgrade(parts: &Parts, present: Present) -> Result<Option<Upgrade>, Reason> {
    if !present.has(Present::UPGRADE) {
        return Ok(None);
    }
    let mut values = parts.headers.get_all(header::UPGRADE).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if parts.version != Version::HTTP_11 || !connection_options(&parts.headers).any(|option| option == b"upgrade") {
        return Ok(None);
    }
    let token = value.as_bytes().trim_ascii();
    let names_several = values.next().is_some();
    if token.eq_ignore_ascii_case(b"h2c") && !names_several {
        return Ok(None);
    }
    let has_body = parts.headers.contains_key(header::TRANSFER_ENCODING)
        || matches!(content_lengths(&parts.headers), Some(Ok(1..) | Err(_)));
    if names_several || token.is_empty() || token.iter().any(|byte| b", ".contains(byte)) || has_body {
        return Err(Reason::InvalidUpgrade);
    }
    if !token.eq_ignore_ascii_case(b"websocket") {
        return Ok(Some(Upgrade::Other(value.clone())));
    }
    if parts.method == Method::GET { Ok(Some(Upgrade::WebSocket)) } else { Err(Reason::InvalidUpgrade) }
}

/// Options of all `Connection` fields, as they are written.
fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = Vec<u8>> + '_ {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|option| option.trim_ascii().to_ascii_lowercase())
        .filter(|option| !option.is_empty())
}

/// Removes what ends at this hop (RFC 9110 §7.6.1), `te: trailers` apart.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap, present: Present, limits: &Limits) -> Result<(), Reason> {
    if present.has(Present::CONNECTION) {
        let options: Vec<Vec<u8>> = connection_options(headers).take(limits.max_connection_options + 1).collect();
        if options.len() > limits.max_connection_options {
            return Err(Reason::InvalidConnectionHeader);
        }
        for option in options {
            remove_nominated(headers, &option)?;
        }
        headers.remove(header::CONNECTION);
    }
    if present.has(Present::TE) {
        let trailers = headers.get_all(header::TE).iter().any(|value| {
            value.as_bytes().split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(b"trailers"))
        });
        headers.remove(header::TE);
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
    let of_this_hop = [Present::UPGRADE, Present::TRANSFER_ENCODING, Present::EXPECT, Present::OF_THIS_HOP];
    if of_this_hop.into_iter().any(|field| present.has(field)) {
        for name in ENDS_HERE {
            headers.remove(name);
        }
    }
    Ok(())
}

fn remove_nominated(headers: &mut HeaderMap, option: &[u8]) -> Result<(), Reason> {
    // What these name is removed anyway.
    if matches!(option, b"close" | b"keep-alive" | b"upgrade" | b"te" | b"http2-settings" | b"proxy-connection") {
        return Ok(());
    }
    let name = HeaderName::from_bytes(option).map_err(|_| Reason::InvalidConnectionHeader)?;
    if is_protected(&name) || is_owned(name.as_str()) || END_TO_END.contains(&name) {
        return Err(Reason::InvalidConnectionHeader);
    }
    headers.remove(name);
    Ok(())
}

/// Removes what only the gateway may set, in every spelling; returns those that say whom the request is forwarded for.
pub(super) fn remove_owned(headers: &mut HeaderMap, present: Present) -> Option<Box<Forwarding>> {
    if !present.has(Present::OWNED) {
        return None;
    }
    let owned: Vec<HeaderName> = headers.keys().filter(|name| is_owned(name.as_str())).cloned().collect();
    let mut forwarding = None;
    for name in owned {
        if Forwarding::is_one(&name) {
            forwarding.get_or_insert_with(Box::<Forwarding>::default).take(name, headers);
        } else {
            headers.remove(name);
        }
    }
    forwarding
}

/// Removes from a request's trailers what no trailer may say (RFC 9110 §6.5.1): fields that frame the message, that a
/// backend decides by, or that only the gateway may set. A backend that merges trailers into its fields would obey them.
pub fn clean_trailers(trailers: &mut HeaderMap) {
    let is_refused = |name: &HeaderName| {
        is_protected(name) || is_owned(name.as_str()) || END_TO_END.contains(name) || poses_as_framing(name.as_str())
    };
    let refused: Vec<HeaderName> = trailers.keys().filter(|name| is_refused(name)).cloned().collect();
    for name in refused {
        trailers.remove(name);
    }
}

/// Removes from a backend's response what ends at this hop (RFC 9110 §7.6.1), and the gateway's word for why it answered
/// itself. What frames the message is hyper's to write.
pub fn clean_response(headers: &mut HeaderMap) {
    let mut present = Present::default();
    for name in headers.keys() {
        present.add(name.as_str());
    }
    if present.has(Present::CONNECTION) {
        for name in nominated_by_backend(headers) {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    // The length beside a transfer coding counts for nothing (RFC 9112 §6.3), so nobody may count on it.
    if present.has(Present::TRANSFER_ENCODING) && headers.remove(header::TRANSFER_ENCODING).is_some() {
        headers.remove(header::CONTENT_LENGTH);
    }
    if present.has(Present::UPGRADE) {
        headers.remove(header::UPGRADE);
    }
    if present.has(Present::OF_THIS_HOP) {
        headers.remove(KEEP_ALIVE);
        headers.remove(PROXY_CONNECTION);
    }
    if present.has(Present::OWNED) {
        headers.remove(X_NEBULA_REASON);
    }
}

/// The fields that `Connection` of a response nominates, but for those that frame the message.
fn nominated_by_backend(headers: &HeaderMap) -> Vec<HeaderName> {
    // The first three name nothing, or what is removed anyway: nearly every response has one of them.
    const SPARED: [&[u8]; 5] = [b"keep-alive", b"close", b"upgrade", b"content-length", b"transfer-encoding"];
    let options =
        headers.get_all(header::CONNECTION).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let options = options.map(<[u8]>::trim_ascii);
    let named = options.filter(|option| !SPARED.iter().any(|spared| option.eq_ignore_ascii_case(spared)));
    // What is not a name names nothing.
    named.filter_map(|option| HeaderName::from_bytes(option).ok()).collect()
}

/// Joins cookie crumbs, which only HTTP/2 may send apart (RFC 9113 §8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap, present: Present) {
    if !present.has(Present::COOKIE) || headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, cookie);
    }
}

/// Fields that the gateway adds to a request: this one, those of [`super::forwarding_headers`] and `traceparent`.
const ADDED: usize = 5;

/// The request's identity: the client's own where it is sane, else a new one (UUID version 4 of `random`), which
/// replaces it in `headers`.
///
/// Sane: one field, 1 to 128 characters of `A-Z a-z 0-9 - . _ ~ : + / = @`.
pub fn request_id(headers: &mut HeaderMap, random: u128) -> HeaderValue {
    // At once for all that the gateway adds, instead of growing twice.
    headers.reserve(ADDED);
    let mut values = headers.get_all(X_REQUEST_ID).iter();
    let is_sane = |value: &&HeaderValue| {
        (1..=128).contains(&value.len())
            && value.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:+/=@".contains(byte))
    };
    if let (Some(value), None) = (values.next().filter(is_sane), values.next()) {
        return value.clone();
    }
    let value = uuid(random);
    headers.insert(X_REQUEST_ID, value.clone());
    value
}

/// A UUID version 4 (RFC 9562 §5.4).
fn uuid(random: u128) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    /// Where each byte's two digits go.
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let bits = random & !(0xf << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or_default();
    let mut text = [b'-'; 36];
    for (byte, place) in bits.to_be_bytes().into_iter().zip(PLACES) {
        if let Some(places) = text.get_mut(place..place + 2) {
            places.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
    }
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("unknown"))
}
