//! From statuses, as Kubernetes holds them, and from what a running gateway says, to rows of the table.

use control_plane_files::{Node, Problem, Value as Yaml};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::configuration::Configuration;

/// Conditions that are as they should be when they are False.
const GOOD_WHEN_FALSE: &[&str] = &["Conflicted", "PartiallyInvalid"];
/// Conditions that only tell something.
const TOLD: &[&str] = &["OverlappingTLSConfig", "Overridden"];

/// One row: an object, or a part of it that has conditions of its own.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// `HTTPRoute shop/cart`.
    pub object: String,
    /// `listener http`, `Gateway infra/edge`; empty for the object itself.
    pub part: String,
    /// Whether nothing is wrong with it.
    pub is_well: bool,
    /// Its conditions.
    pub conditions: Vec<Condition>,
    /// What else there is to say.
    pub notes: Vec<String>,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Accepted`.
    #[serde(rename = "type")]
    pub name: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// `BackendNotFound`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Whether it is as it should be.
    pub is_well: bool,
}

impl Condition {
    /// `None` for one that says that something bad is not so.
    fn of(value: &Value) -> Option<Self> {
        let field = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let (name, status) = (field("type"), field("status"));
        let good_when_false = GOOD_WHEN_FALSE.contains(&name.as_str());
        // A name with a domain that is not ours is another controller's.
        let is_foreign = name.contains('/') && !name.starts_with("nebula.dev/");
        let is_well =
            is_foreign || TOLD.contains(&name.as_str()) || status == if good_when_false { "False" } else { "True" };
        let says_nothing = good_when_false && is_well;
        (!says_nothing).then(|| Self { name, status, reason: field("reason"), message: field("message"), is_well })
    }
}

impl Row {
    fn new(object: &str, part: String, holder: &Value) -> Self {
        let conditions: Vec<Condition> = array(&holder["conditions"]).iter().filter_map(Condition::of).collect();
        let is_well = conditions.iter().all(|condition| condition.is_well);
        Self { object: object.to_owned(), part, is_well, conditions, notes: Vec::new() }
    }

    /// Of an object that has no status.
    pub fn of_problem(problem: &Problem) -> Self {
        let object = problem.object.clone().or_else(|| problem.file.as_ref().map(|file| file.display().to_string()));
        let message = Problem { object: None, ..problem.clone() }.to_string();
        let object = object.unwrap_or_default();
        Self { object, part: String::new(), is_well: false, conditions: Vec::new(), notes: vec![message] }
    }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The rows of one object: itself, where it has conditions, then its listeners, parents or ancestors.
pub fn of_status(object: &str, status: &Value) -> Vec<Row> {
    let mut rows = Vec::new();
    if !array(&status["conditions"]).is_empty() {
        let mut row = Row::new(object, String::new(), status);
        let addresses: Vec<&str> = array(&status["addresses"]).iter().filter_map(|it| it["value"].as_str()).collect();
        if !addresses.is_empty() {
            row.notes.push(format!("at {}", addresses.join(", ")));
        }
        rows.push(row);
    }
    for listener in array(&status["listeners"]) {
        let name = listener["name"].as_str().unwrap_or_default();
        let mut row = Row::new(object, format!("listener {name}"), listener);
        row.notes.extend(listener["attachedRoutes"].as_u64().map(|count| match count {
            1 => "1 route".to_owned(),
            count => format!("{count} routes"),
        }));
        rows.push(row);
    }
    for (list, reference) in [("parents", "parentRef"), ("ancestors", "ancestorRef")] {
        for parent in array(&status[list]) {
            rows.push(Row::new(object, referenced(&parent[reference]), parent));
        }
    }
    rows
}

/// `Gateway infra/edge, section https`.
fn referenced(reference: &Value) -> String {
    let field = |name: &str| reference[name].as_str();
    let kind = field("kind").unwrap_or("Gateway");
    let namespace = field("namespace").map(|namespace| format!("{namespace}/")).unwrap_or_default();
    let section = field("sectionName").map(|section| format!(", section {section}")).unwrap_or_default();
    let port = reference["port"].as_u64().map(|port| format!(", port {port}")).unwrap_or_default();
    format!("{kind} {namespace}{}{section}{port}", field("name").unwrap_or_default())
}

/// What a running gateway has: listeners, routes, and what it refuses.
pub fn of_gateway(configuration: &Configuration) -> Vec<Row> {
    let row = |object: String, is_well, note: String| Row {
        object,
        part: String::new(),
        is_well,
        conditions: Vec::new(),
        notes: vec![note],
    };
    let mut rows: Vec<Row> = Vec::new();
    for (listener, opened) in &configuration.opened {
        let note = if opened.is_open { format!("open on port {}", opened.port) } else { "not open".to_owned() };
        rows.push(row(format!("listener {listener}"), opened.is_open, note));
    }
    for (key, route) in &configuration.objects {
        let name = match key.strip_prefix("route/").and_then(|key| key.split_once('/')) {
            Some(("http", name)) => format!("HTTPRoute {name}"),
            Some(("grpc", name)) => format!("GRPCRoute {name}"),
            _ => continue,
        };
        let (rules, listeners) = (array(&route["rules"]).len(), array(&route["attachments"]).len());
        rows.push(row(name, true, format!("served by {listeners} of the listeners, rules: {rules}")));
    }
    rows.extend(configuration.problems.iter().map(Row::of_problem));
    rows
}

/// The status that a document brings along, with something in it.
pub fn recorded(document: &Node) -> Option<Value> {
    let status = json(document.get("status")?);
    let lists = ["conditions", "listeners", "parents", "ancestors"];
    lists.iter().any(|list| status.get(list).is_some_and(|list| !array(list).is_empty())).then_some(status)
}

fn json(node: &Node) -> Value {
    match &node.value {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => (*value).into(),
        Yaml::Integer(value) => (*value).into(),
        Yaml::Unsigned(value) => (*value).into(),
        Yaml::Float(value) => (*value).into(),
        Yaml::Text(text) => text.as_str().into(),
        Yaml::List(items) => items.iter().map(json).collect(),
        Yaml::Map(entries) => {
            entries.iter().map(|entry| (entry.key.clone(), json(&entry.value))).collect::<Map<_, _>>().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_condition_is_well_or_not_by_its_meaning_and_not_by_its_status_alone() {
        let well = |name: &str, status: &str| {
            Condition::of(&json!({"type": name, "status": status})).map(|condition| condition.is_well)
        };
        for (name, status, want) in [
            ("Accepted", "True", Some(true)),
            ("Accepted", "False", Some(false)),
            ("Programmed", "Unknown", Some(false)),
            ("Conflicted", "False", None),
            ("Conflicted", "True", Some(false)),
            ("PartiallyInvalid", "True", Some(false)),
            ("OverlappingTLSConfig", "True", Some(true)),
            ("nebula.dev/Programmed", "False", Some(false)),
            ("example.com/Seen", "False", Some(true)),
        ] {
            assert_eq!(well(name, status), want, "{name}={status}");
        }
    }

    #[test]
    fn a_parent_is_named_as_far_as_the_reference_goes() {
        let reference = json!({"kind": "Gateway", "name": "edge", "namespace": "infra", "sectionName": "a", "port": 1});
        assert_eq!(referenced(&reference), "Gateway infra/edge, section a, port 1");
        assert_eq!(referenced(&json!({"name": "edge"})), "Gateway edge");
    }
}
