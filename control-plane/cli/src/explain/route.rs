//! A route of `/config` as lines for people.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{policies, text};
use crate::{configuration::Opened, output::shown};

/// Everything about a route but its name, from what `/explain` says.
pub fn lines(explanation: &Value, opened: &BTreeMap<String, Opened>) -> Vec<String> {
    let (route, objects) = (&explanation["route"], &explanation["objects"]);
    let mut lines = vec!["  Served by".to_owned()];
    for attachment in list(&route["attachments"]) {
        lines.push(format!("    {}", listener(attachment, objects, opened)));
    }
    for (index, rule) in list(&route["rules"]).iter().enumerate() {
        let name = rule["name"].as_str().map(|name| format!(" \"{}\"", shown(name))).unwrap_or_default();
        lines.push(format!("\n  Rule {index}{name}"));
        let chains: Vec<&Value> = list(&explanation["policies"])
            .iter()
            .filter(|chain| chain["rule"].as_u64() == u64::try_from(index).ok())
            .collect();
        let said = matches(rule).into_iter().chain(policies::lines(&chains)).chain(self::rule(rule, objects));
        lines.extend(said.map(|(what, line)| format!("    {what:<9} {line}").trim_end().to_owned()));
    }
    lines
}

/// The items of a list; none where it is something else.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn word(value: &Value) -> String {
    shown(value.as_str().unwrap_or_default())
}

fn listener(attachment: &Value, objects: &Value, opened: &BTreeMap<String, Opened>) -> String {
    let key = attachment["listener"].as_str().unwrap_or_default();
    let hosts: Vec<String> = list(&attachment["hosts"])
        .iter()
        .map(|host| match (word(&host["served"]), word(&host["declared"])) {
            (served, declared) if served == declared => served,
            (served, declared) => format!("{served} (of {declared})"),
        })
        .collect();
    let hosts = if hosts == ["*"] { "every host".to_owned() } else { hosts.join(", ") };
    let Some(listener) = objects.get(format!("listener/{key}")) else {
        return format!("listener {} (which is not here): {hosts}", shown(key));
    };
    let scheme = if listener["certificates"].is_null() { "http" } else { "https" };
    let opened = opened.get(key);
    let bound = match opened {
        Some(opened) if !opened.is_open => ", not open".to_owned(),
        Some(opened) if listener["port"] != opened.port => format!(", bound as {}", opened.port),
        _ => String::new(),
    };
    format!("listener {} ({scheme}, port {}{bound}): {hosts}", shown(key), listener["port"])
}

/// What a line is about, and what it says.
pub(super) type Said = (&'static str, String);

fn matches(rule: &Value) -> Vec<Said> {
    let matches = list(&rule["matches"]).iter().enumerate();
    matches.map(|(index, wanted)| (if index == 0 { "when" } else { "or when" }, text::route_match(wanted))).collect()
}

fn rule(rule: &Value, objects: &Value) -> Vec<Said> {
    let mut lines = Vec::new();
    lines.extend(list(&rule["filters"]).iter().flat_map(text::filter).map(|line| ("changes", line)));
    lines.extend(text::timeouts(&rule["timeouts"]).map(|line| ("timeouts", line)));
    if let Some(reason) = rule["fails"].as_str() {
        lines.push(("answers", format!("500, as it cannot be honoured: {}", shown(reason))));
        return lines;
    }
    let redirects = list(&rule["filters"]).iter().any(|filter| filter.get("request_redirect").is_some());
    let backends = list(&rule["backends"]);
    let total: u64 = backends.iter().filter_map(|backend| backend["weight"].as_u64()).sum();
    if total == 0 && !redirects {
        lines.push(("answers", "500, as no backend has a weight above 0".to_owned()));
    }
    for backend in backends {
        lines.push(("to", target(backend, total, objects)));
        lines.extend(policies::of_backend(backend, objects).into_iter().map(|line| ("", line)));
        lines.extend(
            list(&backend["filters"]).iter().flat_map(text::filter).map(|line| ("", format!("changes {line}"))),
        );
    }
    lines
}

fn target(backend: &Value, total: u64, objects: &Value) -> String {
    let weight = backend["weight"].as_u64().unwrap_or_default();
    let share = text::share(weight, total);
    if let Some(reason) = backend["fails"].as_str() {
        return format!("{share}answers 500: {}", shown(reason));
    }
    let key = backend["backend"].as_str().unwrap_or_default();
    let name =
        key.rsplit_once('/').map_or_else(|| key.to_owned(), |(name, port)| format!("Service {name}, port {port}"));
    let protocol = objects.get(format!("backend/{key}")).map(|backend| word(&backend["protocol"]));
    let protocol = protocol.map(|protocol| format!(", {protocol}")).unwrap_or_default();
    let endpoints = objects.get(format!("endpoints/{key}")).map(list).unwrap_or_default();
    format!("{share}{}{protocol}: {}", shown(&name), text::endpoints(endpoints))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn policies_of_a_backend_stand_below_it() {
        let explanation = json!({
            "route": {"attachments": [], "rules": [{
                "matches": [{"path": {"prefix": "/"}}],
                "backends": [{"backend": "shop/cart/80", "weight": 1}],
            }]},
            "objects": {
                "backend/shop/cart/80": {"protocol": "http1", "policies": ["backend/shop/cart"]},
                "endpoints/shop/cart/80": ["10.0.0.1:80"],
                "policy/backend/shop/cart": {"retries": 2},
            },
            "policies": [],
        });
        let lines = lines(&explanation, &BTreeMap::new());
        assert_eq!(
            lines.get(3..),
            Some(
                &[
                    "    to        Service shop/cart, port 80, http1: 10.0.0.1:80".to_owned(),
                    "                policy backend/shop/cart:".to_owned(),
                    "                  retries = 2".to_owned(),
                ][..]
            ),
            "{lines:?}"
        );
    }
}
