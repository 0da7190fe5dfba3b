//! Parts of a rule in words.

use serde_json::{Map, Value};

use crate::output::shown;

/// Endpoints that are named; of more the number is told.
const ENDPOINTS_SHOWN: usize = 5;

/// What a match asks of a request.
pub fn route_match(wanted: &Value) -> String {
    let mut parts = vec![path(&wanted["path"])];
    parts.extend(wanted["method"].as_str().map(|method| format!("method {}", shown(method))));
    for (what, field) in [("header", "headers"), ("query", "query")] {
        let pairs = wanted[field].as_object().into_iter().flatten();
        parts.extend(pairs.map(|(name, wanted)| format!("{what} {} {}", shown(name), value(wanted))));
    }
    parts.join(", ")
}

fn path(path: &Value) -> String {
    let text = |field: &str| path[field].as_str().map(shown);
    if let Some(path) = text("exact") {
        return format!("path is {path}");
    }
    if let Some(prefix) = text("prefix") {
        return if prefix == "/" { "any path".to_owned() } else { format!("path is {prefix} or below it") };
    }
    if let Some(regex) = text("regex") {
        return format!("path matches {regex}");
    }
    let part = |what: &str, wanted: &Value| match wanted {
        Value::Null => format!("any {what}"),
        wanted => format!("{what} {}", value(wanted)),
    };
    format!("gRPC {}, {}", part("service", &path["grpc_service"]), part("method", &path["grpc_method"]))
}

fn value(wanted: &Value) -> String {
    match (wanted["exact"].as_str(), wanted["regex"].as_str()) {
        (Some(text), _) => format!("is {}", shown(text)),
        (None, Some(regex)) => format!("matches {}", shown(regex)),
        (None, None) => shown(&wanted.to_string()),
    }
}

/// What a filter changes, a line a change.
pub fn filter(filter: &Value) -> Vec<String> {
    let Some((kind, settings)) = filter.as_object().and_then(|filter| filter.iter().next()) else { return Vec::new() };
    match kind.as_str() {
        "request_header_modifier" => headers("request", settings),
        "response_header_modifier" => headers("response", settings),
        "request_redirect" => vec![format!("answers with a redirect: {}", fields(settings))],
        "url_rewrite" => vec![format!("rewrites what the backend sees: {}", fields(settings))],
        _ => vec![format!("{}: {}", shown(kind), fields(settings))],
    }
}

fn headers(of: &str, modifier: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for (verb, field) in [("set", "set"), ("added", "add")] {
        let changes = modifier[field].as_array().into_iter().flatten().map(|header| {
            let text = |field: &str| shown(header[field].as_str().unwrap_or_default());
            format!("{of} header {} {verb}: {}", text("name"), text("value"))
        });
        lines.extend(changes);
    }
    let removed = modifier["remove"].as_array().into_iter().flatten().filter_map(Value::as_str);
    lines.extend(removed.map(|name| format!("{of} header {} removed", shown(name))));
    lines
}

/// The settings that are there.
fn fields(settings: &Value) -> String {
    let set = |(name, value): (&String, &Value)| match value {
        Value::Null => None,
        Value::String(text) => Some(format!("{} {}", shown(name), shown(text))),
        Value::Object(inner) => Some(format!("{} ({})", shown(name), inner_fields(inner))),
        other => Some(format!("{} {other}", shown(name))),
    };
    settings.as_object().into_iter().flatten().filter_map(set).collect::<Vec<_>>().join(", ")
}

fn inner_fields(settings: &Map<String, Value>) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| shown(&value.to_string()), shown);
    settings.iter().map(|(name, value)| format!("{} {}", shown(name), text(value))).collect::<Vec<_>>().join(", ")
}

/// The limits of a rule; `None` where it has none.
pub fn timeouts(timeouts: &Value) -> Option<String> {
    let limit = |field: &str, what: &str| timeouts[field].as_f64().map(|seconds| format!("{what} {seconds} s"));
    let limits = [limit("request_seconds", "the whole"), limit("backend_request_seconds", "one attempt")];
    let limits: Vec<String> = limits.into_iter().flatten().collect();
    (!limits.is_empty()).then(|| limits.join(", "))
}

/// A backend's share of the requests, where there is something to share.
pub fn share(weight: u64, total: u64) -> String {
    if total == 0 || weight == total {
        return String::new();
    }
    let tenths = weight.saturating_mul(1_000) / total;
    format!("{}.{} % ", tenths / 10, tenths % 10)
}

/// Where the pods are.
pub fn endpoints(endpoints: &[Value]) -> String {
    let shown: Vec<String> = endpoints.iter().filter_map(Value::as_str).take(ENDPOINTS_SHOWN).map(shown).collect();
    match endpoints.len() {
        0 => "no endpoints, answers 503".to_owned(),
        count if count > ENDPOINTS_SHOWN => format!("{count} endpoints, {}, …", shown.join(", ")),
        _ => shown.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_kind_of_match_is_put_in_words() {
        for (wanted, want) in [
            (json!({"path": {"prefix": "/"}}), "any path"),
            (json!({"path": {"prefix": "/a"}, "method": "GET"}), "path is /a or below it, method GET"),
            (json!({"path": {"exact": "/a"}, "headers": {"x": {"regex": "b.*"}}}), "path is /a, header x matches b.*"),
            (json!({"path": {"regex": "/a+"}, "query": {"q": {"exact": "1"}}}), "path matches /a+, query q is 1"),
            (
                json!({"path": {"grpc_service": {"exact": "a.B"}, "grpc_method": null}}),
                "gRPC service is a.B, any method",
            ),
        ] {
            assert_eq!(route_match(&wanted), want);
        }
    }

    #[test]
    fn shares_are_told_where_there_is_something_to_share() {
        assert_eq!([share(1, 1), share(0, 0), share(1, 3), share(0, 3)], ["", "", "33.3 % ", "0.0 % "]);
    }

    #[test]
    fn many_endpoints_are_counted() {
        let many: Vec<Value> = (0..7).map(|index| json!(format!("10.0.0.{index}:80"))).collect();
        assert!(endpoints(&many).starts_with("7 endpoints, 10.0.0.0:80, "));
        assert_eq!(endpoints(&[json!("10.0.0.1:80")]), "10.0.0.1:80");
    }
}
