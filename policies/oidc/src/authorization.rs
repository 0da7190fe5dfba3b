//! The authorisation request: what is asked of the provider (OpenID Connect Core 1.0 section 3.1.2.1) with PKCE S256
//! (RFC 7636), resource indicators (RFC 8707), and a nonce and a state of 256 random bits each.

use std::sync::Arc;

use crate::{
    Random, Secret, UnixTime, base64url,
    form::{form_encode, with_parameters},
    request::ReturnPath,
    token,
    transaction::Transaction,
};

/// Who the gateway is at the provider, and what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// `iss` of the provider.
    pub issuer: Arc<str>,
    /// As it is registered.
    pub client_id: Arc<str>,
    /// `openid` is among them.
    pub scopes: Vec<Arc<str>>,
    /// Absolute URIs of what the access token is for (RFC 8707).
    pub resources: Vec<Arc<str>>,
    /// More parameters, as `prompt` or `acr_values`. None of those that the flow itself sets.
    pub parameters: Vec<(Arc<str>, Arc<str>)>,
}

impl Client {
    /// Parameters that belong to the flow, and that nobody else may set.
    pub const RESERVED_PARAMETERS: &[&str] = &[
        "client_id",
        "client_secret",
        "code_challenge",
        "code_challenge_method",
        "nonce",
        "redirect_uri",
        "request",
        "request_uri",
        "resource",
        "response_mode",
        "response_type",
        "scope",
        "state",
    ];
}

/// A path that the gateway itself answers, below the same host: `/oauth2/callback`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RelativePath(Arc<str>);

impl RelativePath {
    /// `text`, if it is a path without query and of at most 256 characters that need no encoding.
    pub fn new(text: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
        let is_canonical = !text.contains("//") && text.split('/').all(|segment| segment != "." && segment != "..");
        let is_path = text.len() > 1 && text.len() <= 256 && text.starts_with('/') && text.bytes().all(is_plain);
        (is_path && is_canonical).then(|| Self(text.into()))
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A login that begins.
#[derive(Debug)]
pub struct Login {
    /// Where the browser is sent.
    pub url: String,
    /// What the callback is checked against.
    pub transaction: Transaction,
}

impl Login {
    /// Sends a person to `endpoint`, who comes back to `redirect_uri` and then to `return_to`.
    pub fn begin(
        client: &Client,
        endpoint: &str,
        redirect_uri: &str,
        return_to: ReturnPath,
        now: UnixTime,
        random: Random<'_>,
    ) -> Self {
        let transaction = Transaction {
            state: Secret::from(token(random)),
            nonce: Secret::from(token(random)),
            verifier: Secret::from(token(random)),
            issuer: client.issuer.clone(),
            redirect_uri: redirect_uri.into(),
            return_to,
            begun: now,
        };
        let scope = client.scopes.join(" ");
        let challenge = challenge(transaction.verifier.expose());
        let mut parameters = vec![
            ("response_type", "code"),
            ("client_id", &*client.client_id),
            ("redirect_uri", redirect_uri),
            ("scope", &*scope),
            ("state", transaction.state.expose()),
            ("nonce", transaction.nonce.expose()),
            ("code_challenge", &*challenge),
            ("code_challenge_method", "S256"),
        ];
        parameters.extend(client.resources.iter().map(|resource| ("resource", &**resource)));
        parameters.extend(client.parameters.iter().map(|(name, value)| (&**name, &**value)));
        let url = with_parameters(endpoint, &form_encode(parameters));
        Self { url, transaction }
    }
}

/// RFC 7636 section 4.2.
fn challenge(verifier: &str) -> String {
    base64url(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_the_one_of_the_rfc() {
        // RFC 7636 appendix B.
        assert_eq!(
            challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        );
    }

    #[test]
    fn only_plain_paths_are_the_gateways() {
        for path in ["/oauth2/callback", "/a", "/a/"] {
            assert_eq!(RelativePath::new(path).unwrap().as_str(), path);
        }
        for path in ["", "/", "a", "//a", "/a//b", "/a/../b", "/.", "/a?b", "/a#b", "/a%2fb", "/a b", "/a\\b"] {
            assert_eq!(RelativePath::new(path), None, "{path}");
        }
    }
}
