//! YAML to changes, and translators to text.

use std::{fmt::Write as _, path::Path, sync::Arc};

use control_plane_model::{GatewayKey, ObjectName, PolicyKey, Resource, ResourceKey, Route, RuleAction};
use control_plane_translate::{Change, Kind, Mode, Object, Options, Provisioned, SUPPORTED_FEATURES, Translator};
use serde_json::Value;

/// The controller name of every test.
pub const CONTROLLER: &str = "nebula.dev/gateway-controller";

/// A translator that knows nothing.
pub fn translator(mode: Mode) -> Translator {
    Translator::new(Options { mode, controller_name: CONTROLLER.to_owned() })
}

/// The object in `value`, by its `kind`.
pub fn object(value: Value) -> Object {
    fn typed<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
        Arc::new(serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}")))
    }
    match value["kind"].as_str().unwrap() {
        "GatewayClass" => Object::GatewayClass(typed(value)),
        "Gateway" => Object::Gateway(typed(value)),
        "ListenerSet" => Object::ListenerSet(typed(value)),
        "HTTPRoute" => Object::HttpRoute(typed(value)),
        "GRPCRoute" => Object::GrpcRoute(typed(value)),
        "ReferenceGrant" => Object::ReferenceGrant(typed(value)),
        "BackendTLSPolicy" => Object::BackendTlsPolicy(typed(value)),
        "GatewayConfig" => Object::GatewayConfig(typed(value)),
        "RateLimitPolicy" => Object::RateLimitPolicy(typed(value)),
        "BackendPolicy" => Object::BackendPolicy(typed(value)),
        "RequestValidationPolicy" => Object::RequestValidationPolicy(typed(value)),
        "AuthenticationPolicy" => Object::AuthenticationPolicy(typed(value)),
        "IdentityProvider" => Object::IdentityProvider(typed(value)),
        "ConfigMap" => Object::ConfigMap(typed(value)),
        "ClientPolicy" => Object::ClientPolicy(typed(value)),
        "Service" => Object::Service(typed(value)),
        "EndpointSlice" => Object::EndpointSlice(typed(value)),
        "Secret" => Object::Secret(typed(value)),
        "Namespace" => Object::Namespace(typed(value)),
        kind => panic!("unknown kind {kind}"),
    }
}

/// The documents of a YAML text. `kind: Provisioned`, `Report` and `Remove` are changes that no object can say.
pub fn changes(yaml: &str) -> Vec<Change> {
    yaml.split("\n---\n").filter(|text| !text.trim().is_empty()).map(|text| change(&document(text))).collect()
}

/// The batches of changes of a YAML text; each but the first begins with `kind: Batch`.
pub fn batches(yaml: &str) -> Vec<Vec<Change>> {
    yaml.split("\n---\nkind: Batch\n---\n").map(changes).collect()
}

/// One YAML document.
pub fn document(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}:\n{text}"))
}

/// The change in `value`.
pub fn change(value: &Value) -> Change {
    let text = |field: &str| value[field].as_str().unwrap_or_default();
    let name = || ObjectName::new(text("namespace"), text("name"));
    match text("kind") {
        "Provisioned" => {
            let addresses = value["addresses"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned());
            let state = Provisioned {
                addresses: addresses.collect(),
                ready: value["ready"].as_bool().unwrap(),
                failure: value["failure"].as_str().map(str::to_owned),
            };
            Change::Provisioned { gateway: GatewayKey(name()), state }
        }
        "Report" => {
            let refused = value["refused"].as_object().unwrap().iter();
            let refused = refused.map(|(key, text)| {
                let key: ResourceKey = key.parse().unwrap();
                (key, text.as_str().unwrap().to_owned())
            });
            Change::Report { gateway: GatewayKey(name()), refused: refused.collect() }
        }
        "BundleVersion" => Change::BundleVersion(text("version").to_owned()),
        "Remove" => Change::Remove(kind(text("of")), name()),
        _ => Change::Upsert(object(value.clone())),
    }
}

fn kind(text: &str) -> Kind {
    match text {
        "ReferenceGrant" => Kind::ReferenceGrant,
        "Service" => Kind::Service,
        "Secret" => Kind::Secret,
        "HTTPRoute" => Kind::HttpRoute,
        "RateLimitPolicy" => Kind::RateLimitPolicy,
        "BackendPolicy" => Kind::BackendPolicy,
        "RequestValidationPolicy" => Kind::RequestValidationPolicy,
        "AuthenticationPolicy" => Kind::AuthenticationPolicy,
        "IdentityProvider" => Kind::IdentityProvider,
        "ConfigMap" => Kind::ConfigMap,
        "ClientPolicy" => Kind::ClientPolicy,
        kind => panic!("cannot remove {kind} here"),
    }
}

/// Everything that a translator says, as text: one line for each thing that can be wrong by itself.
pub fn render(translator: &Translator) -> String {
    let mut text = String::from("# snapshot\n");
    for resource in translator.snapshot().resources() {
        match resource {
            Resource::Route(route) => render_route(&mut text, &route),
            resource => writeln!(text, "{}", short(&format!("{resource:?}"))).unwrap(),
        }
    }
    text.push_str("\n# deployments\n");
    for (gateway, deployment) in translator.deployments() {
        writeln!(text, "{gateway}: {}", short(&format!("{deployment:?}"))).unwrap();
    }
    text.push_str("\n# statuses\n");
    for status in translator.statuses() {
        writeln!(text, "{} {} (generation {})", status.kind, status.name, status.generation).unwrap();
        render_status(&mut text, &status.status, 1);
    }
    text
}

fn render_route(text: &mut String, route: &Route) {
    writeln!(text, "Route {} created {}", route.key, route.created).unwrap();
    for attachment in &route.attachments {
        for host in &attachment.hosts {
            let (served, declared) = (&host.served, &host.declared);
            writeln!(text, "  at {} serves {served:?} declared {declared:?}", attachment.listener).unwrap();
        }
    }
    render_policies(text, "  ", &route.policies);
    for rule in &route.rules {
        writeln!(text, "  rule {:?} {:?}", rule.name, rule.timeouts).unwrap();
        render_policies(text, "    ", &rule.policies);
        for found in &rule.matches {
            writeln!(text, "    {}", short(&format!("{found:?}"))).unwrap();
        }
        for filter in &rule.filters {
            writeln!(text, "    {}", short(&format!("{filter:?}"))).unwrap();
        }
        match &rule.action {
            RuleAction::Fail(reason) => writeln!(text, "    fails: {reason:?}").unwrap(),
            RuleAction::Forward(backends) => {
                for backend in backends {
                    writeln!(text, "    {}", short(&format!("{backend:?}"))).unwrap();
                }
            }
        }
    }
}

fn render_policies(text: &mut String, indent: &str, keys: &[PolicyKey]) {
    for key in keys {
        writeln!(text, "{indent}policy {key}").unwrap();
    }
}

fn render_status(text: &mut String, status: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    for (field, value) in status.as_object().unwrap() {
        match field.as_str() {
            "conditions" => {
                for condition in value.as_array().unwrap() {
                    let get = |name: &str| condition[name].as_str().unwrap_or_else(|| panic!("{name} in {condition}"));
                    let (kind, status, reason, message) = (get("type"), get("status"), get("reason"), get("message"));
                    let generation = &condition["observedGeneration"];
                    writeln!(text, "{indent}{kind}={status} {reason} ({generation}) {message}").unwrap();
                }
            }
            "supportedFeatures" => {
                let names: Vec<&str> =
                    value.as_array().unwrap().iter().map(|name| name["name"].as_str().unwrap()).collect();
                assert_eq!(names, SUPPORTED_FEATURES);
                writeln!(text, "{indent}every supported feature").unwrap();
            }
            "listeners" | "parents" | "ancestors" => {
                for entry in value.as_array().unwrap() {
                    writeln!(text, "{indent}- of {field}:").unwrap();
                    render_status(text, entry, depth + 1);
                }
            }
            _ => writeln!(text, "{indent}{field}: {value}").unwrap(),
        }
    }
}

/// Names in their text form, and without what says nothing.
fn short(debug: &str) -> String {
    let mut text = debug.to_owned();
    for (pattern, replacement) in [
        (r#"ObjectName \{ namespace: "([^"]*)", name: "([^"]*)" \}"#, "$1/$2"),
        (r"(?:GatewayKey|CertificateKey)\(([^()]*)\)", "$1"),
        (r"BackendKey \{ service: ([^ ]*), port: (\d+) \}", "$1:$2"),
        (r"Endpoint \{ address: ([^ ]*) \}", "$1"),
        (r"ValueMatch::|, method: None|, headers: \[\]|, query: \[\]|, filters: \[\]|, policies: \[\]", ""),
        (r"RouteMatch \{ path: (.*) \}", "match $1"),
    ] {
        text = regex::Regex::new(pattern).unwrap().replace_all(&text, replacement).into_owned();
    }
    text.trim_end().to_owned()
}

/// Reads a file beside the tests.
pub fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
