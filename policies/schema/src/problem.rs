//! The answer to a request that is not valid: a problem (RFC 9457) with an extension member `errors`, as data.
//!
//! It has what the violations have: names and pointers of the request, never its values. How the names get escaped is for
//! whoever renders it.

use serde_json::{Value, json};

use crate::violation::{Place, Violation, Violations};

/// Members of the problem, in the terms of RFC 9457 §3.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// HTTP status code.
    pub status: u16,
    /// The same for every occurrence.
    pub title: &'static str,
    /// One for each violation, at most as many as asked for.
    pub errors: Vec<ProblemError>,
    /// Whether there are more.
    pub more: bool,
}

/// One element of `errors`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProblemError {
    /// `body`, `path`, `query`, `header` or `cookie`.
    pub place: &'static str,
    /// Of the parameter; `None` for the body.
    pub name: Option<String>,
    /// JSON Pointer in the body or in the parameter's value, as a URI fragment: `#/a/0`.
    pub pointer: String,
    /// The keyword that is broken.
    pub keyword: String,
    /// Where the schema says so.
    pub schema: String,
    /// A sentence.
    pub detail: String,
}

/// The status for what is valid HTTP and does not satisfy the schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// 400 (RFC 9110 §15.5.1).
    #[default]
    BadRequest,
    /// 422 (RFC 9110 §15.5.21).
    UnprocessableContent,
}

impl Problem {
    /// The problem that `violations` are, with at most `limit` errors. A media type that is refused is 415 whatever
    /// `status` says, and a text that is no JSON 400.
    pub fn new(violations: &Violations, status: Status, limit: usize) -> Self {
        let has = |keyword: &str| violations.entries().iter().any(|violation| violation.keyword == keyword);
        let status = match status {
            _ if has("content") => 415,
            _ if has("json") || has("form") => 400,
            Status::BadRequest => 400,
            Status::UnprocessableContent => 422,
        };
        Self {
            status,
            title: "The request does not satisfy the schema",
            errors: violations.entries().iter().take(limit).map(ProblemError::new).collect(),
            more: violations.more() || violations.entries().len() > limit,
        }
    }

    /// The member `errors` as JSON.
    pub fn errors_json(&self) -> Value {
        self.errors.iter().map(ProblemError::to_json).collect()
    }

    /// The members as JSON. `type` is left out, which means `about:blank`.
    pub fn to_json(&self) -> Value {
        let mut problem = json!({ "title": self.title, "status": self.status, "errors": self.errors_json() });
        if let (true, Value::Object(members)) = (self.more, &mut problem) {
            members.insert("more".to_owned(), Value::Bool(true));
        }
        problem
    }
}

impl ProblemError {
    fn new(violation: &Violation) -> Self {
        let (place, name) = match &violation.place {
            Place::Body => ("body", None),
            Place::Path(name) => ("path", Some(name)),
            Place::Query(name) => ("query", Some(name)),
            Place::Header(name) => ("header", Some(name)),
            Place::Cookie(name) => ("cookie", Some(name)),
        };
        Self {
            place,
            name: name.cloned(),
            pointer: format!("#{}", crate::violation::fragment(&violation.instance)),
            keyword: violation.keyword.clone(),
            schema: violation.schema.clone(),
            detail: violation.message.clone(),
        }
    }

    fn to_json(&self) -> Value {
        let mut error = json!({
            "in": self.place,
            "pointer": self.pointer,
            "keyword": self.keyword,
            "schema": self.schema,
            "detail": self.detail,
        });
        if let (Some(name), Value::Object(members)) = (&self.name, &mut error) {
            members.insert("name".to_owned(), Value::from(name.as_str()));
        }
        error
    }
}
