//! A provider's description of itself (OpenID Connect Discovery 1.0 section 3, RFC 8414), as far as a login needs it.
//!
//! Invariant: every endpoint is an HTTPS URL without user, password and fragment.

use http::Uri;
use serde::Deserialize;

use crate::token::ClientAuthentication;

/// What a provider says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderMetadata {
    /// `issuer`.
    pub issuer: Box<str>,
    /// Where people log in.
    pub authorization_endpoint: Box<str>,
    /// Where codes are redeemed.
    pub token_endpoint: Box<str>,
    /// Where people log out (OpenID Connect RP-Initiated Logout 1.0).
    pub end_session_endpoint: Option<Box<str>>,
    /// Where tokens are revoked (RFC 7009).
    pub revocation_endpoint: Option<Box<str>>,
    /// Whether every answer at a callback has `iss` (RFC 9207).
    pub names_issuer_in_answers: bool,
    /// `token_endpoint_auth_methods_supported`.
    authentications: Option<Vec<String>>,
}

/// Why metadata are not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Not JSON, or a member of another type.
    #[error("the metadata are not what OpenID Connect Discovery describes")]
    Malformed,
    /// Of another issuer.
    #[error("the metadata are of another issuer")]
    OtherIssuer,
    /// An endpoint is missing or no HTTPS URL.
    #[error("{0} of the metadata is missing, or no HTTPS URL without user and fragment")]
    Endpoint(&'static str),
    /// PKCE with S256 is not among what it can.
    #[error("the provider does not support PKCE with S256")]
    NoPkce,
    /// The flow is not among what it can.
    #[error("the provider does not support the response type code")]
    NoCodeFlow,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
    end_session_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    response_types_supported: Option<Vec<String>>,
    code_challenge_methods_supported: Option<Vec<String>>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl ProviderMetadata {
    /// Reads the metadata of `issuer`. Endpoints of logout and revocation that are no HTTPS URLs are as if they were not there.
    ///
    /// # Errors: [`MetadataError`].
    pub fn parse(text: &[u8], issuer: &str) -> Result<Self, MetadataError> {
        let document: Document = serde_json::from_slice(text).map_err(|_| MetadataError::Malformed)?;
        if document.issuer != issuer {
            return Err(MetadataError::OtherIssuer);
        }
        let lacks = |list: &Option<Vec<String>>, name: &str| {
            list.as_ref().is_some_and(|list| !list.iter().any(|own| own == name))
        };
        if lacks(&document.response_types_supported, "code") {
            return Err(MetadataError::NoCodeFlow);
        }
        // Absent: of before PKCE was known to metadata; an unknown parameter is ignored then.
        if lacks(&document.code_challenge_methods_supported, "S256") {
            return Err(MetadataError::NoPkce);
        }
        let url = |text: Option<String>| text.filter(|text| is_endpoint(text)).map(String::into_boxed_str);
        let needed = |text, name| url(text).ok_or(MetadataError::Endpoint(name));
        Ok(Self {
            issuer: issuer.into(),
            authorization_endpoint: needed(document.authorization_endpoint, "authorization_endpoint")?,
            token_endpoint: needed(document.token_endpoint, "token_endpoint")?,
            end_session_endpoint: url(document.end_session_endpoint),
            revocation_endpoint: url(document.revocation_endpoint),
            names_issuer_in_answers: document.authorization_response_iss_parameter_supported,
            authentications: document.token_endpoint_auth_methods_supported,
        })
    }

    /// How a client with a secret shows it, where its settings do not say: as the provider can, Basic before the form
    /// (RFC 6749 section 2.3.1 wants Basic understood by all).
    pub fn secret_authentication(&self) -> ClientAuthentication {
        let can = |name: &str| self.authentications.as_ref().is_some_and(|list| list.iter().any(|own| own == name));
        if can("client_secret_post") && !can("client_secret_basic") {
            ClientAuthentication::Post
        } else {
            ClientAuthentication::Basic
        }
    }
}

fn is_endpoint(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let has_user = uri.authority().is_none_or(|authority| authority.as_str().contains('@'));
    uri.scheme_str() == Some("https") && !has_user && !text.contains('#') && text.len() <= 2048
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(change: impl FnOnce(&mut Value)) -> Result<ProviderMetadata, MetadataError> {
        let mut document = json!({
            "issuer": "https://idp", "authorization_endpoint": "https://idp/auth", "token_endpoint": "https://idp/token",
            "response_types_supported": ["code"], "code_challenge_methods_supported": ["S256"],
        });
        change(&mut document);
        ProviderMetadata::parse(document.to_string().as_bytes(), "https://idp")
    }

    #[test]
    fn metadata_are_taken_only_whole_and_of_the_issuer() {
        assert!(parse(|_| {}).is_ok());
        assert_eq!(parse(|document| document["issuer"] = json!("https://idp/")), Err(MetadataError::OtherIssuer));
        assert_eq!(parse(|document| document["issuer"] = json!(1)), Err(MetadataError::Malformed));
        let plain = ["plain"];
        assert_eq!(
            parse(|document| document["code_challenge_methods_supported"] = json!(plain)),
            Err(MetadataError::NoPkce)
        );
        assert_eq!(parse(|document| document["response_types_supported"] = json!([])), Err(MetadataError::NoCodeFlow));
        for url in ["http://idp/token", "https://u:p@idp/token", "https://idp/token#a", "/token", ""] {
            let refused = parse(|document| document["token_endpoint"] = json!(url));
            assert_eq!(refused, Err(MetadataError::Endpoint("token_endpoint")), "{url}");
        }
    }

    #[test]
    fn a_secret_is_shown_as_the_provider_can_take_it() {
        let shown = |methods: Value| {
            parse(|document| document["token_endpoint_auth_methods_supported"] = methods)
                .unwrap()
                .secret_authentication()
        };
        assert_eq!(shown(json!(["client_secret_post"])), ClientAuthentication::Post);
        assert_eq!(shown(json!(["client_secret_post", "client_secret_basic"])), ClientAuthentication::Basic);
        assert_eq!(shown(Value::Null), ClientAuthentication::Basic);
    }
}
