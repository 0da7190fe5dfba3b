//! From a document to the object that it declares: which kinds a folder may hold, and what each needs.

use std::{collections::BTreeSet, sync::Arc};

use control_plane_model::ObjectName;
use control_plane_translate::{Kind, Object};
use kube_core::Resource;
use serde::de::DeserializeOwned;

use crate::{
    decode::{FieldError, decode},
    node::{Node, Position, Value},
};

/// The kinds that a folder may hold, with their versions.
const KINDS: &[(Kind, &[&str])] = &[
    (Kind::GatewayClass, &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"]),
    (Kind::Gateway, &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"]),
    (Kind::ListenerSet, &["gateway.networking.k8s.io/v1"]),
    (Kind::HttpRoute, &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"]),
    (Kind::GrpcRoute, &["gateway.networking.k8s.io/v1"]),
    (Kind::ReferenceGrant, &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"]),
    (Kind::BackendTlsPolicy, &["gateway.networking.k8s.io/v1"]),
    (Kind::GatewayConfig, &["nebula.dev/v1alpha1"]),
    (Kind::RateLimitPolicy, &["nebula.dev/v1alpha1"]),
    (Kind::BackendPolicy, &["nebula.dev/v1alpha1"]),
    (Kind::RequestValidationPolicy, &["nebula.dev/v1alpha1"]),
    (Kind::AuthenticationPolicy, &["nebula.dev/v1alpha1"]),
    (Kind::IdentityProvider, &["nebula.dev/v1alpha1"]),
    (Kind::ClientPolicy, &["nebula.dev/v1alpha1"]),
    (Kind::Service, &["v1"]),
    (Kind::EndpointSlice, &["discovery.k8s.io/v1"]),
    (Kind::Secret, &["v1"]),
    (Kind::ConfigMap, &["v1"]),
    (Kind::Namespace, &["v1"]),
];

/// Groups whose every kind is to be known: a kind of theirs that is not in [`KINDS`] is a slip, or not served.
const OWN_GROUPS: [&str; 2] = ["gateway.networking.k8s.io", "nebula.dev"];

/// Kind and name of an object. Its text form is `HTTPRoute shop/cart`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// The kind.
    pub kind: Kind,
    /// The name; the namespace is empty for kinds that have none.
    pub name: ObjectName,
}

impl std::fmt::Display for ObjectId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.name.namespace.is_empty() {
            write!(formatter, "{} {}", self.kind, self.name.name)
        } else {
            write!(formatter, "{} {}", self.kind, self.name)
        }
    }
}

/// An object that a document declares.
#[derive(Clone, Debug)]
pub struct Declared {
    /// Which one.
    pub id: ObjectId,
    /// The object, with its namespace filled in.
    pub object: Object,
    /// Where its document begins.
    pub position: Position,
    /// The document, to tell whether it changed.
    pub document: Arc<Node>,
}

/// The objects that a document holds: itself, or the items of a `List`, each with what stands before its fields' paths.
pub fn items(document: Node) -> Vec<(String, Node)> {
    if document.get("kind").and_then(Node::as_text) != Some("List") {
        return vec![(String::new(), document)];
    }
    let Value::Map(entries) = document.value else { return Vec::new() };
    let items = entries.into_iter().find(|entry| entry.key == "items").map(|entry| entry.value.value);
    let Some(Value::List(items)) = items else { return Vec::new() };
    items.into_iter().enumerate().map(|(index, item)| (format!("items[{index}]."), item)).collect()
}

/// Reads one object.
///
/// # Errors: everything that is wrong with it.
pub fn declared(document: Node) -> Result<Declared, Vec<FieldError>> {
    let kind = kind(&document).map_err(|error| vec![error])?;
    name(&document).map_err(|error| vec![error])?;
    let object = object(kind, &document)?;
    if let Some(error) = repeated_listener(&document) {
        return Err(vec![error]);
    }
    let id = ObjectId { kind, name: object.name() };
    Ok(Declared { id, object, position: document.position, document: Arc::new(document) })
}

/// Whether a document is of a kind that says nothing to a gateway, as a Deployment is. A `List` is not.
pub fn is_foreign(document: &Node) -> bool {
    let text = |key| document.get(key).and_then(Node::as_text);
    let (Some(version), Some(kind)) = (text("apiVersion"), text("kind")) else { return false };
    let group = group(version);
    kind != "List"
        && !OWN_GROUPS.contains(&group)
        && !KINDS.iter().any(|(known, versions)| {
            known.as_str() == kind && versions.iter().any(|version| self::group(version) == group)
        })
}

/// The group of an `apiVersion`; empty for Kubernetes' own core.
fn group(version: &str) -> &str {
    version.split_once('/').map_or("", |(group, _)| group)
}

fn error(field: &str, position: Position, message: impl Into<String>) -> FieldError {
    FieldError { field: field.to_owned(), position, message: message.into() }
}

/// The text of a field that must be there.
fn text<'a>(parent: &'a Node, path: &str, key: &str) -> Result<(&'a str, Position), FieldError> {
    let Some(node) = parent.get(key) else {
        return Err(error(path, parent.position, format!("required field {key} is missing")));
    };
    match &node.value {
        Value::Text(text) => Ok((text, node.position)),
        _ => Err(error(path, node.position, "want a string")),
    }
}

fn kind(document: &Node) -> Result<Kind, FieldError> {
    let (version, version_position) = text(document, "apiVersion", "apiVersion")?;
    let (name, position) = text(document, "kind", "kind")?;
    let Some((kind, versions)) = KINDS.iter().find(|(kind, _)| kind.as_str() == name) else {
        let kinds: Vec<_> = KINDS.iter().map(|(kind, _)| kind.as_str()).collect();
        return Err(error("kind", position, format!("unknown kind {name}, want one of {}", kinds.join(", "))));
    };
    if versions.contains(&version) {
        Ok(*kind)
    } else {
        Err(error("apiVersion", version_position, format!("{name} has apiVersion {}", versions.join(" or "))))
    }
}

/// Checks that the object's name and namespace are ones that Kubernetes takes.
fn name(document: &Node) -> Result<(), FieldError> {
    let Some(metadata) = document.get("metadata") else {
        return Err(error("metadata", document.position, "required field metadata is missing"));
    };
    let (name, position) = text(metadata, "metadata.name", "name")?;
    if !is_dns_subdomain(name) {
        return Err(error(
            "metadata.name",
            position,
            "want lower-case letters, digits, '-' and '.', at most 253, a letter or digit at both ends",
        ));
    }
    if metadata.get("namespace").is_some_and(|namespace| namespace.value != Value::Null) {
        let (namespace, position) = text(metadata, "metadata.namespace", "namespace")?;
        if !is_dns_subdomain(namespace) || namespace.contains('.') || namespace.len() > 63 {
            return Err(error("metadata.namespace", position, "want lower-case letters, digits and '-', at most 63"));
        }
    }
    Ok(())
}

/// The API server refuses a Gateway or a ListenerSet with two listeners of one name.
fn repeated_listener(document: &Node) -> Option<FieldError> {
    let Some(Value::List(listeners)) = document.get("spec")?.get("listeners").map(|listeners| &listeners.value) else {
        return None;
    };
    let mut names = BTreeSet::new();
    listeners.iter().enumerate().find_map(|(index, listener)| {
        let name = listener.get("name")?;
        let is_new = names.insert(name.as_text()?);
        let field = format!("spec.listeners[{index}].name");
        (!is_new).then(|| error(&field, name.position, "another listener has this name"))
    })
}

fn is_dns_subdomain(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            let bytes = label.as_bytes();
            bytes.first().copied().is_some_and(inner)
                && bytes.last().copied().is_some_and(inner)
                && bytes.iter().all(|byte| inner(*byte) || *byte == b'-')
        })
}

fn object(kind: Kind, document: &Node) -> Result<Object, Vec<FieldError>> {
    Ok(match kind {
        Kind::GatewayClass => Object::GatewayClass(typed(kind, document)?),
        Kind::Gateway => Object::Gateway(typed(kind, document)?),
        Kind::ListenerSet => Object::ListenerSet(typed(kind, document)?),
        Kind::HttpRoute => Object::HttpRoute(typed(kind, document)?),
        Kind::GrpcRoute => Object::GrpcRoute(typed(kind, document)?),
        Kind::ReferenceGrant => Object::ReferenceGrant(typed(kind, document)?),
        Kind::BackendTlsPolicy => Object::BackendTlsPolicy(typed(kind, document)?),
        Kind::GatewayConfig => Object::GatewayConfig(typed(kind, document)?),
        Kind::RateLimitPolicy => Object::RateLimitPolicy(typed(kind, document)?),
        Kind::BackendPolicy => Object::BackendPolicy(typed(kind, document)?),
        Kind::RequestValidationPolicy => Object::RequestValidationPolicy(typed(kind, document)?),
        Kind::AuthenticationPolicy => Object::AuthenticationPolicy(typed(kind, document)?),
        Kind::IdentityProvider => Object::IdentityProvider(typed(kind, document)?),
        Kind::ClientPolicy => Object::ClientPolicy(typed(kind, document)?),
        Kind::Service => Object::Service(typed(kind, document)?),
        Kind::EndpointSlice => Object::EndpointSlice(typed(kind, document)?),
        Kind::Secret => {
            let mut secret: k8s_openapi::api::core::v1::Secret = decode(document)?;
            fill_in_namespace(kind, &mut secret);
            // As the API server does when it stores a Secret.
            for (key, value) in secret.string_data.take().unwrap_or_default() {
                secret.data.get_or_insert_default().insert(key, k8s_openapi::ByteString(value.into_bytes()));
            }
            Object::Secret(Arc::new(secret))
        }
        Kind::ConfigMap => Object::ConfigMap(typed(kind, document)?),
        Kind::Namespace => Object::Namespace(typed(kind, document)?),
    })
}

fn typed<K: Resource + DeserializeOwned>(kind: Kind, document: &Node) -> Result<Arc<K>, Vec<FieldError>> {
    let mut object: K = decode(document)?;
    fill_in_namespace(kind, &mut object);
    Ok(Arc::new(object))
}

/// What `kubectl apply` does for an object that names no namespace.
fn fill_in_namespace<K: Resource>(kind: Kind, object: &mut K) {
    let namespace = &mut object.meta_mut().namespace;
    if kind.is_namespaced() {
        namespace.get_or_insert_with(|| "default".to_owned());
    } else {
        *namespace = None;
    }
}

#[cfg(test)]
mod tests {
    use super::{super::node::parse, *};

    fn first(text: &str) -> Result<Vec<Declared>, Vec<FieldError>> {
        let read = |(prefix, item): (String, Node)| {
            let errors = |errors: Vec<FieldError>| {
                errors.into_iter().map(|error| FieldError { field: format!("{prefix}{}", error.field), ..error })
            };
            declared(item).map_err(|wrong| errors(wrong).collect::<Vec<_>>())
        };
        items(parse(text).unwrap().remove(0)).into_iter().map(read).collect()
    }

    fn error_of(text: &str) -> String {
        let errors = first(text).unwrap_err();
        let error = &errors[0];
        format!("{}:{} {}: {}", error.position.line, error.position.column, error.field, error.message)
    }

    #[test]
    fn an_object_without_namespace_is_in_default_and_a_namespace_is_in_none() {
        let service = first("apiVersion: v1\nkind: Service\nmetadata: {name: a}\n").unwrap();
        assert_eq!(service[0].id.to_string(), "Service default/a");
        let namespace = first("apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n").unwrap();
        assert_eq!(namespace[0].id.to_string(), "Namespace a");
    }

    #[test]
    fn text_data_of_a_secret_is_data() {
        let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {x: eQ==}\nstringData: {tls.crt: pem}\n";
        let secrets = first(text).unwrap();
        let Object::Secret(secret) = &secrets[0].object else { panic!("{secrets:?}") };
        let data = secret.data.as_ref().unwrap();
        assert_eq!((&data["x"].0[..], &data["tls.crt"].0[..]), (&b"y"[..], &b"pem"[..]));
    }

    #[test]
    fn a_list_declares_its_items_and_tells_which_one_is_wrong() {
        let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {name: a}\n";
        assert_eq!(first(text).unwrap().len(), 1);
        assert_eq!(error_of(&format!("{text}  spek: 1\n")), "7:3 items[0].spek: unknown field");
    }

    #[test]
    fn what_kubectl_prints_can_be_read_back() {
        let text = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  annotations: \
                    {a: b}\n  creationTimestamp: \"2026-01-02T03:04:05Z\"\n  generation: 3\n  managedFields:\n  - \
                    {apiVersion: v1, fieldsType: FieldsV1, fieldsV1: {\"f:spec\": {}}, manager: kubectl, operation: \
                    Apply}\n  name: a\n  resourceVersion: \"7\"\n  uid: u\nspec: {}\nstatus: {}\n";
        assert_eq!(first(text).unwrap()[0].id.to_string(), "HTTPRoute default/a");
        let dry_run = "\u{feff}apiVersion: v1\r\nkind: Service\r\nmetadata:\r\n  creationTimestamp: null\r\n  \
                       name: a\r\nspec: {}\r\nstatus:\r\n  loadBalancer: {}\r\n";
        assert_eq!(first(dry_run).unwrap()[0].id.to_string(), "Service default/a");
    }

    #[test]
    fn two_listeners_of_one_name_are_refused() {
        let text = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: a}\nspec:\n  \
                    gatewayClassName: nebula\n  listeners:\n  - {name: x, port: 80, protocol: HTTP}\n  - {name: x, \
                    port: 81, protocol: HTTP}\n";
        assert_eq!(error_of(text), "8:12 spec.listeners[1].name: another listener has this name");
    }

    #[test]
    fn a_deployment_is_foreign_and_a_slip_in_a_kind_of_ours_is_not() {
        for (version, kind, want) in [
            ("apps/v1", "Deployment", true),
            ("v1", "Pod", true),
            ("serving.knative.dev/v1", "Service", true),
            ("v1", "Service", false),
            ("v2", "Service", false),
            ("v1", "List", false),
            ("gateway.networking.k8s.io/v1", "HttpRoute", false),
            ("nebula.dev/v1", "Anything", false),
        ] {
            let text = format!("apiVersion: {version}\nkind: {kind}\n");
            assert_eq!(is_foreign(&parse(&text).unwrap()[0]), want, "{text}");
        }
        assert!(!is_foreign(&parse("image: {tag: 1}").unwrap()[0]));
    }

    #[test]
    fn unknown_kinds_versions_and_names_are_told_where_they_stand() {
        for (text, want) in [
            ("apiVersion: v1\nkind: Pod\n", "2:7 kind: unknown kind Pod, want one of "),
            (
                "apiVersion: v1\nkind: HTTPRoute\n",
                "1:13 apiVersion: HTTPRoute has apiVersion gateway.networking.k8s.io/v1 or",
            ),
            ("kind: Service\n", "1:1 apiVersion: required field apiVersion is missing"),
            ("apiVersion: v1\nkind: Service\n", "1:1 metadata: required field metadata is missing"),
            ("apiVersion: v1\nkind: Service\nmetadata: {name: 1}\n", "3:18 metadata.name: want a string"),
            ("apiVersion: v1\nkind: Service\nmetadata: {name: a/b}\n", "3:18 metadata.name: want lower-case"),
            ("apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: A}\n", "3:32 metadata.namespace: want"),
        ] {
            let error = error_of(text);
            assert!(error.starts_with(want), "{error}");
        }
    }
}
