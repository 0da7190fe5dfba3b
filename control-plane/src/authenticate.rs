//! Who a proxy is, by its projected ServiceAccount token: TokenReview, then the ServiceAccount's Gateway.
//!
//! Invariant: a token counts only when the API server confirms it for our own audience, and names a ServiceAccount
//! that the provisioner made for a Gateway. Tokens are never logged or kept: the cache holds their SHA-256.
//!
//! Anyone who can reach the discovery port can send any token, and each question to the API server costs it a signature
//! check. So a token is first read as what it claims (a JWT, as every projected token is) and refused without a question
//! where even that would not do; and questions have a rate. A claim alone never lets anybody in.

use std::{collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use control_plane_model::{GatewayKey, ObjectName};
use control_plane_wire::server::{AuthenticationError, Authenticator, ProxyIdentity};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kit_process::clock::Clock;
use kube::{Api, Client, api::PostParams};
use parking_lot::Mutex;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::{sync::Semaphore, time::Instant};

use crate::{kubernetes::describe, pace::Pace};

/// The audience that a token must be made for.
pub const AUDIENCE: &str = "nebula-control-plane";
/// How long a confirmed token counts without being asked about again.
const CACHE_LIFETIME: Duration = Duration::from_secs(30);
/// Most tokens that are remembered; past it the cache starts anew.
const CACHE_SIZE: usize = 4096;
/// TokenReviews under way at the same time; more wait, within the time that a review may take.
const REVIEWS: usize = 16;
/// TokenReviews a second in the long run.
const RATE: u32 = 100;
/// TokenReviews at once after a quiet time: the proxies of a replica that ended come all together.
const BURST: u32 = 500;
/// How far our clock may be ahead of the API server's, which decides in the end.
const CLOCK_SKEW: Duration = Duration::from_mins(1);
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";

/// The Gateways by the ServiceAccount that the provisioner made for each; none until every watch has been read. Readers
/// see one whole version.
pub type ServiceAccounts = Arc<ArcSwapOption<HashMap<ObjectName, GatewayKey>>>;

/// A confirmed caller.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Caller {
    service_account: ObjectName,
    pod: String,
}

/// What a token says of itself, unverified (RFC 7519).
#[derive(Debug, Deserialize)]
struct Claims {
    #[serde(rename = "aud")]
    audiences: Audiences,
    #[serde(rename = "sub")]
    subject: String,
    #[serde(rename = "exp")]
    expires_at: u64,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

impl Audiences {
    fn hold(&self, wanted: &str) -> bool {
        match self {
            Self::One(audience) => audience == wanted,
            Self::Many(audiences) => audiences.iter().any(|audience| audience == wanted),
        }
    }
}

/// Asks the API server about tokens.
pub struct TokenAuthenticator {
    reviews: Api<TokenReview>,
    service_accounts: ServiceAccounts,
    confirmed: Mutex<HashMap<[u8; 32], (Caller, Instant)>>,
    /// Questions to the API server at once.
    turns: Semaphore,
    /// Questions to the API server a second.
    pace: Pace,
    clock: Arc<dyn Clock>,
}

impl TokenAuthenticator {
    /// Knows the Gateways of `service_accounts`, as they are when a proxy connects.
    pub fn new(client: Client, service_accounts: ServiceAccounts, clock: Arc<dyn Clock>) -> Self {
        Self {
            reviews: Api::all(client),
            service_accounts,
            confirmed: Mutex::default(),
            turns: Semaphore::new(REVIEWS),
            pace: Pace::new(RATE, BURST),
            clock,
        }
    }

    fn remembered(&self, digest: &[u8; 32]) -> Option<Caller> {
        let now = Instant::now();
        self.confirmed.lock().get(digest).filter(|(_, until)| now < *until).map(|(caller, _)| caller.clone())
    }

    fn remember(&self, digest: [u8; 32], caller: Caller) {
        let now = Instant::now();
        let mut confirmed = self.confirmed.lock();
        if confirmed.len() >= CACHE_SIZE {
            confirmed.retain(|_, (_, until)| now < *until);
        }
        if confirmed.len() >= CACHE_SIZE {
            confirmed.clear();
        }
        confirmed.insert(digest, (caller, now + CACHE_LIFETIME));
    }

    /// The Gateway whose proxies run as this ServiceAccount, as of now.
    fn gateway(&self, service_account: &ObjectName) -> Result<GatewayKey, AuthenticationError> {
        let known = self.service_accounts.load();
        let unknown = || AuthenticationError::Unavailable("not every watch has been read yet".to_owned());
        let accounts = known.as_ref().ok_or_else(unknown)?;
        accounts.get(service_account).cloned().ok_or_else(|| {
            AuthenticationError::Invalid(format!("ServiceAccount {service_account} belongs to no Gateway"))
        })
    }

    async fn review(&self, token: &str) -> Result<Caller, AuthenticationError> {
        if !self.pace.try_now() {
            return Err(AuthenticationError::Unavailable("too many tokens are being asked about".to_owned()));
        }
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![AUDIENCE.to_owned()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let params = PostParams::default();
        let asked = async {
            // An error means that the semaphore is closed, which nothing does.
            let _turn = self.turns.acquire().await;
            self.reviews.create(&params, &review).await
        };
        let answer = match tokio::time::timeout(REVIEW_TIMEOUT, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(AuthenticationError::Unavailable(describe(&error))),
            Err(_) => return Err(AuthenticationError::Unavailable("the API server does not answer".to_owned())),
        };
        caller(&answer.status.unwrap_or_default()).map_err(|why| AuthenticationError::Invalid(why.to_owned()))
    }
}

/// Reads the API server's verdict.
fn caller(status: &TokenReviewStatus) -> Result<Caller, &'static str> {
    if status.authenticated != Some(true) {
        return Err("the API server does not confirm the token");
    }
    if !status.audiences.iter().flatten().any(|audience| audience == AUDIENCE) {
        return Err("the token is for another audience");
    }
    let user = status.user.as_ref().ok_or("the token names no user")?;
    let service_account = service_account(user.username.as_deref().unwrap_or_default())?;
    let pods = user.extra.as_ref().and_then(|extra| extra.get(POD_NAME));
    let pod = pods.and_then(|pods| pods.first()).ok_or("the token is not bound to a pod")?;
    Ok(Caller { service_account, pod: pod.clone() })
}

/// Whose token it claims to be, if what it claims would do at `now`, in seconds since 1970.
fn claimed(token: &str, now: u64) -> Result<ObjectName, &'static str> {
    let payload = token.split('.').nth(1).ok_or("the token is no JWT")?;
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| "the token is no JWT")?;
    let claims: Claims = serde_json::from_slice(&payload).map_err(|_| "the token lacks a claim that is needed")?;
    if !claims.audiences.hold(AUDIENCE) {
        return Err("the token is for another audience");
    }
    if claims.expires_at.saturating_add(CLOCK_SKEW.as_secs()) < now {
        return Err("the token has expired");
    }
    service_account(&claims.subject)
}

/// The ServiceAccount of a user name as Kubernetes makes it.
fn service_account(user: &str) -> Result<ObjectName, &'static str> {
    let parts = user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let (namespace, name) = parts.ok_or("the token is not a ServiceAccount's")?;
    Ok(ObjectName::new(namespace, name))
}

impl Authenticator for TokenAuthenticator {
    async fn authenticate(&self, token: &str) -> Result<ProxyIdentity, AuthenticationError> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let caller = if let Some(caller) = self.remembered(&digest) {
            caller
        } else {
            let claimed = claimed(token, self.clock.unix_seconds());
            self.gateway(&claimed.map_err(|why| AuthenticationError::Invalid(why.to_owned()))?)?;
            let caller = self.review(token).await?;
            self.remember(digest, caller.clone());
            caller
        };
        let gateway = self.gateway(&caller.service_account)?;
        Ok(ProxyIdentity { gateway, pod: caller.pod })
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;

    fn confirmed(username: &str, audience: &str, pod: Option<&str>) -> TokenReviewStatus {
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec![audience.to_owned()]),
            user: Some(UserInfo {
                username: Some(username.to_owned()),
                extra: pod.map(|pod| [(POD_NAME.to_owned(), vec![pod.to_owned()])].into()),
                ..UserInfo::default()
            }),
            error: None,
        }
    }

    #[test]
    fn a_pods_own_token_for_our_audience_names_its_service_account() {
        let status = confirmed("system:serviceaccount:infra:edge-nebula", AUDIENCE, Some("edge-0"));
        let want = Caller { service_account: ObjectName::new("infra", "edge-nebula"), pod: "edge-0".to_owned() };
        assert_eq!(caller(&status), Ok(want));
    }

    #[test]
    fn anything_less_is_refused() {
        let user = "system:serviceaccount:infra:edge-nebula";
        for (status, why) in [
            (TokenReviewStatus::default(), "the API server does not confirm the token"),
            (confirmed(user, "https://kubernetes.default.svc", Some("p")), "the token is for another audience"),
            (confirmed("alice", AUDIENCE, Some("p")), "the token is not a ServiceAccount's"),
            (confirmed("system:serviceaccount:infra", AUDIENCE, Some("p")), "the token is not a ServiceAccount's"),
            (confirmed(user, AUDIENCE, None), "the token is not bound to a pod"),
        ] {
            assert_eq!(caller(&status), Err(why));
        }
        let unconfirmed = TokenReviewStatus { authenticated: Some(false), ..confirmed(user, AUDIENCE, Some("p")) };
        assert_eq!(caller(&unconfirmed), Err("the API server does not confirm the token"));
    }
}
