//! Whole decisions over tokens, and what the backend gets: the attacks that `policies/jose` knows, through the policy.

use std::time::{Duration, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use control_plane_model::{
    ApiKey, ApiKeys, Audiences, Basic, ClaimToHeader, IdentityProvider, JwtRules, KeySource, Leveled, ListEncoding,
    ObjectName, PolicyKind, PolicySpec, ProofSettings, ProviderUse, SigningAlgorithm, TextEncoding,
};
use gateway_engine::{
    filter::{Received, RequestContext},
    local_reply::ReplyContext,
    notes::Notes,
    strict,
};
use http::{HeaderMap, HeaderValue, Method, Version};
use jsonwebtoken::{Algorithm as Signing, EncodingKey, crypto};
use kit_process::{clock::ManualClock, drain};
use policy_jose::{BindingReason, CredentialsError, ProofReason, Reason, Scheme};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    decision::Shown,
    refusal::Refusal,
    testing::{Answer, ONE, Server, Signer, TWO, encode, key_set, spawn},
    *,
};

const NOW: u64 = 1_700_000_000;
const ISSUER: &str = "https://id.example";

fn state() -> Arc<State> {
    let clock = ManualClock::new(UNIX_EPOCH + Duration::from_secs(NOW));
    Arc::new(State::new(Arc::new(clock), [7; 16]))
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "api", "sub": "alice", "iat": NOW - 60, "exp": NOW + 600,
        "scope": "read write", "roles": ["a", "b,c"], "name": "Zoë"
    })
}

/// The claims with one changed; `null` takes it out.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

fn provider(issuer: &str, keys: KeySource) -> ProviderUse {
    let header = |claim: &str, header: &'static str, text| ClaimToHeader {
        claim: claim.into(),
        header: HeaderName::from_static(header),
        text,
        list: ListEncoding::Comma,
    };
    let jwt = JwtRules {
        keys,
        audiences: Audiences::AnyOf(vec!["api".into()]),
        algorithms: [SigningAlgorithm::Es256].into_iter().collect(),
        token_types: Vec::new(),
        leeway: JwtRules::DEFAULT_LEEWAY,
        max_lifetime: None,
        max_token_bytes: JwtRules::DEFAULT_MAX_TOKEN_BYTES,
        required_claims: Vec::new(),
    };
    ProviderUse {
        provider: Arc::new(IdentityProvider { name: ObjectName::new("shop", "id"), issuer: issuer.into(), jwt }),
        source: TokenSource::Authorization,
        forward_token: true,
        audiences: None,
        required_scopes: Vec::new(),
        claims_to_headers: vec![
            header("sub", "x-user", TextEncoding::Plain),
            header("roles", "x-roles", TextEncoding::Plain),
            header("name", "x-name", TextEncoding::Plain),
            header("name", "x-name-encoded", TextEncoding::Base64Url),
        ],
    }
}

fn settings() -> AuthenticationSettings {
    let provider = provider(ISSUER, KeySource::Inline(key_set(&[&ONE]).into()));
    AuthenticationSettings { providers: [("staff".into(), provider)].into(), ..AuthenticationSettings::default() }
}

fn change(mut settings: AuthenticationSettings, change: impl FnOnce(&mut ProviderUse)) -> AuthenticationSettings {
    change(settings.providers.values_mut().next().unwrap());
    settings
}

/// Whose request it is, and what the backend gets of it.
struct Seen {
    subject: Option<String>,
    headers: HeaderMap,
    target: String,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// A new filter with these settings.
fn filter(settings: &AuthenticationSettings, state: &Arc<State>) -> Result<Authentication, InvalidPolicy> {
    let policy = Policy {
        key: PolicyKey { kind: PolicyKind::Authentication, name: ObjectName::new("shop", "p") },
        spec: PolicySpec::Authentication(Leveled { settings: settings.clone(), overrides: None }),
    };
    compile(&[Arc::new(policy)], state).map(Option::unwrap)
}

fn received(uri: &str) -> Received {
    Received {
        method: Method::GET,
        scheme: strict::Scheme::Https,
        host: "api.example".into(),
        uri: uri.parse().unwrap(),
        listener_port: 443,
        peer: "192.0.2.1:4711".parse().unwrap(),
        matched_prefix: None,
    }
}

fn fields(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_static("api.example"));
    for (name, value) in fields {
        headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    headers
}

struct Asked(Authentication);

impl Asked {
    fn new(settings: &AuthenticationSettings) -> Self {
        Self(filter(settings, &state()).unwrap())
    }

    fn methods(&self) -> &Methods {
        self.0.0.methods.as_ref().unwrap()
    }

    /// What is decided, and what the backend gets then.
    async fn ask(&self, uri: &str, sent: &[(&str, &str)]) -> Result<Seen, Refusal<'_>> {
        let received = received(uri);
        let mut headers = fields(sent);
        let shown = Shown { method: &received.method, scheme: received.scheme, uri: &received.uri, headers: &headers };
        let accepted = self.methods().decide(shown, &self.0.0.state).await?;
        let subject = accepted.as_ref().map(|accepted| accepted.identity().subject.to_string());
        let (label, mut notes) = (Arc::from("x"), Notes::default());
        let mut context = RequestContext::new(&received, &mut headers, (&label, &label), Duration::ZERO, &mut notes);
        self.0.0.tell(self.methods(), accepted.as_ref(), &mut context.headers());
        let target = without_tokens(self.methods(), &received.uri);
        let target = target.map_or_else(|| uri.to_owned(), |target| target.to_string());
        Ok(Seen { subject, headers, target })
    }

    /// The verdict, what the backend gets, and what was noted.
    async fn run(&self, sent: &[(&str, &str)]) -> (Verdict, HeaderMap, Notes) {
        let (received, mut headers) = (received("/a?b"), fields(sent));
        let (label, mut notes) = (Arc::from("x"), Notes::default());
        let mut context = RequestContext::new(&received, &mut headers, (&label, &label), Duration::ZERO, &mut notes);
        let verdict = self.0.on_request(&mut context).await;
        (verdict, headers, notes)
    }

    async fn bearer(&self, token: &str) -> Result<Seen, Refusal<'_>> {
        self.ask("/a", &[("authorization", &format!("Bearer {token}"))]).await
    }

    async fn refusal(&self, fields: &[(&str, &str)]) -> Refusal<'_> {
        match self.ask("/a?b", fields).await {
            Err(refusal) => refusal,
            Ok(seen) => panic!("taken for {:?}", seen.subject),
        }
    }
}

fn refused(reason: Reason) -> Refusal<'static> {
    Refusal::Token(Scheme::Bearer, reason)
}

#[tokio::test]
async fn a_good_token_is_told_to_the_backend_and_the_clients_own_words_are_not() {
    let settings = AuthenticationSettings { strip_headers: vec![HeaderName::from_static("x-tenant")], ..settings() };
    let policy = Asked::new(&settings);
    let token = format!("Bearer {}", ONE.token(&claims()));
    let sent = [
        ("authorization", token.as_str()),
        ("x-user", "root"),
        ("x_user", "root"),
        ("x-roles", "admin"),
        ("x-name", "root"),
        ("x-tenant", "other"),
        ("x-other", "kept"),
    ];
    for _ in ["checked", "remembered"] {
        let seen = policy.ask("/a?b", &sent).await.unwrap();
        assert_eq!(seen.subject.as_deref(), Some("alice"));
        assert_eq!(seen.header("x-user"), Some("alice"));
        assert_eq!(seen.header("x-roles"), Some("a,b%2Cc"));
        // Not what the client sent, where the claim has no form as a header.
        assert_eq!(seen.header("x-name"), None);
        assert_eq!(seen.header("x-name-encoded"), Some("Wm_Dqw"));
        assert_eq!((seen.header("x_user"), seen.header("x-tenant")), (None, None));
        assert_eq!((seen.header("x-other"), seen.header("authorization")), (Some("kept"), Some(token.as_str())));
    }
    let anonymous = Asked::new(&AuthenticationSettings { allow_anonymous: Some(true), ..settings });
    let seen = anonymous.ask("/a", &sent[1..]).await.unwrap();
    assert_eq!((seen.subject.as_deref(), seen.header("x-user"), seen.header("x-other")), (None, None, Some("kept")));
    assert_eq!((seen.header("x_user"), seen.header("x-roles"), seen.header("x-tenant")), (None, None, None));
}

#[tokio::test]
async fn each_attack_is_refused_with_its_reason() {
    let policy = Asked::new(&settings());
    let good = ONE.token(&claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let payload = signed.split_once('.').unwrap().1;
    let x = ONE.jwk["x"].as_str().unwrap();
    let hmac = |secret: &str| {
        let signed = format!("{}.{payload}", encode(br#"{"alg":"HS256","kid":"one"}"#));
        let key = EncodingKey::from_secret(secret.as_bytes());
        let signature = crypto::sign(signed.as_bytes(), &key, Signing::HS256).unwrap();
        format!("{signed}.{signature}")
    };
    let sign = |header: Value| TWO.sign(&header, &claims());
    let rows = [
        ("alg none", format!("{}.{payload}.", encode(br#"{"alg":"none"}"#)), Reason::Unsigned),
        (
            "alg None with a good signature",
            ONE.sign(&json!({"alg": "None", "kid": "one"}), &claims()),
            Reason::Unsigned,
        ),
        ("HMAC with the public key", hmac(x), Reason::AlgorithmNotAllowed),
        ("HMAC with the whole key", hmac(&ONE.jwk.to_string()), Reason::AlgorithmNotAllowed),
        ("an algorithm beside the list", sign(json!({"alg": "ES384", "kid": "one"})), Reason::AlgorithmNotAllowed),
        ("the signature taken off", format!("{signed}."), Reason::BadSignature),
        ("the signature of another key", sign(json!({"alg": "ES256", "kid": "one"})), Reason::BadSignature),
        ("its own key", sign(json!({"alg": "ES256", "kid": "two", "jwk": TWO.jwk})), Reason::UnknownKey),
        (
            "its own keys by URL",
            sign(json!({"alg": "ES256", "kid": "two", "jku": "https://evil/"})),
            Reason::UnknownKey,
        ),
        ("a key id that is a path", sign(json!({"alg": "ES256", "kid": "../../dev/null"})), Reason::UnknownKey),
        (
            "other claims",
            good.replacen(payload, &encode(with("sub", json!("root")).to_string().as_bytes()), 1),
            Reason::BadSignature,
        ),
        (
            "a critical extension",
            ONE.sign(&json!({"alg": "ES256", "kid": "one", "crit": ["x"]}), &claims()),
            Reason::CriticalExtension,
        ),
        (
            "a logout token",
            ONE.sign(&json!({"alg": "ES256", "kid": "one", "typ": "logout+jwt"}), &claims()),
            Reason::TypeNotAccepted,
        ),
        ("expired", ONE.token(&with("exp", json!(NOW - 31))), Reason::Expired),
        ("without an end", ONE.token(&with("exp", Value::Null)), Reason::MissingExpiry),
        ("not yet", ONE.token(&with("nbf", json!(NOW + 31))), Reason::NotYetValid),
        ("another issuer", ONE.token(&with("iss", json!("https://id.example/"))), Reason::WrongIssuer),
        ("another audience", ONE.token(&with("aud", json!("api2"))), Reason::WrongAudience),
        ("no audience", ONE.token(&with("aud", Value::Null)), Reason::WrongAudience),
        ("two parts", signed.to_owned(), Reason::Malformed),
        ("too long", format!("{}{signature}", "a".repeat(16 * 1024)), Reason::TooLarge),
    ];
    assert!(policy.bearer(&good).await.is_ok());
    for (attack, token, reason) in rows {
        assert_eq!(policy.bearer(&token).await.err(), Some(refused(reason)), "{attack}");
    }
}

#[tokio::test]
async fn credentials_that_cannot_be_read_are_never_taken_for_none() {
    let policy = Asked::new(&AuthenticationSettings { allow_anonymous: Some(true), ..settings() });
    let token = format!("Bearer {}", ONE.token(&claims()));
    let twice = [("authorization", token.as_str()), ("authorization", token.as_str())];
    assert_eq!(policy.refusal(&twice).await, Refusal::Unreadable(CredentialsError::Several));
    let malformed = Refusal::Unreadable(CredentialsError::Malformed);
    assert_eq!(policy.refusal(&[("authorization", "Bearer")]).await, malformed);
    assert_eq!(policy.refusal(&[("authorization", "Bearer a b")]).await, malformed);
    assert_eq!(policy.refusal(&[("authorization", "Bearer x")]).await, refused(Reason::Malformed));
    // Another scheme is for the backend.
    let seen = policy.ask("/", &[("authorization", "Basic YTpi")]).await.unwrap();
    assert_eq!((seen.subject.as_deref(), seen.header("authorization")), (None, Some("Basic YTpi")));
}

#[tokio::test]
async fn a_token_serves_from_its_place_alone_and_is_passed_on_only_where_the_policy_says_so() {
    let token = ONE.token(&claims());
    let at = |source, forward_token| {
        Asked::new(&change(settings(), |provider| {
            (provider.source, provider.forward_token) = (source, forward_token);
        }))
    };
    let field = TokenSource::Header(HeaderName::from_static("x-token"));
    let seen = at(field.clone(), true).ask("/", &[("x-token", &token)]).await.unwrap();
    assert_eq!((seen.subject.as_deref(), seen.header("x-token")), (Some("alice"), Some(token.as_str())));
    let seen = at(field, false).ask("/", &[("x-token", &token), ("dpop", "x")]).await.unwrap();
    assert_eq!((seen.header("x-token"), seen.header("dpop")), (None, None));

    let cookie = at(TokenSource::Cookie("token".into()), false);
    let seen = cookie.ask("/", &[("cookie", &format!("a=b; token={token}; c=d"))]).await.unwrap();
    assert_eq!((seen.subject.as_deref(), seen.header("cookie")), (Some("alice"), Some("a=b; c=d")));
    let seen = cookie.ask("/", &[("cookie", &format!("token={token}"))]).await.unwrap();
    assert_eq!(seen.header("cookie"), None);

    let query = at(TokenSource::Query("access_token".into()), true);
    let seen = query.ask(&format!("/a?b=1&access_token={token}"), &[]).await.unwrap();
    assert_eq!((seen.subject.as_deref(), seen.target.as_str()), (Some("alice"), "/a?b=1"));
    let elsewhere = query.ask("/a", &[("authorization", &format!("Bearer {token}"))]).await.unwrap();
    assert_eq!(elsewhere.subject, None);
    let authorization = at(TokenSource::Authorization, false);
    assert_eq!(authorization.bearer(&token).await.unwrap().header("authorization"), None);
}

#[tokio::test]
async fn of_several_providers_the_tokens_issuer_decides_and_its_keys_alone_count() {
    let mut settings = settings();
    let other = provider("https://other.example", KeySource::Inline(key_set(&[&TWO]).into()));
    settings.providers.insert("partners".into(), other);
    let policy = Asked::new(&settings);
    let theirs = with("iss", json!("https://other.example"));
    assert!(policy.bearer(&ONE.token(&claims())).await.is_ok());
    assert!(policy.bearer(&TWO.token(&theirs)).await.is_ok());
    assert_eq!(policy.bearer(&ONE.token(&theirs)).await.err(), Some(refused(Reason::UnknownKey)));
    assert_eq!(policy.bearer(&TWO.token(&claims())).await.err(), Some(refused(Reason::UnknownKey)));
    let nobody = with("iss", json!("https://evil.example"));
    assert_eq!(policy.bearer(&ONE.token(&nobody)).await.err(), Some(refused(Reason::WrongIssuer)));
}

#[tokio::test]
async fn a_token_without_a_scope_is_insufficient() {
    let policy = |scopes: &[&str]| {
        Asked::new(&change(settings(), |provider| {
            provider.required_scopes = scopes.iter().map(|scope| Arc::from(*scope)).collect();
        }))
    };
    let token = ONE.token(&claims());
    assert!(policy(&["read", "write"]).bearer(&token).await.is_ok());
    let policy = policy(&["read", "admin"]);
    let refusal = policy.bearer(&token).await.err().unwrap();
    assert!(matches!(refusal, Refusal::InsufficientScope(..)));
    let [value] = policy.methods().challenges.values(&refusal).try_into().unwrap();
    assert_eq!(value, r#"Bearer error="insufficient_scope", scope="read admin""#);
}

#[tokio::test]
async fn a_rotated_key_is_found_and_a_provider_that_is_gone_leaves_nobody_in() {
    let server = Server::start().await;
    server.set("/keys", Answer::ok(key_set(&[&ONE])));
    let state = state();
    let (_trigger, drain) = drain::channel();
    let running = state.clone();
    spawn(async move { running.run(drain).await });
    let settings = change(settings(), |used| {
        *used = provider(ISSUER, KeySource::Remote(server.keys_at("/keys")));
    });
    let policy = Asked(filter(&settings, &state).unwrap());
    assert!(policy.bearer(&ONE.token(&claims())).await.is_ok());
    assert_eq!(policy.bearer(&TWO.token(&claims())).await.err(), Some(refused(Reason::UnknownKey)));
    server.set("/keys", Answer::ok(key_set(&[&TWO])));
    assert!(policy.bearer(&TWO.token(&claims())).await.is_ok());
    // Remembered tokens of a key that is gone do not count any more.
    server.set("/keys", Answer::Text(500, Vec::new(), String::new()));
    let refusal = policy.bearer(&ONE.token(&claims())).await.err().unwrap();
    assert!(matches!(refusal, Refusal::Token(_, Reason::UnknownKey) | Refusal::Unavailable), "{refusal:?}");

    let settings = AuthenticationSettings {
        allow_anonymous: Some(true),
        ..change(settings, |used| {
            *used = provider(ISSUER, KeySource::Remote(server.keys_at("/none")));
        })
    };
    let policy = Asked(filter(&settings, &state).unwrap());
    let refusal = policy.bearer(&ONE.token(&claims())).await.err().unwrap();
    assert_eq!(refusal, Refusal::Unavailable);
    assert!(policy.methods().challenges.values(&refusal).is_empty());
}

/// A client's key and what it proves with it.
struct Client(Signer);

impl Client {
    /// `cnf` of a token for this client.
    fn confirmation(&self) -> Value {
        let [x, y] = ["x", "y"].map(|name| self.0.jwk[name].as_str().unwrap());
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        json!({"jkt": encode(&Sha256::digest(canonical))})
    }

    fn proof(&self, token: &str, id: &str, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = json!({
            "jti": id, "htm": "GET", "htu": "https://api.example/a", "iat": NOW,
            "ath": encode(&Sha256::digest(token))
        });
        change(&mut claims);
        let mut jwk = self.0.jwk.clone();
        jwk.as_object_mut().unwrap().remove("kid");
        self.0.sign(&json!({"alg": "ES256", "typ": "dpop+jwt", "jwk": jwk}), &claims)
    }
}

#[tokio::test]
async fn a_token_that_is_bound_to_a_key_needs_a_fresh_proof_each_time() {
    let policy = Asked::new(&settings());
    let (client, thief) = (Client(Signer::new("c")), Client(Signer::new("t")));
    let token = ONE.token(&with("cnf", client.confirmation()));
    let shown = format!("DPoP {token}");
    let with_proof = |proof: &str| [("authorization".to_owned(), shown.clone()), ("dpop".to_owned(), proof.to_owned())];
    let ask = async |proof: &str| {
        let fields = with_proof(proof);
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        policy.ask("/a?b", &fields).await.map(|seen| seen.subject)
    };
    let good = client.proof(&token, "1", |_| {});
    assert_eq!(ask(&good).await.unwrap().as_deref(), Some("alice"));
    assert_eq!(ask(&good).await.err(), Some(Refusal::Proof(ProofReason::Replayed)));
    assert!(ask(&client.proof(&token, "2", |_| {})).await.is_ok());
    for (proof, reason) in [
        (client.proof(&token, "3", |claims| claims["htu"] = json!("https://evil.example/a")), ProofReason::WrongTarget),
        (client.proof(&token, "3", |claims| claims["htm"] = json!("POST")), ProofReason::WrongMethod),
        (client.proof(&token, "3", |claims| claims["iat"] = json!(NOW - 60)), ProofReason::Stale),
        (client.proof("other", "3", |_| {}), ProofReason::WrongToken),
    ] {
        assert_eq!(ask(&proof).await.err(), Some(Refusal::Proof(reason)));
    }
    let thiefs = thief.proof(&token, "4", |_| {});
    assert_eq!(ask(&thiefs).await.err(), Some(Refusal::NotPossessed(Scheme::Dpop, BindingReason::WrongKey)));
    assert_eq!(policy.refusal(&[("authorization", &shown)]).await, Refusal::Proof(ProofReason::Missing));
    let as_bearer = format!("Bearer {token}");
    let fields = [("authorization", as_bearer.as_str()), ("dpop", good.as_str())];
    let required = Refusal::NotPossessed(Scheme::Bearer, BindingReason::ProofRequired);
    assert_eq!(policy.refusal(&fields).await, required);
    let unbound = ONE.token(&claims());
    let fields = [("authorization", &*format!("DPoP {unbound}")), ("dpop", &*client.proof(&unbound, "5", |_| {}))];
    assert_eq!(policy.refusal(&fields).await, Refusal::NotPossessed(Scheme::Dpop, BindingReason::NotBound));

    let proofs = Some(ProofSettings { required: true, ..ProofSettings::DEFAULT });
    let strict = Asked::new(&AuthenticationSettings { proofs, ..settings() });
    assert_eq!(strict.bearer(&unbound).await.err(), Some(required));
    let [challenge] = strict.methods().challenges.values(&Refusal::Missing).try_into().unwrap();
    assert!(challenge.to_str().unwrap().starts_with("DPoP algs="), "{challenge:?}");
}

#[tokio::test]
async fn a_token_that_is_bound_to_a_certificate_is_of_no_use_without_it() {
    let policy = Asked::new(&settings());
    let token = ONE.token(&with("cnf", json!({"x5t#S256": encode(&[1; 32])})));
    let required = Refusal::NotPossessed(Scheme::Bearer, BindingReason::CertificateRequired);
    assert_eq!(policy.bearer(&token).await.err(), Some(required));
}

#[test]
fn a_policy_that_cannot_be_honoured_says_where() {
    let new = |settings: &AuthenticationSettings| filter(settings, &state()).unwrap_err().message;
    let broken = change(settings(), |used| *used = provider(ISSUER, KeySource::Inline("{}".into())));
    assert_eq!(new(&broken), "providers.staff: the text is not a JWK set");
    let claim = change(settings(), |used| used.claims_to_headers[0].claim = "a..b".into());
    assert_eq!(new(&claim), r#"providers.staff: claim "a..b": a name in a path is empty"#);
    let realm = AuthenticationSettings { realm: Some("a\nb".into()), ..settings() };
    assert!(new(&realm).starts_with("realm: "));
    let host = AuthenticationSettings { strip_headers: vec![header::HOST], ..settings() };
    assert_eq!(new(&host), "header host cannot be changed by a filter");
}

fn api_keys(source: TokenSource, keys: &[(&str, &str)]) -> ApiKeys {
    let key = |(client, key): &(&str, &str)| ApiKey { client: (*client).into(), digest: Sha256::digest(key).into() };
    ApiKeys {
        source,
        forward_key: false,
        client_header: Some(HeaderName::from_static("x-client")),
        keys: keys.iter().map(key).collect(),
    }
}

#[tokio::test]
async fn an_api_key_is_known_by_its_digest_and_stays_here() {
    let field = TokenSource::Header(HeaderName::from_static("x-api-key"));
    let mut settings = settings();
    settings.api_keys.insert("partners".into(), api_keys(field, &[("acme", "key-of-acme"), ("umbra", "key-of-umbra")]));
    let policy = Asked::new(&settings);
    let seen = policy.ask("/", &[("x-api-key", "key-of-umbra"), ("x-client", "acme")]).await.unwrap();
    assert_eq!((seen.subject.as_deref(), seen.header("x-client")), (Some("umbra"), Some("umbra")));
    assert_eq!(seen.header("x-api-key"), None);
    for wrong in ["key-of-umbrA", "key-of-umbra2", "x"] {
        assert_eq!(policy.refusal(&[("x-api-key", wrong)]).await, Refusal::UnknownKey);
    }
    let twice = [("x-api-key", "key-of-acme"), ("x-api-key", "key-of-umbra")];
    assert_eq!(policy.refusal(&twice).await, Refusal::Unreadable(CredentialsError::Several));
    // The token decides, and the key does not reach the backend.
    let token = format!("Bearer {}", ONE.token(&claims()));
    let seen = policy.ask("/", &[("authorization", &token), ("x-api-key", "key-of-acme")]).await.unwrap();
    assert_eq!(
        (seen.subject.as_deref(), seen.header("x-api-key"), seen.header("x-client")),
        (Some("alice"), None, None)
    );
    assert_eq!(
        policy.refusal(&[("authorization", "Bearer a.b.c"), ("x-api-key", "key-of-acme")]).await,
        refused(Reason::Malformed)
    );

    settings.api_keys.insert("others".into(), api_keys(TokenSource::Authorization, &[]));
    let error = |settings: &AuthenticationSettings| filter(settings, &state()).unwrap_err().message;
    assert_eq!(error(&settings), "apiKeys.others: keys are not taken from Authorization");
    let shared = settings.api_keys["partners"].clone();
    settings.api_keys.insert("others".into(), shared);
    assert!(error(&settings).starts_with("apiKeys.partners: another list"));
}

#[tokio::test]
async fn a_user_with_a_password_is_taken_beside_tokens_and_the_password_stays_here() {
    let hash = bcrypt::hash_with_salt("pass", 4, [7; 16]).unwrap().to_string();
    let basic = Basic {
        users: [("bob".into(), hash.parse().unwrap())].into(),
        forward_password: false,
        user_header: Some(HeaderName::from_static("x-user")),
    };
    let policy = Asked::new(&AuthenticationSettings { basic: Some(basic.clone()), ..settings() });
    let right = format!("Basic {}", STANDARD.encode("bob:pass"));
    let seen = policy.ask("/", &[("authorization", &right), ("x-user", "root")]).await.unwrap();
    assert_eq!((seen.subject.as_deref(), seen.header("x-user")), (Some("bob"), Some("bob")));
    assert_eq!(seen.header("authorization"), None);
    assert!(policy.bearer(&ONE.token(&claims())).await.is_ok());
    let wrong = format!("Basic {}", STANDARD.encode("bob:Pass"));
    assert_eq!(policy.refusal(&[("authorization", &wrong)]).await, Refusal::WrongPassword);
    assert_eq!(
        policy.refusal(&[("authorization", &right), ("authorization", &right)]).await,
        Refusal::Unreadable(CredentialsError::Several)
    );
    let challenges = policy.methods().challenges.values(&Refusal::Missing);
    assert_eq!(challenges, ["Bearer", r#"Basic realm="gateway", charset="UTF-8""#]);

    let alone = AuthenticationSettings {
        basic: Some(basic),
        realm: Some(r#"a "b""#.into()),
        ..AuthenticationSettings::default()
    };
    let alone = Asked::new(&alone);
    assert_eq!(alone.ask("/", &[("authorization", &right)]).await.unwrap().subject.as_deref(), Some("bob"));
    assert_eq!(alone.ask("/", &[("authorization", "Bearer a.b.c")]).await.unwrap().subject, None);
    let challenges = alone.methods().challenges.values(&Refusal::WrongPassword);
    assert_eq!(challenges, [r#"Basic realm="a \"b\"", charset="UTF-8""#]);
}

#[tokio::test]
async fn a_refusal_tells_the_client_what_to_do_and_the_log_which_policy_it_was() {
    let settings = AuthenticationSettings { realm: Some("shop".into()), ..settings() };
    let policy = Asked::new(&change(settings, |used| used.required_scopes = vec!["admin".into()]));
    let token = format!("Bearer {}", ONE.token(&claims()));
    let expired = format!("Bearer {}", ONE.token(&with("exp", json!(NOW - 60))));
    for (sent, status, challenge, detail) in [
        (vec![], 401, r#"Bearer realm="shop""#, "The request has no credentials."),
        (
            vec![("authorization", expired.as_str())],
            401,
            r#"Bearer realm="shop", error="invalid_token", error_description="the token has expired""#,
            "The token has expired.",
        ),
        (
            vec![("authorization", "Bearer a b")],
            400,
            r#"Bearer realm="shop", error="invalid_request", error_description="the credentials are malformed""#,
            "The credentials are malformed.",
        ),
        (
            vec![("authorization", token.as_str())],
            403,
            r#"Bearer realm="shop", error="insufficient_scope", scope="admin""#,
            "The token lacks a scope that is needed here.",
        ),
    ] {
        let (verdict, _, notes) = policy.run(&sent).await;
        let Verdict::Reply(reply) = verdict else { panic!("{verdict:?}") };
        let context =
            ReplyContext::new(&Method::GET, Version::HTTP_11, &HeaderMap::new(), HeaderValue::from_static("1"));
        let response = reply.render(&context);
        assert_eq!(
            (response.status().as_u16(), &response.headers()[header::WWW_AUTHENTICATE]),
            (status, &HeaderValue::from_static(challenge))
        );
        let body: Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["detail"], detail);
        let [decision] = notes.decisions() else { panic!("{notes:?}") };
        assert_eq!((decision.policy.to_string().as_str(), decision.reported), ("authentication/shop/p", false));
    }
}

#[tokio::test]
async fn in_report_mode_a_request_passes_without_identity_and_without_what_is_protected() {
    let policy = Asked::new(&AuthenticationSettings { mode: Some(Mode::Report), ..settings() });
    let (verdict, headers, notes) = policy.run(&[("authorization", "Bearer a.b.c"), ("x-user", "root")]).await;
    assert!(matches!(verdict, Verdict::Continue) && notes.identity().is_none());
    assert_eq!((headers.get("x-user"), &headers["authorization"]), (None, &HeaderValue::from_static("Bearer a.b.c")));
    assert!(notes.decisions()[0].reported);
    let token = format!("Bearer {}", ONE.token(&claims()));
    let (verdict, headers, notes) = policy.run(&[("authorization", &token), ("x-user", "root")]).await;
    assert!(matches!(verdict, Verdict::Continue) && notes.decisions().is_empty());
    let identity = notes.identity().unwrap();
    assert_eq!((&*identity.issuer, &*identity.subject, &identity.claims["aud"]), (ISSUER, "alice", &json!("api")));
    assert_eq!(headers["x-user"], "alice");
}

#[tokio::test]
async fn a_policy_that_is_switched_off_still_protects_what_backends_trust() {
    let policy = Asked::new(&AuthenticationSettings { disabled: Some(true), ..settings() });
    let (verdict, headers, notes) = policy.run(&[("authorization", "Bearer x"), ("x_user", "root")]).await;
    assert!(matches!(verdict, Verdict::Continue) && notes.identity().is_none());
    assert_eq!((headers.get("x_user"), headers.get("authorization").is_some()), (None, true));
}

#[tokio::test]
async fn a_token_in_the_query_does_not_reach_the_backend_of_any_attempt() {
    let policy = Asked::new(&change(settings(), |used| used.source = TokenSource::Query("t".into())));
    let received = received("/a?t=x&b");
    let mut parts = http::Request::builder().uri("/rewritten?t=x&b").body(()).unwrap().into_parts().0;
    policy.0.on_attempt(&mut AttemptHead::new(&received, &mut parts));
    assert_eq!(parts.uri, "/rewritten?b");
}
