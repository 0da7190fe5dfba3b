//! The objects as they were last read, and look-ups over them.
//! Invariant: an object that differs only in its status or its bookkeeping (resourceVersion, managedFields) is no change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use control_plane_model::{GatewayKey, ObjectName, PolicyKey, ResourceKey};
use crds::{
    GatewayConfig, IdentityProvider,
    gateway_api::{BackendTLSPolicy, GRPCRoute, Gateway, GatewayClass, HTTPRoute, ListenerSet, ReferenceGrant},
};
use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Secret, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{
    Kind, Object, Provisioned,
    policy::{Policies, PolicyObject, Referents},
};

/// The Gateway API's group.
pub(crate) const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
/// The label by which an EndpointSlice names its Service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

pub(crate) type Labels = BTreeMap<String, String>;
type Store<T> = BTreeMap<ObjectName, Arc<T>>;

/// Every object, by kind and name.
#[derive(Default)]
pub(crate) struct Inputs {
    pub(crate) classes: Store<GatewayClass>,
    pub(crate) gateways: Store<Gateway>,
    pub(crate) listener_sets: Store<ListenerSet>,
    pub(crate) http_routes: Store<HTTPRoute>,
    pub(crate) grpc_routes: Store<GRPCRoute>,
    pub(crate) configs: Store<GatewayConfig>,
    pub(crate) services: Store<Service>,
    pub(crate) secrets: Store<Secret>,
    pub(crate) policies: Policies,
    providers: Store<IdentityProvider>,
    config_maps: Store<ConfigMap>,
    pub(crate) provisioned: BTreeMap<GatewayKey, Provisioned>,
    pub(crate) reports: BTreeMap<GatewayKey, BTreeMap<ResourceKey, String>>,
    grants: Store<ReferenceGrant>,
    tls_policies: Store<BackendTLSPolicy>,
    slices: Store<EndpointSlice>,
    slices_of: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
    namespaces: BTreeMap<Arc<str>, Labels>,
}

/// One end of a reference that a ReferenceGrant may allow.
pub(crate) struct Referrer<'a> {
    pub(crate) kind: &'static str,
    pub(crate) namespace: &'a str,
}

impl Inputs {
    /// Stores `object`; whether that changes anything that translation looks at.
    pub(crate) fn upsert(&mut self, object: Object) -> bool {
        let name = object.name();
        match object {
            Object::GatewayClass(new) => put(&mut self.classes, name, new, |a, b| a.spec == b.spec),
            Object::Gateway(new) => put(&mut self.gateways, name, new, |a, b| a.spec == b.spec),
            Object::ListenerSet(new) => put(&mut self.listener_sets, name, new, |a, b| a.spec == b.spec),
            Object::HttpRoute(new) => put(&mut self.http_routes, name, new, |a, b| a.spec == b.spec),
            Object::GrpcRoute(new) => put(&mut self.grpc_routes, name, new, |a, b| a.spec == b.spec),
            Object::ReferenceGrant(new) => put(&mut self.grants, name, new, |a, b| a.spec == b.spec),
            Object::BackendTlsPolicy(new) => put(&mut self.tls_policies, name, new, |a, b| a.spec == b.spec),
            Object::GatewayConfig(new) => put(&mut self.configs, name, new, |a, b| a.spec == b.spec),
            Object::RateLimitPolicy(new) => self.upsert_policy(name, PolicyObject::RateLimit(new)),
            Object::AuthenticationPolicy(new) => self.upsert_policy(name, PolicyObject::Authentication(new)),
            Object::IdentityProvider(new) => put(&mut self.providers, name, new, |a, b| a.spec == b.spec),
            Object::RequestValidationPolicy(new) => self.upsert_policy(name, PolicyObject::RequestValidation(new)),
            Object::BackendPolicy(new) => self.upsert_policy(name, PolicyObject::Backend(new)),
            Object::ClientPolicy(new) => self.upsert_policy(name, PolicyObject::Client(new)),
            Object::Service(new) => put(&mut self.services, name, new, |a, b| a.spec == b.spec),
            Object::Secret(new) => put(&mut self.secrets, name, new, |a, b| {
                a.data == b.data && a.string_data == b.string_data && a.type_ == b.type_
            }),
            Object::EndpointSlice(new) => self.upsert_slice(name, new),
            Object::Namespace(new) => {
                let labels = new.metadata.labels.clone().unwrap_or_default();
                self.namespaces.insert(name.name, labels.clone()) != Some(labels)
            }
            Object::ConfigMap(new) => put(&mut self.config_maps, name, new, |a, b| a.data == b.data),
        }
    }

    fn upsert_policy(&mut self, name: ObjectName, object: PolicyObject) -> bool {
        self.with_referents(|policies, referents| policies.upsert(name, object, referents))
    }

    /// Translates a policy again, because of a change in what it names; whether that makes it different.
    pub(crate) fn translate_policy_again(&mut self, key: &PolicyKey) -> bool {
        self.with_referents(|policies, referents| policies.translate_again(key, referents))
    }

    fn with_referents<T>(&mut self, act: impl FnOnce(&mut Policies, &mut Referents<'_>) -> T) -> T {
        let mut referents = Referents {
            providers: &self.providers,
            config_maps: &self.config_maps,
            secrets: &self.secrets,
            asked: BTreeSet::new(),
        };
        act(&mut self.policies, &mut referents)
    }

    fn upsert_slice(&mut self, name: ObjectName, new: Arc<EndpointSlice>) -> bool {
        if let Some(service) = slice_service(&new) {
            self.slices_of.entry(service).or_default().insert(name.clone());
        }
        let before = self.slices.get(&name).and_then(|old| slice_service(old));
        if let Some(before) = before.filter(|before| Some(before) != slice_service(&new).as_ref()) {
            self.forget_slice(&before, &name);
        }
        put(&mut self.slices, name, new, |a, b| {
            a.endpoints == b.endpoints && a.ports == b.ports && a.address_type == b.address_type
        })
    }

    /// Drops an object; whether there was one.
    pub(crate) fn remove(&mut self, kind: Kind, name: &ObjectName) -> bool {
        match kind {
            Kind::GatewayClass => self.classes.remove(name).is_some(),
            Kind::Gateway => {
                // A Gateway of the same name that comes later is another one.
                self.provisioned.remove(&GatewayKey(name.clone()));
                self.reports.remove(&GatewayKey(name.clone()));
                self.gateways.remove(name).is_some()
            }
            Kind::ListenerSet => self.listener_sets.remove(name).is_some(),
            Kind::HttpRoute => self.http_routes.remove(name).is_some(),
            Kind::GrpcRoute => self.grpc_routes.remove(name).is_some(),
            Kind::ReferenceGrant => self.grants.remove(name).is_some(),
            Kind::BackendTlsPolicy => self.tls_policies.remove(name).is_some(),
            Kind::RateLimitPolicy
            | Kind::AuthenticationPolicy
            | Kind::RequestValidationPolicy
            | Kind::BackendPolicy
            | Kind::ClientPolicy => {
                let Some(policy) = kind.policy() else { return false };
                self.policies.remove(&PolicyKey { kind: policy, name: name.clone() })
            }
            Kind::GatewayConfig => self.configs.remove(name).is_some(),
            Kind::Service => self.services.remove(name).is_some(),
            Kind::Secret => self.secrets.remove(name).is_some(),
            Kind::Namespace => self.namespaces.remove(&name.name).is_some(),
            Kind::ConfigMap => self.config_maps.remove(name).is_some(),
            Kind::IdentityProvider => self.providers.remove(name).is_some(),
            Kind::EndpointSlice => {
                let slice = self.slices.remove(name);
                if let Some(service) = slice.as_deref().and_then(slice_service) {
                    self.forget_slice(&service, name);
                }
                slice.is_some()
            }
        }
    }

    fn forget_slice(&mut self, service: &ObjectName, slice: &ObjectName) {
        if let Some(slices) = self.slices_of.get_mut(service) {
            slices.remove(slice);
            if slices.is_empty() {
                self.slices_of.remove(service);
            }
        }
    }

    /// The Service that a stored EndpointSlice belongs to.
    pub(crate) fn service_of_slice(&self, slice: &ObjectName) -> Option<ObjectName> {
        self.slices.get(slice).and_then(|slice| slice_service(slice))
    }

    /// The EndpointSlices of a Service.
    pub(crate) fn slices_of(&self, service: &ObjectName) -> impl Iterator<Item = &EndpointSlice> {
        let names = self.slices_of.get(service).into_iter().flatten();
        names.filter_map(|name| self.slices.get(name).map(|slice| &**slice))
    }

    /// The Services that a stored BackendTLSPolicy targets.
    pub(crate) fn targets_of_policy(&self, policy: &ObjectName) -> Vec<ObjectName> {
        let targets = self.tls_policies.get(policy).into_iter().flat_map(|policy| &policy.spec.target_refs);
        let services = targets.filter(|target| target.kind == "Service" && target.group.is_empty());
        services.map(|target| ObjectName::new(policy.namespace.clone(), target.name.as_str())).collect()
    }

    /// A BackendTLSPolicy that speaks of this port of a Service.
    pub(crate) fn policy_of(&self, service: &ObjectName, port_name: &str) -> Option<ObjectName> {
        in_namespace(&self.tls_policies, &service.namespace).find_map(|(name, policy)| {
            let targets = policy.spec.target_refs.iter().any(|target| {
                target.kind == "Service"
                    && target.group.is_empty()
                    && *target.name == *service.name
                    && target.section_name.as_deref().is_none_or(|section| section == port_name)
            });
            targets.then(|| name.clone())
        })
    }

    /// The GatewayClass that a Gateway names, whosoever it is; `None` where there is none.
    pub(crate) fn class_of(&self, gateway: &Gateway) -> Option<&GatewayClass> {
        let name = ObjectName::new("", gateway.spec.gateway_class_name.as_str());
        self.classes.get(&name).map(|class| &**class)
    }

    /// Whether proxies of ours run for a Gateway whose class does not exist.
    pub(crate) fn is_orphaned(&self, key: &GatewayKey) -> bool {
        self.gateways.get(&key.0).is_some_and(|gateway| self.class_of(gateway).is_none())
            && self.provisioned.get(key).is_some_and(Provisioned::runs)
    }

    /// Labels of a namespace. Its name is always among them, as the API server puts it there (`NamespaceDefaultLabelName`).
    pub(crate) fn namespace_labels(&self, namespace: &str) -> Labels {
        let mut labels = self.namespaces.get(namespace).cloned().unwrap_or_default();
        labels.entry("kubernetes.io/metadata.name".to_owned()).or_insert_with(|| namespace.to_owned());
        labels
    }

    /// Whether `from` may refer to the core object `kind` `to`: in its own namespace always, else by a ReferenceGrant there.
    pub(crate) fn permits(&self, from: &Referrer<'_>, kind: &str, to: &ObjectName) -> bool {
        if *from.namespace == *to.namespace {
            return true;
        }
        in_namespace(&self.grants, &to.namespace).any(|(_, grant)| {
            let trusts = grant.spec.from.iter().any(|source| {
                source.group == GATEWAY_GROUP && source.kind == from.kind && source.namespace == from.namespace
            });
            trusts
                && grant.spec.to.iter().any(|target| {
                    target.group.is_empty()
                        && target.kind == kind
                        && target.name.as_deref().is_none_or(|name| name.is_empty() || *name == *to.name)
                })
        })
    }
}

/// The objects of one namespace.
pub(crate) fn in_namespace<'a, T>(
    store: &'a BTreeMap<ObjectName, T>,
    namespace: &'a str,
) -> impl Iterator<Item = (&'a ObjectName, &'a T)> {
    let first = ObjectName::new(namespace, "");
    store.range(first..).take_while(move |(name, _)| *name.namespace == *namespace)
}

fn put<T: k8s_openapi_metadata::HasMetadata>(
    store: &mut Store<T>,
    name: ObjectName,
    new: Arc<T>,
    same: impl FnOnce(&T, &T) -> bool,
) -> bool {
    let changed = store.get(&name).is_none_or(|old| !same(old, &new) || !same_metadata(old.metadata(), new.metadata()));
    store.insert(name, new);
    changed
}

fn same_metadata(old: &ObjectMeta, new: &ObjectMeta) -> bool {
    old.generation == new.generation
        && old.uid == new.uid
        && old.creation_timestamp == new.creation_timestamp
        && old.labels == new.labels
        && old.annotations == new.annotations
}

fn slice_service(slice: &EndpointSlice) -> Option<ObjectName> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    let namespace = slice.metadata.namespace.as_deref().unwrap_or("default");
    Some(ObjectName::new(namespace, service.as_str()))
}

/// Metadata of what a store holds: kube's and k8s-openapi's types have no trait in common.
mod k8s_openapi_metadata {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    pub(super) trait HasMetadata {
        fn metadata(&self) -> &ObjectMeta;
    }

    macro_rules! has_metadata {
        ($($kind:ident),*) => {
            $(impl HasMetadata for super::$kind {
                fn metadata(&self) -> &ObjectMeta {
                    &self.metadata
                }
            })*
        };
    }

    has_metadata!(
        GatewayClass,
        Gateway,
        ListenerSet,
        HTTPRoute,
        GRPCRoute,
        ReferenceGrant,
        BackendTLSPolicy,
        GatewayConfig,
        IdentityProvider,
        ConfigMap,
        Service,
        EndpointSlice,
        Secret
    );
}
