//! Bodies by media type: JSON and forms by their schema, others by choice.

use std::sync::Arc;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value};

use super::Otherwise;
use super::operation::broken;
use super::parameter::{self, Layout, Malformed};
use super::shape::Shape;
use crate::json::{self, Limits, ParseError};
use crate::pointer;
use crate::schema::Schema;
use crate::violation::{Place, Violation, Violations};

/// The bodies that an operation describes.
#[derive(Debug)]
pub(crate) struct RequestBody {
    pub(crate) is_required: bool,
    /// Of the Request Body Object.
    pub(crate) location: String,
    /// By media type, in lower case.
    pub(crate) contents: Vec<(String, Content)>,
}

#[derive(Debug)]
pub(crate) enum Content {
    /// Also a range that JSON is in.
    Json {
        schema: Option<Arc<Schema>>,
    },
    Form(FormBody),
    /// It passes as it is, whatever the choice.
    Unchecked,
    /// It cannot be checked.
    Other,
}

/// How a form is read: `application/x-www-form-urlencoded`.
#[derive(Debug)]
pub struct FormBody {
    /// One for each property that the schema names.
    properties: Vec<Layout>,
    shape: Shape,
    schema: Option<Arc<Schema>>,
}

impl FormBody {
    pub(crate) fn new((properties, shape): (Vec<Layout>, Shape), schema: Option<Arc<Schema>>) -> Self {
        Self { properties, shape, schema }
    }

    /// A property that the schema does not name is a string, and an array where it is there twice.
    fn read(&self, text: &str) -> Result<Value, Malformed> {
        let mut pairs = parameter::pairs(text)?;
        let mut members = Map::new();
        for layout in &self.properties {
            if let Some(value) = layout.in_pairs(&mut pairs, parameter::decode_form)? {
                members.insert(layout.name.clone(), value);
            }
        }
        for pair in pairs.iter().filter(|pair| !pair.is_known) {
            let text = pair.decoded()?;
            let value = match &self.shape.additional {
                Some(shape) => shape.value(text),
                None => Value::String(text),
            };
            match members.entry(pair.name.clone()) {
                serde_json::map::Entry::Vacant(entry) => {
                    entry.insert(value);
                }
                serde_json::map::Entry::Occupied(mut entry) => match entry.get_mut() {
                    Value::Array(items) => items.push(value),
                    single => *single = Value::Array(vec![single.take(), value]),
                },
            }
        }
        Ok(Value::Object(members))
    }
}

/// What the body of one request is checked by.
#[derive(Debug)]
pub enum Body<'d> {
    /// There is none, and none is required.
    Absent,
    /// It passes as it is: see [`Otherwise::Skip`].
    Unchecked,
    /// Strict JSON, by the schema where there is one.
    Json(Option<&'d Schema>),
    /// A form.
    Form(&'d FormBody),
}

impl Body<'_> {
    /// Whether [`check`](Self::check) looks at the bytes: else they need not be buffered.
    pub fn is_checked(&self) -> bool {
        matches!(self, Self::Json(_) | Self::Form(_))
    }

    /// Checks the whole body, decoded from its `Content-Encoding`. What passes may be forwarded byte for byte.
    ///
    /// # Errors: [`Violations`], with the keywords of the schema, and with `json` or `form` where the text is not one.
    pub fn check(&self, body: &[u8], limits: &Limits) -> Result<(), Violations> {
        self.check_within(body, limits, usize::MAX)
    }

    /// As [`Self::check`], with `steps` at the most for the schema; see [`Violations::is_limit`].
    ///
    /// # Errors: [`Violations`].
    pub fn check_within(&self, body: &[u8], limits: &Limits, steps: usize) -> Result<(), Violations> {
        match self {
            Self::Absent | Self::Unchecked => Ok(()),
            Self::Json(schema) => {
                let value = json::parse(body, limits).map_err(|error| not_json(&error))?;
                schema.map_or(Ok(()), |schema| schema.validate_within(&value, steps))
            }
            Self::Form(form) => {
                let refuse = || Violations::one(broken(Place::Body, "#", "form", "is not a form of at most the limit"));
                let text = std::str::from_utf8(body).ok().filter(|_| body.len() <= limits.bytes).ok_or_else(refuse)?;
                let value = form.read(text).map_err(|Malformed| refuse())?;
                form.schema.as_ref().map_or(Ok(()), |schema| schema.validate_within(&value, steps))
            }
        }
    }
}

/// The violation that a text which is no strict JSON stands for: the keyword `json`.
pub(crate) fn not_json(error: &ParseError) -> Violations {
    Violations::one(Violation {
        place: Place::Body,
        instance: pointer::bounded(error.pointer.clone()),
        schema: "#".to_owned(),
        keyword: "json".to_owned(),
        message: format!("{} at byte {}", error.reason, error.offset),
    })
}

/// Whether a media type is JSON or has its structure (RFC 6839 §3.1).
pub(crate) fn is_json(media: &str) -> bool {
    let essence = essence(media);
    essence == "application/json" || (essence.contains('/') && essence.ends_with("+json"))
}

pub(crate) fn is_form(media: &str) -> bool {
    essence(media) == "application/x-www-form-urlencoded"
}

/// Type and subtype, in lower case.
fn essence(media: &str) -> String {
    media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether it names no character set, or UTF-8.
fn is_utf8(media: &str) -> bool {
    let mut parameters = media.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    parameters.all(|(name, value)| {
        let value = value.trim().trim_matches('"');
        !name.trim().eq_ignore_ascii_case("charset") || value.eq_ignore_ascii_case("utf-8")
    })
}

/// See [`Operation::body`](super::Operation::body).
pub(crate) fn select<'d>(
    body: Option<&'d RequestBody>,
    otherwise: Otherwise,
    headers: &HeaderMap,
    has_body: bool,
) -> Result<Body<'d>, Violations> {
    let location = body.map_or("#", |body| body.location.as_str());
    let refuse = |keyword: &str, message: &str| Violations::one(broken(Place::Body, location, keyword, message));
    let unchecked = |message: &str| match otherwise {
        Otherwise::Reject => Err(refuse("content", message)),
        Otherwise::Skip => Ok(Body::Unchecked),
    };
    if !has_body {
        let is_required = body.is_some_and(|body| body.is_required);
        return if is_required { Err(refuse("required", "the body is missing")) } else { Ok(Body::Absent) };
    }
    let Some(body) = body else { return unchecked("no body is described") };
    let types: Vec<&str> = headers.get_all(CONTENT_TYPE).into_iter().filter_map(|value| value.to_str().ok()).collect();
    // Two types are read in two ways, so they are refused whatever the choice.
    let media = match (types.as_slice(), headers.get_all(CONTENT_TYPE).iter().count()) {
        ([media], 1) => *media,
        (_, 0) => return unchecked("the body has no media type"),
        _ => return Err(refuse("content", "the body has more than one media type, or one that is no text")),
    };
    let name = essence(media);
    let range = name.split('/').next().map(|family| format!("{family}/*")).unwrap_or_default();
    let content = [name.as_str(), range.as_str(), "*/*"].into_iter().find_map(|wanted| {
        body.contents.iter().find(|(listed, _)| essence(listed) == wanted).map(|(_, content)| content)
    });
    let checked = match content {
        Some(Content::Json { schema }) if is_json(media) => Body::Json(schema.as_deref()),
        Some(Content::Form(form)) => Body::Form(form),
        Some(Content::Unchecked) => return Ok(Body::Unchecked),
        Some(_) => return unchecked("bodies of this media type cannot be checked"),
        None => return unchecked("the media type is not described"),
    };
    if is_utf8(media) { Ok(checked) } else { Err(refuse("content", "the character set is not UTF-8")) }
}
