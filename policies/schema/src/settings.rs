//! From the settings of a RequestValidationPolicy to what checks requests: compiled once for each content, and shared.
//!
//! Invariant: settings that compile by themselves also compile once they are merged with others that do, unless two of them
//! describe one parameter under two names.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use control_plane_model::validation as model;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};
use serde_json::Value;

use crate::json::{self, Numbers};
use crate::openapi::{
    Body, BodySpec, ContentSpec, Described, Document, DocumentError, DocumentOptions, InvalidOperation, Lookup,
    Matched, Operation, OperationSpec, Otherwise, ParameterPlace, ParameterSpec, Unknown,
};
use crate::problem::Status;
use crate::schema::{Draft, Formats, Limits, Options};
use crate::violation::Violations;
use crate::{MAX_DEPTH, TextLimits};

/// The most violations that a client is told of.
const VIOLATIONS: usize = 16;
/// The longest text of a schema or a document.
const MAX_TEXT: usize = 4 << 20;

/// Settings that cannot be honoured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct InvalidSettings {
    /// Path of the field: `body.content.application/json.schema`.
    pub field: String,
    /// What is wrong, with the place within the schema or the document.
    pub message: String,
}

/// What was compiled and is still in use, so that what is equal is compiled once.
#[derive(Debug, Default)]
pub struct Cache {
    schemas: Shared<Arc<model::SchemaSource>, Described>,
    documents: Shared<(model::JsonText, DocumentOptions), Document>,
}

#[derive(Debug)]
struct Shared<K, V>(Mutex<HashMap<K, Weak<V>>>);

impl<K, V> Default for Shared<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq, V> Shared<K, V> {
    /// The value for `key`, compiled where it is not in use. Two that ask at the same time may both compile.
    fn get<E>(&self, key: K, compile: impl FnOnce(&K) -> Result<V, E>) -> Result<Arc<V>, E> {
        let in_use = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).and_then(Weak::upgrade);
        if let Some(value) = in_use {
            return Ok(value);
        }
        let value = Arc::new(compile(&key)?);
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        values.retain(|_, value| value.strong_count() > 0);
        values.insert(key, Arc::downgrade(&value));
        Ok(value)
    }

    fn in_use(&self) -> usize {
        let values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        values.values().filter(|value| value.strong_count() > 0).count()
    }
}

impl Cache {
    /// Schemas and documents that somebody uses.
    pub fn in_use(&self) -> usize {
        self.schemas.in_use() + self.documents.in_use()
    }
}

/// What a request must be.
#[derive(Debug)]
pub struct Checks {
    /// Parameters and bodies that are described outside a document.
    parameters: Option<Operation>,
    bodies: Option<Operation>,
    document: Option<Paths>,
    status: Status,
    limits: TextLimits,
    /// As the settings say it; also holds for a body that is not checked.
    max_bytes: Option<u64>,
}

#[derive(Debug)]
struct Paths {
    document: Arc<Document>,
    base_path: Arc<str>,
    unmatched: model::Otherwise,
}

/// Why a request is refused.
#[derive(Debug)]
pub enum Refusal {
    /// It breaks rules.
    Invalid(Violations),
    /// No operation has its path.
    NoPath,
    /// Operations with its path have these methods.
    NoMethod(Vec<Method>),
}

impl From<Violations> for Refusal {
    fn from(violations: Violations) -> Self {
        Self::Invalid(violations)
    }
}

/// What the body of one request is checked by.
#[derive(Debug)]
pub struct BodyChecks<'c> {
    bodies: [Option<Body<'c>>; 2],
    limits: &'c TextLimits,
}

impl BodyChecks<'_> {
    /// Whether the bytes are looked at: else they need not be held.
    pub fn needs_bytes(&self) -> bool {
        self.bodies.iter().flatten().any(Body::is_checked)
    }

    /// Checks the whole body, as it is without a content coding, in `steps` at the most for each schema.
    ///
    /// # Errors: [`Violations`]; see [`Violations::is_limit`].
    pub fn check(&self, bytes: &[u8], steps: usize) -> Result<(), Violations> {
        self.bodies.iter().flatten().try_for_each(|body| body.check_within(bytes, self.limits, steps))
    }
}

impl Checks {
    /// Compiles `settings`, sharing what `cache` has.
    ///
    /// # Errors: [`InvalidSettings`], the first thing that is wrong.
    pub fn compile(settings: &model::ValidationSettings, cache: &Cache) -> Result<Self, InvalidSettings> {
        let spec = |parameters, body| OperationSpec {
            parameters,
            body,
            unchecked_bodies: unchecked(settings.unknown_media_types.unwrap_or_default()),
            unknown_query: unknown(settings.unknown_query.unwrap_or_default()),
            violations: VIOLATIONS,
        };
        let parameters = parameters(settings, cache)?;
        let parameters = (!parameters.is_empty()).then(|| Operation::described(&spec(parameters, None)));
        let bodies = bodies(settings, cache)?.map(|body| Operation::described(&spec(Vec::new(), Some(body))));
        let document = settings.openapi.as_ref().map(|openapi| paths(openapi, settings, cache));
        let max_bytes = settings.body.max_bytes.unwrap_or(model::ValidationSettings::DEFAULT_MAX_BYTES);
        let depth = settings.max_depth.unwrap_or(model::ValidationSettings::DEFAULT_MAX_DEPTH);
        Ok(Self {
            parameters: parameters.transpose()?,
            bodies: bodies.transpose()?,
            document: document.transpose()?,
            status: match settings.status.unwrap_or_default() {
                model::InvalidStatus::BadRequest => Status::BadRequest,
                model::InvalidStatus::UnprocessableContent => Status::UnprocessableContent,
            },
            limits: TextLimits {
                bytes: usize::try_from(max_bytes.get()).unwrap_or(usize::MAX),
                depth: usize::from(depth).min(MAX_DEPTH),
                numbers: match settings.numbers.unwrap_or_default() {
                    model::Numbers::Exact => Numbers::Exact,
                    model::Numbers::Nearest => Numbers::Nearest,
                },
            },
            max_bytes: settings.body.max_bytes.map(|bytes| u64::from(bytes.get())),
        })
    }

    /// Whether every request passes.
    pub fn is_empty(&self) -> bool {
        self.parameters.is_none() && self.bodies.is_none() && self.document.is_none() && self.max_bytes.is_none()
    }

    /// Whether both have one compiled document.
    pub fn shares_document_with(&self, other: &Self) -> bool {
        matches!((&self.document, &other.document), (Some(one), Some(other)) if Arc::ptr_eq(&one.document, &other.document))
    }

    /// The status for a request that breaks rules.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Bytes that a body may have which is checked.
    pub fn checked_bytes(&self) -> usize {
        self.limits.bytes
    }

    /// Bytes that any body may have, where the settings say so.
    pub fn max_bytes(&self) -> Option<u64> {
        self.max_bytes
    }

    /// Checks parameters. `path` is canonical and not decoded.
    ///
    /// # Errors: [`Refusal`].
    pub fn head(&self, method: &Method, path: &str, query: Option<&str>, headers: &HeaderMap) -> Result<(), Refusal> {
        if let Some(operation) = &self.parameters {
            operation.matched().check(query, headers)?;
        }
        match self.matched(method, path)? {
            Some(matched) => Ok(matched.check(query, headers)?),
            None => Ok(()),
        }
    }

    /// What checks the body. `has_body` is false where it is known that there is none.
    ///
    /// # Errors: [`Refusal`], by the media type or for want of a body.
    pub fn body(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        has_body: bool,
    ) -> Result<BodyChecks<'_>, Refusal> {
        let plain = self.bodies.as_ref().map(|operation| operation.body(headers, has_body)).transpose()?;
        let operation = self.matched(method, path)?.map(|matched| matched.operation());
        let described = operation.map(|operation| operation.body(headers, has_body)).transpose()?;
        Ok(BodyChecks { bodies: [plain, described], limits: &self.limits })
    }

    /// The document's operation; `None` without a document, and for what it lets pass.
    fn matched<'p>(&self, method: &Method, path: &'p str) -> Result<Option<Matched<'_, 'p>>, Refusal> {
        let Some(Paths { document, base_path, unmatched }) = &self.document else { return Ok(None) };
        let below = path.strip_prefix(&**base_path).map(|below| if below.is_empty() { "/" } else { below });
        let lookup = match below.filter(|below| below.starts_with('/')) {
            Some(below) => document.operation(method, below),
            None => Lookup::NoPath,
        };
        match (lookup, unmatched) {
            (Lookup::Found(matched), _) => Ok(Some(matched)),
            (_, model::Otherwise::Pass) => Ok(None),
            (Lookup::NoMethod(methods), _) => Err(Refusal::NoMethod(methods.into_iter().cloned().collect())),
            (Lookup::NoPath, _) => Err(Refusal::NoPath),
        }
    }
}

/// Of a request's fields those that say how its body is checked.
pub fn body_headers(headers: &HeaderMap) -> HeaderMap {
    headers.get_all(CONTENT_TYPE).into_iter().map(|value| (CONTENT_TYPE, value.clone())).collect()
}

fn parse(field: &str, text: &model::JsonText) -> Result<Value, InvalidSettings> {
    let limits = TextLimits { bytes: MAX_TEXT, depth: MAX_DEPTH, numbers: Numbers::Nearest };
    json::parse(text.as_str().as_bytes(), &limits)
        .map_err(|error| InvalidSettings { field: field.to_owned(), message: error.to_string() })
}

fn described(field: &str, source: &Arc<model::SchemaSource>, cache: &Cache) -> Result<Arc<Described>, InvalidSettings> {
    cache.schemas.get(source.clone(), |source| {
        let schema = parse(&format!("{field}.schema"), &source.schema)?;
        let texts = source.resources.iter();
        let resources = texts.map(|(uri, text)| Ok((&**uri, parse(&format!("schemas ({uri})"), text)?)));
        let resources = resources.collect::<Result<Vec<(&str, Value)>, InvalidSettings>>()?;
        let resources: Vec<(&str, &Value)> = resources.iter().map(|(uri, document)| (*uri, document)).collect();
        let formats = match source.formats {
            model::Formats::ByDraft => Formats::ByDialect,
            model::Formats::Assert => Formats::Assert,
            model::Formats::Annotate => Formats::Annotate,
        };
        let options = Options { formats, limits: limits(), ..Options::default() };
        Described::compile(schema, Some(draft(source.draft)), &resources, &options)
            .map_err(|error| InvalidSettings { field: format!("{field}.schema"), message: error.to_string() })
    })
}

fn draft(draft: model::Draft) -> Draft {
    match draft {
        model::Draft::Draft4 => Draft::Draft4,
        model::Draft::Draft6 => Draft::Draft6,
        model::Draft::Draft7 => Draft::Draft7,
        model::Draft::Draft201909 => Draft::Draft201909,
        model::Draft::Draft202012 => Draft::Draft202012,
    }
}

fn limits() -> Limits {
    Limits { violations: VIOLATIONS, ..Limits::default() }
}

fn unchecked(otherwise: model::Otherwise) -> Otherwise {
    match otherwise {
        model::Otherwise::Reject => Otherwise::Reject,
        model::Otherwise::Pass => Otherwise::Skip,
    }
}

fn unknown(otherwise: model::Otherwise) -> Unknown {
    match otherwise {
        model::Otherwise::Reject => Unknown::Refuse,
        model::Otherwise::Pass => Unknown::Allow,
    }
}

fn parameters<'s>(
    settings: &'s model::ValidationSettings,
    cache: &Cache,
) -> Result<Vec<ParameterSpec<'s>>, InvalidSettings> {
    let compile = |(key, parameter): (&'s Arc<str>, &'s Arc<model::Parameter>)| {
        let field = format!("parameters.{key}");
        let schema = parameter.schema.as_ref().map(|source| described(&field, source, cache)).transpose()?;
        Ok(ParameterSpec {
            key,
            place: match parameter.place {
                model::ParameterPlace::Query => ParameterPlace::Query,
                model::ParameterPlace::Header => ParameterPlace::Header,
                model::ParameterPlace::Cookie => ParameterPlace::Cookie,
            },
            name: &parameter.name,
            is_required: parameter.required,
            style: parameter.style.map(style),
            explode: parameter.explode,
            schema,
        })
    };
    settings.parameters.iter().map(compile).collect()
}

fn style(style: model::ParameterStyle) -> &'static str {
    match style {
        model::ParameterStyle::Form => "form",
        model::ParameterStyle::Simple => "simple",
        model::ParameterStyle::SpaceDelimited => "spaceDelimited",
        model::ParameterStyle::PipeDelimited => "pipeDelimited",
        model::ParameterStyle::DeepObject => "deepObject",
    }
}

/// `None` where the settings say nothing of bodies but how large they may be.
fn bodies<'s>(settings: &'s model::ValidationSettings, cache: &Cache) -> Result<Option<BodySpec<'s>>, InvalidSettings> {
    let is_required = settings.body.required.unwrap_or(false);
    let mut content = Vec::new();
    for (media, described_as) in &settings.body.content {
        let spec = match described_as {
            model::Content::Unchecked => ContentSpec::Unchecked,
            model::Content::Checked(source) => {
                let field = format!("body.content.{media}");
                ContentSpec::Checked(source.as_ref().map(|source| described(&field, source, cache)).transpose()?)
            }
        };
        content.push((&**media, spec));
    }
    Ok((is_required || !content.is_empty()).then_some(BodySpec { is_required, content }))
}

fn paths(
    openapi: &model::OpenApi,
    settings: &model::ValidationSettings,
    cache: &Cache,
) -> Result<Paths, InvalidSettings> {
    let options = DocumentOptions {
        schema: Options { limits: limits(), ..Options::default() },
        unchecked_bodies: unchecked(settings.unknown_media_types.unwrap_or_default()),
        unknown_query: unknown(settings.unknown_query.unwrap_or_default()),
        ..DocumentOptions::default()
    };
    let document = cache.documents.get((openapi.document.clone(), options), |(text, options)| {
        let invalid =
            |error: DocumentError| InvalidSettings { field: "openapi".to_owned(), message: error.to_string() };
        Document::compile(&parse("openapi", text)?, options).map_err(invalid)
    })?;
    Ok(Paths { document, base_path: openapi.base_path.clone(), unmatched: openapi.unmatched })
}

impl From<InvalidOperation> for InvalidSettings {
    fn from(error: InvalidOperation) -> Self {
        Self { field: error.field, message: error.message }
    }
}
