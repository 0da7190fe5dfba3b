//! `IdentityProvider`: who vouches for clients, and how what it vouches with is checked. Attached to nothing: AuthenticationPolicies
//! of its namespace name it.

use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who vouches for clients.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("has(self.jwt.keys) || self.issuer.startsWith('https://')")
        .message("without jwt.keys the keys are found by way of the issuer's metadata, so that issuer must be an https URL")
)]
#[kube(
    group = "nebula.dev",
    version = "v1alpha1",
    kind = "IdentityProvider",
    plural = "identityproviders",
    shortname = "idp",
    category = "nebula",
    namespaced,
    derive = "Default",
    derive = "PartialEq",
    doc = "IdentityProvider says who vouches for clients: its issuer, where its keys are, and what its tokens must be. AuthenticationPolicies of the same namespace name it, so that it is described once. Each proxy fetches the keys itself, ahead of their expiry; while there are none, requests that need them get 503.",
    crates(kube_core = "::kube_core"),
    printcolumn = r#"{"name": "Issuer", "type": "string", "jsonPath": ".spec.issuer"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
pub struct IdentityProviderSpec {
    /// `iss` of its tokens, compared exactly. As a URL it is also where its metadata are (OpenID Connect Discovery).
    #[schemars(length(min = 1, max = 2048))]
    pub issuer: String,
    /// How its signed tokens are checked.
    pub jwt: Jwt,
    /// How it is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ProviderTls>,
}

/// How signed tokens are checked (RFC 7519, RFC 8725, RFC 9068).
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("has(self.audiences) != (has(self.anyAudience) && self.anyAudience)")
        .message("give audiences, or anyAudience: true to take tokens for other services too")
)]
pub struct Jwt {
    /// Where the keys are. Default: at `jwks_uri` of the issuer's metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<KeySource>,
    /// `aud` of a token must name one of these, compared exactly.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 1024)))]
    pub audiences: Vec<String>,
    /// Takes tokens whatever their audience: also those that were made for another service, which could thus use them here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub any_audience: Option<bool>,
    /// What may sign. Default: all but the symmetric ones, which are not supported, as with their key a proxy could sign too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub algorithms: Vec<SigningAlgorithm>,
    /// `typ` of a token, without regard to case. Default: none, `JWT` or `at+jwt`. `[at+jwt]` takes access tokens of RFC 9068 alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 128)))]
    pub token_types: Vec<String>,
    /// By how much the provider's clock may differ, at most 5m. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub leeway: Option<String>,
    /// Longest time from issue to expiry of a token. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub max_lifetime: Option<String>,
    /// Longest token, in bytes. Default: 16384.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 256, max = 65_536))]
    pub max_token_bytes: Option<i32>,
    /// Claims that a token must have. Names separated by dots lead into objects; `\.` is a dot in a name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 1024)))]
    pub required_claims: Vec<String>,
}

/// Where keys are: one of `url`, `inline` and `configMapRef`, or none of them for the issuer's metadata.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("[has(self.url), has(self.inline), has(self.configMapRef)].filter(given, given).size() <= 1")
        .message("give one of url, inline and configMapRef"),
    validation = Rule::new("(!has(self.inline) && !has(self.configMapRef)) || \
         (!has(self.refreshInterval) && !has(self.staleIfError))")
        .message("refreshInterval and staleIfError are for keys that are fetched")
)]
pub struct KeySource {
    /// URL of a JWK set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^https://[^\s#]+$"))]
    pub url: Option<String>,
    /// A JWK set itself, as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 262_144))]
    pub inline: Option<String>,
    /// An entry of a ConfigMap that is a JWK set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<EntryReference>,
    /// Longest time between two fetches, 1m to 24h. `Cache-Control` of the answer can make it shorter, to a minute at least.
    /// Default: 10m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub refresh_interval: Option<String>,
    /// For how long keys are used that should have been fetched again and cannot be, at most 168h. Then requests get 503.
    /// Default: 6h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub stale_if_error: Option<String>,
}

/// An entry of a ConfigMap in the same namespace.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryReference {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The entry.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// Who may vouch for the provider's server: one of both, or neither for whom the proxies' platform trusts.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = Rule::new("!(has(self.caCertificates) && has(self.caCertificatesRef))")
        .message("give one of caCertificates and caCertificatesRef")
)]
pub struct ProviderTls {
    /// Certificates of authorities, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65_536))]
    pub ca_certificates: Option<String>,
    /// An entry of a ConfigMap that holds certificates of authorities, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_certificates_ref: Option<EntryReference>,
}

/// An algorithm whose verifying key may be public.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SigningAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[default]
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256.
    Es256,
    /// ECDSA on P-384.
    Es384,
    /// ECDSA on P-521.
    Es512,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}
