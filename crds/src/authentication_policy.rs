//! `AuthenticationPolicy`: what clients show of themselves, and what the backend is told. Merges along Gateway, listener, route
//! and rule.

use std::collections::BTreeMap;

use kube_derive::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::{Mode, PolicyStatus, inherited_policy};

inherited_policy! {
    /// What clients show of themselves.
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
        kind = "AuthenticationPolicy",
        plural = "authenticationpolicies",
        shortname = "authnp",
        category = "nebula",
        namespaced,
        status = "PolicyStatus",
        derive = "Default",
        derive = "PartialEq",
        doc = "AuthenticationPolicy says what clients must show of themselves (tokens of IdentityProviders, API keys, names and passwords), and what the backend is told of them. It is attached to Gateways, listeners, routes or rules; of several in a chain, the more specific one wins field by field, but for overrides. A request without good credentials gets 401; while an identity provider cannot be asked, 503. Headers that the policy writes are always taken out of what clients send.",
        crates(kube_core = "::kube_core"),
        printcolumn = r#"{"name": "Mode", "type": "string", "jsonPath": ".spec.mode"}"#,
        printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.ancestors[*].conditions[?(@.type==\"Accepted\")].status", "description": "Whether it is honoured, for each Gateway"}"#,
        printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
    )]
    pub struct AuthenticationPolicySpec;

    /// Settings of an AuthenticationPolicy, each of which may be left to the other policies of the chain.
    #[x_kube(crates(kube_core = "::kube_core"))]
    pub struct AuthenticationSettings {
        /// Switches authentication off, as far as no override switches it on. Headers that the chain's policies write are still
        /// taken out of what clients send.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub disabled: Option<bool>,
        /// What is done with a request without good credentials. Default: Enforce.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub mode: Option<Mode>,
        /// Lets requests pass that have no credentials at all, without an identity. One whose credentials are refused never passes.
        /// Default: false.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub allow_anonymous: Option<bool>,
        /// What `WWW-Authenticate` names as the protection space. Visible ASCII and spaces.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(length(min = 1, max = 256), regex(pattern = r"^[ -~]+$"))]
        pub realm: Option<String>,
        /// The identity providers whose tokens are taken, by a name of yours. Where tokens of several come in one place, the issuer
        /// in the token says whose it is. An entry takes the place of an entry of the same name of a less specific policy, whole.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        #[schemars(extend("maxProperties" = 16))]
        pub providers: BTreeMap<String, ProviderUse>,
        /// API keys, in lists by a name of yours. Merged as `providers` are.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        #[schemars(extend("maxProperties" = 16))]
        pub api_keys: BTreeMap<String, ApiKeys>,
        /// Users with passwords, in `Authorization` with the scheme `Basic`. For people and for programs that cannot do better: a
        /// password is slow to check, by design. Taken whole from the most specific policy that has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub basic: Option<Basic>,
        /// How proofs of possession are checked (DPoP, RFC 9449). A token that is bound to a key needs one in any case.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub proofs: Option<Proofs>,
        /// Headers that are taken out of what clients send, beside those of `claimsToHeaders`. Each policy of the chain adds to them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schemars(length(max = 32), inner(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z0-9!#$%&'*+\-.^_`|~]+$")))]
        pub strip_headers: Vec<String>,
    }
}

/// How a policy uses an identity provider.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProviderUse {
    /// The IdentityProvider, in the policy's namespace.
    pub provider_ref: LocalReference,
    /// Where its tokens are in a request. Default: in `Authorization`, after `Bearer` or `DPoP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<CredentialSource>,
    /// Whether the backend gets the token too. Default: true; a token in a query parameter is never passed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward_token: Option<bool>,
    /// In place of the provider's own: `aud` of a token must name one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 1024)))]
    pub audiences: Vec<String>,
    /// Scopes that a token must have, all of them; without one of them the answer is 403.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 256), regex(pattern = r"^[!#-\[\]-~]+$")))]
    pub required_scopes: Vec<String>,
    /// What the backend is told of a token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub claims_to_headers: Vec<ClaimToHeader>,
}

/// An object of the same namespace.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Where a credential is: one of these.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("[has(self.header), has(self.cookie), has(self.queryParam)].filter(given, given).size() == 1")
        .message("give one of header, cookie and queryParam")
)]
pub struct CredentialSource {
    /// A header whose whole value it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z0-9!#$%&'*+\-.^_`|~]+$"))]
    pub header: Option<String>,
    /// A cookie. A site that takes tokens from cookies has to guard against requests that other sites cause (CSRF).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z0-9!#$%&'*+\-.^_`|~]+$"))]
    pub cookie: Option<String>,
    /// A query parameter. Logs of other servers may hold it (RFC 9700 section 4.3.2); for clients that cannot do better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z0-9\-._~]+$"))]
    pub query_param: Option<String>,
}

/// A claim that the backend gets as a header. A token without the claim, or whose claim no header can carry, leaves it out.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimToHeader {
    /// The claim. Names separated by dots lead into objects; `\.` is a dot in a name: `realm_access.roles`.
    #[schemars(length(min = 1, max = 1024))]
    pub claim: String,
    /// The header. What the client sends in it is taken out.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z0-9!#$%&'*+\-.^_`|~]+$"))]
    pub header: String,
    /// How text is written. Default: Plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<TextEncoding>,
    /// How arrays are written. Default: Comma.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lists: Option<ListEncoding>,
}

/// How text becomes a header's value.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TextEncoding {
    /// As it is. Text with other than visible ASCII has no header.
    #[default]
    Plain,
    /// Always base64url of UTF-8, without padding.
    #[serde(rename = "Base64URL")]
    Base64Url,
}

/// How an array becomes a header's value.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ListEncoding {
    /// Items with commas between them; a comma in an item is `%2C`, a space `%20`, a percent sign `%25`.
    #[default]
    Comma,
    /// JSON, in ASCII; objects as well.
    #[serde(rename = "JSON")]
    Json,
}

/// A list of API keys. Proxies get a digest of each key, and not the key.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeys {
    /// Secrets of type `nebula.dev/credentials` in the policy's namespace: each entry is a key, under the name of the client whose
    /// it is. A key is of 20 to 512 visible ASCII characters; make it at random.
    #[schemars(length(min = 1, max = 16))]
    pub secret_refs: Vec<LocalReference>,
    /// Where a key is in a request. Default: the header `x-api-key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<CredentialSource>,
    /// Whether the backend gets the key too. Default: false; a key in a query parameter is never passed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward_key: Option<bool>,
    /// A header that tells the backend whose key it is. What the client sends in it is taken out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z0-9!#$%&'*+\-.^_`|~]+$"))]
    pub client_header: Option<String>,
}

/// Users with passwords. Proxies get hashes alone.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Basic {
    /// A Secret of type `nebula.dev/credentials` in the policy's namespace, whose entry `.htpasswd` has a line `name:hash` for each
    /// user: bcrypt (as `htpasswd -B` writes) with a cost of 12 at most, or Argon2id in the PHC form.
    pub secret_ref: LocalReference,
    /// Whether the backend gets name and password too. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward_password: Option<bool>,
    /// A header that tells the backend the user's name. What the client sends in it is taken out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z0-9!#$%&'*+\-.^_`|~]+$"))]
    pub user_header: Option<String>,
}

/// How proofs of possession are checked.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proofs {
    /// Whether every token needs one, so that a token alone is of no use to a thief. Default: only tokens that are bound to a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
    /// How long after it was made a proof is taken, 1s to 5m. Each serves once. Default: 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub max_age: Option<String>,
}
