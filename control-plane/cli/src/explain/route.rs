//! A route of `/config` as lines for people.

use serde_json::Value;

use super::text;
use crate::{configuration::Configuration, output::shown};

/// Everything about a route but its name.
pub fn lines(route: &Value, configuration: &Configuration) -> Vec<String> {
    let mut lines = vec!["  Served by".to_owned()];
    for attachment in list(&route["attachments"]) {
        lines.push(format!("    {}", listener(attachment, configuration)));
    }
    for (index, rule) in list(&route["rules"]).iter().enumerate() {
        let name = rule["name"].as_str().map(|name| format!(" \"{}\"", shown(name))).unwrap_or_default();
        lines.push(format!("\n  Rule {index}{name}"));
        lines.extend(self::rule(rule, configuration).into_iter().map(|(what, line)| format!("    {what:<9} {line}")));
    }
    lines
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn word(value: &Value) -> String {
    shown(value.as_str().unwrap_or_default())
}

fn listener(attachment: &Value, configuration: &Configuration) -> String {
    let key = attachment["listener"].as_str().unwrap_or_default();
    let hosts: Vec<String> = list(&attachment["hosts"])
        .iter()
        .map(|host| match (word(&host["served"]), word(&host["declared"])) {
            (served, declared) if served == declared => served,
            (served, declared) => format!("{served} (of {declared})"),
        })
        .collect();
    let hosts = if hosts == ["*"] { "every host".to_owned() } else { hosts.join(", ") };
    let Some(listener) = configuration.objects.get(&format!("listener/{key}")) else {
        return format!("listener {} (which is not here): {hosts}", shown(key));
    };
    let scheme = if listener["certificates"].is_null() { "http" } else { "https" };
    let opened = configuration.opened.get(key);
    let bound = match opened {
        Some(opened) if !opened.is_open => ", not open".to_owned(),
        Some(opened) if listener["port"] != opened.port => format!(", bound as {}", opened.port),
        _ => String::new(),
    };
    format!("listener {} ({scheme}, port {}{bound}): {hosts}", shown(key), listener["port"])
}

/// Pairs of what a line is about and what it says.
fn rule(rule: &Value, configuration: &Configuration) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    for (index, wanted) in list(&rule["matches"]).iter().enumerate() {
        lines.push((if index == 0 { "when" } else { "or when" }, text::route_match(wanted)));
    }
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
        lines.push(("to", target(backend, total, configuration)));
        lines.extend(
            list(&backend["filters"]).iter().flat_map(text::filter).map(|line| ("", format!("changes {line}"))),
        );
    }
    lines
}

fn target(backend: &Value, total: u64, configuration: &Configuration) -> String {
    let weight = backend["weight"].as_u64().unwrap_or_default();
    let share = text::share(weight, total);
    if let Some(reason) = backend["fails"].as_str() {
        return format!("{share}answers 500: {}", shown(reason));
    }
    let key = backend["backend"].as_str().unwrap_or_default();
    let name =
        key.rsplit_once('/').map_or_else(|| key.to_owned(), |(name, port)| format!("Service {name}, port {port}"));
    let protocol = configuration.objects.get(&format!("backend/{key}")).map(|backend| word(&backend["protocol"]));
    let protocol = protocol.map(|protocol| format!(", {protocol}")).unwrap_or_default();
    let endpoints = configuration.objects.get(&format!("endpoints/{key}")).map(list).unwrap_or_default();
    format!("{share}{}{protocol}: {}", shown(&name), text::endpoints(endpoints))
}
