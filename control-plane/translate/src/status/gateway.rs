//! Statuses of GatewayClasses, GatewayConfigs, Gateways and ListenerSets.

use std::{collections::BTreeMap, net::IpAddr};

use control_plane_model::{CertificateKey, GatewayKey, ListenerKey, ListenerProtocol, ResourceKey, RouteKind};
use serde_json::{Value, json};

use super::{Condition, conditions_json};
use crate::{
    Mode, Provisioned,
    gateway::{GatewayState, ListenerSetState, ListenerState},
    inputs::GATEWAY_GROUP,
};

/// What `status.supportedFeatures` of a GatewayClass lists: the Gateway API features that translation and engine both have.
/// Sorted. The conformance suite takes its tests from here.
pub const SUPPORTED_FEATURES: &[&str] = &[
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "GRPCRouteRequestHeaderModifier",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayInfrastructure",
    "GatewayPort8080",
    "GatewayRouteHostnameIntersectionPrecedence",
    "GatewayStaticAddresses",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteBackendURLRewrite",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteSchemeRedirect",
    "ListenerSet",
    "ReferenceGrant",
];

/// Minor versions of the Gateway API whose CRDs we read.
const SUPPORTED_VERSIONS: &[&str] = &["v1.6.", "v1.7."];

/// What a Gateway's status needs beside what was translated.
pub(crate) struct GatewayFacts<'a> {
    pub(crate) mode: Mode,
    pub(crate) provisioned: Option<&'a Provisioned>,
    pub(crate) refused: Option<&'a BTreeMap<ResourceKey, String>>,
    pub(crate) attached_routes: &'a BTreeMap<ListenerKey, i32>,
}

/// `status` of a GatewayClass of ours.
pub(crate) fn class(accepted: &Condition, bundle_version: Option<&str>, generation: i64) -> Value {
    let mut conditions = vec![accepted.clone()];
    conditions.extend(bundle_version.map(|version| {
        if SUPPORTED_VERSIONS.iter().any(|supported| version.starts_with(supported)) {
            Condition::yes("SupportedVersion", "SupportedVersion")
        } else {
            let message = format!("the Gateway API's CRDs are of version {version:?}, want v1.6 or v1.7");
            Condition::no("SupportedVersion", "UnsupportedVersion", message)
        }
    }));
    let features: Vec<Value> = SUPPORTED_FEATURES.iter().map(|name| json!({"name": name})).collect();
    json!({"conditions": conditions_json(&conditions, generation), "supportedFeatures": features})
}

/// `status` of a GatewayConfig.
pub(crate) fn config(check: Result<(), String>, generation: i64) -> Value {
    let accepted = match check {
        Ok(()) => Condition::yes("Accepted", "Accepted"),
        Err(message) => Condition::no("Accepted", "Invalid", message),
    };
    json!({"conditions": conditions_json(&[accepted], generation)})
}

/// `status` of a Gateway of ours.
pub(crate) fn gateway(key: &GatewayKey, state: &GatewayState, facts: &GatewayFacts<'_>) -> Value {
    let listeners: Vec<Value> =
        state.listeners.iter().map(|listener| facts.listener(listener, state.generation)).collect();
    let conditions = [state.accepted.clone(), facts.programmed(key, state), resolved(state)];
    let addresses: Vec<Value> = match facts.mode {
        Mode::Standalone => state.addresses.iter().map(|address| address_json(&address.to_string())).collect(),
        Mode::Cluster => {
            facts.provisioned.iter().flat_map(|state| &state.addresses).map(|text| address_json(text)).collect()
        }
    };
    json!({
        "addresses": addresses,
        "conditions": conditions_json(&conditions, state.generation),
        "listeners": listeners,
        "attachedListenerSets": state.attached_sets,
    })
}

/// `status` of a ListenerSet that names a Gateway of ours.
pub(crate) fn listener_set(set: &ListenerSetState, gateway: &GatewayState, facts: &GatewayFacts<'_>) -> Value {
    let listeners: Vec<Value> = set.listeners.iter().map(|listener| facts.listener(listener, set.generation)).collect();
    let parent = facts.programmed(&set.gateway, gateway);
    let programmed = if !set.accepted.status {
        Condition { kind: "Programmed", ..set.accepted.clone() }
    } else if parent.status {
        Condition::yes("Programmed", "Programmed")
    } else {
        Condition::no("Programmed", "ParentNotProgrammed", format!("Gateway {}: {}", set.gateway, parent.message))
    };
    let conditions = [set.accepted.clone(), programmed];
    json!({"conditions": conditions_json(&conditions, set.generation), "listeners": listeners})
}

fn address_json(address: &str) -> Value {
    let kind = if address.parse::<IpAddr>().is_ok() { "IPAddress" } else { "Hostname" };
    json!({"type": kind, "value": address})
}

fn resolved(state: &GatewayState) -> Condition {
    let unresolved = state.listeners.iter().filter(|listener| !listener.resolved.status);
    let names: Vec<&str> = unresolved.map(|listener| &*listener.key.name).collect();
    if names.is_empty() {
        return Condition::yes("ResolvedRefs", "ResolvedRefs");
    }
    let message = format!("see the conditions of listener {}", names.join(", "));
    Condition::no("ResolvedRefs", "ListenersNotResolved", message)
}

impl GatewayFacts<'_> {
    /// `Programmed` of a Gateway: its proxies are ready and reached at every address that it asks for.
    fn programmed(&self, key: &GatewayKey, state: &GatewayState) -> Condition {
        let no = |reason: &'static str, message: String| Condition::no("Programmed", reason, message);
        if !state.accepted.status {
            return no("Invalid", format!("not accepted: {}", state.accepted.reason));
        }
        if let Some(text) = self.refused.and_then(|refused| refused.get(&ResourceKey::Gateway(key.clone()))) {
            return no("Invalid", format!("refused by a proxy: {text}"));
        }
        if self.mode == Mode::Standalone {
            return Condition::yes("Programmed", "Programmed");
        }
        let Some(provisioned) = self.provisioned else {
            return no("Pending", "its proxies are being made".to_owned());
        };
        if let Some(failure) = &provisioned.failure {
            return no("Pending", format!("its proxies cannot be made as it asks for, trying again: {failure}"));
        }
        let has = |address: &IpAddr| provisioned.addresses.iter().any(|text| text.parse() == Ok(*address));
        let missing: Vec<String> =
            state.addresses.iter().filter(|address| !has(address)).map(ToString::to_string).collect();
        if !missing.is_empty() {
            return no(
                "AddressNotUsable",
                format!("spec.addresses: the cluster did not assign {}", missing.join(", ")),
            );
        }
        if provisioned.addresses.is_empty() {
            return no("AddressNotAssigned", "its Service has no address yet".to_owned());
        }
        if !provisioned.ready {
            return no("NoResources", "none of its proxies is ready".to_owned());
        }
        Condition::yes("Programmed", "Programmed")
    }

    fn listener(&self, listener: &ListenerState, generation: i64) -> Value {
        let kinds: Vec<Value> = listener
            .kinds
            .iter()
            .map(|kind| match kind {
                RouteKind::Http => json!({"group": GATEWAY_GROUP, "kind": "HTTPRoute"}),
                RouteKind::Grpc => json!({"group": GATEWAY_GROUP, "kind": "GRPCRoute"}),
            })
            .collect();
        let mut conditions = vec![
            listener.accepted.clone(),
            self.listener_programmed(listener),
            listener.resolved.clone(),
            listener.conflicted.clone(),
        ];
        conditions.extend(listener.overlapping.clone());
        json!({
            "name": &*listener.key.name,
            "supportedKinds": kinds,
            "attachedRoutes": self.attached_routes.get(&listener.key).copied().unwrap_or_default(),
            "conditions": conditions_json(&conditions, generation),
        })
    }

    fn listener_programmed(&self, listener: &ListenerState) -> Condition {
        let no = |reason: &'static str, message: String| Condition::no("Programmed", reason, message);
        if listener.conflicted.status {
            return no(listener.conflicted.reason, listener.conflicted.message.clone());
        }
        if !listener.accepted.status {
            return no("Invalid", format!("not accepted: {}", listener.accepted.reason));
        }
        let Some(model) = &listener.model else {
            return no("Invalid", format!("not resolved: {}", listener.resolved.reason));
        };
        if let Some(text) = self.refusal(&listener.key, &model.protocol) {
            return no("Invalid", format!("refused by a proxy: {text}"));
        }
        let ready = self.mode == Mode::Standalone || self.provisioned.is_some_and(|state| state.ready);
        if !ready {
            return no("Pending", "none of its Gateway's proxies is ready".to_owned());
        }
        Condition::yes("Programmed", "Programmed")
    }

    /// What a proxy said about a listener or one of its certificates.
    fn refusal(&self, key: &ListenerKey, protocol: &ListenerProtocol) -> Option<&String> {
        let refused = self.refused?;
        let certificates: &[CertificateKey] = match protocol {
            ListenerProtocol::Http => &[],
            ListenerProtocol::Https(tls) => &tls.certificates,
        };
        let certificate =
            || certificates.iter().find_map(|certificate| refused.get(&ResourceKey::Certificate(certificate.clone())));
        refused.get(&ResourceKey::Listener(key.clone())).or_else(certificate)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn features_are_sorted_and_distinct() {
        assert!(super::SUPPORTED_FEATURES.is_sorted_by(|left, right| left < right));
    }
}
