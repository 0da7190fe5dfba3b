//! What is known of a request when it has ended: a line of the access log, and the attributes of its span.
//!
//! Invariant: a record holds no query, no header but the user agent, and no text beyond its bound.

use std::{
    borrow::Cow,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use http::{StatusCode, Version};
use opentelemetry::trace::TraceId;

use crate::notes::Decision;

/// The longest text that is written; what is longer is cut there.
const MAX_TEXT: usize = 1024;

/// Text of a client. May hold any bytes; it is written as UTF-8, what is not UTF-8 as U+FFFD, and cut after 1,024 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    /// As it is written.
    pub fn to_str_lossy(self) -> Cow<'a, str> {
        let kept = self.cut();
        // A character that the cut went through is left out, so that it does not look like bad input.
        match std::str::from_utf8(kept) {
            Err(error) if self.0.len() > MAX_TEXT && error.error_len().is_none() => {
                String::from_utf8_lossy(kept.get(..error.valid_up_to()).unwrap_or_default())
            }
            _ => String::from_utf8_lossy(kept),
        }
    }

    fn cut(self) -> &'a [u8] {
        self.0.get(..MAX_TEXT).unwrap_or(self.0)
    }
}

impl<'a> From<&'a [u8]> for Text<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(text.as_bytes())
    }
}

/// A request that has ended.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// When its head was received.
    pub time: SystemTime,
    /// `x-request-id`.
    pub request_id: Text<'a>,
    /// The method.
    pub method: &'a str,
    /// The canonical host, without port.
    pub host: Text<'a>,
    /// The canonical path, without query: a query may hold secrets.
    pub path: Text<'a>,
    /// What the client speaks.
    pub version: Version,
    /// The status that the client got.
    pub status: StatusCode,
    /// Why the proxy answered itself, or how the exchange broke; `None` where all went well.
    pub flag: Option<&'static str>,
    /// The listener that received it.
    pub listener: Option<&'a str>,
    /// The route that matched: the text form of its key.
    pub route: Option<&'a str>,
    /// The rule of the route that matched: its name or its number.
    pub rule: Option<&'a str>,
    /// The backend that was chosen: the text form of its key.
    pub backend: Option<&'a str>,
    /// The endpoint of the last attempt.
    pub endpoint: Option<&'a str>,
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
    /// The same as text.
    pub client_text: &'a str,
    /// Who connects, where that is a proxy that asks for the client.
    pub peer: Option<&'a str>,
    /// `user-agent`.
    pub user_agent: Option<Text<'a>>,
    /// What policies refused, or would have refused.
    pub decisions: &'a [Decision],
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

/// The name of a field of a line, as it stands there.
macro_rules! name {
    ($name:literal) => {
        concat!(",\"", $name, "\":").as_bytes()
    };
}

impl Record<'_> {
    /// What policies of `mode: Report` would have refused: `kind/namespace/name reason`, separated by commas.
    pub(super) fn reported(&self) -> Option<String> {
        let reported = self.decisions.iter().filter(|decision| decision.reported);
        let texts: Vec<String> =
            reported.map(|decision| format!("{} {}", decision.policy, decision.reason.word())).collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    }

    /// Appends it to `lines` as one JSON object and a line end. `time` is [`Self::time`] as text.
    ///
    /// By hand, as the worker does it for each request: through serde it takes twice as long.
    pub(super) fn write_line(&self, time: &str, lines: &mut Vec<u8>) {
        lines.extend_from_slice(b"{\"time\":\"");
        lines.extend_from_slice(time.as_bytes());
        lines.push(b'"');
        let mut line = Line(lines);
        line.text(name!("request_id"), Some(self.request_id));
        line.text(name!("method"), Some(self.method.into()));
        line.text(name!("host"), Some(self.host));
        line.text(name!("path"), Some(self.path));
        line.word(name!("protocol"), Some(protocol_version(self.version)));
        line.number(name!("status"), Some(self.status.as_u16().into()));
        line.word(name!("flag"), self.flag);
        let refusal = self.decisions.iter().find(|decision| !decision.reported);
        let refusal = refusal.map(|decision| decision.policy.to_string());
        line.text(name!("policy"), refusal.as_deref().map(Text::from));
        let reported = self.reported();
        line.text(name!("reported"), reported.as_deref().map(Text::from));
        line.text(name!("listener"), self.listener.map(Text::from));
        line.text(name!("route"), self.route.map(Text::from));
        line.text(name!("rule"), self.rule.map(Text::from));
        line.text(name!("backend"), self.backend.map(Text::from));
        line.text(name!("endpoint"), self.endpoint.map(Text::from));
        line.number(name!("attempts"), Some(self.attempts.into()));
        line.number(name!("request_bytes"), Some(self.request_bytes));
        line.number(name!("response_bytes"), Some(self.response_bytes));
        line.number(name!("duration_us"), Some(microseconds(self.duration)));
        line.number(name!("upstream_duration_us"), self.upstream_duration.map(microseconds));
        line.word(name!("client"), Some(self.client_text));
        line.word(name!("peer"), self.peer);
        line.text(name!("user_agent"), self.user_agent);
        let trace = self.trace.map(|trace| trace.to_string());
        line.word(name!("trace_id"), trace.as_deref());
        lines.extend_from_slice(b"}\n");
    }
}

/// Which bytes stand for themselves in a JSON string.
#[expect(clippy::indexing_slicing, reason = "the compiler evaluates it, and would refuse an index out of range")]
static PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = b' ';
    while byte <= b'~' {
        plain[byte as usize] = byte != b'"' && byte != b'\\';
        byte += 1;
    }
    plain
};

/// A line that is being written.
struct Line<'a>(&'a mut Vec<u8>);

impl Line<'_> {
    fn text(&mut self, name: &[u8], text: Option<Text<'_>>) {
        self.0.extend_from_slice(name);
        let Some(text) = text else {
            self.0.extend_from_slice(b"null");
            return;
        };
        let bytes = text.cut();
        if bytes.iter().all(|byte| PLAIN.get(usize::from(*byte)) == Some(&true)) {
            self.0.push(b'"');
            self.0.extend_from_slice(bytes);
            self.0.push(b'"');
        } else {
            // Into a vector, a string can always be written.
            let _ = serde_json::to_writer(&mut *self.0, &text.to_str_lossy());
        }
    }

    /// A word of the proxy's own, which holds nothing that JSON would escape.
    fn word(&mut self, name: &[u8], word: Option<&str>) {
        self.0.extend_from_slice(name);
        let Some(word) = word else {
            self.0.extend_from_slice(b"null");
            return;
        };
        self.0.push(b'"');
        self.0.extend_from_slice(word.as_bytes());
        self.0.push(b'"');
    }

    fn number(&mut self, name: &[u8], number: Option<u64>) {
        self.0.extend_from_slice(name);
        match number {
            Some(number) => self.0.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
            None => self.0.extend_from_slice(b"null"),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    pub(in crate::telemetry) fn record() -> Record<'static> {
        Record {
            time: UNIX_EPOCH + Duration::from_millis(1_795_426_205_042),
            request_id: "r-1".into(),
            method: "GET",
            host: "shop.example.com".into(),
            path: "/cart".into(),
            version: Version::HTTP_11,
            status: StatusCode::OK,
            flag: None,
            decisions: &[],
            listener: Some("infra/edge/http"),
            route: Some("http/shop/cart"),
            rule: Some("0"),
            backend: Some("shop/cart/80"),
            endpoint: Some("10.0.0.7:8080"),
            attempts: 1,
            request_bytes: 0,
            response_bytes: 1024,
            duration: Duration::from_micros(1234),
            upstream_duration: Some(Duration::from_millis(1)),
            client: ([192, 0, 2, 1], 40_000).into(),
            client_text: "192.0.2.1:40000",
            peer: None,
            user_agent: None,
            trace: None,
        }
    }

    #[test]
    fn text_is_cut_between_characters_and_bad_bytes_are_marked() {
        let long = "ä".repeat(MAX_TEXT);
        assert_eq!(Text::from(long.as_str()).to_str_lossy(), "ä".repeat(MAX_TEXT / 2));
        let odd = format!("a{}", "ä".repeat(MAX_TEXT));
        assert_eq!(Text::from(odd.as_str()).to_str_lossy(), format!("a{}", "ä".repeat(MAX_TEXT / 2 - 1)));
        assert_eq!(Text::from(&b"a\xffb"[..]).to_str_lossy(), "a\u{fffd}b");
    }
}
