//! Login with OpenID Connect at a gateway, as pure code: the authorisation code flow with PKCE, the cookies that carry
//! attempts and sessions, when a session is renewed or ends, and what a logout must show.
//!
//! Invariants: no IO, no clock and no source of randomness; keys, time and random bytes are arguments. Nothing that a client
//! sends is believed before it was opened with a key of the ring, and every input has a bound. Secrets have no `Debug` form.
//!
//! Not here: the signature of an ID token (`policy-jose`; its claims come in as values), and every request that is sent.

mod authorization;
mod callback;
mod cookie;
mod form;
mod id_token;
mod logout;
mod metadata;
mod once;
mod refresh;
mod request;
mod seal;
mod secret;
mod session;
mod store;
mod token;
mod transaction;

pub use authorization::{Client, Login, RelativePath};
pub use callback::{Callback, CallbackError, Code, MAX_CALLBACK_BYTES};
pub use cookie::{
    COOKIE_PREFIX, CookieNames, InvalidCookieName, MAX_CHUNKS, MAX_NAME_BYTES, SessionTooLarge, Stripped, Transport,
    cookies, without_gateway_cookies,
};
pub use form::{form_decode, form_encode};
pub use id_token::{Hash, IdTokenError, IdTokenRules, check_id_token, check_renewed_id_token};
pub use logout::{LogoutError, LogoutToken, check_logout_token, end_session_url, front_channel_logout};
pub use metadata::{MetadataError, ProviderMetadata};
pub use once::Once;
pub use refresh::{RefreshKey, Refreshes, Turn};
pub use request::{ReturnPath, is_navigation};
pub use seal::{Context, InvalidKeyRing, KeyRing, MAX_KEYS, NotSealed, Random, decode_key};
pub use secret::Secret;
pub use session::{Ended, Lifetimes, RenewalError, Session, Standing};
pub use store::{Handle, MAX_SESSIONS_PER_SUBJECT, SessionStore, StoreFull};
pub use token::{ClientAuthentication, MAX_TOKEN_ANSWER_BYTES, TokenError, TokenRequest, TokenSet};
pub use transaction::{MAX_TRANSACTIONS, TRANSACTION_LIFETIME, Transaction, Transactions};

/// Whole seconds since 1970-01-01T00:00:00Z, leap seconds left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// So much later.
    pub fn plus(self, time: std::time::Duration) -> Self {
        Self(self.0.saturating_add(time.as_secs()))
    }
}

fn base64url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// Strict: no padding, no second spelling.
fn from_base64url(text: &[u8]) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok()
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        // The length, so that no two lists of parts have one text.
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut digest = [0; 32];
    digest.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    digest
}

/// 256 random bits as base64url: 43 characters.
fn token(random: Random<'_>) -> String {
    let mut bytes = [0; 32];
    random(&mut bytes);
    base64url(&bytes)
}

/// Whether two texts are equal, in a time that depends on their lengths alone.
fn same(one: &str, other: &str) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
}
