//! One operation: its parameters are checked before the body is read.

use std::sync::Arc;

use http::HeaderMap;
use http::header::COOKIE;
use serde_json::Value;

use super::body::{Body, RequestBody};
use super::parameter::{self, Layout, Malformed, Pair, Style};
use super::{Otherwise, Unknown};
use crate::json::{self, Limits};
use crate::pointer;
use crate::schema::Schema;
use crate::violation::{Place, Violation, Violations};

/// Where a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Path,
    Query,
    Header,
    Cookie,
}

impl Source {
    /// OpenAPI 3.1 §4.8.12.3.
    pub(crate) fn allows(self, style: Style) -> bool {
        match self {
            Self::Path => matches!(style, Style::Simple | Style::Label | Style::Matrix),
            Self::Query => !matches!(style, Style::Simple | Style::Label | Style::Matrix),
            Self::Header => style == Style::Simple,
            Self::Cookie => style == Style::Form,
        }
    }

    fn place(self, name: &str) -> Place {
        let name = name.to_owned();
        match self {
            Self::Path => Place::Path(name),
            Self::Query => Place::Query(name),
            Self::Header => Place::Header(name),
            Self::Cookie => Place::Cookie(name),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Parameter {
    pub(crate) source: Source,
    pub(crate) is_required: bool,
    /// Its text is JSON, not of a style.
    pub(crate) is_json: bool,
    pub(crate) layout: Layout,
    pub(crate) schema: Option<Arc<Schema>>,
    /// Of the Parameter Object.
    pub(crate) location: String,
}

/// What a request to one method of one path must be.
#[derive(Debug)]
pub struct Operation {
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) body: Option<RequestBody>,
    /// Query parameters that are known without being declared.
    pub(crate) known_query: Vec<String>,
    pub(crate) unchecked_bodies: Otherwise,
    pub(crate) unknown_query: Unknown,
    /// The most that are reported.
    pub(crate) violations: usize,
}

/// An operation, and what the path of a request says about its parameters.
#[derive(Debug)]
pub struct Matched<'d, 'p> {
    pub(crate) operation: &'d Operation,
    /// By name, not decoded.
    pub(crate) values: Vec<(&'d str, &'p str)>,
}

impl<'d> Matched<'d, '_> {
    /// The operation.
    pub fn operation(&self) -> &'d Operation {
        self.operation
    }

    /// Checks the parameters in path, query, headers and cookies. `query` is what follows the question mark, not decoded.
    ///
    /// # Errors: [`Violations`], with the keywords of the schemas and with `required` for a parameter that is missing,
    /// `style` for one whose text is not in its style, or is there twice, and `unknown` for a query parameter that is not
    /// declared, where such are refused. Allocates what it decodes.
    pub fn check(&self, query: Option<&str>, headers: &HeaderMap) -> Result<(), Violations> {
        let mut entries = Vec::new();
        let mut more = false;
        let mut query = parameter::pairs(query.unwrap_or_default()).unwrap_or_else(|Malformed| {
            entries.push(broken(
                Place::Query(String::new()),
                "#",
                "style",
                "a name in the query is not percent-encoded",
            ));
            Vec::new()
        });
        let mut cookies = Vec::new();
        for value in headers.get_all(COOKIE) {
            cookies.extend(value.to_str().into_iter().flat_map(parameter::cookies));
        }
        for parameter in &self.operation.parameters {
            if let Err(violations) = self.parameter(parameter, &mut query, &mut cookies, headers) {
                more |= violations.more;
                entries.extend(violations.entries);
            }
            if entries.len() > self.operation.violations {
                break;
            }
        }
        if self.operation.unknown_query == Unknown::Refuse && entries.len() <= self.operation.violations {
            let unknown =
                query.iter().filter(|pair| !pair.is_known && !self.operation.known_query.contains(&pair.name));
            let unknown = unknown.take(self.operation.violations + 1);
            entries.extend(unknown.map(|pair| {
                let end = pair.name.floor_char_boundary(pointer::MAX_POINTER_BYTES);
                let name = pair.name.get(..end).unwrap_or_default().to_owned();
                broken(Place::Query(name), "#", "unknown", "the parameter is not declared")
            }));
        }
        match Violations::of(entries, self.operation.violations) {
            Some(violations) => Err(Violations { more: violations.more || more, ..violations }),
            None => Ok(()),
        }
    }

    fn parameter(
        &self,
        parameter: &Parameter,
        query: &mut [Pair<'_>],
        cookies: &mut [Pair<'_>],
        headers: &HeaderMap,
    ) -> Result<(), Violations> {
        let place = parameter.source.place(&parameter.layout.name);
        let refuse = |keyword: &str, message: &str| {
            Violations::one(broken(place.clone(), &parameter.location, keyword, message))
        };
        let value = self.value(parameter, query, cookies, headers);
        let value = value.map_err(|Malformed| refuse("style", "is not written in the parameter's style"))?;
        match (value, &parameter.schema) {
            (None, _) if parameter.is_required => Err(refuse("required", "the parameter is missing")),
            (Some(value), Some(schema)) => schema.validate(&value).map_err(|violations| violations.at(&place)),
            _ => Ok(()),
        }
    }

    fn value(
        &self,
        parameter: &Parameter,
        query: &mut [Pair<'_>],
        cookies: &mut [Pair<'_>],
        headers: &HeaderMap,
    ) -> Result<Option<Value>, Malformed> {
        let layout = &parameter.layout;
        if parameter.is_json {
            let text = self.text(parameter, query, cookies, headers)?;
            // Its own shape is that of one text.
            return text
                .map(|text| json::parse(text.as_bytes(), &Limits::default()).map_err(|_| Malformed))
                .transpose();
        }
        match parameter.source {
            Source::Path => self.path_text(layout).map(|text| layout.in_path(text)).transpose(),
            Source::Query => layout.in_pairs(query, parameter::decode_form),
            Source::Cookie => layout.in_pairs(cookies, parameter::decode_percent),
            Source::Header => {
                let values = header(headers, &layout.name)?;
                if values.is_empty() { Ok(None) } else { layout.in_header(&values).map(Some) }
            }
        }
    }

    fn path_text(&self, layout: &Layout) -> Option<&str> {
        self.values.iter().find(|(name, _)| *name == layout.name).map(|(_, text)| *text)
    }

    /// The decoded text of a parameter that is written as JSON.
    fn text(
        &self,
        parameter: &Parameter,
        query: &mut [Pair<'_>],
        cookies: &mut [Pair<'_>],
        headers: &HeaderMap,
    ) -> Result<Option<String>, Malformed> {
        let name = &parameter.layout.name;
        match parameter.source {
            Source::Path => self.path_text(&parameter.layout).map(parameter::decode_percent).transpose(),
            Source::Query => parameter::single(query, name, parameter::decode_form),
            Source::Cookie => parameter::single(cookies, name, parameter::decode_percent),
            Source::Header => match header(headers, name)?.as_slice() {
                [] => Ok(None),
                [value] => Ok(Some((*value).to_owned())),
                _ => Err(Malformed),
            },
        }
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Result<Vec<&'h str>, Malformed> {
    headers
        .get_all(name)
        .into_iter()
        .map(|value| std::str::from_utf8(value.as_bytes()).map_err(|_| Malformed))
        .collect()
}

pub(crate) fn broken(place: Place, location: &str, keyword: &str, message: &str) -> Violation {
    Violation {
        place,
        instance: String::new(),
        schema: location.to_owned(),
        keyword: keyword.to_owned(),
        message: message.to_owned(),
    }
}

impl Operation {
    /// What the body of a request is checked by. `has_body` is false where the request ends with its head.
    ///
    /// # Errors: [`Violations`] with the keyword `required` where a body is missing, and `content` where its media type is
    /// not one that can be checked, or is there twice, or has another character set than UTF-8.
    pub fn body(&self, headers: &HeaderMap, has_body: bool) -> Result<Body<'_>, Violations> {
        super::body::select(self.body.as_ref(), self.unchecked_bodies, headers, has_body)
    }
}
