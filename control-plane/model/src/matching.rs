//! What a rule asks of a request.

use std::{fmt, sync::Arc};

use http::{HeaderName, Method};

/// One match: all its conditions hold, or it does not match (`HTTPRouteMatch`, `GRPCRouteMatch`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMatch {
    /// On the path, or on gRPC service and method.
    pub path: PathMatch,
    /// On the method; `None` for every method.
    pub method: Option<Method>,
    /// On headers; names are distinct.
    pub headers: Vec<HeaderMatch>,
    /// On query parameters; names are distinct.
    pub query: Vec<QueryMatch>,
}

/// What a match asks of the path. Paths are compared byte by byte in their canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// The whole path; begins with `/`.
    Exact(Arc<str>),
    /// A prefix of whole path elements; begins with `/`, ends without one unless it is `/` itself.
    Prefix(Arc<str>),
    /// A regular expression over the whole path.
    Regex(Regex),
    /// A gRPC method, `/{service}/{method}`; `None` for any.
    Grpc {
        /// On the full service name.
        service: Option<ValueMatch>,
        /// On the method name.
        method: Option<ValueMatch>,
    },
}

/// On one header. Where a request repeats the header, its values are joined by commas first (RFC 9110 §5.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// The header.
    pub name: HeaderName,
    /// On its value.
    pub value: ValueMatch,
}

/// On one query parameter; of a repeated one the first counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryMatch {
    /// The parameter's name after percent decoding.
    pub name: Arc<str>,
    /// On its value after percent decoding.
    pub value: ValueMatch,
}

/// On a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    /// The whole value.
    Exact(Arc<str>),
    /// A regular expression over the whole value.
    Regex(Regex),
}

impl ValueMatch {
    /// Whether `value` matches as a whole.
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(text) => **text == *value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

/// A regular expression (RE2 syntax, linear time) that must match a whole text. Equal when its source is.
#[derive(Clone)]
pub struct Regex {
    source: Arc<str>,
    compiled: regex::Regex,
}

/// A regular expression that does not compile, or is too large.
#[derive(Debug, thiserror::Error)]
#[error("regular expression {pattern:?}: {reason}")]
pub struct InvalidRegex {
    /// As written.
    pub pattern: String,
    /// What the compiler says.
    pub reason: String,
}

impl Regex {
    /// Compiles `pattern`, anchored at both ends.
    ///
    /// # Errors: [`InvalidRegex`] for bad syntax, or a program above 64 KiB.
    pub fn new(pattern: &str) -> Result<Self, InvalidRegex> {
        regex::RegexBuilder::new(&format!("^(?:{pattern})$"))
            .size_limit(64 << 10)
            .build()
            .map(|compiled| Self { source: pattern.into(), compiled })
            .map_err(|error| InvalidRegex { pattern: pattern.to_owned(), reason: error.to_string() })
    }

    /// The pattern as it was written, without anchors.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// Whether the whole of `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.compiled.is_match(text)
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Regex {}

impl fmt::Debug for Regex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Regex({:?})", self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regular_expression_matches_the_whole_text() {
        let regex = Regex::new("a|bc").unwrap();
        assert!(regex.is_match("a") && regex.is_match("bc"));
        assert!(!regex.is_match("abc") && !regex.is_match("a\n"));
    }

    #[test]
    fn a_pattern_that_explodes_is_refused() {
        assert!(Regex::new("(a{1000}){1000}").is_err());
        assert!(Regex::new("(").is_err());
    }
}
