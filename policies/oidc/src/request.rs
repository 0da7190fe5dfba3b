//! What a request without a session is: a person who may be sent to a login, or a program that cannot follow there; and
//! where that person comes back to.

use http::{HeaderMap, Method, header};
use serde::{Deserialize, Serialize};

/// Longest path that a login returns to, in bytes. It travels in a cookie.
const MAX_RETURN_BYTES: usize = 1024;

/// Whether a browser shows the answer as a page (Fetch Metadata: `Sec-Fetch-Mode: navigate` for a document or a frame; of
/// a client that sends no such field, `Accept` with `text/html`). Only GET: anything else would lose its body on the way.
pub fn is_navigation(method: &Method, headers: &HeaderMap) -> bool {
    if *method != Method::GET {
        return false;
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if headers.contains_key("sec-fetch-mode") {
        let is_shown = matches!(text("sec-fetch-dest"), None | Some("document" | "iframe" | "frame"));
        return text("sec-fetch-mode") == Some("navigate") && is_shown;
    }
    // A WebSocket, and what libraries of old say of themselves.
    if headers.contains_key(header::UPGRADE) || headers.contains_key("x-requested-with") {
        return false;
    }
    headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(accepts_html)
}

fn accepts_html(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_html = parts.next().is_some_and(|kind| {
            ["text/html", "application/xhtml+xml"].iter().any(|html| kind.eq_ignore_ascii_case(html))
        });
        let is_refused = parts.any(|part| {
            let quality = part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="));
            quality.and_then(|quality| quality.parse::<f32>().ok()).is_some_and(|quality| quality <= 0.0)
        });
        is_html && !is_refused
    })
}

/// Where a login returns to: a path of the same origin with its query, of visible ASCII and at most 1024 bytes.
/// No browser reads it as another host: browsers take `\` for `/`, and leave out tabs and line ends, so none is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReturnPath(Box<str>);

impl ReturnPath {
    /// `text`, if it is such a path.
    pub fn new(text: &str) -> Option<Self> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\' && byte != b'#');
        let is_local = text.starts_with('/') && !text.starts_with("//");
        (is_plain && is_local && text.len() <= MAX_RETURN_BYTES).then(|| Self(text.into()))
    }

    /// `text`, or else the root.
    pub fn or_root(text: &str) -> Self {
        Self::new(text).unwrap_or_else(|| Self("/".into()))
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ReturnPath {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text).ok_or("not a path of this origin")
    }
}

impl From<ReturnPath> for String {
    fn from(path: ReturnPath) -> Self {
        path.0.into()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn navigation(method: &Method, fields: &[(&'static str, &'static str)]) -> bool {
        let fields =
            fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        is_navigation(method, &fields.collect())
    }

    #[test]
    fn what_the_browser_says_decides() {
        let html = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
        assert!(navigation(&Method::GET, &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"), html]));
        assert!(navigation(&Method::GET, &[("sec-fetch-mode", "navigate")]));
        for mode in ["cors", "no-cors", "same-origin", "websocket", "NAVIGATE", ""] {
            assert!(!navigation(&Method::GET, &[("sec-fetch-mode", mode), html]), "{mode}");
        }
        assert!(!navigation(&Method::GET, &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "object"), html]));
        assert!(!navigation(&Method::POST, &[("sec-fetch-mode", "navigate"), html]));
    }

    #[test]
    fn without_fetch_metadata_accept_decides() {
        assert!(navigation(&Method::GET, &[("accept", "application/json, Text/HTML;level=1")]));
        for accept in ["*/*", "application/json", "text/html;q=0", "text/html; q=0.000", "text/htmlx", ""] {
            assert!(!navigation(&Method::GET, &[("accept", accept)]), "{accept}");
        }
        assert!(!navigation(&Method::GET, &[]));
        assert!(!navigation(&Method::GET, &[("accept", "text/html"), ("x-requested-with", "XMLHttpRequest")]));
        assert!(!navigation(&Method::GET, &[("accept", "text/html"), ("upgrade", "websocket")]));
    }

    #[test]
    fn a_login_returns_to_no_other_origin() {
        for path in ["/", "/a/b?c=d&e=%2F%2Fevil", "/a//b", "/..//evil.example", "/@evil"] {
            assert_eq!(ReturnPath::or_root(path).as_str(), path);
        }
        let long = format!("/{}", "a".repeat(MAX_RETURN_BYTES));
        for path in [
            "",
            "a",
            "//evil.example",
            "/\\evil.example",
            "\\\\evil",
            "https://evil.example/",
            "javascript:alert(1)",
            "/\t/evil.example",
            "/\n/evil.example",
            "/\r\nset-cookie: a=b",
            "/a b",
            "/ü",
            "/a#b",
            " /a",
            &long,
        ] {
            assert_eq!(ReturnPath::or_root(path).as_str(), "/", "{path:?}");
        }
        assert!(serde_json::from_str::<ReturnPath>("\"//evil\"").is_err());
    }
}
