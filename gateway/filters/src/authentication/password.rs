//! Names and passwords (RFC 7617). A password hash is made to take long, so it is checked beside the workers, a few at a
//! time, and a password that was right a moment ago is not checked again.
//!
//! Invariants: at most [`AT_ONCE`] checks run and [`MAX_WAITING`] wait, whatever clients send; an unknown name takes as long as
//! a known one. A remembered password is a tag of a MAC under a secret of the process, and only under the hash that it was
//! right for.

use std::{
    collections::BTreeMap,
    hash::Hasher as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use argon2::{Argon2, PasswordVerifier as _};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use control_plane_model::{Basic, PasswordHash};
use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use policy_jose::{CredentialsError, UnixTime};
use siphasher::sip128::{Hasher128 as _, SipHasher24};
use tokio::sync::Semaphore;

/// Checks at a time.
const AT_ONCE: usize = 2;
/// Requests that wait for their check; what comes besides gets 503.
const MAX_WAITING: usize = 64;
/// How long a password that was right is not checked again.
const REMEMBERED: Duration = Duration::from_mins(5);
/// Passwords that are remembered under one lock, and locks. A power of two.
const WAYS: usize = 8;
const SETS: usize = 512;
/// Longest name and password, in bytes. bcrypt takes no more of a password.
const MAX_BYTES: usize = 72;

/// The users of a policy.
#[derive(Debug)]
pub(super) struct Users {
    hashes: BTreeMap<Arc<str>, PasswordHash>,
    pub(super) forward_password: bool,
    pub(super) user_header: Option<HeaderName>,
}

/// A name and a password as they were presented. Has no `Debug` form.
pub(super) struct Login {
    pub(super) user: String,
    password: String,
}

/// What became of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    Right,
    Wrong,
    /// Too many wait.
    Busy,
}

impl Users {
    pub(super) fn new(spec: &Basic) -> Self {
        Self {
            hashes: spec.users.clone(),
            forward_password: spec.forward_password,
            user_header: spec.user_header.clone(),
        }
    }

    /// The name, as it is known, and what checks the password. For an unknown name what checks somebody's.
    fn find(&self, user: &str) -> Option<(Option<&Arc<str>>, &PasswordHash)> {
        match self.hashes.get_key_value(user) {
            Some((name, hash)) => Some((Some(name), hash)),
            None => self.hashes.values().next().map(|hash| (None, hash)),
        }
    }

    /// Whose name and password they are. Cancel-safe: a check that runs goes on to its end, and its place is free then.
    pub(super) async fn check(&self, login: Login, work: &Work, now: UnixTime) -> (Checked, Option<&Arc<str>>) {
        let Some((user, hash)) = self.find(&login.user) else { return (Checked::Wrong, None) };
        match work.check(hash.clone(), login, user.is_some(), now).await {
            Checked::Right => (Checked::Right, user),
            other => (other, None),
        }
    }
}

/// The name and password of a value of `Authorization`; `None` for another scheme.
pub(super) fn login(value: &HeaderValue) -> Result<Option<Login>, CredentialsError> {
    let value = value.as_bytes().trim_ascii();
    let end = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
    let (scheme, rest) = value.split_at_checked(end).unwrap_or((value, &[]));
    if !scheme.eq_ignore_ascii_case(b"Basic") {
        return Ok(None);
    }
    let decoded = STANDARD.decode(rest.trim_ascii()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let decoded = decoded.ok_or(CredentialsError::Malformed)?;
    let (user, password) = decoded.split_once(':').ok_or(CredentialsError::Malformed)?;
    if decoded.chars().any(char::is_control) {
        return Err(CredentialsError::Malformed);
    }
    Ok(Some(Login { user: user.to_owned(), password: password.to_owned() }))
}

/// What the process has for passwords.
pub(super) struct Work {
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    seed: [u8; 16],
    recent: Box<[Mutex<[Option<Recent>; WAYS]>]>,
}

#[derive(Clone, Copy)]
struct Recent {
    tag: u128,
    /// The first second in which it does not count.
    until: u64,
}

impl Work {
    /// `seed` is secret and random, and made anew for each process.
    pub(super) fn new(seed: [u8; 16]) -> Self {
        let recent = std::iter::repeat_with(Mutex::default).take(SETS).collect();
        Self { permits: Arc::new(Semaphore::new(AT_ONCE)), waiting: AtomicUsize::new(0), seed, recent }
    }

    async fn check(&self, hash: PasswordHash, login: Login, is_known: bool, now: UnixTime) -> Checked {
        if login.user.len() > MAX_BYTES || login.password.len() > MAX_BYTES {
            return Checked::Wrong;
        }
        let tag = self.tag(&hash, &login);
        if is_known && self.is_recent(tag, now) {
            return Checked::Right;
        }
        let place = Place::take(&self.waiting);
        let Some(_place) = place else { return Checked::Busy };
        // It is never closed.
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return Checked::Busy };
        let check = tokio::task::spawn_blocking(move || {
            let is_right = verify(&hash, login.password.as_bytes());
            drop(permit);
            is_right
        });
        // An error is a panic, or the end of the runtime.
        if check.await.unwrap_or(false) && is_known {
            self.remember(tag, now);
            Checked::Right
        } else {
            Checked::Wrong
        }
    }

    fn tag(&self, hash: &PasswordHash, login: &Login) -> u128 {
        let mut hasher = SipHasher24::new_with_key(&self.seed);
        for part in [hash.as_str(), &login.user, &login.password] {
            hasher.write_usize(part.len());
            hasher.write(part.as_bytes());
        }
        hasher.finish128().into()
    }

    fn set(&self, tag: u128) -> Option<&Mutex<[Option<Recent>; WAYS]>> {
        // Any bits of the tag will do.
        self.recent.get(tag as usize & (SETS - 1))
    }

    fn is_recent(&self, tag: u128, now: UnixTime) -> bool {
        let is_it = |entry: &Recent| entry.tag == tag && now.0 < entry.until;
        self.set(tag).is_some_and(|set| set.lock().iter().flatten().any(is_it))
    }

    fn remember(&self, tag: u128, now: UnixTime) {
        let Some(set) = self.set(tag) else { return };
        let mut set = set.lock();
        let until = now.0.saturating_add(REMEMBERED.as_secs());
        if let Some(place) = set.iter_mut().min_by_key(|place| place.map(|entry| entry.until)) {
            *place = Some(Recent { tag, until });
        }
    }
}

/// A request's place among those that wait.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Option<Self> {
        let place = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < MAX_WAITING).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn verify(hash: &PasswordHash, password: &[u8]) -> bool {
    let hash = hash.as_str();
    if hash.starts_with("$argon2id$") {
        Argon2::default().verify_password(password, hash).is_ok()
    } else {
        bcrypt::verify(password, hash).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1000);

    const SECRET: &str = "secret";

    fn bcrypt_hash() -> PasswordHash {
        bcrypt::hash_with_salt(SECRET, 4, [7; 16]).unwrap().to_string().parse().unwrap()
    }

    fn users() -> Users {
        let users = [("alice".into(), bcrypt_hash())].into();
        Users::new(&Basic { users, forward_password: false, user_header: None })
    }

    fn with(user: &str, password: &str) -> Login {
        Login { user: user.to_owned(), password: password.to_owned() }
    }

    #[tokio::test]
    async fn a_password_is_right_for_its_user_alone_and_is_remembered_for_a_while() {
        let (users, work) = (users(), Work::new([1; 16]));
        let check = async |user: &str, password: &str| users.check(with(user, password), &work, NOW).await.0;
        assert_eq!(check("alice", SECRET).await, Checked::Right);
        for (user, password) in
            [("alice", "Secret"), ("alice", ""), ("bob", SECRET), ("", SECRET), ("alice", "secret\0")]
        {
            assert_eq!(check(user, password).await, Checked::Wrong, "{user} {password}");
        }
        assert_eq!(check("alice", &"a".repeat(73)).await, Checked::Wrong);
        let tag = work.tag(&bcrypt_hash(), &with("alice", SECRET));
        assert!(work.is_recent(tag, UnixTime(1299)) && !work.is_recent(tag, UnixTime(1300)));
        assert!(!work.is_recent(work.tag(&bcrypt_hash(), &with("alices", "ecret")), NOW));
        assert_eq!(work.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_remembered_password_needs_no_check_and_what_is_too_much_is_told() {
        let (users, work) = (users(), Work::new([1; 16]));
        assert_eq!(users.check(with("alice", SECRET), &work, NOW).await.0, Checked::Right);
        let _all = work.permits.acquire_many(2).await.unwrap();
        assert_eq!(users.check(with("alice", SECRET), &work, NOW).await.0, Checked::Right);
        work.waiting.store(MAX_WAITING, Ordering::Relaxed);
        assert_eq!(users.check(with("alice", "other"), &work, NOW).await.0, Checked::Busy);
        assert_eq!(work.waiting.load(Ordering::Relaxed), MAX_WAITING);
    }

    #[test]
    fn both_kinds_of_hash_are_checked() {
        // From the reference implementation: echo -n password | argon2 somesalt -id -t 2 -m 16 -p 1
        let argon = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let argon: PasswordHash = argon.parse().unwrap();
        assert!(verify(&argon, b"password") && !verify(&argon, b"Password"));
        assert!(verify(&bcrypt_hash(), SECRET.as_bytes()) && !verify(&bcrypt_hash(), b"secre"));
    }

    #[test]
    fn a_login_is_read_whole_or_not_at_all() {
        let read = |text: &str| {
            login(&HeaderValue::from_str(text).unwrap()).map(|found| found.map(|found| (found.user, found.password)))
        };
        let pair = |user: &str, password: &str| Ok(Some((user.to_owned(), password.to_owned())));
        assert_eq!(read("Basic YWxpY2U6czpj"), pair("alice", "s:c"));
        assert_eq!(read("bASIC  Og=="), pair("", ""));
        assert_eq!(read("Bearer YTpi"), Ok(None));
        for text in ["Basic", "Basic YQ==", "Basic YTpi YTpi", "Basic YTpi!", "Basic gDpi", "Basic YTpiCg=="] {
            assert_eq!(read(text), Err(CredentialsError::Malformed), "{text}");
        }
    }
}
