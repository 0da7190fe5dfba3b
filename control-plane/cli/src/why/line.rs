//! A line of the gateway's access log (`docs/telemetry.md`).

use serde::Deserialize;

/// What a line says. Fields that an older gateway did not write are empty.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Line {
    /// When the request's head was received.
    pub time: String,
    /// `x-request-id`.
    pub request_id: String,
    /// The method.
    pub method: String,
    /// The canonical host.
    pub host: String,
    /// The canonical path.
    pub path: String,
    /// What the client spoke: `1.1`, `2`.
    pub protocol: String,
    /// The client's status.
    pub status: u16,
    /// Why the gateway answered itself, or how the exchange broke.
    pub flag: Option<String>,
    /// The policy that refused: `rate-limit/shop/cart`.
    pub policy: Option<String>,
    /// What policies in mode Report would have refused: `rate-limit/shop/cart rate_limited`, separated by commas.
    pub reported: Option<String>,
    /// The listener's key.
    pub listener: Option<String>,
    /// The route's key.
    pub route: Option<String>,
    /// The rule's name or number.
    pub rule: Option<String>,
    /// The backend's key.
    pub backend: Option<String>,
    /// The endpoint of the last attempt.
    pub endpoint: Option<String>,
    /// Attempts made.
    pub attempts: u32,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the response's body.
    pub response_bytes: u64,
    /// The whole, in microseconds.
    pub duration_us: u64,
    /// The last attempt until its response's head, in microseconds.
    pub upstream_duration_us: Option<u64>,
    /// The client's address.
    pub client: Option<String>,
    /// `user-agent`.
    pub user_agent: Option<String>,
    /// The trace.
    pub trace_id: Option<String>,
}

impl Line {
    /// Reads a line; `None` where it is none of the access log.
    pub fn parse(text: &str) -> Option<Self> {
        let json = text.get(text.find('{')?..)?;
        let line: Self = serde_json::from_str(json).ok()?;
        (!line.request_id.is_empty() && line.status != 0).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_behind_a_prefix_and_others_are_not_lines() {
        let line = Line::parse(r#"[pod/edge-1/gateway] {"request_id":"r-1","status":200,"flag":null}"#).unwrap();
        assert_eq!((line.request_id.as_str(), line.status, line.flag), ("r-1", 200, None));
        for text in ["", "INFO draining", r#"{"level":"INFO","message":"x"}"#, r#"{"request_id":"r","status":"a"}"#] {
            assert_eq!(Line::parse(text), None, "{text}");
        }
    }
}
