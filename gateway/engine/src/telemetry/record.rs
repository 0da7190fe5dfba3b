//! What is known of a request when it has ended: a line of the access log, and the attributes of its span.
//!
//! Invariant: a record holds no query, no header but the user agent, and no text beyond its bound.

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Version};
use opentelemetry::trace::TraceId;
use serde::{Serialize, Serializer, ser::SerializeStruct as _};

/// The longest text that is written; what is longer is cut there.
const MAX_TEXT: usize = 1024;

/// Text that is cheap to keep: shared with its source where that is possible. May hold any bytes; it is written as
/// UTF-8, what is not UTF-8 as U+FFFD, and cut after 1,024 bytes.
#[derive(Clone)]
pub struct Text(Repr);

#[derive(Clone)]
enum Repr {
    Static(&'static str),
    Shared(Arc<str>),
    Bytes(Bytes),
    Header(HeaderValue),
}

impl Text {
    /// The bytes, uncut.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Static(text) => text.as_bytes(),
            Repr::Shared(text) => text.as_bytes(),
            Repr::Bytes(bytes) => bytes,
            Repr::Header(value) => value.as_bytes(),
        }
    }

    /// As it is written.
    pub fn to_str_lossy(&self) -> std::borrow::Cow<'_, str> {
        let bytes = self.as_bytes();
        let kept = bytes.get(..MAX_TEXT).unwrap_or(bytes);
        // A character that the cut went through is left out, so that it does not look like bad input.
        match std::str::from_utf8(kept) {
            Err(error) if bytes.len() > MAX_TEXT && error.error_len().is_none() => {
                String::from_utf8_lossy(kept.get(..error.valid_up_to()).unwrap_or_default())
            }
            _ => String::from_utf8_lossy(kept),
        }
    }
}

impl From<&'static str> for Text {
    fn from(text: &'static str) -> Self {
        Self(Repr::Static(text))
    }
}

impl From<Arc<str>> for Text {
    fn from(text: Arc<str>) -> Self {
        Self(Repr::Shared(text))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Repr::Bytes(text.into()))
    }
}

impl From<Bytes> for Text {
    fn from(bytes: Bytes) -> Self {
        Self(Repr::Bytes(bytes))
    }
}

impl From<HeaderValue> for Text {
    fn from(value: HeaderValue) -> Self {
        Self(Repr::Header(value))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_str_lossy(), formatter)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_str_lossy())
    }
}

/// A request that has ended.
#[derive(Clone, Debug)]
pub struct Record {
    /// When its head was received.
    pub time: SystemTime,
    /// `x-request-id`.
    pub request_id: Text,
    /// The method.
    pub method: Method,
    /// The canonical host, without port.
    pub host: Text,
    /// The canonical path, without query: a query may hold secrets.
    pub path: Text,
    /// What the client speaks.
    pub version: Version,
    /// The status that the client got.
    pub status: StatusCode,
    /// Why the proxy answered itself, or how the exchange broke; `None` where all went well.
    pub flag: Option<&'static str>,
    /// The listener that received it.
    pub listener: Option<Arc<str>>,
    /// The route that matched: the text form of its key.
    pub route: Option<Arc<str>>,
    /// The rule of the route that matched: its name or its number.
    pub rule: Option<Text>,
    /// The backend that was chosen: the text form of its key.
    pub backend: Option<Arc<str>>,
    /// The endpoint of the last attempt.
    pub endpoint: Option<SocketAddr>,
    /// Attempts made.
    pub attempts: u32,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the response's body.
    pub response_bytes: u64,
    /// From the head received to the last byte of the response sent.
    pub duration: Duration,
    /// From the request's head sent upstream to the response's head received, in the last attempt.
    pub upstream_duration: Option<Duration>,
    /// The client.
    pub client: SocketAddr,
    /// `user-agent`.
    pub user_agent: Option<Text>,
    /// The trace, where the request is sampled.
    pub trace: Option<TraceId>,
}

/// The name of an HTTP version, as OpenTelemetry has it in `network.protocol.version`.
pub(super) fn protocol_version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_11 => "1.1",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "unknown",
    }
}

/// Whole microseconds; 2^64 of them is half a million years.
fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A record with its time as text, which the log's thread makes.
pub(super) struct Line<'a> {
    pub(super) time: &'a str,
    pub(super) record: &'a Record,
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = self.record;
        let mut line = serializer.serialize_struct("Record", 21)?;
        line.serialize_field("time", self.time)?;
        line.serialize_field("request_id", &record.request_id)?;
        line.serialize_field("method", record.method.as_str())?;
        line.serialize_field("host", &record.host)?;
        line.serialize_field("path", &record.path)?;
        line.serialize_field("protocol", protocol_version(record.version))?;
        line.serialize_field("status", &record.status.as_u16())?;
        line.serialize_field("flag", &record.flag)?;
        line.serialize_field("listener", &record.listener)?;
        line.serialize_field("route", &record.route)?;
        line.serialize_field("rule", &record.rule)?;
        line.serialize_field("backend", &record.backend)?;
        line.serialize_field("endpoint", &record.endpoint)?;
        line.serialize_field("attempts", &record.attempts)?;
        line.serialize_field("request_bytes", &record.request_bytes)?;
        line.serialize_field("response_bytes", &record.response_bytes)?;
        line.serialize_field("duration_us", &microseconds(record.duration))?;
        line.serialize_field("upstream_duration_us", &record.upstream_duration.map(microseconds))?;
        line.serialize_field("client", &record.client)?;
        line.serialize_field("user_agent", &record.user_agent)?;
        line.serialize_field("trace_id", &record.trace.map(Hex))?;
        line.end()
    }
}

struct Hex(TraceId);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    pub(in crate::telemetry) fn record() -> Record {
        Record {
            time: UNIX_EPOCH + Duration::from_millis(1_795_426_205_042),
            request_id: "r-1".into(),
            method: Method::GET,
            host: "shop.example.com".into(),
            path: "/cart".into(),
            version: Version::HTTP_11,
            status: StatusCode::OK,
            flag: None,
            listener: Some("infra/edge/http".into()),
            route: Some("http/shop/cart".into()),
            rule: Some("0".into()),
            backend: Some("shop/cart/80".into()),
            endpoint: Some(([10, 0, 0, 7], 8080).into()),
            attempts: 1,
            request_bytes: 0,
            response_bytes: 1024,
            duration: Duration::from_micros(1234),
            upstream_duration: Some(Duration::from_millis(1)),
            client: ([192, 0, 2, 1], 40_000).into(),
            user_agent: None,
            trace: None,
        }
    }

    #[test]
    fn text_is_cut_between_characters_and_bad_bytes_are_marked() {
        let long: Text = "ä".repeat(MAX_TEXT).into();
        assert_eq!(long.to_str_lossy(), "ä".repeat(MAX_TEXT / 2));
        let odd: Text = format!("a{}", "ä".repeat(MAX_TEXT)).into();
        assert_eq!(odd.to_str_lossy(), format!("a{}", "ä".repeat(MAX_TEXT / 2 - 1)));
        let bad: Text = Bytes::from_static(b"a\xffb").into();
        assert_eq!(bad.to_str_lossy(), "a\u{fffd}b");
    }
}
