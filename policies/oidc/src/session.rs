//! A session: who a browser's person is, for how long, and the tokens that go with it. The same wherever it is kept.
//!
//! Invariants: a session never outlives its absolute limit, whatever is renewed; a renewal keeps person and issuer. Where
//! there is nothing to renew with, it ends with its access token.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Random, RefreshKey, Secret, UnixTime, token::TokenSet};

/// A person that has logged in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Random; the same for the whole session, so that renewals of it find each other.
    id: [u8; 16],
    /// How often it was renewed.
    generation: u32,
    /// `iss`.
    pub issuer: Arc<str>,
    /// `sub`.
    pub subject: Arc<str>,
    /// `sid`: the provider's own session.
    pub sid: Option<Arc<str>>,
    /// Claims of the ID token.
    pub claims: Map<String, Value>,
    /// For backends.
    pub access_token: Secret,
    access_ends: Option<UnixTime>,
    /// What renews it.
    pub refresh_token: Option<Secret>,
    /// What a logout shows as a hint.
    pub id_token: Option<Secret>,
    started: UnixTime,
    used: UnixTime,
}

/// For how long sessions live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// From the login on, whatever happens.
    pub absolute: Duration,
    /// Without a request.
    pub idle: Duration,
    /// So long before an access token ends it is renewed, while it still counts.
    pub renew_ahead: Duration,
}

/// What a session is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// As it is.
    Good,
    /// It is to be renewed; until then, or if that fails, it still counts.
    Renewable,
    /// It is to be renewed before it counts.
    Stale,
    /// Nothing: the person logs in again.
    Ended(Ended),
}

/// Why a session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// So long after the login.
    Absolute,
    /// Nobody used it.
    Idle,
    /// The access token has ended and nothing renews it.
    Tokens,
}

/// Why tokens do not renew a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the renewed tokens name another session of the provider")]
pub struct RenewalError;

impl Session {
    /// Of a login with `tokens`, whose ID token says `claims` and was checked. `None` where they name no issuer or subject.
    pub fn begin(tokens: TokenSet, claims: Map<String, Value>, now: UnixTime, random: Random<'_>) -> Option<Self> {
        let mut id = [0; 16];
        random(&mut id);
        let text = |name: &str| claims.get(name).and_then(Value::as_str).map(Arc::<str>::from);
        Some(Self {
            id,
            generation: 0,
            issuer: text("iss")?,
            subject: text("sub")?,
            sid: text("sid"),
            access_ends: tokens.expires_in.map(|time| now.plus(time)),
            access_token: tokens.access_token,
            refresh_token: tokens.refresh_token,
            id_token: tokens.id_token,
            claims,
            started: now,
            used: now,
        })
    }

    /// What it is good for now.
    pub fn standing(&self, lifetimes: Lifetimes, now: UnixTime) -> Standing {
        if now >= self.started.plus(lifetimes.absolute) {
            return Standing::Ended(Ended::Absolute);
        }
        if now >= self.used.plus(lifetimes.idle) {
            return Standing::Ended(Ended::Idle);
        }
        let Some(ends) = self.access_ends else { return Standing::Good };
        match (&self.refresh_token, now >= ends) {
            (None, true) => Standing::Ended(Ended::Tokens),
            (Some(_), true) => Standing::Stale,
            (Some(_), false) if now.plus(lifetimes.renew_ahead) >= ends => Standing::Renewable,
            _ => Standing::Good,
        }
    }

    /// How long it may still live, if nobody uses it.
    pub fn left(&self, lifetimes: Lifetimes, now: UnixTime) -> Duration {
        let ends = self.started.plus(lifetimes.absolute).min(self.used.plus(lifetimes.idle));
        let ends = match self.access_ends {
            Some(access) if self.refresh_token.is_none() => ends.min(access),
            _ => ends,
        };
        Duration::from_secs(ends.0.saturating_sub(now.0))
    }

    /// Notes that it is used. Whether that is worth keeping: once in a tenth of the idle time, so that an answer seldom sets cookies.
    pub fn touch(&mut self, lifetimes: Lifetimes, now: UnixTime) -> bool {
        let is_worth = now >= self.used.plus(lifetimes.idle / 10);
        if is_worth {
            self.used = now;
        }
        is_worth
    }

    /// With renewed tokens, and claims of a renewed ID token, which was checked to be of the same person.
    ///
    /// # Errors: [`RenewalError`].
    pub fn renewed(
        &self,
        tokens: TokenSet,
        claims: Option<Map<String, Value>>,
        now: UnixTime,
    ) -> Result<Self, RenewalError> {
        let sid = claims.as_ref().and_then(|claims| claims.get("sid")).and_then(Value::as_str);
        if sid.is_some_and(|sid| self.sid.as_deref().is_some_and(|own| own != sid)) {
            return Err(RenewalError);
        }
        let mut next = self.clone();
        next.generation = self.generation.wrapping_add(1);
        if let Some(claims) = claims {
            // What it does not repeat, as the nonce, goes on.
            next.claims.extend(claims);
            next.id_token = tokens.id_token;
        }
        next.access_ends = tokens.expires_in.map(|time| now.plus(time));
        next.access_token = tokens.access_token;
        next.refresh_token = tokens.refresh_token.or(next.refresh_token);
        next.used = now;
        Ok(next)
    }

    /// What a renewal of it is known by. The renewed one has another.
    pub fn refresh_key(&self) -> RefreshKey {
        RefreshKey { session: self.id, generation: self.generation }
    }

    /// Whether it was renewed more often than `other`, which is of the same login.
    pub(crate) fn is_newer(&self, other: &Self) -> bool {
        self.id == other.id && self.generation > other.generation
    }

    /// As bytes, to be sealed.
    pub fn to_bytes(&self) -> Vec<u8> {
        // A map with text for keys, and numbers: it has a form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// From bytes that were sealed.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) const LIFETIMES: Lifetimes = Lifetimes {
        absolute: Duration::from_hours(8),
        idle: Duration::from_hours(1),
        renew_ahead: Duration::from_secs(30),
    };

    pub(crate) fn tokens(refresh: Option<&str>, seconds: Option<u64>) -> TokenSet {
        TokenSet {
            access_token: Secret::from("access"),
            expires_in: seconds.map(Duration::from_secs),
            refresh_token: refresh.map(Secret::from),
            id_token: None,
        }
    }

    pub(crate) fn session(subject: &str, sid: &str, tokens: TokenSet) -> Session {
        let Value::Object(claims) = json!({"iss": "https://idp", "sub": subject, "sid": sid, "nonce": "n"}) else {
            unreachable!()
        };
        Session::begin(tokens, claims, UnixTime(0), &mut |bytes| bytes.fill(1)).unwrap()
    }

    #[test]
    fn a_session_ends_idle_absolutely_or_with_its_tokens() {
        let with_refresh = session("ada", "1", tokens(Some("r"), Some(300)));
        let at = |seconds| with_refresh.standing(LIFETIMES, UnixTime(seconds));
        assert_eq!(at(269), Standing::Good);
        assert_eq!(at(270), Standing::Renewable);
        assert_eq!(at(300), Standing::Stale);
        assert_eq!(at(3600), Standing::Ended(Ended::Idle));
        assert_eq!(at(8 * 3600), Standing::Ended(Ended::Absolute));
        let without = session("ada", "1", tokens(None, Some(300)));
        assert_eq!(without.standing(LIFETIMES, UnixTime(299)), Standing::Good);
        assert_eq!(without.standing(LIFETIMES, UnixTime(300)), Standing::Ended(Ended::Tokens));
        assert_eq!(without.left(LIFETIMES, UnixTime(100)), Duration::from_secs(200));
        assert_eq!(session("ada", "1", tokens(None, None)).standing(LIFETIMES, UnixTime(3599)), Standing::Good);
    }

    #[test]
    fn renewals_do_not_lengthen_the_absolute_limit() {
        let mut current = session("ada", "1", tokens(Some("r"), Some(300)));
        let mut now = UnixTime(0);
        while current.standing(LIFETIMES, now) != Standing::Ended(Ended::Absolute) {
            assert!(now.0 < 8 * 3600);
            current = current.renewed(tokens(None, Some(300)), None, now).unwrap();
            now = now.plus(Duration::from_mins(4));
        }
        assert_eq!(now.0, 8 * 3600);
        assert_eq!(current.refresh_token, Some(Secret::from("r")), "one that is not replaced goes on");
    }

    #[test]
    fn a_clock_that_goes_back_ends_nothing() {
        let mut session = session("ada", "1", tokens(Some("r"), Some(300)));
        assert!(session.touch(LIFETIMES, UnixTime(1000)));
        assert_eq!(session.standing(LIFETIMES, UnixTime(10)), Standing::Good);
        assert!(!session.touch(LIFETIMES, UnixTime(10)));
    }

    #[test]
    fn a_renewal_of_another_session_is_refused() {
        let first = session("ada", "1", tokens(Some("r"), Some(300)));
        let Value::Object(claims) = json!({"sid": "2"}) else { unreachable!() };
        assert_eq!(first.renewed(tokens(None, None), Some(claims), UnixTime(1)).unwrap_err(), RenewalError);
        let next = first.renewed(tokens(Some("s"), None), None, UnixTime(1)).unwrap();
        assert_ne!(first.refresh_key(), next.refresh_key());
        assert_eq!(Session::from_bytes(&next.to_bytes()), Some(next));
    }
}
