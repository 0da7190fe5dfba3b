//! Fields of a request: which are refused, which end at this hop, and which only the gateway may set.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header, request::Parts};

use super::{Upgrade, name};
use crate::{limits::Limits, local_reply::Reason};

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
pub(super) fn check(parts: &Parts, limits: &Limits) -> Result<(), Reason> {
    if parts.headers.len() > limits.max_headers {
        return Err(Reason::TooManyHeaders);
    }
    let mut bytes = 0;
    for (name, value) in &parts.headers {
        // RFC 9113 §6.5.2 counts 32 bytes for each field beside its name and value.
        bytes += name.as_str().len() + value.len() + 32;
        if name.as_str().contains('_') && poses_as_framing(name.as_str()) {
            return Err(Reason::InvalidHeader);
        }
    }
    if bytes > limits.max_head_bytes {
        return Err(Reason::HeadersTooLarge);
    }
    if let Some(expectation) = parts.headers.get(header::EXPECT)
        && !expectation.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(Reason::ExpectationFailed);
    }
    if parts.headers.contains_key(header::TRANSFER_ENCODING) {
        return check_transfer_encoding(parts);
    }
    match content_lengths(&parts.headers) {
        Some(Ok(_)) | None => Ok(()),
        Some(Err(reason)) => Err(reason),
    }
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
pub(super) fn upgrade(parts: &Parts) -> Result<Option<Upgrade>, Reason> {
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
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap, limits: &Limits) -> Result<(), Reason> {
    if headers.contains_key(header::CONNECTION) {
        let options: Vec<Vec<u8>> = connection_options(headers).take(limits.max_connection_options + 1).collect();
        if options.len() > limits.max_connection_options {
            return Err(Reason::InvalidConnectionHeader);
        }
        for option in options {
            remove_nominated(headers, &option)?;
        }
        headers.remove(header::CONNECTION);
    }
    let trailers = headers.get_all(header::TE).iter().any(|value| {
        value.as_bytes().split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    });
    if headers.remove(header::TE).is_some() && trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    for name in
        [header::UPGRADE, header::TRANSFER_ENCODING, header::EXPECT, KEEP_ALIVE, PROXY_CONNECTION, HTTP2_SETTINGS]
    {
        headers.remove(name);
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

/// Removes what only the gateway may set, in every spelling.
pub(super) fn remove_owned(headers: &mut HeaderMap) {
    if !headers.keys().any(|name| is_owned(name.as_str())) {
        return;
    }
    let owned: Vec<HeaderName> = headers.keys().filter(|name| is_owned(name.as_str())).cloned().collect();
    for name in owned {
        headers.remove(name);
    }
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

/// Joins cookie crumbs, which only HTTP/2 may send apart (RFC 9113 §8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, cookie);
    }
}

/// The request's identity: the client's own where it is sane, else a new one (UUID version 4 of `random`), which
/// replaces it in `headers`.
///
/// Sane: one field, 1 to 128 characters of `A-Z a-z 0-9 - . _ ~ : + / = @`.
pub fn request_id(headers: &mut HeaderMap, random: u128) -> HeaderValue {
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
    let bits = random & !(0xf << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let mut text = [b'-'; 36];
    let places = (0..36).filter(|place| !matches!(place, 8 | 13 | 18 | 23));
    for (nibble, place) in places.enumerate() {
        let digit = (bits >> (124 - 4 * nibble) & 15) as usize;
        if let (Some(place), Some(digit)) = (text.get_mut(place), DIGITS.get(digit)) {
            *place = *digit;
        }
    }
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("unknown"))
}
