//! Values of a route rule, checked: paths, headers, query parameters, durations. The API server checks most of them by schema;
//! a file is checked here alone.

use std::{sync::Arc, time::Duration};

use control_plane_model::{HeaderMatch, PathMatch, Regex, ValueMatch};
use crds::gateway_api::{HTTPHeaderMatch, HTTPPathMatch, HeaderMatchType, PathMatchType};
use http::{HeaderName, HeaderValue};

/// Headers that no route or policy may change: those that frame a message, name its host or belong to one hop (RFC 9110 §7.6.1), and the
/// request's identity. With the prefix `x-nebula-` the same set as the engine's, which refuses such a filter as a whole.
const PROTECTED_HEADERS: &[&str] = &[
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];

/// A path as requests are compared with: `%` escapes in upper case, none for a character that needs none
/// (RFC 3986 §6.2.2).
///
/// # Errors: the text for the user, for what is not an absolute path (`HTTPPathMatch.value`).
pub(crate) fn canonical_path(text: &str) -> Result<String, String> {
    let refuse = |why: &str| format!("path {text:?} {why}");
    if !text.starts_with('/') {
        return Err(refuse("does not begin with '/'"));
    }
    let mut canonical = String::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
                let (Some(high), Some(low)) = (digit(), digit()) else {
                    return Err(refuse("has a '%' without two hexadecimal digits"));
                };
                let code = u8::try_from(high * 16 + low).unwrap_or_default();
                if code.is_ascii_alphanumeric() || b"-._~".contains(&code) {
                    canonical.push(char::from(code));
                } else if code == b'/' || code == b'\\' || code < b' ' || code == 0x7f {
                    return Err(refuse("holds an escaped '/', '\\' or control character"));
                } else {
                    canonical.push('%');
                    canonical.extend(
                        [high, low]
                            .iter()
                            .filter_map(|digit| char::from_digit(*digit, 16))
                            .map(|digit| digit.to_ascii_uppercase()),
                    );
                }
            }
            byte if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte) => {
                canonical.push(char::from(byte));
            }
            _ => return Err(refuse("holds a character that a path does not allow")),
        }
    }
    let mut segments = canonical.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if segment == "." || segment == ".." || (segment.is_empty() && segments.peek().is_some()) {
            return Err(refuse("holds an empty, '.' or '..' element"));
        }
    }
    Ok(canonical)
}

/// `HTTPPathMatch`; everything where there is none.
pub(crate) fn path_match(path: Option<&HTTPPathMatch>) -> Result<PathMatch, String> {
    let value = path.and_then(|path| path.value.as_deref()).unwrap_or("/");
    Ok(match path.and_then(|path| path.r#type).unwrap_or(PathMatchType::PathPrefix) {
        PathMatchType::Exact => PathMatch::Exact(canonical_path(value)?.into()),
        PathMatchType::PathPrefix => {
            let path = canonical_path(value)?;
            let prefix = path.strip_suffix('/').filter(|prefix| !prefix.is_empty());
            PathMatch::Prefix(prefix.unwrap_or(&path).into())
        }
        PathMatchType::RegularExpression => PathMatch::Regex(regex(value)?),
    })
}

/// A regular expression.
pub(crate) fn regex(pattern: &str) -> Result<Regex, String> {
    Regex::new(pattern).map_err(|error| {
        // The compiler draws the place over several lines; its last line says what is wrong.
        let reason = error.reason.lines().last().unwrap_or_default();
        format!("regular expression {pattern:?}: {}", reason.strip_prefix("error: ").unwrap_or(reason))
    })
}

/// An exact value, or a regular expression.
pub(crate) fn value_match(value: &str, is_regex: bool) -> Result<ValueMatch, String> {
    Ok(if is_regex { ValueMatch::Regex(regex(value)?) } else { ValueMatch::Exact(value.into()) })
}

/// Header matches. Of several for one name only the first counts (`HTTPHeaderMatch.name`).
pub(crate) fn header_matches(headers: Option<&[HTTPHeaderMatch]>) -> Result<Vec<HeaderMatch>, String> {
    let mut matches: Vec<HeaderMatch> = Vec::new();
    for header in headers.unwrap_or_default() {
        let name = header_name(&header.name)?;
        if !matches.iter().any(|other| other.name == name) {
            let value = value_match(&header.value, header.r#type == Some(HeaderMatchType::RegularExpression))?;
            matches.push(HeaderMatch { name, value });
        }
    }
    Ok(matches)
}

/// A header's name.
pub(crate) fn header_name(name: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is not a header name"))
}

/// The name of a header that a route or a policy may change.
pub(crate) fn changeable_header(name: &str) -> Result<HeaderName, String> {
    let header = header_name(name)?;
    if PROTECTED_HEADERS.contains(&header.as_str()) || header.as_str().starts_with("x-nebula-") {
        return Err(format!("header {name} is the gateway's own and cannot be changed"));
    }
    Ok(header)
}

/// A header's value.
pub(crate) fn header_value(value: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(value).map_err(|_| format!("{value:?} is not a header value"))
}

/// A host name for a redirect or a rewrite: exact, lower case.
pub(crate) fn exact_host(host: &str) -> Result<Arc<str>, String> {
    match control_plane_model::HostPattern::parse(host) {
        Ok(control_plane_model::HostPattern::Exact(host)) => Ok(host),
        _ => Err(format!("{host:?} is not a host name")),
    }
}

/// A Gateway API duration (GEP-2257): up to four numbers of up to five digits with `h`, `m`, `s` or `ms`. Zero is `None`.
pub(crate) fn duration(text: &str) -> Result<Option<Duration>, String> {
    let refuse = || format!("{text:?} is not a duration, such as 1h30m, 10s or 250ms");
    let mut total = Duration::ZERO;
    let mut rest = text;
    for _ in 0..4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at_checked(digits).ok_or_else(refuse)?;
        if !(1..=5).contains(&digits) {
            return Err(refuse());
        }
        let number: u64 = number.parse().map_err(|_| refuse())?;
        let units = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at_checked(units).ok_or_else(refuse)?;
        total += match unit {
            "h" => Duration::from_secs(number * 3600),
            "m" => Duration::from_secs(number * 60),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return Err(refuse()),
        };
        rest = tail;
        if rest.is_empty() {
            return Ok((!total.is_zero()).then_some(total));
        }
    }
    Err(refuse())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_what_the_api_says() {
        for (text, milliseconds) in [("10s", 10_000), ("1h30m", 5_400_000), ("500ms", 500), ("1m1s1ms", 61_001)] {
            assert_eq!(duration(text), Ok(Some(Duration::from_millis(milliseconds))), "{text}");
        }
        assert_eq!(duration("0s"), Ok(None));
        for text in ["", "10", "s", "1d", "1.5s", "-1s", "100000s", "1s1s1s1s1s", "1 s"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_path_is_compared_in_its_canonical_form() {
        for (text, canonical) in [("/", "/"), ("/a%2db", "/a-b"), ("/caf%c3%a9", "/caf%C3%A9"), ("/a/", "/a/")] {
            assert_eq!(canonical_path(text).as_deref(), Ok(canonical), "{text}");
        }
        for text in
            ["", "a", "/a//b", "/a/../b", "/a/.", "/a/..", "/a%2Fb", "/a%2", "/a b", "/a?b", "/%00", "/a/%2e%2e"]
        {
            assert!(canonical_path(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_prefix_ends_without_a_slash() {
        let prefix =
            |value: &str| path_match(Some(&HTTPPathMatch { r#type: None, value: Some(value.to_owned()) })).unwrap();
        assert_eq!(prefix("/a/"), PathMatch::Prefix("/a".into()));
        assert_eq!(prefix("/"), PathMatch::Prefix("/".into()));
        assert_eq!(path_match(None).unwrap(), PathMatch::Prefix("/".into()));
    }
}
