//! What a document does wrong, told without its values.

use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use serde_json::Value;

use crate::metered::Metered;
use crate::pointer;

/// Keyword of a violation that is not the document's: validating it would take more than the limits allow.
pub const LIMIT: &str = "limit";

/// The part of a request that a violation is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// The body; also whatever is validated on its own.
    #[default]
    Body,
    /// A parameter of the path, by name.
    Path(String),
    /// A parameter of the query, by name: at most [`MAX_POINTER_BYTES`](crate::MAX_POINTER_BYTES) of it where the document
    /// does not declare it.
    Query(String),
    /// A header, by name.
    Header(String),
    /// A cookie, by name.
    Cookie(String),
}

/// One rule that is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The part of the request.
    pub place: Place,
    /// JSON Pointer (RFC 6901) to the offending value, at most [`MAX_POINTER_BYTES`](crate::MAX_POINTER_BYTES) long. Its
    /// tokens are names that the document uses.
    pub instance: String,
    /// URI fragment, such as `#/properties/age/minimum`, or a URI with one where the rule is in another document or under
    /// an `$id`. Percent-encoded.
    pub schema: String,
    /// The keyword that is broken, such as `minimum`; `schema` where saying which would cost too much.
    pub keyword: String,
    /// A sentence without a dot. Contains what the schema says, never what the document says.
    pub message: String,
}

/// Rules that are broken, at least one, in the order of the schema's evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violations {
    pub(crate) entries: Vec<Violation>,
    pub(crate) more: bool,
}

impl Violations {
    /// At most `limit` of them; `None` where there is none.
    pub(crate) fn of(mut entries: Vec<Violation>, limit: usize) -> Option<Self> {
        let more = entries.len() > limit;
        entries.truncate(limit);
        if entries.is_empty() { None } else { Some(Self { entries, more }) }
    }

    pub(crate) fn at(mut self, place: &Place) -> Self {
        for entry in &mut self.entries {
            entry.place = place.clone();
        }
        self
    }

    pub(crate) fn one(violation: Violation) -> Self {
        Self { entries: vec![violation], more: false }
    }

    /// At most as many as [`Limits::violations`](crate::Limits::violations), at least one.
    pub fn entries(&self) -> &[Violation] {
        &self.entries
    }

    /// Whether there are more than the entries, or may be: the search ended at a limit.
    pub fn more(&self) -> bool {
        self.more
    }

    /// Whether the document was not judged, as that would take more than
    /// [`Limits::steps`](crate::Limits::steps).
    pub fn is_limit(&self) -> bool {
        self.entries.iter().any(|violation| violation.keyword == LIMIT)
    }
}

/// The violation that stands for a judgement that would cost too much.
pub(crate) fn limit(steps: usize) -> Violation {
    Violation {
        place: Place::Body,
        instance: String::new(),
        schema: "#".to_owned(),
        keyword: LIMIT.to_owned(),
        message: format!("validating takes more than {steps} steps"),
    }
}

/// The violation of an instance that is not valid, where saying why would cost too much.
pub(crate) fn unexplained() -> Violation {
    Violation {
        place: Place::Body,
        instance: String::new(),
        schema: "#".to_owned(),
        keyword: "schema".to_owned(),
        message: "does not satisfy the schema".to_owned(),
    }
}

/// The violations that one error stands for: as many as it names properties, else one.
pub(crate) fn from_error(error: &ValidationError<'_>, root: Option<&str>) -> Vec<Violation> {
    let instance = error.instance_path().as_str();
    let kind = error.kind();
    let violation = |instance: String| Violation {
        place: Place::Body,
        instance: pointer::bounded(instance),
        schema: schema_location(error, root),
        keyword: keyword(kind).to_owned(),
        message: message(kind),
    };
    match kind {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            unexpected.iter().map(|name| violation(pointer::join(instance, name))).collect()
        }
        _ => vec![violation(instance.to_owned())],
    }
}

/// The keyword as the schema spells it.
pub(crate) fn keyword(kind: &ValidationErrorKind) -> &str {
    match kind {
        // A schema that is `false` has no keyword.
        ValidationErrorKind::FalseSchema => "false",
        ValidationErrorKind::Custom { keyword, .. } if keyword == crate::readonly::KEYWORD => "readOnly",
        kind => kind.keyword(),
    }
}

fn schema_location(error: &ValidationError<'_>, root: Option<&str>) -> String {
    match error.absolute_keyword_location() {
        Some(uri) => {
            let uri = uri.as_str();
            root.and_then(|root| uri.strip_prefix(root)).filter(|rest| rest.starts_with('#')).unwrap_or(uri).to_owned()
        }
        None => format!("#{}", fragment(error.schema_path().as_str())),
    }
}

/// Characters of a JSON Pointer that a URI fragment must encode (RFC 6901 §6, RFC 3986 §3.5).
const ENCODED: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// A JSON Pointer as the fragment of a URI, without the `#`.
pub(crate) fn fragment(pointer: &str) -> String {
    percent_encoding::utf8_percent_encode(pointer, ENCODED).to_string()
}

/// Says what the schema asks for. The library's own texts quote the document.
pub(crate) fn message(kind: &ValidationErrorKind) -> String {
    use ValidationErrorKind as Kind;
    match kind {
        Kind::AdditionalItems { limit } => format!("must not have more than {limit} items"),
        Kind::AdditionalProperties { .. } | Kind::UnevaluatedProperties { .. } => "property is not allowed".to_owned(),
        Kind::AnyOf { .. } => "matches none of the alternatives".to_owned(),
        Kind::OneOfNotValid { .. } => "matches none of the alternatives, must match one".to_owned(),
        Kind::OneOfMultipleValid { .. } => "matches more than one of the alternatives".to_owned(),
        Kind::BacktrackLimitExceeded { .. } | Kind::RegexEngineFailure { .. } => {
            "the pattern could not be matched within its limits".to_owned()
        }
        Kind::Constant { .. } => "is not the one allowed value".to_owned(),
        Kind::Contains => "has too few or too many of the items it must contain".to_owned(),
        Kind::ContentEncoding { content_encoding } => format!("is not encoded as {content_encoding}"),
        Kind::ContentMediaType { content_media_type } => format!("is not of the media type {content_media_type}"),
        Kind::Custom { message, .. } => message.clone(),
        Kind::Enum { .. } => "is not among the allowed values".to_owned(),
        Kind::ExclusiveMaximum { limit } => format!("must be less than {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("must be greater than {limit}"),
        Kind::FalseSchema => "is not allowed".to_owned(),
        Kind::Format { format } => format!("does not have the format {format}"),
        Kind::FromUtf8 { .. } => "does not decode to UTF-8".to_owned(),
        Kind::MaxItems { limit } => format!("must have at most {limit} items"),
        Kind::Maximum { limit } => format!("must be at most {limit}"),
        Kind::MaxLength { limit } => format!("must have at most {limit} characters"),
        Kind::MaxProperties { limit } => format!("must have at most {limit} properties"),
        Kind::MinItems { limit } => format!("must have at least {limit} items"),
        Kind::Minimum { limit } => format!("must be at least {limit}"),
        Kind::MinLength { limit } => format!("must have at least {limit} characters"),
        Kind::MinProperties { limit } => format!("must have at least {limit} properties"),
        Kind::MultipleOf { multiple_of } => format!("must be a multiple of {multiple_of}"),
        Kind::Not { .. } => "matches what it must not match".to_owned(),
        Kind::Pattern { pattern } => format!("must match the pattern {pattern}"),
        Kind::PropertyNames { error } => format!("has a property whose name {}", message(error.kind())),
        Kind::Required { property: Value::String(name) } => format!("the property {name} is missing"),
        Kind::Required { .. } => "a required property is missing".to_owned(),
        Kind::Type { kind: TypeKind::Single(single) } => format!("must be of type {single}"),
        Kind::Type { kind: TypeKind::Multiple(types) } => {
            let names: Vec<String> = types.into_iter().map(|single| single.to_string()).collect();
            format!("must be of type {}", names.join(" or "))
        }
        Kind::UnevaluatedItems { .. } => "has items that are not allowed".to_owned(),
        Kind::UniqueItems => "has items that are equal".to_owned(),
        Kind::Referencing(_) => "the reference does not resolve".to_owned(),
    }
}

/// A validator of counted values.
pub(crate) type Validator = jsonschema::Validator<Metered>;
