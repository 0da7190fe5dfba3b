//! An operation that settings describe, with a JSON Schema for each parameter and each media type of the body, in place of
//! an OpenAPI document. It is checked as one of a document is.

use std::sync::Arc;

use http::HeaderName;
use serde_json::Value;

use super::body::{self, Content, FormBody, RequestBody};
use super::operation::{Matched, Operation, Parameter, Source};
use super::parameter::{Layout, Style};
use super::shape::{Form, Shape};
use super::{NOT_PARAMETERS, Otherwise, Unknown};
use crate::schema::{Draft, Options, Schema, SchemaError};

/// A compiled schema, and its document, which says how texts are read.
#[derive(Debug)]
pub struct Described {
    document: Value,
    schema: Arc<Schema>,
}

impl Described {
    /// Compiles `document`; see [`Schema::compile`].
    ///
    /// # Errors: [`SchemaError`].
    pub fn compile(
        document: Value,
        draft: Option<Draft>,
        resources: &[(&str, &Value)],
        options: &Options,
    ) -> Result<Self, SchemaError> {
        let schema = Schema::compile(&document, draft, resources, options).map(Arc::new)?;
        Ok(Self { document, schema })
    }

    fn shape(&self) -> Shape {
        Shape::of(&self.document, &self.document)
    }
}

/// Where a parameter is. One of the path needs a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParameterPlace {
    /// The query.
    Query,
    /// A header.
    Header,
    /// A cookie.
    Cookie,
}

/// One parameter.
#[derive(Clone, Debug)]
pub struct ParameterSpec<'a> {
    /// What settings call it: its place in errors.
    pub key: &'a str,
    /// Where it is.
    pub place: ParameterPlace,
    /// What requests call it.
    pub name: &'a str,
    /// Whether a request needs it.
    pub is_required: bool,
    /// The style of OpenAPI in which it is written; `None` for the place's own: `form`, in a header `simple`.
    pub style: Option<&'a str>,
    /// Whether each item or property is written by itself; `None` for the style's own.
    pub explode: Option<bool>,
    /// What its value must satisfy.
    pub schema: Option<Arc<Described>>,
}

/// What a body of one media type must be.
#[derive(Clone, Debug)]
pub enum ContentSpec {
    /// Strict JSON, or a form, that satisfies the schema where there is one.
    Checked(Option<Arc<Described>>),
    /// Anything: it passes as it is.
    Unchecked,
}

/// The bodies of an operation.
#[derive(Clone, Debug)]
pub struct BodySpec<'a> {
    /// Whether a request needs one.
    pub is_required: bool,
    /// By media type, or range of such: `application/json`, `text/*`.
    pub content: Vec<(&'a str, ContentSpec)>,
}

/// An operation.
#[derive(Clone, Debug)]
pub struct OperationSpec<'a> {
    /// Parameters, each place and name once.
    pub parameters: Vec<ParameterSpec<'a>>,
    /// Bodies.
    pub body: Option<BodySpec<'a>>,
    /// Bodies of other media types.
    pub unchecked_bodies: Otherwise,
    /// Query parameters that are not described.
    pub unknown_query: Unknown,
    /// The most violations that are reported.
    pub violations: usize,
}

/// Why an operation is refused, and where.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct InvalidOperation {
    /// Path of the field: `parameters.page`, `body.content.application/json`.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl ParameterPlace {
    fn source(self) -> (Source, Style) {
        match self {
            Self::Query => (Source::Query, Style::Form),
            Self::Header => (Source::Header, Style::Simple),
            Self::Cookie => (Source::Cookie, Style::Form),
        }
    }
}

impl Operation {
    /// What `spec` describes.
    ///
    /// # Errors: [`InvalidOperation`], the first thing that is wrong.
    pub fn described(spec: &OperationSpec<'_>) -> Result<Self, InvalidOperation> {
        let mut parameters: Vec<Parameter> = Vec::new();
        for parameter in &spec.parameters {
            let at = |message| InvalidOperation { field: format!("parameters.{}", parameter.key), message };
            let compiled = compile_parameter(parameter).map_err(at)?;
            let is_same =
                |other: &Parameter| other.source == compiled.source && other.layout.name == compiled.layout.name;
            if parameters.iter().any(is_same) {
                return Err(at("describes a parameter that another entry describes".to_owned()));
            }
            parameters.push(compiled);
        }
        // One that takes whatever is left comes last.
        parameters.sort_by_key(|parameter| parameter.layout.shape.additional.is_some());
        let body = spec.body.as_ref().map(compile_body).transpose()?;
        Ok(Self {
            parameters,
            body,
            known_query: Vec::new(),
            unchecked_bodies: spec.unchecked_bodies,
            unknown_query: spec.unknown_query,
            violations: spec.violations.max(1),
        })
    }

    /// The operation for any request: its parameters are not in the path.
    pub fn matched(&self) -> Matched<'_, 'static> {
        Matched { operation: self, values: Vec::new() }
    }
}

fn compile_parameter(spec: &ParameterSpec<'_>) -> Result<Parameter, String> {
    let (source, default_style) = spec.place.source();
    let name = match spec.place {
        ParameterPlace::Header => {
            let name =
                HeaderName::try_from(spec.name).map_err(|_| format!("{:?} is no name of a header", spec.name))?;
            if NOT_PARAMETERS.contains(&name.as_str()) {
                return Err(format!("{name} is not described by parameters"));
            }
            name.as_str().to_owned()
        }
        ParameterPlace::Query | ParameterPlace::Cookie => spec.name.to_owned(),
    };
    let style = match spec.style {
        None => default_style,
        Some(name) => Style::of(name)
            .filter(|style| source.allows(*style))
            .ok_or_else(|| format!("{name} is no style for this place"))?,
    };
    let shape = spec.schema.as_ref().map(|schema| schema.shape()).unwrap_or_default();
    if style == Style::DeepObject && shape.form() != Form::Object {
        return Err("has the style deepObject and is no object".to_owned());
    }
    Ok(Parameter {
        source,
        is_required: spec.is_required,
        is_json: false,
        layout: Layout { name, style, explode: spec.explode.unwrap_or(style == Style::Form), shape },
        schema: spec.schema.as_ref().map(|described| described.schema.clone()),
        location: format!("#/parameters/{}", crate::violation::fragment(spec.key)),
    })
}

fn compile_body(spec: &BodySpec<'_>) -> Result<RequestBody, InvalidOperation> {
    let mut contents: Vec<(String, Content)> = Vec::new();
    for (media, content) in &spec.content {
        let at = |message| InvalidOperation { field: format!("body.content.{media}"), message };
        let name = media_range(media).ok_or_else(|| at("is no media type without parameters".to_owned()))?;
        if contents.iter().any(|(other, _)| *other == name) {
            return Err(at("is there twice".to_owned()));
        }
        contents.push((name, compile_content(media, content).map_err(at)?));
    }
    Ok(RequestBody { is_required: spec.is_required, location: "#/body".to_owned(), contents })
}

fn compile_content(media: &str, content: &ContentSpec) -> Result<Content, String> {
    let described = match content {
        ContentSpec::Unchecked => return Ok(Content::Unchecked),
        ContentSpec::Checked(described) => described.as_ref(),
    };
    let schema = described.map(|described| described.schema.clone());
    if body::is_json(media) || media.contains('*') {
        return Ok(Content::Json { schema });
    }
    if !body::is_form(media) {
        return Err("is neither JSON nor a form, so it cannot be checked: say that it is unchecked".to_owned());
    }
    let shape = described.map(|described| described.shape()).unwrap_or_default();
    let property = |(name, shape): (&String, &Shape)| Layout {
        name: name.clone(),
        style: Style::Form,
        explode: true,
        shape: shape.clone(),
    };
    let properties = shape.properties.iter().map(property).collect();
    Ok(Content::Form(FormBody::new((properties, shape), schema)))
}

/// Type and subtype, either of which may be a star, in lower case.
fn media_range(text: &str) -> Option<String> {
    let is_token = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+*".contains(&byte))
    };
    let (kind, subtype) = text.split_once('/')?;
    let is_range = |part: &str| !part.contains('*') || part == "*";
    let is_valid = is_token(kind) && is_token(subtype) && is_range(kind) && is_range(subtype);
    (is_valid && (kind != "*" || subtype == "*")).then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, header};
    use serde_json::json;

    use super::*;
    use crate::json::Limits;

    fn spec(schema: &Value) -> Arc<Described> {
        Arc::new(Described::compile(schema.clone(), None, &[], &Options::default()).unwrap())
    }

    fn operation<'a>(parameters: Vec<ParameterSpec<'a>>, body: Option<BodySpec<'a>>) -> OperationSpec<'a> {
        OperationSpec {
            parameters,
            body,
            unchecked_bodies: Otherwise::Reject,
            unknown_query: Unknown::Refuse,
            violations: 16,
        }
    }

    fn parameter<'a>(place: ParameterPlace, name: &'a str, schema: &Value) -> ParameterSpec<'a> {
        ParameterSpec {
            key: name,
            place,
            name,
            is_required: true,
            style: None,
            explode: None,
            schema: Some(spec(schema)),
        }
    }

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    /// Keyword and place of each violation.
    fn broken(operation: &Operation, query: &str, fields: &[(&'static str, &'static str)]) -> Vec<(String, String)> {
        let checked = operation.matched().check(Some(query), &headers(fields));
        let entries = checked.err().map(|violations| violations.entries().to_vec()).unwrap_or_default();
        entries.into_iter().map(|entry| (entry.keyword, format!("{:?}", entry.place))).collect()
    }

    #[test]
    fn parameters_are_checked_where_they_are() {
        let (number, list) = (json!({"type": "integer", "minimum": 1}), json!({"type": "array", "maxItems": 2}));
        let mut tags = parameter(ParameterPlace::Query, "tags", &list);
        (tags.style, tags.explode, tags.is_required) = (Some("pipeDelimited"), Some(false), false);
        let parameters = vec![
            parameter(ParameterPlace::Query, "page", &number),
            tags,
            parameter(ParameterPlace::Header, "X-Shard", &number),
            parameter(ParameterPlace::Cookie, "theme", &number),
        ];
        let operation = Operation::described(&operation(parameters, None)).unwrap();
        let good = [("x-shard", "3"), ("cookie", "theme=4")];
        assert_eq!(broken(&operation, "page=1&tags=a%7Cb", &good), []);
        for (query, fields, keyword, place) in [
            ("page=0", &good[..], "minimum", "Query(\"page\")"),
            ("page=1&page=2", &good, "style", "Query(\"page\")"),
            ("page=1&tags=a%7Cb%7Cc", &good, "maxItems", "Query(\"tags\")"),
            ("page=1&x=2", &good, "unknown", "Query(\"x\")"),
            ("page=1", &good[..1], "required", "Cookie(\"theme\")"),
            ("page=1", &good[1..], "required", "Header(\"x-shard\")"),
        ] {
            assert_eq!(broken(&operation, query, fields), [(keyword.to_owned(), place.to_owned())], "{query}");
        }
    }

    #[test]
    fn bodies_are_checked_by_their_media_type() {
        let (order, form) = (json!({"required": ["id"]}), json!({"properties": {"n": {"type": "integer"}}}));
        let content = vec![
            ("application/json", ContentSpec::Checked(Some(spec(&order)))),
            ("application/x-www-form-urlencoded", ContentSpec::Checked(Some(spec(&form)))),
            ("image/*", ContentSpec::Unchecked),
        ];
        let body = BodySpec { is_required: true, content };
        let operation = Operation::described(&operation(Vec::new(), Some(body))).unwrap();
        let check = |media: &'static str, text: &str| {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(media))]);
            let selected =
                operation.body(&headers, true).map_err(|violations| violations.entries()[0].keyword.clone())?;
            let checked = selected.check(text.as_bytes(), &Limits::default());
            checked.map_err(|violations| violations.entries()[0].keyword.clone())
        };
        assert_eq!(check("application/json", r#"{"id": 1}"#), Ok(()));
        assert_eq!(check("Application/JSON; charset=utf-8", "{}"), Err("required".to_owned()));
        assert_eq!(check("application/json", "{'id': 1}"), Err("json".to_owned()));
        assert_eq!(check("application/json; charset=utf-16", "{}"), Err("content".to_owned()));
        assert_eq!(check("application/x-www-form-urlencoded", "n=1"), Ok(()));
        assert_eq!(check("application/x-www-form-urlencoded", "n=x"), Err("type".to_owned()));
        assert_eq!(check("image/png", "\u{1}"), Ok(()));
        assert_eq!(check("text/plain", "x"), Err("content".to_owned()));
        assert_eq!(operation.body(&HeaderMap::new(), false).unwrap_err().entries()[0].keyword, "required");
    }

    #[test]
    fn what_cannot_be_checked_is_refused_by_its_field() {
        let any = json!({});
        let bodies = |media: &'static str, content| {
            let body = BodySpec { is_required: false, content: vec![(media, content)] };
            Operation::described(&operation(Vec::new(), Some(body))).unwrap_err().to_string()
        };
        let text = bodies("text/plain", ContentSpec::Checked(None));
        assert!(text.starts_with("body.content.text/plain: is neither JSON nor a form"), "{text}");
        for media in ["json", "a/b; c=d", "*/json", "a/b*", "a/", "a b/c"] {
            assert!(bodies(media, ContentSpec::Unchecked).ends_with("is no media type without parameters"), "{media}");
        }
        let parameters = |parameters| Operation::described(&operation(parameters, None)).unwrap_err().to_string();
        let deep = ParameterSpec { style: Some("deepObject"), ..parameter(ParameterPlace::Query, "a", &any) };
        assert_eq!(parameters(vec![deep]), "parameters.a: has the style deepObject and is no object");
        let style = ParameterSpec { style: Some("matrix"), ..parameter(ParameterPlace::Query, "a", &any) };
        assert_eq!(parameters(vec![style]), "parameters.a: matrix is no style for this place");
        let credential = parameter(ParameterPlace::Header, "Authorization", &any);
        assert_eq!(
            parameters(vec![credential]),
            "parameters.Authorization: authorization is not described by parameters"
        );
        let one = parameter(ParameterPlace::Header, "X-A", &any);
        let same = ParameterSpec { key: "other", name: "x-a", ..one.clone() };
        assert_eq!(parameters(vec![one, same]), "parameters.other: describes a parameter that another entry describes");
    }
}
