//! The attempts to log in that a browser has open: one cookie for each, so that tabs do not disturb each other, and few, so
//! that they do not fill its requests.
//!
//! Invariants: an attempt is found by its `state`, counts for ten minutes, and is deleted by the answer to its callback. At most
//! [`MAX_TRANSACTIONS`] with [`MAX_BYTES`] are left by each redirect; what is older, spent or not ours is deleted with it.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    Random, Secret, UnixTime, base64url,
    cookie::{CookieNames, cookies},
    request::ReturnPath,
    same,
    seal::{Context, KeyRing},
    sha256,
};

/// For how long a login may take.
pub const TRANSACTION_LIFETIME: Duration = Duration::from_mins(10);
/// Most attempts that a browser has open: the newest ones.
pub const MAX_TRANSACTIONS: usize = 5;
/// Most bytes of all their cookies.
const MAX_BYTES: usize = 8 * 1024;
/// Most cookies that one answer deletes: what else there is goes with the next.
const MAX_DELETED: usize = 20;
/// Most cookies of a request that are opened to look for attempts.
const MAX_OPENED: usize = 64;

const PURPOSE: &str = "transaction";

/// What an attempt to log in is checked against when it comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// `state` of the request. 256 bits.
    #[serde(rename = "s")]
    pub state: Secret,
    /// `nonce` of the ID token.
    #[serde(rename = "n")]
    pub nonce: Secret,
    /// PKCE's verifier.
    #[serde(rename = "v")]
    pub verifier: Secret,
    /// The provider that it was begun with: an answer of another one is refused.
    #[serde(rename = "i")]
    pub issuer: Arc<str>,
    /// As it was in the request; the token request repeats it.
    #[serde(rename = "u")]
    pub redirect_uri: Box<str>,
    /// Where the person wanted to go.
    #[serde(rename = "r")]
    pub return_to: ReturnPath,
    /// When.
    #[serde(rename = "t")]
    pub begun: UnixTime,
}

impl Transaction {
    /// What the cookie of an attempt is called, from its `state`, and what a callback that came before is known by.
    pub fn id(state: &str) -> String {
        let [digest @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] =
            sha256(&[b"nebula state", state.as_bytes()]);
        base64url(&digest)
    }

    fn is_spent(&self, now: UnixTime) -> bool {
        now >= self.begun.plus(TRANSACTION_LIFETIME)
    }
}

/// The cookies of a policy's attempts.
#[derive(Clone, Copy, Debug)]
pub struct Transactions<'a> {
    /// Seals them.
    pub ring: &'a KeyRing,
    /// Whose they are.
    pub policy: &'a str,
    /// What they are called.
    pub names: &'a CookieNames,
}

impl Transactions<'_> {
    /// The values of `Set-Cookie` that open one more attempt and delete what is too much. `sent` are the request's `Cookie` fields.
    /// `None` only where sealing fails.
    pub fn open_one<'b>(
        &self,
        transaction: &Transaction,
        sent: impl IntoIterator<Item = &'b [u8]>,
        now: UnixTime,
        random: Random<'_>,
    ) -> Option<Vec<String>> {
        let name = self.names.transaction(&Transaction::id(transaction.state.expose()));
        let text = serde_json::to_vec(transaction).ok()?;
        let value = self.ring.seal(self.context(&name), &text, random)?;
        let mut left = MAX_BYTES.saturating_sub(name.len() + value.len());
        let mut fields = vec![self.names.set(&name, &value, TRANSACTION_LIFETIME)];
        let mut places = MAX_TRANSACTIONS - 1;
        let mut deleted = 0;
        for (name, bytes) in self.sent(sent, now) {
            let stays = bytes.is_some_and(|bytes| places > 0 && bytes <= left);
            if let (true, Some(bytes)) = (stays, bytes) {
                places -= 1;
                left -= bytes;
            } else if deleted < MAX_DELETED {
                // Once one has no place, no older one has.
                places = if bytes.is_some() { 0 } else { places };
                deleted += 1;
                fields.push(self.names.delete(&name));
            }
        }
        Some(fields)
    }

    /// The attempt that `state` names, and the value of `Set-Cookie` that ends it. `None` where the browser has no such
    /// attempt, or it was too long ago.
    pub fn take<'b>(
        &self,
        state: &str,
        sent: impl IntoIterator<Item = &'b [u8]>,
        now: UnixTime,
    ) -> Option<(Transaction, String)> {
        let name = self.names.transaction(&Transaction::id(state));
        let (_, value) = cookies(sent).find(|(own, _)| *own == name.as_bytes())?;
        let transaction = self.read(&name, value)?;
        let is_right = same(transaction.state.expose(), state) && !transaction.is_spent(now);
        is_right.then(|| (transaction, self.names.delete(&name)))
    }

    /// Cookies that look like attempts, the newest first, then those that are none. With each its length, if it counts.
    fn sent<'b>(&self, sent: impl IntoIterator<Item = &'b [u8]>, now: UnixTime) -> Vec<(String, Option<usize>)> {
        let mut found: Vec<(Option<UnixTime>, String, usize)> = Vec::new();
        for (name, value) in cookies(sent).filter(|(name, _)| self.names.is_transaction(name)).take(MAX_OPENED) {
            let Ok(name) = std::str::from_utf8(name) else { continue };
            if found.iter().any(|(_, other, _)| other == name) {
                continue;
            }
            let begun = self.read(name, value).filter(|found| !found.is_spent(now)).map(|found| found.begun);
            found.push((begun, name.to_owned(), name.len() + value.len()));
        }
        found.sort_by_key(|(begun, ..)| std::cmp::Reverse(*begun));
        found.into_iter().map(|(begun, name, bytes)| (name, begun.map(|_| bytes))).collect()
    }

    fn read(&self, name: &str, value: &[u8]) -> Option<Transaction> {
        let text = self.ring.open(self.context(name), value).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn context<'b>(&'b self, cookie: &'b str) -> Context<'b> {
        Context { policy: self.policy, purpose: PURPOSE, cookie }
    }
}
