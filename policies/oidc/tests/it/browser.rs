//! A browser's cookies, and a provider and a policy to log in with.

use std::{collections::BTreeMap, sync::Arc};

use policy_oidc::{
    Client, CookieNames, KeyRing, Login, ProviderMetadata, ReturnPath, Transactions, Transport, UnixTime,
};

/// Keeps cookies by name as a browser does, without looking at anything else of them.
#[derive(Default)]
pub struct Browser {
    pub jar: BTreeMap<String, String>,
}

impl Browser {
    pub fn receive(&mut self, fields: &[String]) {
        for field in fields {
            let (name, value) = field.split(';').next().unwrap().split_once('=').unwrap();
            assert!(field.len() < 4096, "browsers take no longer cookie");
            if field.contains("Max-Age=0") {
                self.jar.remove(name);
            } else {
                self.jar.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    pub fn field(&self) -> String {
        self.jar.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }
}

/// Numbers that are random enough for a test, and different each time.
pub fn random() -> impl FnMut(&mut [u8]) {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    move |bytes| {
        for chunk in bytes.chunks_mut(8) {
            let mixed = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
            chunk.copy_from_slice(&mixed.to_le_bytes()[..chunk.len()]);
        }
    }
}

pub struct Gateway {
    pub ring: KeyRing,
    pub policy: &'static str,
    pub names: CookieNames,
    pub client: Client,
}

pub const ISSUER: &str = "https://idp.example";
pub const CALLBACK: &str = "https://shop.example/oauth2/callback";

impl Gateway {
    pub fn new(policy: &'static str, name: &str) -> Self {
        Self {
            ring: KeyRing::new(&[[3; 32]]).unwrap(),
            policy,
            names: CookieNames::new(name, Transport::Secure).unwrap(),
            client: Client {
                issuer: ISSUER.into(),
                client_id: "web".into(),
                scopes: vec!["openid".into(), "profile".into()],
                resources: vec!["https://api.example/".into()],
                parameters: vec![("prompt".into(), "login".into())],
            },
        }
    }

    pub fn transactions(&self) -> Transactions<'_> {
        Transactions { ring: &self.ring, policy: self.policy, names: &self.names }
    }

    /// Begins a login in `browser`; what the browser is sent to, as parameters.
    pub fn begin(&self, browser: &mut Browser, path: &str, now: UnixTime) -> BTreeMap<String, String> {
        let login = Login::begin(
            &self.client,
            "https://idp.example/auth?tenant=1",
            CALLBACK,
            ReturnPath::or_root(path),
            now,
            &mut random(),
        );
        let sent = browser.field();
        let fields = self.transactions().open_one(&login.transaction, [sent.as_bytes()], now, &mut random()).unwrap();
        browser.receive(&fields);
        let query = login.url.strip_prefix("https://idp.example/auth?").unwrap();
        policy_oidc::form_decode(query, 20).unwrap().into_iter().collect()
    }
}

pub fn metadata() -> ProviderMetadata {
    metadata_of(ISSUER, true)
}

pub fn metadata_of(issuer: &str, names_issuer: bool) -> ProviderMetadata {
    let text = serde_json::json!({
        "issuer": issuer, "authorization_endpoint": "https://idp.example/auth",
        "token_endpoint": "https://idp.example/token", "authorization_response_iss_parameter_supported": names_issuer,
    });
    ProviderMetadata::parse(text.to_string().as_bytes(), issuer).unwrap()
}

pub fn issuer() -> Arc<str> {
    ISSUER.into()
}
