//! Requests against an OpenAPI document, 3.0 or 3.1: the operation by method and path, its parameters, its body.
//!
//! Invariants: compiled once; references are to the document itself, any other is refused; a body that the document does
//! not describe is refused unless the options say otherwise, never half-checked.
//! Not here: `servers` (the caller takes their path off), `security`, `callbacks`, `webhooks`, responses.

mod body;
mod operation;
mod parameter;
mod path;
mod plain;
mod shape;
mod translate;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use http::Method;
use serde_json::Value;

pub use body::{Body, FormBody};
pub use operation::{Matched, Operation};
pub use plain::{BodySpec, ContentSpec, Described, InvalidOperation, OperationSpec, ParameterPlace, ParameterSpec};

use self::body::Content;
use self::operation::{Parameter, Source};
use self::parameter::{Layout, Style};
use self::path::{InvalidTemplate, Paths, Template};
use self::shape::{Form, Shape};
use self::translate::{Dialect, local};
use crate::pointer;
use crate::schema::{self, Draft, Options, Schema, SchemaError};
use crate::violation::fragment;

/// What a document leaves open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DocumentOptions {
    /// How its schemas are compiled. The limits also count for the whole document.
    pub schema: Options,
    /// Bodies that cannot be checked by a schema.
    pub unchecked_bodies: Otherwise,
    /// Query parameters that the document does not declare. Those of an `apiKey` in `securitySchemes` count as declared.
    pub unknown_query: Unknown,
    /// Properties that are `readOnly`, in a request.
    pub read_only: Unknown,
}

/// What becomes of a body that cannot be checked: of a media type that is neither JSON nor a form, or that the operation
/// does not list, or where it describes none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Otherwise {
    /// It is refused.
    #[default]
    Reject,
    /// It passes as it is.
    Skip,
}

/// What becomes of something that was not asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Unknown {
    /// It is refused.
    #[default]
    Refuse,
    /// It passes.
    Allow,
}

/// Why a document is refused. Locations are URI fragments in it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// `openapi` is neither 3.0 nor 3.1.
    #[error("{found} is not OpenAPI 3.0 or 3.1")]
    Version {
        /// What it is; empty where it is missing.
        found: String,
    },
    /// Two paths match the same requests.
    #[error("{first} and {second} match the same paths")]
    Ambiguous {
        /// The one.
        first: String,
        /// The other.
        second: String,
    },
    /// The reference is to another document, or to nothing, or to itself.
    #[error("{reference} at {location} is not in the document")]
    Reference {
        /// As it is written.
        reference: String,
        /// Where it stands.
        location: String,
    },
    /// Something is not as the specification asks, or is not supported.
    #[error("{location}: {message}")]
    Structure {
        /// Where it is.
        location: String,
        /// What is wrong.
        message: String,
    },
    /// A schema is refused.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

impl DocumentError {
    fn structure(pointer: &str, message: impl Into<String>) -> Self {
        Self::Structure { location: format!("#{}", fragment(pointer)), message: message.into() }
    }
}

/// Which operation a request is for.
#[derive(Debug)]
pub enum Lookup<'d, 'p> {
    /// This one.
    Found(Matched<'d, 'p>),
    /// The path has other methods only: these, sorted.
    NoMethod(Vec<&'d Method>),
    /// The document has no such path.
    NoPath,
}

/// A compiled document.
#[derive(Debug)]
pub struct Document {
    paths: Paths<PathItem>,
}

#[derive(Debug)]
struct PathItem {
    operations: HashMap<Method, Operation>,
}

/// The document's name among the resources of its schemas.
const URI: &str = "openapi:///document";
/// References in a row, between objects of the document.
const MAX_REFERENCES: usize = 16;
/// Fields of a path item that are operations (OpenAPI 3.1 §4.8.9).
const METHODS: &[(&str, Method)] = &[
    ("delete", Method::DELETE),
    ("get", Method::GET),
    ("head", Method::HEAD),
    ("options", Method::OPTIONS),
    ("patch", Method::PATCH),
    ("post", Method::POST),
    ("put", Method::PUT),
    ("trace", Method::TRACE),
];
/// Headers that parameters do not describe (OpenAPI 3.1 §4.8.12.2).
const NOT_PARAMETERS: &[&str] = &["accept", "authorization", "content-type"];

impl Document {
    /// Compiles every operation of `document`, an OpenAPI document of version 3.0 or 3.1.
    ///
    /// Costs milliseconds for each schema that parameters and bodies name; the result is meant to be shared.
    ///
    /// # Errors: [`DocumentError`].
    pub fn compile(document: &Value, options: &DocumentOptions) -> Result<Self, DocumentError> {
        schema::check_size(std::iter::once(document), &options.schema.limits)?;
        let dialect = dialect(document)?;
        let found = Collected::of(document)?;
        let mut translated = document.clone();
        let refuses_read_only = options.read_only == Unknown::Refuse;
        translate::translate(&mut translated, found.all_schemas(), dialect, refuses_read_only)?;
        let draft = dialect.draft();
        let registry = schema::registry(&[(URI, &translated)], Some(draft)).map_err(here)?;
        let mut schemas: HashMap<String, Arc<Schema>> = HashMap::new();
        for at in found.all_schemas() {
            if let Entry::Vacant(entry) = schemas.entry(at) {
                let schema = Schema::at(URI, entry.key(), draft, &registry, &options.schema).map_err(here)?;
                entry.insert(Arc::new(schema));
            }
        }
        let compiler = Compiler { document: &translated, schemas, options };
        let mut entries = Vec::new();
        for path in found.paths {
            entries.push((path.text.clone(), path.template, compiler.path_item(&path.text, path.operations)?));
        }
        Ok(Self { paths: Paths::new(entries) })
    }

    /// The operation for a request. `path` is canonical and not decoded, without the path of the document's server and
    /// without the query: a literal of a template matches byte for byte.
    pub fn operation<'d, 'p>(&'d self, method: &Method, path: &'p str) -> Lookup<'d, 'p> {
        let Some((item, values)) = self.paths.find(path) else { return Lookup::NoPath };
        if let Some(operation) = item.operations.get(method) {
            return Lookup::Found(Matched { operation, values });
        }
        let mut methods: Vec<&Method> = item.operations.keys().collect();
        methods.sort_unstable_by_key(|method| method.as_str());
        Lookup::NoMethod(methods)
    }
}

fn dialect(document: &Value) -> Result<Dialect, DocumentError> {
    let found = document.get("openapi").and_then(Value::as_str).unwrap_or_default();
    if found.starts_with("3.0.") {
        return Ok(Dialect::OpenApi30);
    }
    if !found.starts_with("3.1.") {
        return Err(DocumentError::Version { found: found.to_owned() });
    }
    match document.get("jsonSchemaDialect").and_then(Value::as_str) {
        // Its own vocabulary (OpenAPI 3.1 §4.8.24.5) has annotations only.
        None | Some("https://spec.openapis.org/oas/3.1/dialect/base") => Ok(Dialect::OpenApi31(Draft::Draft202012)),
        Some(uri) => match Draft::of_uri(uri) {
            Some(draft) => Ok(Dialect::OpenApi31(draft)),
            None => Err(SchemaError::Dialect { uri: uri.to_owned() }.into()),
        },
    }
}

/// Locations within the document leave its name out.
fn here(error: SchemaError) -> DocumentError {
    let shorten = |location: String| location.strip_prefix(URI).map(str::to_owned).unwrap_or(location);
    DocumentError::Schema(match error {
        SchemaError::Invalid { location, keyword, message } => {
            SchemaError::Invalid { location: shorten(location), keyword, message }
        }
        SchemaError::Unresolved { reference, location } => {
            SchemaError::Unresolved { reference, location: shorten(location) }
        }
        SchemaError::References { location, limit } => SchemaError::References { location: shorten(location), limit },
        SchemaError::Nesting { location, limit } => SchemaError::Nesting { location: shorten(location), limit },
        SchemaError::Endless { location } => SchemaError::Endless { location: shorten(location) },
        SchemaError::FanOut { location, limit } => SchemaError::FanOut { location: shorten(location), limit },
        other => other,
    })
}

/// What the document's operations name, before anything is compiled.
struct Collected {
    paths: Vec<CollectedPath>,
}

struct CollectedPath {
    text: String,
    template: Template,
    operations: Vec<CollectedOperation>,
}

struct CollectedOperation {
    method: Method,
    /// Pointers to the Parameter Objects, references followed.
    parameters: Vec<String>,
    /// Pointer to the Request Body Object.
    body: Option<String>,
    /// Pointers to schemas: of parameters and of media types.
    schemas: Vec<String>,
}

/// The object at `at`, and where it is when its references are followed.
fn object_at<'d>(document: &'d Value, at: &str) -> Result<(String, &'d serde_json::Map<String, Value>), DocumentError> {
    let mut at = at.to_owned();
    for _ in 0..MAX_REFERENCES {
        let Some(Value::Object(object)) = document.pointer(&at) else {
            return Err(DocumentError::structure(&at, "is not an object"));
        };
        match object.get("$ref") {
            Some(Value::String(reference)) => {
                let target = local(reference, &at)?;
                if document.pointer(&target).is_none() {
                    return Err(DocumentError::Reference { reference: reference.clone(), location: at });
                }
                at = target;
            }
            Some(_) => return Err(DocumentError::structure(&pointer::join(&at, "$ref"), "is not a string")),
            None => return Ok((at, object)),
        }
    }
    Err(DocumentError::structure(&at, "is a reference to a reference, and so on"))
}

impl Collected {
    fn of(document: &Value) -> Result<Self, DocumentError> {
        let mut paths = Vec::new();
        let mut ranks: BTreeMap<Vec<(usize, usize, String)>, String> = BTreeMap::new();
        let items = match document.get("paths") {
            Some(Value::Object(items)) => items,
            Some(_) => return Err(DocumentError::structure("/paths", "is not an object")),
            None => return Ok(Self { paths }),
        };
        for text in items.keys().filter(|text| !text.starts_with("x-")) {
            let at = pointer::join("/paths", text);
            let template = Template::parse(text).map_err(|error| {
                DocumentError::structure(
                    &at,
                    match error {
                        InvalidTemplate::NoSlash => "does not begin with a slash".to_owned(),
                        InvalidTemplate::Braces => "has braces that are not a parameter's".to_owned(),
                        InvalidTemplate::Adjacent => "has parameters with nothing between them".to_owned(),
                        InvalidTemplate::Repeated(name) => format!("has the parameter {name} twice"),
                    },
                )
            })?;
            if let Some(first) = ranks.insert(template.rank(), text.clone()) {
                return Err(DocumentError::Ambiguous { first, second: text.clone() });
            }
            let operations = Self::operations(document, &at)?;
            paths.push(CollectedPath { text: text.clone(), template, operations });
        }
        Ok(Self { paths })
    }

    fn operations(document: &Value, at: &str) -> Result<Vec<CollectedOperation>, DocumentError> {
        let (at, item) = object_at(document, at)?;
        let shared = Self::parameters(document, &at, item)?;
        let mut operations = Vec::new();
        for (field, method) in METHODS.iter().filter(|(field, _)| item.contains_key(*field)) {
            let (at, operation) = object_at(document, &pointer::join(&at, field))?;
            // One of the operation takes the place of the path's of the same name.
            let mut parameters = shared.clone();
            parameters.extend(Self::parameters(document, &at, operation)?);
            let parameters: Vec<String> = parameters.into_values().collect();
            let mut schemas = Vec::new();
            for at in &parameters {
                schemas.extend(Self::schemas(document, at)?);
            }
            let mut body = None;
            if operation.contains_key("requestBody") {
                let (at, _) = object_at(document, &pointer::join(&at, "requestBody"))?;
                schemas.extend(Self::schemas(document, &at)?);
                body = Some(at);
            }
            operations.push(CollectedOperation { method: method.clone(), parameters, body, schemas });
        }
        Ok(operations)
    }

    /// Pointers by place and name.
    fn parameters(
        document: &Value,
        at: &str,
        owner: &serde_json::Map<String, Value>,
    ) -> Result<BTreeMap<(String, String), String>, DocumentError> {
        let mut parameters = BTreeMap::new();
        let at = pointer::join(at, "parameters");
        let count = owner.get("parameters").and_then(Value::as_array).map_or(0, Vec::len);
        for index in 0..count {
            let (at, parameter) = object_at(document, &pointer::join(&at, &index.to_string()))?;
            let text = |field| parameter.get(field).and_then(Value::as_str);
            let (Some(place), Some(name)) = (text("in"), text("name")) else {
                return Err(DocumentError::structure(&at, "has no name or no place"));
            };
            let name = if place == "header" { name.to_ascii_lowercase() } else { name.to_owned() };
            if place == "header" && NOT_PARAMETERS.contains(&name.as_str()) {
                continue;
            }
            if parameters.insert((place.to_owned(), name), at.clone()).is_some() {
                return Err(DocumentError::structure(&at, "is there twice"));
            }
        }
        Ok(parameters)
    }

    /// Pointers to the schemas of a parameter or of a body.
    fn schemas(document: &Value, at: &str) -> Result<Vec<String>, DocumentError> {
        let (at, owner) = object_at(document, at)?;
        let mut schemas = Vec::new();
        if owner.contains_key("schema") {
            schemas.push(pointer::join(&at, "schema"));
        }
        let at = pointer::join(&at, "content");
        for media in owner.get("content").and_then(Value::as_object).into_iter().flat_map(serde_json::Map::keys) {
            let (at, media) = object_at(document, &pointer::join(&at, media))?;
            if media.contains_key("schema") {
                schemas.push(pointer::join(&at, "schema"));
            }
        }
        Ok(schemas)
    }

    /// All of them, some more than once.
    fn all_schemas(&self) -> Vec<String> {
        let operations = self.paths.iter().flat_map(|path| &path.operations);
        operations.flat_map(|operation| operation.schemas.iter().cloned()).collect()
    }
}

struct Compiler<'d> {
    /// Translated.
    document: &'d Value,
    /// By pointer.
    schemas: HashMap<String, Arc<Schema>>,
    options: &'d DocumentOptions,
}

impl Compiler<'_> {
    fn path_item(&self, text: &str, operations: Vec<CollectedOperation>) -> Result<PathItem, DocumentError> {
        let mut compiled = HashMap::new();
        for operation in operations {
            let method = operation.method.clone();
            compiled.insert(method, self.operation(text, &operation)?);
        }
        Ok(PathItem { operations: compiled })
    }

    fn operation(&self, text: &str, collected: &CollectedOperation) -> Result<Operation, DocumentError> {
        let template = Template::parse(text).map_err(|_| DocumentError::structure(text, "is no path"))?;
        let mut parameters = Vec::new();
        for at in &collected.parameters {
            let parameter = self.parameter(at)?;
            let is_in_path = template.parameters().any(|name| name == parameter.layout.name);
            if parameter.source == Source::Path && !is_in_path {
                return Err(DocumentError::structure(at, "is not in the path"));
            }
            parameters.push(parameter);
        }
        // One that takes whatever is left comes last.
        parameters.sort_by_key(|parameter| parameter.layout.shape.additional.is_some());
        for name in template.parameters() {
            let is_declared = |parameter: &Parameter| parameter.source == Source::Path && parameter.layout.name == name;
            if !parameters.iter().any(is_declared) {
                let at = pointer::join("/paths", text);
                return Err(DocumentError::structure(&at, format!("does not declare the parameter {name}")));
            }
        }
        let body = collected.body.as_ref().map(|at| self.body(at)).transpose()?;
        Ok(Operation {
            parameters,
            body,
            known_query: self.key_parameters(),
            unchecked_bodies: self.options.unchecked_bodies,
            unknown_query: self.options.unknown_query,
            violations: self.options.schema.limits.violations.max(1),
        })
    }

    /// Query parameters that carry an API key.
    fn key_parameters(&self) -> Vec<String> {
        let schemes = self.document.pointer("/components/securitySchemes").and_then(Value::as_object);
        let keys = schemes.into_iter().flat_map(serde_json::Map::values).filter(|scheme| {
            scheme.get("type") == Some(&Value::from("apiKey")) && scheme.get("in") == Some(&Value::from("query"))
        });
        keys.filter_map(|scheme| scheme.get("name")?.as_str().map(str::to_owned)).collect()
    }

    fn shape(&self, at: &str) -> Shape {
        self.document.pointer(at).map(|schema| Shape::of(self.document, schema)).unwrap_or_default()
    }

    fn parameter(&self, at: &str) -> Result<Parameter, DocumentError> {
        let (at, object) = object_at(self.document, at)?;
        let text = |field| object.get(field).and_then(Value::as_str);
        let flag = |field| object.get(field) == Some(&Value::Bool(true));
        let (source, default_style) = match text("in") {
            Some("path") => (Source::Path, Style::Simple),
            Some("query") => (Source::Query, Style::Form),
            Some("header") => (Source::Header, Style::Simple),
            Some("cookie") => (Source::Cookie, Style::Form),
            _ => return Err(DocumentError::structure(&pointer::join(&at, "in"), "is no place of a parameter")),
        };
        if source == Source::Path && !flag("required") {
            return Err(DocumentError::structure(&at, "is in the path and not required"));
        }
        let style = match text("style") {
            Some(name) => Style::of(name).filter(|style| source.allows(*style)).ok_or_else(|| {
                DocumentError::structure(&pointer::join(&at, "style"), format!("{name} is no style for this place"))
            })?,
            None => default_style,
        };
        let schema_at = pointer::join(&at, "schema");
        let (is_json, schema_at) = match object.get("content").and_then(Value::as_object) {
            Some(content) => {
                let content_at = pointer::join(&at, "content");
                let Some(media) = content.keys().next().filter(|_| content.len() == 1) else {
                    return Err(DocumentError::structure(&content_at, "does not have one media type"));
                };
                let at = pointer::join(&content_at, media);
                if !body::is_json(media) {
                    return Err(DocumentError::structure(&at, "is not supported in a parameter"));
                }
                (true, pointer::join(&object_at(self.document, &at)?.0, "schema"))
            }
            None => (false, schema_at),
        };
        let explode = object.get("explode").and_then(Value::as_bool).unwrap_or(style == Style::Form);
        let shape = self.shape(&schema_at);
        if style == Style::DeepObject && shape.form() != Form::Object {
            return Err(DocumentError::structure(&at, "has the style deepObject and is no object"));
        }
        let name = text("name").unwrap_or_default().to_owned();
        Ok(Parameter {
            source,
            is_required: flag("required"),
            is_json,
            layout: Layout { name, style, explode, shape },
            schema: self.schemas.get(&schema_at).cloned(),
            location: format!("#{}", fragment(&at)),
        })
    }

    fn body(&self, at: &str) -> Result<body::RequestBody, DocumentError> {
        let (at, object) = object_at(self.document, at)?;
        let mut contents = Vec::new();
        let media_at = pointer::join(&at, "content");
        let content = object.get("content").and_then(Value::as_object);
        let Some(content) = content else { return Err(DocumentError::structure(&media_at, "is not an object")) };
        for media in content.keys() {
            let (at, object) = object_at(self.document, &pointer::join(&media_at, media))?;
            let schema_at = pointer::join(&at, "schema");
            let schema = self.schemas.get(&schema_at).cloned();
            let content = if body::is_json(media) || media.contains('*') {
                Content::Json { schema }
            } else if body::is_form(media) {
                Content::Form(FormBody::new(Self::form(&at, object, self.shape(&schema_at))?, schema))
            } else {
                Content::Other
            };
            contents.push((media.to_ascii_lowercase(), content));
        }
        Ok(body::RequestBody {
            is_required: object.get("required") == Some(&Value::Bool(true)),
            location: format!("#{}", fragment(&at)),
            contents,
        })
    }

    /// How each property of a form is written (Encoding Object, OpenAPI 3.1 §4.8.15).
    fn form(
        at: &str,
        media: &serde_json::Map<String, Value>,
        shape: Shape,
    ) -> Result<(Vec<Layout>, Shape), DocumentError> {
        let mut layouts = Vec::new();
        for (name, property) in &shape.properties {
            let encoding = media.get("encoding").and_then(|encoding| encoding.get(name));
            let style = match encoding.and_then(|encoding| encoding.get("style")).and_then(Value::as_str) {
                Some(style) => Style::of(style).filter(|style| Source::Query.allows(*style)).ok_or_else(|| {
                    DocumentError::structure(&pointer::join(at, "encoding"), format!("{style} is no style of a form"))
                })?,
                None => Style::Form,
            };
            let explode = encoding.and_then(|encoding| encoding.get("explode")).and_then(Value::as_bool);
            let explode = explode.unwrap_or(style == Style::Form);
            layouts.push(Layout { name: name.clone(), style, explode, shape: property.clone() });
        }
        Ok((layouts, shape))
    }
}
