//! `RateLimitPolicy`: how much a client may ask for. Merges along Gateway, listener, route and rule.

use std::collections::BTreeMap;

use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::{Mode, PolicyStatus, inherited_policy};

inherited_policy! {
    /// How much a client may ask for.
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
        kind = "RateLimitPolicy",
        plural = "ratelimitpolicies",
        shortname = "rlp",
        category = "nebula",
        namespaced,
        status = "PolicyStatus",
        derive = "Default",
        derive = "PartialEq",
        doc = "RateLimitPolicy says how much a client may ask for: token buckets and requests in flight, by address, header, cookie, query parameter, claim, host or route. It is attached to Gateways, listeners, routes or rules; of several in a chain, the more specific one wins field by field, but for overrides. A request above a limit is answered with 429 and Retry-After.",
        crates(kube_core = "::kube_core"),
        printcolumn = r#"{"name": "Mode", "type": "string", "jsonPath": ".spec.mode"}"#,
        printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.ancestors[*].conditions[?(@.type==\"Accepted\")].status", "description": "Whether it is honoured, for each Gateway"}"#,
        printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
    )]
    pub struct RateLimitPolicySpec;

    /// Settings of a RateLimitPolicy, each of which may be left to the other policies of the chain.
    #[x_kube(crates(kube_core = "::kube_core"))]
    pub struct RateLimitSettings {
        /// Switches the limits off, as far as no override switches them on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub disabled: Option<bool>,
        /// What is done with a request above a limit. Default: Enforce.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub mode: Option<Mode>,
        /// Token buckets, by a name that clients see in the `RateLimit` header. A request needs a token of each limit, and takes
        /// none where one refuses it. An entry takes the place of an entry of the same name of a less specific policy, whole.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        #[schemars(extend("maxProperties" = 4))]
        pub limits: BTreeMap<String, RateLimit>,
        /// Limits of requests in flight, by name: what token buckets do not bound, as slow requests pile up. Merged as `limits` are.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        #[schemars(extend("maxProperties" = 4))]
        pub concurrency: BTreeMap<String, ConcurrencyLimit>,
        /// Whether responses tell how much is left, in `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers).
        /// `Retry-After` of a 429 is always sent. Default: Standard.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub headers: Option<RateLimitHeaders>,
        /// How many keys each limit keeps a bucket for, some 20 bytes each, in every proxy. Where clients use more at once, the
        /// buckets that are nearest to full are forgotten. Default: 100000.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1000, max = 10_000_000))]
        pub max_keys: Option<i32>,
    }
}

/// Whether responses tell how much is left.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RateLimitHeaders {
    /// In `RateLimit` and `RateLimit-Policy`.
    #[default]
    Standard,
    /// Not.
    Disabled,
}

/// A token bucket for each key: `rate` tokens in each `per`, and `burst` of them at once after a quiet time.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RateLimit {
    /// Tokens that come back in each `per`. A request takes one.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub rate: i32,
    /// A duration such as `1s`, `1m` or `24h`, at most 366 days.
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub per: String,
    /// The size of the bucket: how many requests pass at once after a quiet time. Default: the rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub burst: Option<i32>,
    /// What has a bucket of its own: all parts together. Default: the client's address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub key: Vec<KeyPart>,
    /// Other quotas for some clients, by a claim of their verified identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiers: Option<Tiers>,
}

/// Quotas by the value of a claim. Clients without the claim, or with another value, have the limit's own quota.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tiers {
    /// The claim; names separated by dots lead into objects: `plan`, `account.tier`.
    #[schemars(length(min = 1, max = 253))]
    pub claim: String,
    /// By value of the claim.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 16))]
    pub quotas: BTreeMap<String, Quota>,
}

/// How much, without a key: that of the limit is used.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Tokens that come back in each `per`.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub rate: i32,
    /// A duration such as `1s`, `1m` or `24h`, at most 366 days.
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub per: String,
    /// The size of the bucket. Default: the rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub burst: Option<i32>,
}

/// A limit of requests in flight for each key.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConcurrencyLimit {
    /// How many requests at once. A request ends with the last byte of its response.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub limit: i32,
    /// What has a count of its own: all parts together. Default: the client's address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub key: Vec<KeyPart>,
}

/// A part of a key.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("(self.type in ['Header', 'Cookie', 'QueryParam', 'Claim']) == has(self.name)")
        .message("name is for Header, Cookie, QueryParam and Claim, which need it"),
    validation = Rule::new("!has(self.onMissing) || has(self.name)")
        .message("onMissing is for Header, Cookie, QueryParam and Claim: the others are never missing"),
    validation = Rule::new("self.type == 'Address' || (!has(self.ipv4Prefix) && !has(self.ipv6Prefix))")
        .message("ipv4Prefix and ipv6Prefix are for Address")
)]
pub struct KeyPart {
    /// What it is.
    #[serde(rename = "type")]
    pub kind: KeyPartType,
    /// Name of the header, cookie, query parameter or claim (names separated by dots lead into objects).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// What stands for it where a request lacks it. Default: Address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_missing: Option<OnMissing>,
    /// How many leading bits of an IPv4 address count as one client. Default: 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 32))]
    pub ipv4_prefix: Option<i32>,
    /// How many leading bits of an IPv6 address count as one client. Default: 64, which is what one subscriber has at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 128))]
    pub ipv6_prefix: Option<i32>,
}

/// What a key is made of.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyPartType {
    /// The client's address.
    #[default]
    Address,
    /// The value of a header.
    Header,
    /// The value of a cookie.
    Cookie,
    /// The value of a query parameter.
    QueryParam,
    /// The value of a claim of the client's verified identity.
    Claim,
    /// The host of the request.
    Host,
    /// The route.
    Route,
    /// Nothing: all requests share one bucket.
    Shared,
}

/// What stands for a part that a request lacks.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OnMissing {
    /// The client's address.
    #[default]
    Address,
    /// One bucket for all requests that lack it.
    Shared,
    /// The limit does not count the request.
    Skip,
}
