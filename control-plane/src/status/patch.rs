//! The JSON merge patch (RFC 7386) that turns one value into another. Pure.

use serde_json::{Map, Value};

/// What, merged into `before`, gives `after`. Lists are replaced whole; a field that `after` lacks becomes null.
pub(crate) fn between(before: &Value, after: &Value) -> Value {
    let (Value::Object(before), Value::Object(after)) = (before, after) else { return after.clone() };
    let mut patch = Map::new();
    for (field, value) in after {
        match before.get(field) {
            Some(old) if old == value => {}
            Some(old) => drop(patch.insert(field.clone(), between(old, value))),
            None => drop(patch.insert(field.clone(), value.clone())),
        }
    }
    for field in before.keys().filter(|field| !after.contains_key(*field)) {
        patch.insert(field.clone(), Value::Null);
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_differs_is_sent_and_what_is_gone_is_removed() {
        let before = json!({"addresses": [1], "conditions": [{"type": "A"}], "nested": {"keep": 1, "drop": 2}});
        let after = json!({"conditions": [{"type": "B"}], "nested": {"keep": 1, "add": 3}});
        let patch = between(&before, &after);
        let want = json!({"addresses": null, "conditions": [{"type": "B"}], "nested": {"drop": null, "add": 3}});
        assert_eq!(patch, want);
    }

    #[test]
    fn the_first_status_is_sent_whole() {
        assert_eq!(between(&Value::Null, &json!({"parents": []})), json!({"parents": []}));
    }
}
