//! What requests must be: bodies by media type, parameters, and OpenAPI documents.
//!
//! Invariant: schemas and documents are text here; whoever compiles them (`policies/schema`) refuses those that are no schema.
//! A schema brings what it may refer to, so that no other policy of a chain can change what it means.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroU32,
    sync::Arc,
};

use super::{
    Mode, Settings,
    merge::{map, scalar},
};

/// The settings of a RequestValidationPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValidationSettings {
    /// Whether it is switched off.
    pub disabled: Option<bool>,
    /// What is done with a request that is not valid.
    pub mode: Option<Mode>,
    /// The status that such a request is answered with.
    pub status: Option<InvalidStatus>,
    /// Bodies of a media type that is not described, or that cannot be checked.
    pub unknown_media_types: Option<Otherwise>,
    /// Query parameters that are not described, where parameters are described at all.
    pub unknown_query: Option<Otherwise>,
    /// Arrays and objects around the innermost value of a JSON text: 1 to 256.
    pub max_depth: Option<u16>,
    /// Numbers that a double does not hold.
    pub numbers: Option<Numbers>,
    /// Bodies, whatever the path.
    pub body: BodySettings,
    /// Parameters by a name of the user's, whatever the path.
    pub parameters: BTreeMap<Arc<str>, Arc<Parameter>>,
    /// Operations by method and path.
    pub openapi: Option<Arc<OpenApi>>,
}

impl ValidationSettings {
    /// [`BodySettings::max_bytes`] where nothing says otherwise: 1 MiB.
    pub const DEFAULT_MAX_BYTES: NonZeroU32 = NonZeroU32::new(1 << 20).unwrap();
    /// [`Self::max_depth`] where nothing says otherwise.
    pub const DEFAULT_MAX_DEPTH: u16 = 64;
    /// The most that [`Self::max_depth`] may be.
    pub const MOST_DEPTH: u16 = 256;
}

impl Settings for ValidationSettings {
    fn lay(&mut self, over: &Self, took: &mut dyn FnMut(String)) {
        scalar(&mut self.disabled, over.disabled.as_ref(), "disabled", took);
        scalar(&mut self.mode, over.mode.as_ref(), "mode", took);
        scalar(&mut self.status, over.status.as_ref(), "statusCode", took);
        scalar(&mut self.unknown_media_types, over.unknown_media_types.as_ref(), "unknownMediaTypes", took);
        scalar(&mut self.unknown_query, over.unknown_query.as_ref(), "unknownQueryParameters", took);
        scalar(&mut self.max_depth, over.max_depth.as_ref(), "maxDepth", took);
        scalar(&mut self.numbers, over.numbers.as_ref(), "numbers", took);
        scalar(&mut self.body.required, over.body.required.as_ref(), "body.required", took);
        scalar(&mut self.body.max_bytes, over.body.max_bytes.as_ref(), "body.maxBytes", took);
        map(&mut self.body.content, &over.body.content, "body.content", took);
        map(&mut self.parameters, &over.parameters, "parameters", took);
        scalar(&mut self.openapi, over.openapi.as_ref(), "openapi", took);
    }

    fn is_disabled(&self) -> bool {
        self.disabled.unwrap_or(false)
    }

    fn mode(&self) -> Mode {
        self.mode.unwrap_or_default()
    }
}

/// The status of an answer to a request that is valid HTTP and breaks a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum InvalidStatus {
    /// 400.
    #[default]
    BadRequest,
    /// 422.
    UnprocessableContent,
}

/// What becomes of something that is not described.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Otherwise {
    /// It is refused.
    #[default]
    Reject,
    /// It passes as it is.
    Pass,
}

/// What becomes of a number that neither a 64-bit integer nor a double holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Numbers {
    /// It is refused.
    #[default]
    Exact,
    /// It is judged as the nearest double.
    Nearest,
}

/// What bodies must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BodySettings {
    /// Whether a request needs one.
    pub required: Option<bool>,
    /// Bytes that one may have.
    pub max_bytes: Option<NonZeroU32>,
    /// By media type in lower case or range of such: `application/json`, `image/*`.
    pub content: BTreeMap<Arc<str>, Content>,
}

/// What a body of one media type must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// Strict JSON or a form, by the schema where there is one.
    Checked(Option<Arc<SchemaSource>>),
    /// Anything.
    Unchecked,
}

/// A schema with all that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SchemaSource {
    /// The schema.
    pub schema: JsonText,
    /// What it may refer to, by absolute URI. One value for all schemas of a policy.
    pub resources: Arc<BTreeMap<Arc<str>, JsonText>>,
    /// Its draft, where it does not name one itself.
    pub draft: Draft,
    /// Whether `format` is checked.
    pub formats: Formats,
}

/// A version of JSON Schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Draft {
    /// Draft 4.
    Draft4,
    /// Draft 6.
    Draft6,
    /// Draft 7.
    Draft7,
    /// 2019-09.
    Draft201909,
    /// 2020-12.
    #[default]
    Draft202012,
}

/// Whether `format` is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Formats {
    /// As the draft says.
    #[default]
    ByDraft,
    /// It is.
    Assert,
    /// It is not.
    Annotate,
}

/// A parameter outside the path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Parameter {
    /// Where it is.
    pub place: ParameterPlace,
    /// What requests call it.
    pub name: Arc<str>,
    /// Whether a request needs it.
    pub required: bool,
    /// How it is written; `None` for the place's own.
    pub style: Option<ParameterStyle>,
    /// Whether each item or property is written by itself; `None` for the style's own.
    pub explode: Option<bool>,
    /// What its value must satisfy.
    pub schema: Option<Arc<SchemaSource>>,
}

/// Where a parameter is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ParameterPlace {
    /// The query.
    #[default]
    Query,
    /// A header.
    Header,
    /// A cookie.
    Cookie,
}

/// A style of OpenAPI 3.1 §4.8.12.4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ParameterStyle {
    /// `a=1,2` or `a=1&a=2`.
    #[default]
    Form,
    /// `1,2`; of headers.
    Simple,
    /// `a=1%202`.
    SpaceDelimited,
    /// `a=1%7C2`.
    PipeDelimited,
    /// `a[b]=1`.
    DeepObject,
}

/// An OpenAPI document and how it is applied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OpenApi {
    /// The document, 3.0 or 3.1.
    pub document: JsonText,
    /// What comes before its paths: empty, or beginning with a slash and not ending with one.
    pub base_path: Arc<str>,
    /// Requests that are none of its operations.
    pub unmatched: Otherwise,
}

/// A JSON document as text. Two are compared by a digest first.
#[derive(Clone)]
pub struct JsonText {
    text: Arc<str>,
    digest: u64,
}

impl JsonText {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl<T: Into<Arc<str>>> From<T> for JsonText {
    fn from(text: T) -> Self {
        let text = text.into();
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Self { text, digest: hasher.finish() }
    }
}

impl PartialEq for JsonText {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && (Arc::ptr_eq(&self.text, &other.text) || self.text == other.text)
    }
}

impl Eq for JsonText {}

impl Hash for JsonText {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

/// A document may be large: its size will do.
impl fmt::Debug for JsonText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "JsonText({} bytes)", self.text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_merge_field_by_field_and_content_by_media_type() {
        let content = |media: &str, content| (Arc::from(media), content);
        let mut base = ValidationSettings {
            body: BodySettings {
                required: Some(true),
                max_bytes: NonZeroU32::new(10),
                content: [content("application/json", Content::Checked(None)), content("image/*", Content::Unchecked)]
                    .into(),
            },
            ..ValidationSettings::default()
        };
        let over = ValidationSettings {
            body: BodySettings {
                required: None,
                max_bytes: NonZeroU32::new(20),
                content: [content("application/json", Content::Unchecked)].into(),
            },
            ..ValidationSettings::default()
        };
        let mut taken = Vec::new();
        base.lay(&over, &mut |path| taken.push(path));
        assert_eq!(taken, ["body.maxBytes", "body.content.application/json"]);
        assert_eq!((base.body.required, base.body.max_bytes), (Some(true), NonZeroU32::new(20)));
        assert!(base.body.content.values().all(|content| *content == Content::Unchecked));
    }
}
