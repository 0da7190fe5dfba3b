//! `traceparent` of W3C Trace Context (Recommendation of 23 November 2021, section 3.2).
//!
//! Invariant: what does not parse is no parent; nothing is guessed.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanId, TraceId};

/// `traceparent`.
pub(super) static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// `tracestate`.
pub(super) static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The caller's place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parent {
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    pub(super) sampled: bool,
}

impl Parent {
    /// The parent that the headers name; `None` for none, for an invalid one, and for more than one.
    pub(super) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(&TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Self::parse(value.as_bytes()),
            _ => None,
        }
    }

    /// Parses `version-traceid-parentid-flags`. A later version may have more fields, each after a dash (section 4).
    fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let (version, flags) = (hex(text.get(0..2)?)?, hex(text.get(53..55)?)?);
        let dashes = [text.get(2..3)?, text.get(35..36)?, text.get(52..53)?];
        let rest = text.get(55..)?;
        let whole = if version == 0 { rest.is_empty() } else { rest.is_empty() || rest.starts_with('-') };
        if version == 0xff || !whole || dashes != ["-"; 3] {
            return None;
        }
        let trace = TraceId::from(hex(text.get(3..35)?)?);
        let span = SpanId::from(u64::try_from(hex(text.get(36..52)?)?).ok()?);
        let valid = trace != TraceId::INVALID && span != SpanId::INVALID;
        valid.then_some(Self { trace, span, sampled: flags & 1 == 1 })
    }
}

/// The number that lower-case hexadecimal digits stand for.
fn hex(digits: &str) -> Option<u128> {
    let lower = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if lower { u128::from_str_radix(digits, 16).ok() } else { None }
}

/// `traceparent` of a sampled span.
pub(super) fn sampled(trace: TraceId, span: SpanId) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("00-{trace}-{span}-01")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn parse(text: &str) -> Option<Parent> {
        Parent::parse(text.as_bytes())
    }

    #[test]
    fn the_example_of_the_recommendation_is_a_sampled_parent() {
        let parent = parse(&format!("00-{TRACE}-{SPAN}-01")).unwrap();
        assert_eq!((parent.trace.to_string(), parent.span.to_string()), (TRACE.to_owned(), SPAN.to_owned()));
        assert!(parent.sampled);
        assert!(!parse(&format!("00-{TRACE}-{SPAN}-00")).unwrap().sampled);
    }

    #[test]
    fn a_later_version_may_be_longer_and_version_0_may_not() {
        assert!(parse(&format!("cc-{TRACE}-{SPAN}-01-what-comes")).is_some());
        assert!(parse(&format!("cc-{TRACE}-{SPAN}-01")).is_some());
        assert!(parse(&format!("cc-{TRACE}-{SPAN}-01what-comes")).is_none());
        assert!(parse(&format!("00-{TRACE}-{SPAN}-01-x")).is_none());
    }

    #[test]
    fn what_the_recommendation_forbids_is_no_parent() {
        let zeros = "0".repeat(32);
        for text in [
            String::new(),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{TRACE}-{SPAN}-0"),
            format!("00-{TRACE}-{SPAN}-0g"),
            format!("00_{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-+0f067aa0ba902b7-01"),
            format!(" 00-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}ä{SPAN}-01"),
        ] {
            assert_eq!(parse(&text), None, "{text:?}");
        }
    }

    #[test]
    fn two_parents_are_none() {
        let mut headers = HeaderMap::new();
        let value = format!("00-{TRACE}-{SPAN}-01").parse::<HeaderValue>().unwrap();
        headers.append(&TRACEPARENT, value.clone());
        assert!(Parent::from_headers(&headers).is_some());
        headers.append(&TRACEPARENT, value);
        assert!(Parent::from_headers(&headers).is_none());
    }
}
