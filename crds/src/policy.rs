//! What the policy kinds have in common: targets, mode, status (GEP-713), and how a kind that merges along a chain is declared.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An object that a policy is attached to, in the policy's own namespace.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetReference {
    /// Group of the object: `gateway.networking.k8s.io`, or empty for a Service.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub group: String,
    /// Kind of the object.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// A part of the object: a listener of a Gateway or ListenerSet, a named rule of a route, a port of a Service. Without it the
    /// policy is for the whole object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
}

/// What a policy does with a request that it would refuse.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// Refuses it.
    #[default]
    Enforce,
    /// Lets it pass, and says in the access log, the metrics and the trace that it would have been refused.
    Report,
}

/// What became of a policy, for each Gateway (or Service) that it acts on.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// One entry for each Gateway whose requests the policy acts on, or for each target that was not found; 16 at most, as the
    /// Gateway API has it.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub ancestors: Vec<PolicyAncestorStatus>,
}

/// What became of a policy at one Gateway.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(crates(kube_core = "::kube_core"))]
pub struct PolicyAncestorStatus {
    /// The Gateway, or the target.
    pub ancestor_ref: AncestorReference,
    /// The controller that wrote the entry.
    #[schemars(length(min = 1, max = 253))]
    pub controller_name: String,
    /// `Accepted`, `Programmed`, `Overridden`, `Conflicted`.
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
}

/// An object that a policy acts on.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AncestorReference {
    /// Group of the object; empty for a Service.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub group: String,
    /// Kind of the object.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Namespace of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// A part of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
}

/// Declares a kind whose policies merge along Gateway, listener, route and rule: its settings once, for `spec` itself and for
/// `spec.overrides`.
macro_rules! inherited_policy {
    (
        $(#[$spec_attribute:meta])*
        pub struct $spec:ident;
        $(#[$settings_attribute:meta])*
        pub struct $settings:ident {
            $($(#[$attribute:meta])* pub $field:ident: $type:ty,)*
        }
    ) => {
        #[derive(kube_derive::KubeSchema, Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        $(#[$settings_attribute])*
        pub struct $settings {
            $($(#[$attribute])* pub $field: $type,)*
        }

        #[derive(
            kube_derive::CustomResource, kube_derive::KubeSchema,
            Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize,
        )]
        #[serde(rename_all = "camelCase")]
        $(#[$spec_attribute])*
        pub struct $spec {
            /// What the policy is attached to: a Gateway or ListenerSet (`sectionName`: one listener), an HTTPRoute or GRPCRoute
            /// (`sectionName`: one named rule).
            #[schemars(length(min = 1, max = 16))]
            pub target_refs: Vec<$crate::policy::TargetReference>,
            $($(#[$attribute])* pub $field: $type,)*
            /// Settings that no policy of a route or rule can change. Only for policies of Gateways and ListenerSets.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub overrides: Option<$settings>,
        }

        impl $spec {
            /// What holds where no more specific policy says otherwise.
            pub fn settings(&self) -> $settings {
                $settings { $($field: self.$field.clone(),)* }
            }
        }
    };
}

pub(crate) use inherited_policy;
