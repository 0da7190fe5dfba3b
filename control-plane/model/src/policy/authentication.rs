//! Who a client is: what it may show (a token, an API key, a password), who vouches for it, and what the backend is told.
//!
//! Invariants: no algorithm here has one secret for both sides, so no proxy holds what could make a token; a secret itself
//! never gets here, only what checks it; what checks a password has no `Debug` form.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use http::{HeaderName, Uri};
use rustls_pki_types::CertificateDer;

use super::{
    Mode, Settings,
    merge::{map, scalar},
};
use crate::ObjectName;

/// The settings of an AuthenticationPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthenticationSettings {
    /// Whether it is switched off. What [`Self::strip_headers`] and the others protect stays protected.
    pub disabled: Option<bool>,
    /// What is done with a request that would be refused.
    pub mode: Option<Mode>,
    /// Whether a request without any credentials passes, with no identity. One whose credentials are refused never does.
    pub allow_anonymous: Option<bool>,
    /// What challenges name as the protection space (RFC 9110 section 11.5). Visible ASCII and spaces.
    pub realm: Option<Arc<str>>,
    /// The identity providers whose tokens are taken, each under a name.
    pub providers: BTreeMap<Arc<str>, ProviderUse>,
    /// Lists of API keys, each under a name.
    pub api_keys: BTreeMap<Arc<str>, ApiKeys>,
    /// Users with passwords (RFC 7617).
    pub basic: Option<Basic>,
    /// How proofs of possession are checked.
    pub proofs: Option<ProofSettings>,
    /// Fields that no client may send to the backend, beside those that claims are written to. Every level adds to them:
    /// none takes away what another one protects. Sorted, each once.
    pub strip_headers: Vec<HeaderName>,
}

impl AuthenticationSettings {
    /// Most providers, and most lists of API keys, of one policy.
    pub const MAX_PROVIDERS: usize = 16;

    /// `names` as [`Self::strip_headers`] has them.
    pub fn sorted(mut names: Vec<HeaderName>) -> Vec<HeaderName> {
        names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        names.dedup();
        names
    }
}

impl AuthenticationSettings {
    /// The fields that the gateway alone writes.
    pub fn written_headers(&self) -> impl Iterator<Item = &HeaderName> {
        let claims = self.providers.values().flat_map(|used| used.claims_to_headers.iter().map(|claim| &claim.header));
        let clients = self.api_keys.values().filter_map(|list| list.client_header.as_ref());
        claims.chain(clients).chain(self.basic.iter().filter_map(|basic| basic.user_header.as_ref()))
    }
}

impl Settings for AuthenticationSettings {
    fn lay(&mut self, over: &Self, took: &mut dyn FnMut(String)) {
        // What goes may have protected a field that a backend trusts.
        let protected: Vec<HeaderName> =
            self.strip_headers.iter().chain(self.written_headers()).chain(&over.strip_headers).cloned().collect();
        scalar(&mut self.disabled, over.disabled.as_ref(), "disabled", took);
        scalar(&mut self.mode, over.mode.as_ref(), "mode", took);
        scalar(&mut self.allow_anonymous, over.allow_anonymous.as_ref(), "allowAnonymous", took);
        scalar(&mut self.realm, over.realm.as_ref(), "realm", took);
        map(&mut self.providers, &over.providers, "providers", took);
        map(&mut self.api_keys, &over.api_keys, "apiKeys", took);
        scalar(&mut self.basic, over.basic.as_ref(), "basic", took);
        scalar(&mut self.proofs, over.proofs.as_ref(), "proofs", took);
        self.strip_headers = Self::sorted(protected);
        if !over.strip_headers.is_empty() {
            took("stripHeaders".to_owned());
        }
    }

    fn is_disabled(&self) -> bool {
        self.disabled.unwrap_or(false)
    }

    fn mode(&self) -> Mode {
        self.mode.unwrap_or_default()
    }
}

/// How a policy uses an identity provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderUse {
    /// The provider.
    pub provider: Arc<IdentityProvider>,
    /// Where its tokens are.
    pub source: TokenSource,
    /// Whether the backend gets the token too. One from a query parameter it never does.
    pub forward_token: bool,
    /// In place of the provider's own.
    pub audiences: Option<Audiences>,
    /// A token without one of these is refused as insufficient.
    pub required_scopes: Vec<Arc<str>>,
    /// What the backend is told of the token.
    pub claims_to_headers: Vec<ClaimToHeader>,
}

/// A list of API keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeys {
    /// Where a key is in a request; not [`TokenSource::Authorization`].
    pub source: TokenSource,
    /// Whether the backend gets the key too. One from a query parameter it never does.
    pub forward_key: bool,
    /// A header that tells the backend whose key it is.
    pub client_header: Option<HeaderName>,
    /// The keys. Each digest once.
    pub keys: Vec<ApiKey>,
}

/// What recognises an API key. The key itself never gets to a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Whose it is. Visible ASCII.
    pub client: Arc<str>,
    /// SHA-256 over the key. (No slow hash: a key is long and random, unlike a password.)
    pub digest: [u8; 32],
}

/// Users with passwords, in `Authorization` with the scheme `Basic`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Basic {
    /// What checks each user's password. No name has a colon.
    pub users: BTreeMap<Arc<str>, PasswordHash>,
    /// Whether the backend gets name and password too.
    pub forward_password: bool,
    /// A header that tells the backend the user's name.
    pub user_header: Option<HeaderName>,
}

/// What checks a password: bcrypt (`$2b$…`), or Argon2id in the PHC form. What it costs to check is bounded, so that whoever
/// writes one cannot make the gateway work for long.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(Arc<str>);

/// Not a hash that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "want bcrypt ($2a$, $2b$, $2y$) with a cost of 4 to 12, or $argon2id$v=19$ with m=8 to 65536, t=1 to 4, p=1 to 4"
)]
pub struct InvalidHash;

impl PasswordHash {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_bcrypt(text: &str) -> bool {
        let rest = ["$2a$", "$2b$", "$2y$"].iter().find_map(|prefix| text.strip_prefix(prefix));
        let Some((cost, rest)) = rest.and_then(|rest| rest.split_once('$')) else { return false };
        let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'/';
        let cost_is_bounded = cost.len() == 2 && cost.parse::<u8>().is_ok_and(|cost| (4..=12).contains(&cost));
        cost_is_bounded && rest.len() == 53 && rest.bytes().all(is_digit)
    }

    fn is_argon2id(text: &str) -> bool {
        let mut parts = text.strip_prefix("$argon2id$v=19$").unwrap_or_default().split('$');
        let (Some(costs), Some(salt), Some(hash), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return false;
        };
        let mut costs = costs.split(',');
        let mut is_within = |name: &str, least: u32, most: u32| {
            let value =
                costs.next().and_then(|cost| cost.strip_prefix(name)).and_then(|value| value.parse::<u32>().ok());
            value.is_some_and(|value| (least..=most).contains(&value))
        };
        let costs_are_bounded = is_within("m=", 8, 65_536) && is_within("t=", 1, 4) && is_within("p=", 1, 4);
        let is_base64 = |text: &str, least: usize| {
            (least..=128).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
        };
        costs_are_bounded && costs.next().is_none() && is_base64(salt, 11) && is_base64(hash, 16)
    }
}

impl FromStr for PasswordHash {
    type Err = InvalidHash;

    fn from_str(text: &str) -> Result<Self, InvalidHash> {
        if Self::is_bcrypt(text) || Self::is_argon2id(text) { Ok(Self(text.into())) } else { Err(InvalidHash) }
    }
}

/// Shows nothing of it: it can be tried against words.
impl fmt::Debug for PasswordHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PasswordHash")
    }
}

/// Where a credential is in a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TokenSource {
    /// `Authorization`, with the scheme `Bearer` or `DPoP`.
    Authorization,
    /// The whole value of a header.
    Header(HeaderName),
    /// The value of a cookie.
    Cookie(Arc<str>),
    /// The value of a query parameter.
    Query(Arc<str>),
}

/// A claim that the backend gets as a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimToHeader {
    /// Path of the claim, names separated by dots; `\.` is a dot in a name.
    pub claim: Arc<str>,
    /// The header. What the client sends in it is removed.
    pub header: HeaderName,
    /// How text is written.
    pub text: TextEncoding,
    /// How arrays are written.
    pub list: ListEncoding,
}

/// How text becomes a header's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TextEncoding {
    /// As it is; text with other than visible ASCII has no header.
    #[default]
    Plain,
    /// Always base64url, without padding.
    Base64Url,
}

/// How an array becomes a header's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListEncoding {
    /// Items with a comma between them.
    #[default]
    Comma,
    /// JSON.
    Json,
}

/// How proofs of possession (DPoP, RFC 9449) are checked. A token that is bound to a key needs one whatever this says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProofSettings {
    /// Whether every token needs one.
    pub required: bool,
    /// How long after it was made a proof is taken. 1 s to 5 min.
    pub max_age: Duration,
}

impl ProofSettings {
    /// Least and most of [`Self::max_age`].
    pub const MAX_AGE: [Duration; 2] = [Duration::from_secs(1), Duration::from_mins(5)];
    /// Where nothing is said: for tokens that are bound to a key, and for one minute.
    pub const DEFAULT: Self = Self { required: false, max_age: Duration::from_mins(1) };
}

/// Who vouches for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityProvider {
    /// The object that describes it, for logs and metrics.
    pub name: ObjectName,
    /// `iss` of its tokens, compared exactly.
    pub issuer: Arc<str>,
    /// How its tokens are checked.
    pub jwt: JwtRules,
}

/// How signed tokens are checked (RFC 7519, RFC 8725).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtRules {
    /// Where the keys are from.
    pub keys: KeySource,
    /// `aud` of its tokens.
    pub audiences: Audiences,
    /// What may sign; not empty.
    pub algorithms: BTreeSet<SigningAlgorithm>,
    /// `typ` of its tokens; empty for none, `JWT` and `at+jwt`.
    pub token_types: Vec<Arc<str>>,
    /// By how much its clock may differ.
    pub leeway: Duration,
    /// Longest time from issue to expiry.
    pub max_lifetime: Option<Duration>,
    /// Longest token, in bytes.
    pub max_token_bytes: u32,
    /// Paths of claims that must be there.
    pub required_claims: Vec<Arc<str>>,
}

impl JwtRules {
    /// [`Self::leeway`] where nothing is said.
    pub const DEFAULT_LEEWAY: Duration = Duration::from_secs(30);
    /// [`Self::max_token_bytes`] where nothing is said.
    pub const DEFAULT_MAX_TOKEN_BYTES: u32 = 16 * 1024;
}

/// Which audience a token must name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audiences {
    /// One of these. Not empty.
    AnyOf(Vec<Arc<str>>),
    /// None: a token for another service is taken too.
    Waived,
}

/// Where the keys of an issuer are from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A JWK set, as text.
    Inline(Arc<str>),
    /// Fetched by each proxy.
    Remote(Arc<RemoteKeys>),
}

/// Keys that are fetched, and for how long they count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RemoteKeys {
    location: KeyLocation,
    authorities: Option<Arc<[CertificateDer<'static>]>>,
    refresh: Duration,
    stale_if_error: Duration,
}

/// Where a key set is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyLocation {
    /// In the provider's metadata (OpenID Connect Discovery 1.0), which are at this URL and must name this issuer.
    Discovery {
        /// Of the metadata.
        url: HttpsUrl,
        /// `issuer` of the metadata, compared exactly.
        issuer: Arc<str>,
    },
    /// Here.
    Url(HttpsUrl),
}

/// Times of [`RemoteKeys`] out of their range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRemoteKeys {
    /// Not 1 minute to 24 hours.
    #[error("the refresh interval must be 1 minute to 24 hours")]
    Refresh,
    /// More than 7 days.
    #[error("keys may be used for at most 7 days after they should have been refreshed")]
    StaleIfError,
    /// A list of authorities without one: nothing could be trusted.
    #[error("the list of certificate authorities is empty")]
    NoAuthority,
}

impl RemoteKeys {
    /// Shortest and longest time between two fetches.
    pub const REFRESH: [Duration; 2] = [Duration::from_mins(1), Duration::from_hours(24)];
    /// The refresh interval where nothing is said.
    pub const DEFAULT_REFRESH: Duration = Duration::from_mins(10);
    /// Longest time for which keys are used that cannot be refreshed.
    pub const MAX_STALE: Duration = Duration::from_hours(7 * 24);
    /// The same where nothing is said.
    pub const DEFAULT_STALE: Duration = Duration::from_hours(6);

    /// Keys at `location`, behind a server whose certificate is by one of `authorities`, or else by one that the platform
    /// trusts. Fetched again after `refresh` at most; used for `stale_if_error` longer where that fails.
    ///
    /// # Errors: [`InvalidRemoteKeys`].
    pub fn new(
        location: KeyLocation,
        authorities: Option<Arc<[CertificateDer<'static>]>>,
        refresh: Duration,
        stale_if_error: Duration,
    ) -> Result<Self, InvalidRemoteKeys> {
        let [shortest, longest] = Self::REFRESH;
        if !(shortest..=longest).contains(&refresh) {
            return Err(InvalidRemoteKeys::Refresh);
        }
        if stale_if_error > Self::MAX_STALE {
            return Err(InvalidRemoteKeys::StaleIfError);
        }
        if authorities.as_ref().is_some_and(|authorities| authorities.is_empty()) {
            return Err(InvalidRemoteKeys::NoAuthority);
        }
        Ok(Self { location, authorities, refresh, stale_if_error })
    }

    /// Where they are.
    pub fn location(&self) -> &KeyLocation {
        &self.location
    }

    /// Who may vouch for the server; `None` for whom the platform trusts.
    pub fn authorities(&self) -> Option<&[CertificateDer<'static>]> {
        self.authorities.as_deref()
    }

    /// Longest time between two fetches.
    pub fn refresh(&self) -> Duration {
        self.refresh
    }

    /// For how long keys are used that cannot be refreshed.
    pub fn stale_if_error(&self) -> Duration {
        self.stale_if_error
    }
}

/// An absolute URL with the scheme `https`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpsUrl(Uri);

/// Not an absolute URL with the scheme `https`, or one with user information or a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("want a URL that begins with https://, without user information and fragment")]
pub struct InvalidUrl;

impl HttpsUrl {
    /// As hyper takes it.
    pub fn uri(&self) -> &Uri {
        &self.0
    }

    /// The URL of an issuer's metadata (OpenID Connect Discovery 1.0, section 4).
    ///
    /// # Errors: [`InvalidUrl`] where the issuer is no such URL, or has a query.
    pub fn discovery(issuer: &str) -> Result<Self, InvalidUrl> {
        if Self::from_str(issuer)?.0.query().is_some() {
            return Err(InvalidUrl);
        }
        format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')).parse()
    }
}

impl FromStr for HttpsUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        // `Uri` drops a fragment without a word.
        if text.contains('#') {
            return Err(InvalidUrl);
        }
        let uri: Uri = text.parse().map_err(|_| InvalidUrl)?;
        let authority = uri.authority().ok_or(InvalidUrl)?;
        let is_https = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
        if !is_https || authority.host().is_empty() || authority.as_str().contains('@') {
            return Err(InvalidUrl);
        }
        Ok(Self(uri))
    }
}

impl fmt::Display for HttpsUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// An algorithm whose verifying key may be public (RFC 7518, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SigningAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
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
    EdDsa,
}

impl SigningAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 10] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::EdDsa,
    ];

    /// Its name in `alg`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_level_protects_no_other_one_gives_away() {
        let header = HeaderName::from_static;
        let list = |name: &'static str| ApiKeys {
            source: TokenSource::Header(header("x-api-key")),
            forward_key: false,
            client_header: Some(header(name)),
            keys: Vec::new(),
        };
        let gateway = AuthenticationSettings {
            strip_headers: vec![header("x-tenant")],
            api_keys: [("partners".into(), list("x-client"))].into(),
            ..AuthenticationSettings::default()
        };
        let route = AuthenticationSettings {
            disabled: Some(true),
            strip_headers: vec![header("x-a")],
            api_keys: [("partners".into(), list("x-partner"))].into(),
            ..AuthenticationSettings::default()
        };
        let mut merged = gateway.clone();
        let mut taken = Vec::new();
        merged.lay(&route, &mut |path| taken.push(path));
        assert!(merged.is_disabled());
        assert_eq!(merged.strip_headers, ["x-a", "x-client", "x-tenant"].map(header));
        assert_eq!(merged.written_headers().collect::<Vec<_>>(), [&header("x-partner")]);
        assert_eq!(taken, ["disabled", "apiKeys.partners", "stripHeaders"]);
    }

    #[test]
    fn a_url_is_https_and_says_no_more_than_where() {
        for text in ["https://id.example", "https://id.example:8443/a/b?c=d", "https://[::1]/keys"] {
            assert!(text.parse::<HttpsUrl>().is_ok(), "{text}");
        }
        for text in ["", "/keys", "http://id.example/", "https://a@id.example/", "https://", "https://a/#b", "ftp://a/"]
        {
            assert_eq!(text.parse::<HttpsUrl>(), Err(InvalidUrl), "{text}");
        }
    }

    #[test]
    fn metadata_are_below_the_issuer_with_or_without_a_slash() {
        for (issuer, url) in [
            ("https://id.example", "https://id.example/.well-known/openid-configuration"),
            ("https://id.example/", "https://id.example/.well-known/openid-configuration"),
            ("https://id.example/realms/shop", "https://id.example/realms/shop/.well-known/openid-configuration"),
        ] {
            assert_eq!(HttpsUrl::discovery(issuer).unwrap().to_string(), url);
        }
        assert_eq!(HttpsUrl::discovery("https://id.example?a=b"), Err(InvalidUrl));
        assert_eq!(HttpsUrl::discovery("urn:issuer"), Err(InvalidUrl));
    }

    #[test]
    fn a_password_hash_is_one_of_two_kinds_and_its_cost_is_bounded() {
        let bcrypt = |start: &str| format!("{start}{}", "a".repeat(53));
        let argon = |costs: &str| format!("$argon2id$v=19${costs}$c2FsdHNhbHQ${}", "a".repeat(43));
        for text in [bcrypt("$2b$12$"), bcrypt("$2y$04$"), argon("m=65536,t=4,p=4"), argon("m=19456,t=2,p=1")] {
            assert!(text.parse::<PasswordHash>().is_ok(), "{text}");
            assert_eq!(format!("{:?}", text.parse::<PasswordHash>().unwrap()), "PasswordHash");
        }
        for text in [
            bcrypt("$2b$13$"),
            bcrypt("$2b$4$"),
            bcrypt("$2c$10$"),
            bcrypt("$2b$10$a"),
            argon("m=65537,t=1,p=1"),
            argon("m=19456,t=5,p=1"),
            argon("t=1,m=19456,p=1"),
            argon("m=19456,t=1"),
            argon("m=19456,t=1,p=1,x=1"),
            argon("m=19456,t=1,p=1").replace("argon2id", "argon2i"),
            "secret".to_owned(),
            "{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk=".to_owned(),
            String::new(),
        ] {
            assert_eq!(text.parse::<PasswordHash>(), Err(InvalidHash), "{text}");
        }
    }

    #[test]
    fn times_and_authorities_out_of_range_are_refused() {
        let location = KeyLocation::Url("https://a/".parse().unwrap());
        let new = |refresh, stale| RemoteKeys::new(location.clone(), None, refresh, stale);
        assert!(new(RemoteKeys::DEFAULT_REFRESH, RemoteKeys::DEFAULT_STALE).is_ok());
        let minute = Duration::from_mins(1);
        assert_eq!(new(Duration::from_secs(59), minute), Err(InvalidRemoteKeys::Refresh));
        assert_eq!(new(Duration::from_secs(86_401), minute), Err(InvalidRemoteKeys::Refresh));
        assert_eq!(new(minute, RemoteKeys::MAX_STALE + Duration::from_secs(1)), Err(InvalidRemoteKeys::StaleIfError));
        let none = RemoteKeys::new(location.clone(), Some(Arc::new([])), minute, minute);
        assert_eq!(none, Err(InvalidRemoteKeys::NoAuthority));
    }

    #[test]
    fn every_algorithm_is_found_by_its_name_and_no_symmetric_one_is() {
        for algorithm in SigningAlgorithm::ALL {
            assert_eq!(SigningAlgorithm::from_name(algorithm.as_str()), Some(algorithm));
        }
        for name in ["none", "HS256", "hs256", "es256", ""] {
            assert_eq!(SigningAlgorithm::from_name(name), None);
        }
    }
}
