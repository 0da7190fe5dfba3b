//! Stand-ins for what a set of objects names and does not hold, such that nothing is refused for their sake.
//!
//! Invariant: an object that is in the set is never replaced: what is wrong with it stays wrong.

mod certificate;
mod wanted;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use control_plane_files::CONTROLLER_NAME;
use control_plane_model::ObjectName;
use control_plane_translate::Object;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use wanted::{Asked, Grant, Port, Wanted};

/// The port of a stand-in's first listener that no reference asks for; the next ones count on from it.
const FIRST_FREE_PORT: i32 = 20_000;

/// What `objects` name and do not hold.
pub fn of(objects: &[Object]) -> Vec<Object> {
    let wanted = Wanted::of(objects);
    let class = wanted.our_class.as_deref().unwrap_or("nebula");
    let mut made: Vec<Option<Object>> = Vec::new();
    made.extend(wanted.classes.iter().map(|name| gateway_class(name)));
    made.extend(wanted.gateways.iter().map(|(name, asked)| gateway(name, asked, class)));
    for (name, asked) in &wanted.listener_sets {
        let parent = ObjectName::new(name.namespace.clone(), format!("parent-of-{}", name.name));
        made.push(gateway(&parent, &[Asked::default()].into(), class));
        made.push(listener_set(name, &parent, asked));
    }
    for (name, rules) in &wanted.http_routes {
        made.extend(route(name, rules, class, Object::HttpRoute));
    }
    for (name, rules) in &wanted.grpc_routes {
        made.extend(route(name, rules, class, Object::GrpcRoute));
    }
    made.extend(wanted.services.iter().map(|(name, ports)| service(name, ports)));
    made.extend(wanted.secrets.iter().map(secret));
    made.extend(wanted.configs.iter().map(gateway_config));
    made.extend(wanted.grants.iter().enumerate().map(|(index, grant)| reference_grant(index, grant)));
    made.extend(wanted.namespaces.iter().map(|name| namespace(name, &wanted.labels)));
    made.into_iter().flatten().collect()
}

/// `None` never, as the values are ours: the types take them.
fn typed<T: DeserializeOwned>(value: Value, wrap: fn(Arc<T>) -> Object) -> Option<Object> {
    serde_json::from_value(value).ok().map(|object| wrap(Arc::new(object)))
}

fn metadata(name: &ObjectName) -> Value {
    json!({"namespace": name.namespace, "name": name.name})
}

fn gateway_class(name: &str) -> Option<Object> {
    typed(json!({"metadata": {"name": name}, "spec": {"controllerName": CONTROLLER_NAME}}), Object::GatewayClass)
}

fn gateway(name: &ObjectName, asked: &BTreeSet<Asked>, class: &str) -> Option<Object> {
    let spec = json!({
        "gatewayClassName": class,
        "allowedListeners": {"namespaces": {"from": "All"}},
        "listeners": listeners(asked),
    });
    typed(json!({"metadata": metadata(name), "spec": spec}), Object::Gateway)
}

fn listener_set(name: &ObjectName, parent: &ObjectName, asked: &BTreeSet<Asked>) -> Option<Object> {
    let spec = json!({"parentRef": {"name": parent.name}, "listeners": listeners(asked)});
    typed(json!({"metadata": metadata(name), "spec": spec}), Object::ListenerSet)
}

/// One listener for each name and port that is asked for, open to all.
fn listeners(asked: &BTreeSet<Asked>) -> Vec<Value> {
    let mut free = FIRST_FREE_PORT;
    let listener = |asked: &Asked| {
        let port = asked.port.unwrap_or_else(|| {
            free += 1;
            free
        });
        let name = asked.section.clone().unwrap_or_else(|| format!("port-{port}"));
        let routes = json!({"namespaces": {"from": "All"}});
        json!({"name": name, "port": port, "protocol": "HTTP", "allowedRoutes": routes})
    };
    asked.iter().map(listener).collect()
}

/// A route with these rules, and a Gateway that serves it.
fn route<T: DeserializeOwned>(
    name: &ObjectName,
    rules: &BTreeSet<String>,
    class: &str,
    wrap: fn(Arc<T>) -> Object,
) -> [Option<Object>; 2] {
    let parent = ObjectName::new(name.namespace.clone(), format!("parent-of-{}", name.name));
    let rules: Vec<Value> = rules.iter().map(|rule| json!({"name": rule})).collect();
    let spec = json!({"parentRefs": [{"name": parent.name}], "rules": rules});
    let route = typed(json!({"metadata": metadata(name), "spec": spec}), wrap);
    [gateway(&parent, &[Asked::default()].into(), class), route]
}

fn service(name: &ObjectName, ports: &BTreeSet<Port>) -> Option<Object> {
    let mut free = FIRST_FREE_PORT;
    let port = |port: &Port| match port {
        Port::Number(number) => json!({"name": format!("port-{number}"), "port": number}),
        Port::Name(name) => {
            free += 1;
            json!({"name": name, "port": free})
        }
    };
    let ports: Vec<Value> = ports.iter().map(port).collect();
    typed(json!({"metadata": metadata(name), "spec": {"ports": ports}}), Object::Service)
}

fn secret(name: &ObjectName) -> Option<Object> {
    let (certificate, key) = certificate::self_signed()?;
    let mut secret: k8s_openapi::api::core::v1::Secret =
        serde_json::from_value(json!({"metadata": metadata(name), "type": "kubernetes.io/tls"})).ok()?;
    let bytes = |text: String| k8s_openapi::ByteString(text.into_bytes());
    secret.data = Some([("tls.crt".to_owned(), bytes(certificate)), ("tls.key".to_owned(), bytes(key))].into());
    Some(Object::Secret(secret.into()))
}

fn gateway_config(name: &ObjectName) -> Option<Object> {
    typed(json!({"metadata": metadata(name), "spec": {}}), Object::GatewayConfig)
}

fn reference_grant(index: usize, grant: &Grant) -> Option<Object> {
    let name = ObjectName::new(grant.to.namespace.clone(), format!("assumed-{index}"));
    let spec = json!({
        "from": [{"group": "gateway.networking.k8s.io", "kind": grant.from_kind, "namespace": grant.from_namespace}],
        "to": [{"group": "", "kind": grant.to_kind, "name": grant.to.name}],
    });
    typed(json!({"metadata": metadata(&name), "spec": spec}), Object::ReferenceGrant)
}

fn namespace(name: &str, labels: &BTreeMap<String, String>) -> Option<Object> {
    typed(json!({"metadata": {"name": name, "labels": labels}}), Object::Namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use control_plane_translate::Kind;

    fn route() -> Object {
        let value = json!({
            "metadata": {"name": "r", "namespace": "shop"},
            "spec": {
                "parentRefs": [
                    {"name": "edge", "namespace": "infra", "sectionName": "https", "port": 443},
                    {"name": "extra", "kind": "ListenerSet"},
                ],
                "rules": [{"backendRefs": [
                    {"name": "cart", "port": 80}, {"name": "cart", "port": 81}, {"name": "far", "namespace": "b", "port": 1},
                ]}],
            },
        });
        typed(value, Object::HttpRoute).unwrap()
    }

    fn names(objects: &[Object]) -> Vec<String> {
        objects.iter().map(|object| format!("{object:?}")).collect()
    }

    #[test]
    fn what_a_route_names_is_made_and_what_is_there_is_not() {
        let there =
            typed(json!({"metadata": {"name": "cart", "namespace": "shop"}, "spec": {"ports": []}}), Object::Service);
        assert_eq!(
            names(&of(&[route(), there.unwrap()])),
            [
                "Gateway infra/edge",
                "Gateway shop/parent-of-extra",
                "ListenerSet shop/extra",
                "Service b/far",
                "ReferenceGrant b/assumed-0",
                "Namespace /shop",
            ]
        );
    }

    #[test]
    fn a_stand_in_service_has_every_port_that_is_named() {
        let made = of(&[route()]);
        let ports = made.iter().find_map(|object| match object {
            Object::Service(service) if object.name().name.as_ref() == "cart" => {
                Some(service.spec.as_ref()?.ports.as_ref()?.iter().map(|port| port.port).collect::<Vec<_>>())
            }
            _ => None,
        });
        assert_eq!(ports, Some(vec![80, 81]));
    }

    #[test]
    fn a_gateway_gets_its_class_certificate_and_settings_and_the_labels_that_it_selects_by() {
        let class = typed(
            json!({"metadata": {"name": "other"}, "spec": {"controllerName": "example.com/other"}}),
            Object::GatewayClass,
        );
        let listener = json!({
            "name": "a", "port": 443, "protocol": "HTTPS",
            "tls": {"certificateRefs": [{"name": "tls"}]},
            "allowedRoutes": {"namespaces": {"from": "Selector", "selector": {
                "matchLabels": {"team": "shop"},
                "matchExpressions": [{"key": "tier", "operator": "In", "values": ["x", "y"]}],
            }}},
        });
        let parameters = json!({"group": "nebula.dev", "kind": "GatewayConfig", "name": "settings"});
        let spec = json!({"gatewayClassName": "mine", "infrastructure": {"parametersRef": parameters},
            "listeners": [listener]});
        let gateway = typed(json!({"metadata": {"name": "g", "namespace": "infra"}, "spec": spec}), Object::Gateway);
        let made = of(&[class.unwrap(), gateway.unwrap(), route()]);
        let names = names(&made);
        for name in ["GatewayClass /mine", "Secret infra/tls", "GatewayConfig infra/settings"] {
            assert!(names.contains(&name.to_owned()), "{name} is not in {names:?}");
        }
        let namespace = made.iter().find(|object| object.kind() == Kind::Namespace).unwrap();
        let labels = namespace.metadata().labels.clone().unwrap();
        assert_eq!((labels["team"].as_str(), labels["tier"].as_str()), ("shop", "x"));
    }
}
