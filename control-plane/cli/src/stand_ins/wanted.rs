//! What a set of objects names and does not hold.

use std::collections::{BTreeMap, BTreeSet};

use control_plane_files::CONTROLLER_NAME;
use control_plane_model::ObjectName;
use control_plane_translate::{Kind, Object};
use crds::{
    gateway_api::{Gateway, LabelSelector, Listener, ParentReference},
    policy::TargetReference,
};

const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// What a route asks of a parent's listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// `sectionName`.
    pub section: Option<String>,
    /// `port`.
    pub port: Option<i32>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    /// By its number.
    Number(i32),
    /// By its name.
    Name(String),
}

impl Port {
    /// As a policy's `sectionName` means it.
    fn of_section(section: &str) -> Self {
        section.parse().map_or_else(|_| Self::Name(section.to_owned()), Self::Number)
    }
}

/// A reference into another namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// The kind that refers.
    pub from_kind: &'static str,
    /// Its namespace.
    pub from_namespace: String,
    /// The kind that it refers to.
    pub to_kind: &'static str,
    /// What it refers to.
    pub to: ObjectName,
}

/// Names of what is missing, each with what is asked of it.
#[derive(Debug, Default)]
pub struct Wanted {
    /// A GatewayClass in the set that is ours.
    pub our_class: Option<String>,
    /// GatewayClasses.
    pub classes: BTreeSet<String>,
    /// Gateways.
    pub gateways: BTreeMap<ObjectName, BTreeSet<Asked>>,
    /// ListenerSets.
    pub listener_sets: BTreeMap<ObjectName, BTreeSet<Asked>>,
    /// HTTPRoutes, with the names of their rules.
    pub http_routes: BTreeMap<ObjectName, BTreeSet<String>>,
    /// GRPCRoutes, with the names of their rules.
    pub grpc_routes: BTreeMap<ObjectName, BTreeSet<String>>,
    /// Services, with the ports.
    pub services: BTreeMap<ObjectName, BTreeSet<Port>>,
    /// Secrets.
    pub secrets: BTreeSet<ObjectName>,
    /// GatewayConfigs.
    pub configs: BTreeSet<ObjectName>,
    /// References that a ReferenceGrant has to allow, whether one does or not.
    pub grants: BTreeSet<Grant>,
    /// Namespaces of the objects.
    pub namespaces: BTreeSet<String>,
    /// Labels that any selector of the set asks of a namespace.
    pub labels: BTreeMap<String, String>,
}

/// A reference to an object, as backendRefs and certificateRefs have it.
struct Reference<'a> {
    from_kind: &'static str,
    from_namespace: &'a str,
    to_kind: &'static str,
    namespace: Option<&'a str>,
    name: &'a str,
}

impl Wanted {
    /// Collects what `objects` name, less what they are.
    pub fn of(objects: &[Object]) -> Self {
        let there: BTreeSet<(Kind, ObjectName)> = objects.iter().map(|object| (object.kind(), object.name())).collect();
        let mut wanted = Self::default();
        for object in objects {
            wanted.add(object);
        }
        wanted.keep_missing(&there);
        wanted
    }

    fn keep_missing(&mut self, there: &BTreeSet<(Kind, ObjectName)>) {
        let missing = |kind: Kind, name: &ObjectName| !there.contains(&(kind, name.clone()));
        let cluster = |name: &String| ObjectName::new("", name.as_str());
        // Without any class every Gateway counts as ours, and with one only those of a class that is there.
        if there.iter().any(|(kind, _)| *kind == Kind::GatewayClass) {
            if self.our_class.is_none() {
                self.classes.insert("nebula".to_owned());
            }
            self.classes.retain(|name| missing(Kind::GatewayClass, &cluster(name)));
        } else {
            self.classes.clear();
        }
        self.gateways.retain(|name, _| missing(Kind::Gateway, name));
        self.listener_sets.retain(|name, _| missing(Kind::ListenerSet, name));
        self.http_routes.retain(|name, _| missing(Kind::HttpRoute, name));
        self.grpc_routes.retain(|name, _| missing(Kind::GrpcRoute, name));
        self.services.retain(|name, _| missing(Kind::Service, name));
        self.secrets.retain(|name| missing(Kind::Secret, name));
        self.configs.retain(|name| missing(Kind::GatewayConfig, name));
        self.namespaces.retain(|name| missing(Kind::Namespace, &cluster(name)));
    }

    fn add(&mut self, object: &Object) {
        let name = object.name();
        let namespace = &*name.namespace;
        match object {
            Object::GatewayClass(class) => {
                if class.spec.controller_name == CONTROLLER_NAME {
                    self.our_class.get_or_insert_with(|| name.name.to_string());
                }
                let parameters = class.spec.parameters_ref.as_ref();
                self.configs.extend(parameters.and_then(|reference| {
                    Some(ObjectName::new(reference.namespace.as_deref()?, reference.name.as_str()))
                }));
            }
            Object::Gateway(gateway) => self.gateway(gateway, namespace),
            Object::ListenerSet(set) => {
                self.namespaces.insert(namespace.to_owned());
                let parent = &set.spec.parent_ref;
                let gateway = ObjectName::new(parent.namespace.as_deref().unwrap_or(namespace), parent.name.as_str());
                self.gateways.entry(gateway).or_default().insert(Asked::default());
                for listener in &set.spec.listeners {
                    self.listener("ListenerSet", namespace, listener);
                }
            }
            Object::HttpRoute(route) => {
                self.parents(route.spec.parent_refs.as_deref().unwrap_or_default(), namespace);
                let rules = route.spec.rules.iter().flatten();
                for backend in rules.flat_map(|rule| rule.backend_refs.iter().flatten()) {
                    let to =
                        Target { kind: backend.kind.as_deref(), group: backend.group.as_deref(), port: backend.port };
                    self.backend("HTTPRoute", namespace, backend.namespace.as_deref(), &backend.name, &to);
                }
            }
            Object::GrpcRoute(route) => {
                self.parents(route.spec.parent_refs.as_deref().unwrap_or_default(), namespace);
                let rules = route.spec.rules.iter().flatten();
                for backend in rules.flat_map(|rule| rule.backend_refs.iter().flatten()) {
                    let to =
                        Target { kind: backend.kind.as_deref(), group: backend.group.as_deref(), port: backend.port };
                    self.backend("GRPCRoute", namespace, backend.namespace.as_deref(), &backend.name, &to);
                }
            }
            Object::RateLimitPolicy(policy) => self.targets(&policy.spec.target_refs, namespace),
            Object::AuthenticationPolicy(policy) => self.targets(&policy.spec.target_refs, namespace),
            Object::ClientPolicy(policy) => self.targets(&policy.spec.target_refs, namespace),
            Object::RequestValidationPolicy(policy) => self.targets(&policy.spec.target_refs, namespace),
            Object::BackendPolicy(policy) => {
                for target in policy.spec.target_refs.iter().filter(|target| target.group.is_empty()) {
                    let service = ObjectName::new(namespace, target.name.as_str());
                    let port = target.section_name.as_deref().map(Port::of_section);
                    self.services.entry(service).or_default().extend(port);
                }
            }
            // They name nothing, or nothing whose absence is an error.
            Object::ReferenceGrant(_)
            | Object::BackendTlsPolicy(_)
            | Object::GatewayConfig(_)
            | Object::IdentityProvider(_)
            | Object::Service(_)
            | Object::EndpointSlice(_)
            | Object::Secret(_)
            | Object::ConfigMap(_)
            | Object::Namespace(_) => {}
        }
    }

    /// What a policy is attached to.
    fn targets(&mut self, targets: &[TargetReference], namespace: &str) {
        for target in targets.iter().filter(|target| target.group == GATEWAY_GROUP) {
            let name = ObjectName::new(namespace, target.name.as_str());
            let section = target.section_name.clone();
            match target.kind.as_str() {
                "HTTPRoute" => self.http_routes.entry(name).or_default().extend(section),
                "GRPCRoute" => self.grpc_routes.entry(name).or_default().extend(section),
                kind => self.parent(kind, name, Asked { section, port: None }),
            }
        }
    }

    fn parent(&mut self, kind: &str, name: ObjectName, asked: Asked) {
        let parents = match kind {
            "Gateway" => &mut self.gateways,
            "ListenerSet" => &mut self.listener_sets,
            _ => return,
        };
        parents.entry(name).or_default().insert(asked);
    }

    fn gateway(&mut self, gateway: &Gateway, namespace: &str) {
        let spec = &gateway.spec;
        self.classes.insert(spec.gateway_class_name.clone());
        let parameters = spec.infrastructure.as_ref().and_then(|settings| settings.parameters_ref.as_ref());
        self.configs.extend(parameters.map(|reference| ObjectName::new(namespace, reference.name.as_str())));
        let allowed = spec.allowed_listeners.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
        self.selector(allowed.and_then(|allowed| allowed.selector.as_ref()));
        for listener in &spec.listeners {
            self.listener("Gateway", namespace, listener);
        }
    }

    fn listener(&mut self, from_kind: &'static str, from_namespace: &str, listener: &Listener) {
        let allowed = listener.allowed_routes.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
        self.selector(allowed.and_then(|allowed| allowed.selector.as_ref()));
        let certificates = listener.tls.iter().flat_map(|tls| tls.certificate_refs.iter().flatten());
        for certificate in certificates {
            let namespace = certificate.namespace.as_deref();
            let to_kind = "Secret";
            let secret =
                self.refer(&Reference { from_kind, from_namespace, to_kind, namespace, name: &certificate.name });
            self.secrets.insert(secret);
        }
    }

    fn parents(&mut self, parents: &[ParentReference], namespace: &str) {
        self.namespaces.insert(namespace.to_owned());
        for parent in parents {
            if parent.group.as_deref().is_some_and(|group| group != GATEWAY_GROUP) {
                continue;
            }
            let name = ObjectName::new(parent.namespace.as_deref().unwrap_or(namespace), parent.name.as_str());
            let asked = Asked { section: parent.section_name.clone(), port: parent.port };
            self.parent(parent.kind.as_deref().unwrap_or("Gateway"), name, asked);
        }
    }

    fn backend(
        &mut self,
        from_kind: &'static str,
        from_namespace: &str,
        namespace: Option<&str>,
        name: &str,
        to: &Target<'_>,
    ) {
        if to.group.is_some_and(|group| !group.is_empty()) || to.kind.is_some_and(|kind| kind != "Service") {
            return;
        }
        let service = self.refer(&Reference { from_kind, from_namespace, to_kind: "Service", namespace, name });
        self.services.entry(service).or_default().extend(to.port.map(Port::Number));
    }

    /// The object that is meant; another namespace's asks for a grant.
    fn refer(&mut self, reference: &Reference<'_>) -> ObjectName {
        let Reference { from_kind, from_namespace, to_kind, namespace, name } = *reference;
        let to = ObjectName::new(namespace.unwrap_or(from_namespace), name);
        if &*to.namespace != from_namespace {
            let from_namespace = from_namespace.to_owned();
            self.grants.insert(Grant { from_kind, from_namespace, to_kind, to: to.clone() });
        }
        to
    }

    /// Notes labels that `selector` takes. A set whose selectors contradict each other gets the labels of one of them.
    fn selector(&mut self, selector: Option<&LabelSelector>) {
        let Some(selector) = selector else { return };
        self.labels.extend(selector.match_labels.clone().unwrap_or_default());
        for requirement in selector.match_expressions.iter().flatten() {
            let value = requirement.values.iter().flatten().next().cloned().unwrap_or_default();
            if matches!(requirement.operator.as_str(), "In" | "Exists") {
                self.labels.insert(requirement.key.clone(), value);
            }
        }
    }
}

/// The rest of a backend reference.
struct Target<'a> {
    kind: Option<&'a str>,
    group: Option<&'a str>,
    port: Option<i32>,
}
