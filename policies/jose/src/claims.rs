//! The claims of a token that was accepted, parsed once (RFC 7519 section 4).

use std::sync::Arc;

use serde_json::{Map, Value};

/// Most names of one path.
pub const MAX_PATH_NAMES: usize = 16;
/// Longest path, in bytes.
pub const MAX_PATH_BYTES: usize = 1024;

/// What an issuer says about a subject. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims(Arc<Map<String, Value>>);

impl Claims {
    pub(crate) fn new(members: Map<String, Value>) -> Self {
        Self(Arc::new(members))
    }

    /// All of them, for a language of rules.
    pub fn members(&self) -> &Map<String, Value> {
        &self.0
    }

    /// All of them, shared.
    pub fn shared(&self) -> Arc<Map<String, Value>> {
        self.0.clone()
    }

    /// The claim at `path`; `None` where a name is absent or what holds it is no object. Array elements have no path.
    pub fn get(&self, path: &ClaimPath) -> Option<&Value> {
        let first = self.0.get(&path.first)?;
        path.rest.iter().try_fold(first, |value, name| value.as_object()?.get(name))
    }

    /// `sub`, where it is a string.
    pub fn subject(&self) -> Option<&str> {
        self.0.get("sub")?.as_str()
    }

    /// `iss`. A token that was accepted has it.
    pub fn issuer(&self) -> Option<&str> {
        self.0.get("iss")?.as_str()
    }

    /// The scopes: of `scope` (RFC 8693 section 4.2), or else of `scp`. Each may be a string with spaces between the
    /// scopes or an array of strings: issuers write both either way. What is not a string is passed over.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        let claim = self.0.get("scope").or_else(|| self.0.get("scp"));
        let (text, items) = match claim {
            Some(Value::String(text)) => (text.as_str(), &[][..]),
            Some(Value::Array(items)) => ("", items.as_slice()),
            _ => ("", &[][..]),
        };
        text.split(' ').chain(items.iter().filter_map(Value::as_str)).filter(|scope| !scope.is_empty())
    }

    /// Whether every one of `required` is among the scopes, compared exactly (RFC 6749 section 3.3). Where not, the
    /// answer is [`crate::Problem::InsufficientScope`].
    pub fn has_scopes<'a>(&self, required: impl IntoIterator<Item = &'a str>) -> bool {
        required.into_iter().all(|scope| self.scopes().any(|own| own == scope))
    }
}

/// Where a claim is: `sub`, `realm_access.roles`, `https://example\.com/roles`. A dot goes one object deeper; `\.` is a
/// dot in a name and `\\` a backslash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimPath {
    first: String,
    rest: Vec<String>,
}

/// Why a text is not a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// More than [`MAX_PATH_BYTES`] or [`MAX_PATH_NAMES`].
    #[error("a path has at most {MAX_PATH_BYTES} bytes and {MAX_PATH_NAMES} names")]
    TooLong,
    /// Nothing before, after or between dots.
    #[error("a name in a path is empty")]
    EmptyName,
    /// A backslash before anything but a dot or a backslash.
    #[error("a backslash in a path stands before a dot or a backslash")]
    Escape,
}

impl std::str::FromStr for ClaimPath {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        if text.len() > MAX_PATH_BYTES {
            return Err(InvalidPath::TooLong);
        }
        let mut names = Vec::new();
        let mut name = String::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            match character {
                '.' => names.push(std::mem::take(&mut name)),
                '\\' => match characters.next() {
                    Some(escaped @ ('.' | '\\')) => name.push(escaped),
                    _ => return Err(InvalidPath::Escape),
                },
                other => name.push(other),
            }
        }
        names.push(name);
        if names.len() > MAX_PATH_NAMES {
            return Err(InvalidPath::TooLong);
        }
        if names.iter().any(String::is_empty) {
            return Err(InvalidPath::EmptyName);
        }
        let mut names = names.into_iter();
        let first = names.next().ok_or(InvalidPath::EmptyName)?;
        Ok(Self { first, rest: names.collect() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Claims {
        Claims::new(value.as_object().unwrap().clone())
    }

    #[test]
    fn a_path_leads_through_objects_and_escapes_dots() {
        let claims = claims(json!({
            "sub": "a", "realm_access": {"roles": ["r"]}, "https://example.com/roles": 1, "a\\b": {"c.d": true}
        }));
        let get = |path: &str| claims.get(&path.parse().unwrap()).cloned();
        assert_eq!(get("sub"), Some(json!("a")));
        assert_eq!(get("realm_access.roles"), Some(json!(["r"])));
        assert_eq!(get(r"https://example\.com/roles"), Some(json!(1)));
        assert_eq!(get(r"a\\b.c\.d"), Some(json!(true)));
        for absent in ["sub.a", "realm_access.roles.0", "https://example.com/roles", "x"] {
            assert_eq!(get(absent), None, "{absent}");
        }
    }

    #[test]
    fn a_path_that_leads_nowhere_is_refused() {
        let deep = "a.".repeat(MAX_PATH_NAMES) + "a";
        let long = "a".repeat(MAX_PATH_BYTES + 1);
        for (text, error) in [
            ("", InvalidPath::EmptyName),
            ("a..b", InvalidPath::EmptyName),
            ("a.", InvalidPath::EmptyName),
            (r"a\b", InvalidPath::Escape),
            ("a\\", InvalidPath::Escape),
            (&deep, InvalidPath::TooLong),
            (&long, InvalidPath::TooLong),
        ] {
            assert_eq!(text.parse::<ClaimPath>(), Err(error), "{text:.20}");
        }
    }

    #[test]
    fn scopes_are_read_from_every_form_that_issuers_write() {
        for (value, expected) in [
            (json!({"scope": "a b"}), &["a", "b"][..]),
            (json!({"scope": " a  b "}), &["a", "b"]),
            (json!({"scp": ["a", 1, "b c"]}), &["a", "b c"]),
            (json!({"scp": "a b"}), &["a", "b"]),
            (json!({"scope": "a", "scp": ["b"]}), &["a"]),
            (json!({"scope": 1}), &[]),
            (json!({}), &[]),
        ] {
            assert_eq!(claims(value).scopes().collect::<Vec<_>>(), expected);
        }
        let claims = claims(json!({"scope": "read write"}));
        assert!(claims.has_scopes(["write", "read"]) && claims.has_scopes([]));
        assert!(!claims.has_scopes(["read", "Write"]) && !claims.has_scopes([""]));
    }
}
