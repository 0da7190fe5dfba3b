//! Sessions that the gateway keeps, under the hash of what the browser has: whoever reads the store can take over no session.
//!
//! Invariants: a session that was ended is not brought back by a renewal that was on its way; no session is found by
//! another policy's cookie; sessions and those of one person are bounded.

use std::collections::{BTreeSet, HashMap};

use crate::{UnixTime, logout::LogoutToken, session::Session, sha256};

/// Most sessions of one person: of more, the one that ends first is ended.
pub const MAX_SESSIONS_PER_SUBJECT: usize = 64;

/// What a session is kept under: the hash of policy and id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle([u8; 32]);

impl Handle {
    /// Of the session with `id`, as the cookie has it.
    pub fn new(policy: &str, id: &str) -> Self {
        Self(sha256(&[b"nebula session", policy.as_bytes(), id.as_bytes()]))
    }
}

/// No more sessions are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the gateway keeps no more sessions")]
pub struct StoreFull;

/// Whose session, of which policy.
type Person = (Box<str>, Box<str>, Box<str>);

#[derive(Debug)]
struct Entry {
    session: Session,
    person: Person,
    ends: UnixTime,
}

/// Sessions in memory.
#[derive(Debug)]
pub struct SessionStore {
    sessions: HashMap<Handle, Entry>,
    people: HashMap<Person, BTreeSet<Handle>>,
    ends: BTreeSet<(UnixTime, Handle)>,
    most: usize,
}

impl SessionStore {
    /// Keeps `most` sessions at most.
    pub fn new(most: usize) -> Self {
        Self { sessions: HashMap::new(), people: HashMap::new(), ends: BTreeSet::new(), most }
    }

    /// Keeps one until `ends`.
    ///
    /// # Errors: [`StoreFull`].
    pub fn insert(
        &mut self,
        policy: &str,
        id: &str,
        session: Session,
        ends: UnixTime,
        now: UnixTime,
    ) -> Result<(), StoreFull> {
        self.forget(now);
        let person: Person = (policy.into(), (*session.issuer).into(), (*session.subject).into());
        if let Some(handles) = self.people.get(&person).filter(|handles| handles.len() >= MAX_SESSIONS_PER_SUBJECT) {
            let end = |handle: &&Handle| self.sessions.get(*handle).map(|entry| entry.ends);
            if let Some(first) = handles.iter().min_by_key(end).copied() {
                self.remove(first);
            }
        }
        if self.sessions.len() >= self.most {
            return Err(StoreFull);
        }
        let handle = Handle::new(policy, id);
        self.remove(handle);
        self.people.entry(person.clone()).or_default().insert(handle);
        self.ends.insert((ends, handle));
        self.sessions.insert(handle, Entry { session, person, ends });
        Ok(())
    }

    /// The session, if it is kept and has not ended.
    pub fn get(&self, handle: Handle, now: UnixTime) -> Option<&Session> {
        self.sessions.get(&handle).filter(|entry| entry.ends > now).map(|entry| &entry.session)
    }

    /// Puts the session in place of the one that is there, unless that was renewed meanwhile; whether there still was one.
    pub fn replace(&mut self, handle: Handle, session: Session, ends: UnixTime, now: UnixTime) -> bool {
        self.forget(now);
        let Some(entry) = self.sessions.get_mut(&handle) else { return false };
        if entry.session.is_newer(&session) {
            return true;
        }
        self.ends.remove(&(entry.ends, handle));
        self.ends.insert((ends, handle));
        entry.ends = ends;
        entry.session = session;
        true
    }

    /// Ends one.
    pub fn remove(&mut self, handle: Handle) -> Option<Session> {
        let entry = self.sessions.remove(&handle)?;
        self.ends.remove(&(entry.ends, handle));
        if let Some(handles) = self.people.get_mut(&entry.person) {
            handles.remove(&handle);
            if handles.is_empty() {
                self.people.remove(&entry.person);
            }
        }
        Some(entry.session)
    }

    /// Ends what a logout names: the sessions of a policy with this `sid`, and of this subject where it names no `sid`. How many.
    /// Looks through all sessions where the subject is not named.
    pub fn log_out(&mut self, policy: &str, logout: &LogoutToken) -> usize {
        let is_named = |session: &Session| {
            *session.issuer == *logout.issuer
                && logout.subject.as_deref().is_none_or(|subject| *session.subject == *subject)
                && logout.sid.as_deref().is_none_or(|sid| session.sid.as_deref() == Some(sid))
        };
        let of_policy = |entry: &&Entry| *entry.person.0 == *policy && is_named(&entry.session);
        let named: Vec<Handle> = match &logout.subject {
            Some(subject) => {
                let person: Person = (policy.into(), (*logout.issuer).into(), (**subject).into());
                let handles = self.people.get(&person).into_iter().flatten();
                handles
                    .filter(|handle| self.sessions.get(*handle).is_some_and(|entry| of_policy(&entry)))
                    .copied()
                    .collect()
            }
            None if logout.sid.is_some() => {
                self.sessions.iter().filter(|(_, entry)| of_policy(entry)).map(|(handle, _)| *handle).collect()
            }
            // It names nobody.
            None => Vec::new(),
        };
        named.into_iter().filter_map(|handle| self.remove(handle)).count()
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    fn forget(&mut self, now: UnixTime) {
        while let Some((_, handle)) = self.ends.first().copied().filter(|(ends, _)| *ends <= now) {
            self.remove(handle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::{session, tokens};

    const ENDS: UnixTime = UnixTime(100);
    const NOW: UnixTime = UnixTime(0);

    fn logout(subject: Option<&str>, sid: Option<&str>) -> LogoutToken {
        LogoutToken { issuer: "https://idp".into(), subject: subject.map(Into::into), sid: sid.map(Into::into) }
    }

    fn store(sessions: &[(&str, &str, &str)]) -> SessionStore {
        let mut store = SessionStore::new(1000);
        for (index, (policy, subject, sid)) in sessions.iter().enumerate() {
            let session = session(subject, sid, tokens(None, None));
            store.insert(policy, &index.to_string(), session, ENDS, NOW).unwrap();
        }
        store
    }

    #[test]
    fn a_session_is_of_one_policy_and_ends() {
        let mut store = store(&[("p", "ada", "1")]);
        assert!(store.get(Handle::new("p", "0"), UnixTime(99)).is_some());
        assert!(store.get(Handle::new("p", "0"), ENDS).is_none());
        assert!(store.get(Handle::new("q", "0"), NOW).is_none());
        assert!(store.insert("p", "1", session("eva", "2", tokens(None, None)), UnixTime(200), ENDS).is_ok());
        assert_eq!((store.len(), store.people.len(), store.ends.len()), (1, 1, 1), "what has ended is forgotten");
    }

    #[test]
    fn a_renewal_brings_no_ended_session_back() {
        let mut store = store(&[("p", "ada", "1")]);
        let handle = Handle::new("p", "0");
        let kept = store.get(handle, NOW).unwrap().clone();
        assert!(store.replace(handle, kept.clone(), UnixTime(200), NOW));
        assert_eq!(store.log_out("p", &logout(None, Some("1"))), 1);
        assert!(!store.replace(handle, kept, UnixTime(200), NOW));
        assert!(store.is_empty() && store.people.is_empty() && store.ends.is_empty());
    }

    #[test]
    fn what_was_renewed_meanwhile_stays() {
        let mut store = SessionStore::new(10);
        let older = session("ada", "1", tokens(Some("r"), Some(300)));
        store.insert("p", "0", older.clone(), ENDS, NOW).unwrap();
        let newer = older.renewed(tokens(Some("s"), Some(300)), None, NOW).unwrap();
        let handle = Handle::new("p", "0");
        assert!(store.replace(handle, newer.clone(), ENDS, NOW));
        assert!(store.replace(handle, older, ENDS, NOW), "by a request that had the older one");
        assert_eq!(store.get(handle, NOW), Some(&newer));
    }

    #[test]
    fn a_logout_ends_what_it_names_and_nothing_else() {
        let all = [("p", "ada", "1"), ("p", "ada", "2"), ("p", "eva", "3"), ("q", "ada", "1")];
        for (subject, sid, ended) in [
            (Some("ada"), None, 2),
            (Some("ada"), Some("2"), 1),
            (Some("eva"), Some("2"), 0),
            (None, Some("1"), 1),
            (None, None, 0),
        ] {
            let mut store = store(&all);
            assert_eq!(store.log_out("p", &logout(subject, sid)), ended, "{subject:?} {sid:?}");
            assert_eq!(store.len(), all.len() - ended);
        }
        let other = LogoutToken { issuer: "https://evil".into(), ..logout(Some("ada"), None) };
        assert_eq!(store(&all).log_out("p", &other), 0);
    }

    #[test]
    fn sessions_are_bounded_and_one_person_takes_no_others_place() {
        let mut store = SessionStore::new(100);
        for index in 0..200 {
            let ends = UnixTime(1000 + index);
            store.insert("p", &index.to_string(), session("ada", "1", tokens(None, None)), ends, NOW).unwrap();
        }
        assert_eq!(store.len(), MAX_SESSIONS_PER_SUBJECT);
        assert!(store.get(Handle::new("p", "199"), NOW).is_some());
        for index in 0..36 {
            let session = session(&format!("person {index}"), "1", tokens(None, None));
            store.insert("p", &format!("other {index}"), session, ENDS, NOW).unwrap();
        }
        assert_eq!(store.insert("p", "x", session("eva", "1", tokens(None, None)), ENDS, NOW), Err(StoreFull));
    }
}
