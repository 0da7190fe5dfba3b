//! The gateway's cookies: what they are called, how they are set, how one session is cut into several, and how all of them are
//! taken out of what a backend gets.
//!
//! Invariants: every cookie of the gateway is called [`COOKIE_PREFIX`]…, behind `__Host-` where the connection is TLS, so
//! that no other host and no path can set it (RFC 6265bis section 4.1.3.2); it is `HttpOnly` and `SameSite=Lax`. On a
//! listener without TLS browsers keep neither `__Host-` nor `Secure` cookies: there both are missing, and whoever sees or changes the
//! connection, or controls another port or a subdomain, has or replaces the cookie. Such a listener is for trying things out.

use std::{fmt::Write as _, time::Duration};

use crate::{
    Random, from_base64url,
    seal::{Context, KeyRing},
    token,
};

/// How the names of all cookies of the gateway begin, behind `__Host-` or not.
pub const COOKIE_PREFIX: &str = "nebula-";
/// Longest name of a policy's cookies, in bytes, without what is put before and behind it.
pub const MAX_NAME_BYTES: usize = 64;
/// Most cookies of one session. Browsers take some 4 KiB each; with all of a site's they have to fit into a request's head.
pub const MAX_CHUNKS: usize = 4;
/// Longest value of one, so that name and attributes fit too.
const CHUNK: usize = 3800;
const HOST: &str = "__Host-";
const SEALED: &str = "session";

/// The connection that cookies are set on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TLS.
    Secure,
    /// Without TLS: see the module's head for what differs.
    Plain,
}

/// Not a name of cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cookie's name has 1 to {MAX_NAME_BYTES} letters, digits, dots and underscores")]
pub struct InvalidCookieName;

/// A session that does not fit into cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the session does not fit into {MAX_CHUNKS} cookies of {CHUNK} bytes; sessions kept by the gateway have no such limit"
)]
pub struct SessionTooLarge;

/// What the cookies of one policy are called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CookieNames {
    base: Box<str>,
    transport: Transport,
}

impl CookieNames {
    /// Cookies called after `name`. Policies with different names do not disturb each other.
    ///
    /// # Errors: [`InvalidCookieName`].
    pub fn new(name: &str, transport: Transport) -> Result<Self, InvalidCookieName> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'_';
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(is_plain) {
            return Err(InvalidCookieName);
        }
        let host = if transport == Transport::Secure { HOST } else { "" };
        Ok(Self { base: format!("{host}{COOKIE_PREFIX}{name}").into(), transport })
    }

    pub(crate) fn transaction(&self, id: &str) -> String {
        format!("{}-t-{id}", self.base)
    }

    pub(crate) fn is_transaction(&self, name: &[u8]) -> bool {
        let id = name.strip_prefix(self.base.as_bytes()).and_then(|rest| rest.strip_prefix(b"-t-"));
        // What is deleted is written into an answer.
        id.is_some_and(|id| {
            (1..=64).contains(&id.len()) && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte))
        })
    }

    fn session(&self, chunk: usize) -> String {
        format!("{}-s{chunk}", self.base)
    }

    /// The value of `Set-Cookie`. `value` is of base64url and dots.
    pub(crate) fn set(&self, name: &str, value: &str, lifetime: Duration) -> String {
        let mut field = format!("{name}={value}; Path=/; Max-Age={}; HttpOnly; SameSite=Lax", lifetime.as_secs());
        if self.transport == Transport::Secure {
            field.push_str("; Secure");
        }
        field
    }

    pub(crate) fn delete(&self, name: &str) -> String {
        self.set(name, "", Duration::ZERO)
    }

    /// The values of `Set-Cookie` for a sealed session, cut as often as it must be. Chunks in `sent` that are not needed any more are
    /// deleted.
    ///
    /// # Errors: [`SessionTooLarge`], also where sealing fails.
    pub fn seal_session<'a>(
        &self,
        (ring, policy): (&KeyRing, &str),
        session: &[u8],
        lifetime: Duration,
        sent: impl IntoIterator<Item = &'a [u8]> + Clone,
        random: Random<'_>,
    ) -> Result<Vec<String>, SessionTooLarge> {
        let sealed = ring.seal(self.context(policy), session, random).ok_or(SessionTooLarge)?;
        self.write(&sealed, lifetime, sent)
    }

    /// The sealed session that the request's cookies hold.
    pub fn open_session<'a>(
        &self,
        (ring, policy): (&KeyRing, &str),
        sent: impl IntoIterator<Item = &'a [u8]> + Clone,
    ) -> Option<Vec<u8>> {
        ring.open(self.context(policy), &self.read(sent)?).ok()
    }

    /// A new id for a session that the gateway keeps: 256 random bits. And the values of `Set-Cookie` for it.
    pub fn new_id<'a>(
        &self,
        lifetime: Duration,
        sent: impl IntoIterator<Item = &'a [u8]> + Clone,
        random: Random<'_>,
    ) -> (String, Vec<String>) {
        let id = token(random);
        // An id is short.
        let fields = self.write(&id, lifetime, sent).unwrap_or_default();
        (id, fields)
    }

    /// Sets the cookie of an id again, for another `lifetime`.
    pub fn keep_id<'a>(
        &self,
        id: &str,
        lifetime: Duration,
        sent: impl IntoIterator<Item = &'a [u8]> + Clone,
    ) -> Vec<String> {
        self.write(id, lifetime, sent).unwrap_or_default()
    }

    /// The id of a session that the gateway keeps.
    pub fn id<'a>(&self, sent: impl IntoIterator<Item = &'a [u8]> + Clone) -> Option<String> {
        let id = self.read(sent)?;
        from_base64url(&id).filter(|bytes| bytes.len() == 32)?;
        String::from_utf8(id).ok()
    }

    /// The values of `Set-Cookie` that end the session in a browser.
    pub fn delete_session<'a>(&self, sent: impl IntoIterator<Item = &'a [u8]> + Clone) -> Vec<String> {
        self.sent_chunks(0, sent)
    }

    fn context<'a>(&'a self, policy: &'a str) -> Context<'a> {
        Context { policy, purpose: SEALED, cookie: &self.base }
    }

    fn write<'a>(
        &self,
        value: &str,
        lifetime: Duration,
        sent: impl IntoIterator<Item = &'a [u8]> + Clone,
    ) -> Result<Vec<String>, SessionTooLarge> {
        // Base64url: every byte is a character.
        let chunks: Vec<&str> =
            value.as_bytes().chunks(CHUNK).filter_map(|chunk| std::str::from_utf8(chunk).ok()).collect();
        if chunks.is_empty() || chunks.len() > MAX_CHUNKS {
            return Err(SessionTooLarge);
        }
        let mut fields = self.sent_chunks(chunks.len(), sent);
        for (index, chunk) in chunks.iter().enumerate() {
            let mut text = String::with_capacity(chunk.len() + 2);
            if index == 0 {
                let _ = write!(text, "{}.", chunks.len());
            }
            text.push_str(chunk);
            fields.push(self.set(&self.session(index), &text, lifetime));
        }
        Ok(fields)
    }

    /// Deletes those chunks that were sent, from `first` on.
    fn sent_chunks<'a>(&self, first: usize, sent: impl IntoIterator<Item = &'a [u8]> + Clone) -> Vec<String> {
        let names = (first..MAX_CHUNKS).map(|index| self.session(index));
        let was_sent = |name: &String| cookies(sent.clone()).any(|(own, _)| own == name.as_bytes());
        names.filter(was_sent).map(|name| self.delete(&name)).collect()
    }

    fn read<'a>(&self, sent: impl IntoIterator<Item = &'a [u8]> + Clone) -> Option<Vec<u8>> {
        let chunk = |index: usize| {
            let name = self.session(index);
            let (_, value) = cookies(sent.clone()).find(|(own, _)| *own == name.as_bytes())?;
            (value.len() <= CHUNK + 2).then_some(value)
        };
        let ([count, dot], first) = chunk(0)?.split_first_chunk::<2>()?;
        let count = usize::from(count.checked_sub(b'0')?);
        if count == 0 || count > MAX_CHUNKS || first.is_empty() || *dot != b'.' {
            return None;
        }
        let mut value = first.to_vec();
        for index in 1..count {
            value.extend_from_slice(chunk(index)?);
        }
        Some(value)
    }
}

/// The cookies of the `Cookie` fields `sent` (RFC 6265 section 4.2.1).
pub fn cookies<'a>(sent: impl IntoIterator<Item = &'a [u8]>) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    sent.into_iter().flat_map(|field| field.split(|byte| *byte == b';')).filter_map(|pair| {
        let pair = pair.trim_ascii();
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = pair.split_at(at);
        Some((name.trim_ascii_end(), value.get(1..)?.trim_ascii_start()))
    })
}

/// A `Cookie` field without the gateway's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stripped {
    /// There was none.
    Unchanged,
    /// Others are left.
    Left(Vec<u8>),
    /// None is left.
    Nothing,
}

/// `field` without the gateway's cookies, of whatever policy and transport, also where the name is spelled in other letters or stands without
/// a value.
pub fn without_gateway_cookies(field: &[u8]) -> Stripped {
    let is_own = |pair: &[u8]| {
        let name = pair.trim_ascii();
        let after_host = match name.split_at_checked(HOST.len()) {
            Some((host, rest)) if host.eq_ignore_ascii_case(HOST.as_bytes()) => rest,
            _ => name,
        };
        after_host.get(..COOKIE_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(COOKIE_PREFIX.as_bytes()))
    };
    let pairs = || field.split(|byte| *byte == b';');
    if !pairs().any(is_own) {
        return Stripped::Unchanged;
    }
    let left: Vec<&[u8]> = pairs().filter(|pair| !is_own(pair)).map(<[u8]>::trim_ascii).collect();
    let left: Vec<&[u8]> = left.into_iter().filter(|pair| !pair.is_empty()).collect();
    if left.is_empty() { Stripped::Nothing } else { Stripped::Left(left.join(&b"; "[..])) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_says_what_keeps_it() {
        let names = CookieNames::new("web", Transport::Secure).unwrap();
        assert_eq!(
            names.set("__Host-nebula-web-s0", "1.a", Duration::from_mins(1)),
            "__Host-nebula-web-s0=1.a; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"
        );
        let names = CookieNames::new("web", Transport::Plain).unwrap();
        assert_eq!(names.delete("nebula-web-s0"), "nebula-web-s0=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax");
    }

    #[test]
    fn a_name_is_of_few_characters_and_ends_where_it_ends() {
        for name in ["", "a-t", "a b", "a;b", "ä", "a=", &"a".repeat(65)] {
            assert_eq!(CookieNames::new(name, Transport::Secure), Err(InvalidCookieName), "{name}");
        }
    }

    #[test]
    fn no_cookie_of_the_gateway_is_left() {
        let cases: [(&str, Stripped); 7] = [
            ("a=b; c=d", Stripped::Unchanged),
            ("a=b; __Host-nebula-x-s0=1.a; c=d", Stripped::Left(b"a=b; c=d".to_vec())),
            ("__Host-nebula-x-s0=1.a", Stripped::Nothing),
            ("nebula-x-t-abc=1;; __host-NEBULA-y=", Stripped::Nothing),
            (" nebula-x ;a", Stripped::Left(b"a".to_vec())),
            ("xnebula-x=1; __Host-other=2; nebula=3", Stripped::Unchanged),
            ("", Stripped::Unchanged),
        ];
        for (field, left) in cases {
            assert_eq!(without_gateway_cookies(field.as_bytes()), left, "{field}");
        }
    }
}
