//! `RequestValidationPolicy`: what requests must be, by JSON Schema or an OpenAPI document. Merges along Gateway, listener, route
//! and rule.

use std::collections::BTreeMap;

use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::policy::{Mode, PolicyStatus, inherited_policy};

inherited_policy! {
    /// What requests must be.
    #[x_kube(
        crates(kube_core = "::kube_core"),
        validation = Rule::new("self.targetRefs.all(target, target.group == 'gateway.networking.k8s.io' && \
             target.kind in ['Gateway', 'ListenerSet', 'HTTPRoute', 'GRPCRoute'])")
            .message("targetRefs may name Gateway, ListenerSet, HTTPRoute and GRPCRoute of gateway.networking.k8s.io"),
        validation = Rule::new("!has(self.overrides) || self.targetRefs.all(target, target.kind in ['Gateway', 'ListenerSet'])")
            .message("overrides are for Gateways and ListenerSets: a route or rule has nothing below it")
    )]
    #[kube(
        group = "nebula.dev",
        version = "v1alpha1",
        kind = "RequestValidationPolicy",
        plural = "requestvalidationpolicies",
        shortname = "rvp",
        category = "nebula",
        namespaced,
        status = "PolicyStatus",
        derive = "Default",
        derive = "PartialEq",
        doc = "RequestValidationPolicy says what requests must be: bodies by media type, query parameters, headers and cookies by JSON Schema (drafts 4, 6, 7, 2019-09, 2020-12), or whole operations by an OpenAPI document (3.0, 3.1). It is attached to Gateways, listeners, routes or rules; of several in a chain, the more specific one wins field by field, but for overrides. A request that breaks a rule is answered with 400 or 422 and pointers to what is wrong; what was checked is what is forwarded.",
        crates(kube_core = "::kube_core"),
        printcolumn = r#"{"name": "Mode", "type": "string", "jsonPath": ".spec.mode"}"#,
        printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.ancestors[*].conditions[?(@.type==\"Accepted\")].status", "description": "Whether it is honoured, for each Gateway"}"#,
        printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
    )]
    pub struct RequestValidationPolicySpec;

    /// Settings of a RequestValidationPolicy, each of which may be left to the other policies of the chain.
    #[x_kube(crates(kube_core = "::kube_core"))]
    pub struct RequestValidationSettings {
        /// Switches validation off, as far as no override switches it on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub disabled: Option<bool>,
        /// What is done with a request that breaks a rule. Default: Enforce.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub mode: Option<Mode>,
        /// The status for a request that breaks a rule: 400 or 422. A text that is no JSON is 400 and a media type that is refused
        /// 415, whatever this says. Default: 400.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(extend("enum" = [400, 422]))]
        pub status_code: Option<i32>,
        /// What becomes of a body whose media type is not described, or that cannot be checked. Default: Reject.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub unknown_media_types: Option<Otherwise>,
        /// What becomes of a query parameter that is not described, where `parameters` or `openapi` describe any. Default: Reject.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub unknown_query_parameters: Option<Otherwise>,
        /// How many arrays and objects may be around the innermost value of a JSON text. Default: 64.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 256))]
        pub max_depth: Option<i32>,
        /// What becomes of numbers that neither a 64-bit integer nor a double holds, which backends read in different ways.
        /// Default: Exact.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub numbers: Option<Numbers>,
        /// The draft of those schemas of this policy that do not name one with `$schema`. Not for other policies, nor for an
        /// OpenAPI document. Default: 2020-12.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub draft: Option<Draft>,
        /// Whether `format` is checked by the schemas of this policy. Not for other policies. Default: ByDraft.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub formats: Option<Formats>,
        /// Documents that the schemas of this policy refer to with `$ref`, by name. Not for other policies. Nothing else is ever
        /// looked up: a reference to a document that is not here makes the policy invalid.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        #[schemars(extend("maxProperties" = 64))]
        pub schemas: BTreeMap<String, SchemaDocument>,
        /// What bodies must be, whatever the path.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub body: Option<BodyRules>,
        /// Query parameters, headers and cookies, whatever the path, by a name of your choice. An entry takes the place of an entry
        /// of the same name of a less specific policy, whole. (Parameters in the path need `openapi`.)
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        #[schemars(extend("maxProperties" = 64))]
        pub parameters: BTreeMap<String, ParameterRule>,
        /// Operations by method and path, from an OpenAPI document. Replaced whole by that of a more specific policy.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub openapi: Option<OpenApiRules>,
    }
}

/// What becomes of something that is not described.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Otherwise {
    /// It is refused.
    #[default]
    Reject,
    /// It passes as it is, unchecked.
    Pass,
}

/// Which numbers a body may have.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Numbers {
    /// Those that a 64-bit integer or a double holds.
    #[default]
    Exact,
    /// Any within the range of a double, judged as the nearest double.
    Nearest,
}

/// A version of JSON Schema.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Draft {
    /// Draft 4.
    #[serde(rename = "4")]
    Draft4,
    /// Draft 6.
    #[serde(rename = "6")]
    Draft6,
    /// Draft 7.
    #[serde(rename = "7")]
    Draft7,
    /// 2019-09.
    #[serde(rename = "2019-09")]
    Draft201909,
    /// 2020-12.
    #[default]
    #[serde(rename = "2020-12")]
    Draft202012,
}

/// Whether `format` is checked.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Formats {
    /// As the draft says: drafts 4 to 7 check it, 2019-09 and 2020-12 do not.
    #[default]
    ByDraft,
    /// Known formats are checked.
    Assert,
    /// It is an annotation.
    Annotate,
}

/// An entry of a ConfigMap in the policy's namespace.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigMapReference {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The entry of its `data`: a document in JSON or YAML.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A document that schemas refer to.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("has(self.inline) != has(self.configMapRef)").message("one of inline and configMapRef is needed")
)]
pub struct SchemaDocument {
    /// What references call it: an absolute URI without a fragment. Default: the entry's name, so that `$ref: NAME` finds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub uri: Option<String>,
    /// The document itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "object")]
    pub inline: Option<Value>,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ConfigMapReference>,
}

/// What bodies must be.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BodyRules {
    /// Whether a request needs a body. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
    /// Bytes that a body may have; a larger one is answered with 413. Bodies that are checked are held in memory until they are
    /// whole, and have the default; for others there is no limit unless this sets one. Default: 1048576.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16_777_216))]
    pub max_bytes: Option<i32>,
    /// By media type, `application/json`, or range, `image/*`; without parameters. An entry takes the place of an entry of the same
    /// name of a less specific policy, whole. JSON (also `application/problem+json` and its like) and
    /// `application/x-www-form-urlencoded` can be checked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub content: BTreeMap<String, ContentRule>,
}

/// What a body of one media type must be: strict JSON, by the schema where there is one.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContentRule {
    /// A JSON Schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any")]
    pub schema: Option<Value>,
    /// Lets the body pass as it is. Not beside a schema. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unchecked: Option<bool>,
}

/// What a parameter must be.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ParameterRule {
    /// Where it is.
    #[serde(rename = "in")]
    pub place: ParameterPlace,
    /// What requests call it. Default: the entry's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Whether a request needs it. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
    /// How a value is written, as in OpenAPI: `form`, `spaceDelimited`, `pipeDelimited` or `deepObject` in a query, `simple` in a
    /// header, `form` in a cookie. Default: form, in a header simple.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub style: Option<ParameterStyle>,
    /// Whether each item or property is written by itself, as in OpenAPI. Default: true for form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explode: Option<bool>,
    /// A JSON Schema for its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any")]
    pub schema: Option<Value>,
}

/// Where a parameter is.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ParameterPlace {
    /// The query.
    #[default]
    Query,
    /// A header.
    Header,
    /// A cookie.
    Cookie,
}

/// How a parameter is written (OpenAPI 3.1 §4.8.12.4).
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ParameterStyle {
    /// `a=1,2`, or exploded `a=1&a=2`.
    #[default]
    Form,
    /// `1,2`.
    Simple,
    /// `a=1%202`.
    SpaceDelimited,
    /// `a=1%7C2`.
    PipeDelimited,
    /// `a[b]=1`.
    DeepObject,
}

/// An OpenAPI document and how it is applied. Its `security` and `servers` have no effect here.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("has(self.inline) != has(self.configMapRef)").message("one of inline and configMapRef is needed")
)]
pub struct OpenApiRules {
    /// The document itself, of OpenAPI 3.0 or 3.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "object")]
    pub inline: Option<Value>,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ConfigMapReference>,
    /// What comes before the document's paths: `/api/v1`. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), regex(pattern = r"^(/[^/?#]+)*$"))]
    pub base_path: Option<String>,
    /// What becomes of a request that is none of the document's operations: 404 or 405, or nothing. Default: Reject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmatched: Option<Otherwise>,
}

/// Any JSON value.
fn any(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
}

/// A JSON object with any members.
fn object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}
