//! The policies that act on a rule, as `/explain` has them: merged, each field with the policy that it is from.

use serde_json::Value;

use super::route::{Said, list};
use crate::output::shown;

/// A value is cut there: the object itself shows the rest.
const VALUE_LENGTH: usize = 100;

/// The lines of a rule that is reached by these chains of policies.
pub fn lines(chains: &[&Value]) -> Vec<Said> {
    let mut lines = Vec::new();
    for chain in chains.iter().copied() {
        let by =
            if chains.len() > 1 { format!(", by {}", words(&chain["listeners"]).join(" and ")) } else { String::new() };
        let closed = &chain["closed"];
        if let Some(reason) = closed["reason"].as_str() {
            let policy = shown(closed["policy"].as_str().unwrap_or_default());
            lines.push(("policies", format!("every request gets 500 {}, because of {policy}{by}", shown(reason))));
        }
        lines.extend(list(&chain["kinds"]).iter().flat_map(|kind| self::kind(kind, &by)));
    }
    lines
}

/// The policies of a backend with what they say: no other level has a part in it.
pub fn of_backend(backend: &Value, objects: &Value) -> Vec<String> {
    let backend = objects.get(format!("backend/{}", backend["backend"].as_str().unwrap_or_default()));
    let policies = backend.map(|backend| words(&backend["policies"])).unwrap_or_default();
    let mut lines = Vec::new();
    for policy in policies {
        match objects.get(format!("policy/{policy}")) {
            Some(settings) => {
                lines.push(format!("  policy {policy}:"));
                let fields = settings.as_object().into_iter().flatten();
                lines.extend(fields.map(|(field, value)| format!("    {} = {}", shown(field), text(value))));
            }
            None => lines.push(format!("  policy {policy}, which is not here: requests get 500")),
        }
    }
    lines
}

fn words(value: &Value) -> Vec<String> {
    list(value).iter().filter_map(Value::as_str).map(shown).collect()
}

/// The policies of one kind, and what they come to.
fn kind(kind: &Value, by: &str) -> Vec<Said> {
    let level = |level: &Value| {
        let policy = level["policy"].as_str().unwrap_or_default();
        format!("{} on the {}", name(policy), shown(level["on"].as_str().unwrap_or_default()))
    };
    let levels: Vec<String> = list(&kind["levels"]).iter().map(level).collect();
    let disabled = if kind["disabled"] == true { ", disabled" } else { "" };
    let title = format!("{}{disabled}: {}{by}", shown(kind["kind"].as_str().unwrap_or_default()), levels.join(", "));
    let mut lines = vec![("policies", title)];
    for (field, source) in kind["sources"].as_object().into_iter().flatten() {
        let value = at(&kind["settings"], field).map(text).unwrap_or_default();
        let source = name(source.as_str().unwrap_or_default());
        lines.push(("", format!("  {} = {value}  (from {source})", shown(field))));
    }
    lines
}

/// `rate-limit/shop/cart` without its kind.
fn name(policy: &str) -> String {
    shown(policy.split_once('/').map_or(policy, |(_, name)| name))
}

/// The value of a field, by its path in the custom resource: `limits.client`, `maxKeys`. What follows a map's name is a key,
/// whatever is in it.
fn at<'a>(settings: &'a Value, path: &str) -> Option<&'a Value> {
    if let Some(value) = settings.get(path).or_else(|| settings.get(snake_case(path))) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    at(settings.get(first).or_else(|| settings.get(snake_case(first)))?, rest)
}

/// `maxKeys` as the settings spell it.
fn snake_case(field: &str) -> String {
    let mut text = String::with_capacity(field.len() + 4);
    for character in field.chars() {
        if character.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(character.to_ascii_lowercase());
    }
    text
}

/// A value in few words.
fn text(value: &Value) -> String {
    if let Some(limit) = limit(value) {
        return limit;
    }
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let cut: String = text.chars().take(VALUE_LENGTH).collect();
    let dots = if cut.len() < text.len() { "…" } else { "" };
    format!("{}{dots}", shown(&cut))
}

/// A rate limit, or a limit of requests in flight.
fn limit(value: &Value) -> Option<String> {
    let key: Vec<String> = list(value.get("key")?).iter().map(part).collect();
    let each = if key.is_empty() { String::new() } else { format!(" for each {}", key.join(" and ")) };
    if let Some(limit) = value.get("limit").and_then(Value::as_u64) {
        return Some(format!("{limit} at once{each}"));
    }
    let quota = value.get("quota")?;
    let (rate, burst) = (quota.get("rate")?.as_u64()?, quota.get("burst")?.as_u64()?);
    let tiers =
        value.get("tiers").map(|tiers| format!(", others by claim {}", text(&tiers["claim"]))).unwrap_or_default();
    Some(format!("{rate} in {} s, burst {burst}{each}{tiers}", quota.get("per_seconds")?.as_f64()?))
}

fn part(part: &Value) -> String {
    let field = |name: &str| part[name].as_str().map(shown).unwrap_or_default();
    match (field("type").as_str(), field("name").as_str()) {
        (kind, "") => kind.to_owned(),
        (kind, name) => format!("{kind} {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_field_is_found_by_its_path_in_the_resource() {
        let settings = json!({"max_keys": 5, "limits": {"a.b": 1, "c": 2}, "body": {"max_bytes": 3}});
        for (path, want) in [("maxKeys", 5), ("limits.a.b", 1), ("limits.c", 2), ("body.maxBytes", 3)] {
            assert_eq!(at(&settings, path), Some(&json!(want)), "{path}");
        }
        assert_eq!(at(&settings, "limits.d"), None);
    }

    #[test]
    fn limits_are_told_in_words_and_other_values_as_they_are() {
        let quota = json!({"rate": 10, "per_seconds": 60.0, "burst": 20});
        let key = json!([{"type": "header", "name": "x-tenant"}, {"type": "route"}]);
        assert_eq!(
            text(&json!({"quota": quota, "key": key})),
            "10 in 60 s, burst 20 for each header x-tenant and route"
        );
        assert_eq!(text(&json!({"limit": 5, "key": [{"type": "address"}]})), "5 at once for each address");
        assert_eq!(text(&json!("Report")), "Report");
        assert_eq!(text(&json!(["x".repeat(200)])).chars().count(), VALUE_LENGTH + 1);
    }
}
