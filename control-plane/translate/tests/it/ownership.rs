//! What happens to objects that were ours and no longer are.

use control_plane_model::{GatewayKey, ObjectName};
use control_plane_translate::{Change, Deployment, Kind, Mode, Output, Translator};
use serde_json::Value;

use super::support::{change, changes, document, translator};

const CLASS: &str =
    "kind: GatewayClass\nmetadata: {name: nebula}\nspec: {controllerName: nebula.dev/gateway-controller}";
const FOREIGN_CLASS: &str = "kind: GatewayClass\nmetadata: {name: nebula}\nspec: {controllerName: example.com/other}";

const WORLD: &str = r"
kind: Gateway
metadata: {name: edge, namespace: infra, generation: 3, uid: b5c0}
spec:
  gatewayClassName: nebula
  allowedListeners: {namespaces: {from: All}}
  listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]
---
kind: ListenerSet
metadata: {name: more, namespace: shop, generation: 2}
spec:
  parentRef: {name: edge, namespace: infra}
  listeners: [{name: http, port: 8080, protocol: HTTP}]
---
kind: HTTPRoute
metadata: {name: cart, namespace: shop, generation: 1}
spec: {parentRefs: [{name: edge, namespace: infra}]}
";

fn world() -> Translator {
    let mut translator = translator(Mode::Cluster);
    let _ = translator.apply(vec![change(&document(CLASS))]);
    let _ = translator.apply(changes(WORLD));
    translator
}

fn remove(kind: Kind, namespace: &str, name: &str) -> Vec<Change> {
    vec![Change::Remove(kind, ObjectName::new(namespace, name))]
}

/// The status that `output` says of the object, if it says one.
fn said<'a>(output: &'a Output, kind: Kind, name: &str) -> Option<&'a Value> {
    output.statuses.iter().find(|update| update.kind == kind && &*update.name.name == name).map(|update| &update.status)
}

#[test]
fn a_listener_set_whose_gateway_is_deleted_loses_its_status() {
    let mut translator = world();
    let output = translator.apply(remove(Kind::Gateway, "infra", "edge"));
    assert_eq!(said(&output, Kind::ListenerSet, "more"), Some(&Value::Null));
    assert_eq!(said(&output, Kind::Gateway, "edge"), None, "nobody can write the status of what is gone");
    assert!(translator.status(Kind::ListenerSet, &ObjectName::new("shop", "more")).is_none());
}

#[test]
fn a_route_whose_gateway_is_deleted_loses_our_entries() {
    let mut translator = world();
    let output = translator.apply(remove(Kind::Gateway, "infra", "edge"));
    assert_eq!(said(&output, Kind::HttpRoute, "cart"), Some(&serde_json::json!({"parents": []})));
}

#[test]
fn a_gateway_whose_class_is_deleted_loses_its_status() {
    let mut translator = world();
    let output = translator.apply(remove(Kind::GatewayClass, "", "nebula"));
    assert_eq!(said(&output, Kind::Gateway, "edge"), Some(&Value::Null));
    assert_eq!(said(&output, Kind::ListenerSet, "more"), Some(&Value::Null));
    let update = output.statuses.iter().find(|update| update.kind == Kind::Gateway).unwrap();
    assert_eq!(update.generation, 3);
}

const RUNNING: &str = "kind: Provisioned\nnamespace: infra\nname: edge\naddresses: [192.0.2.1]\nready: true";
const STOPPED: &str = "kind: Provisioned\nnamespace: infra\nname: edge\naddresses: []\nready: false";

fn edge() -> GatewayKey {
    GatewayKey(ObjectName::new("infra", "edge"))
}

fn held() -> Deployment {
    Deployment::Held { uid: "b5c0".to_owned() }
}

fn accepted(output: &Output) -> &str {
    said(output, Kind::Gateway, "edge").unwrap()["conditions"][0]["reason"].as_str().unwrap()
}

#[test]
fn proxies_that_run_go_on_while_their_class_is_missing() {
    let mut translator = world();
    let _ = translator.apply(vec![change(&document(RUNNING))]);
    let output = translator.apply(remove(Kind::GatewayClass, "", "nebula"));
    assert_eq!(translator.deployments()[&edge()], held());
    assert!(output.delta.is_empty(), "listeners and routes stay: {:?}", output.delta);
    assert_eq!(accepted(&output), "GatewayClassNotFound");

    let output = translator.apply(vec![change(&document(CLASS))]);
    assert!(matches!(translator.deployments()[&edge()], Deployment::Wanted(_)));
    assert_eq!(accepted(&output), "Accepted");
}

#[test]
fn what_the_provisioner_cannot_do_is_in_the_status_of_the_gateway() {
    let mut translator = world();
    let output = translator.apply(vec![change(&document(&format!("{RUNNING}\nfailure: exceeded quota (403)")))]);
    let conditions = &said(&output, Kind::Gateway, "edge").unwrap()["conditions"];
    let programmed = conditions.as_array().unwrap().iter().find(|condition| condition["type"] == "Programmed").unwrap();
    assert_eq!((&programmed["status"], &programmed["reason"]), (&"False".into(), &"Pending".into()));
    assert!(programmed["message"].as_str().unwrap().contains("exceeded quota (403)"), "{programmed}");
    let output = translator.apply(vec![change(&document(RUNNING))]);
    assert_eq!(said(&output, Kind::Gateway, "edge").unwrap()["conditions"][1]["status"], "True");
}

#[test]
fn proxies_end_once_their_class_names_another_controller() {
    let mut translator = world();
    let _ = translator.apply(vec![change(&document(RUNNING))]);
    let _ = translator.apply(remove(Kind::GatewayClass, "", "nebula"));
    let output = translator.apply(vec![change(&document(FOREIGN_CLASS))]);
    assert!(translator.deployments().is_empty() && output.deployments_changed);
    assert!(translator.snapshot().listeners.is_empty());
}

#[test]
fn a_gateway_without_a_class_is_ours_as_long_as_something_runs_for_it() {
    let mut translator = translator(Mode::Cluster);
    let _ = translator.apply(changes(WORLD));
    assert!(translator.deployments().is_empty(), "nothing tells that it is ours");
    let output = translator.apply(vec![change(&document(RUNNING))]);
    assert_eq!(translator.deployments()[&edge()], held(), "as after a restart without the class");
    assert!(output.deployments_changed);
    let output = translator.apply(vec![change(&document(STOPPED))]);
    assert!(translator.deployments().is_empty());
    assert_eq!(said(&output, Kind::Gateway, "edge"), Some(&Value::Null));
}

/// It writes the same condition types: taking them away could take away what it has written already.
#[test]
fn the_status_of_a_gateway_that_another_controller_takes_over_is_left_to_it() {
    let mut translator = world();
    let output = translator.apply(vec![change(&document(FOREIGN_CLASS))]);
    assert_eq!(said(&output, Kind::Gateway, "edge"), None);
    assert_eq!(said(&output, Kind::ListenerSet, "more"), None);
    assert_eq!(said(&output, Kind::HttpRoute, "cart"), Some(&serde_json::json!({"parents": []})));
}
