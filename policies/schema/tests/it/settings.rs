//! Settings of a policy to checks, and what is shared between them.

use std::num::NonZeroU32;
use std::sync::Arc;

use control_plane_model::validation::{
    BodySettings, Content, Draft, Formats, InvalidStatus, Numbers, OpenApi, Otherwise, Parameter, ParameterPlace,
    SchemaSource, ValidationSettings,
};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};
use policy_schema::problem::Status;
use policy_schema::settings::{Cache, Checks, Refusal};
use serde_json::{Value, json};

fn source(schema: &Value, resources: &[(&str, Value)]) -> Arc<SchemaSource> {
    let resources = resources.iter().map(|(uri, document)| (Arc::from(*uri), document.to_string().into())).collect();
    Arc::new(SchemaSource {
        schema: schema.to_string().into(),
        resources: Arc::new(resources),
        draft: Draft::Draft202012,
        formats: Formats::ByDraft,
    })
}

fn bodies(content: &[(&str, Content)]) -> ValidationSettings {
    let content = content.iter().map(|(media, content)| (Arc::from(*media), content.clone())).collect();
    ValidationSettings { body: BodySettings { content, ..BodySettings::default() }, ..ValidationSettings::default() }
}

fn json_bodies(schema: &Value) -> ValidationSettings {
    bodies(&[("application/json", Content::Checked(Some(source(schema, &[]))))])
}

fn compile(settings: &ValidationSettings) -> Checks {
    Checks::compile(settings, &Cache::default()).unwrap()
}

fn media(text: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(text))])
}

/// The keywords that are broken, `path` or the methods that there are.
fn told(refusal: Refusal) -> Vec<String> {
    match refusal {
        Refusal::Invalid(violations) => violations.entries().iter().map(|entry| entry.keyword.clone()).collect(),
        Refusal::NoPath => vec!["path".to_owned()],
        Refusal::NoMethod(methods) => methods.iter().map(Method::to_string).collect(),
    }
}

fn post(checks: &Checks, path: &str, text: &str) -> Vec<String> {
    let headers = media("application/json");
    let check = || {
        checks.head(&Method::POST, path, None, &headers)?;
        let body = checks.body(&Method::POST, path, &headers, !text.is_empty())?;
        Ok(body.check(text.as_bytes(), usize::MAX)?)
    };
    check().err().map(told).unwrap_or_default()
}

const NONE: [&str; 0] = [];

#[test]
fn bodies_are_checked_with_the_defaults() {
    let checks = compile(&json_bodies(&json!({"required": ["id"]})));
    assert_eq!(post(&checks, "/", r#"{"id": 1}"#), NONE);
    assert_eq!(post(&checks, "/", "{}"), ["required"]);
    assert_eq!(post(&checks, "/", r#"{"id": 1, "id": 2}"#), ["json"]);
    assert_eq!(post(&checks, "/", r#"{"id": 0.1234567890123456789}"#), ["json"]);
    assert_eq!(post(&checks, "/", &format!(r#"{{"id": {}{}}}"#, "[".repeat(64), "]".repeat(64))), ["json"]);
    assert_eq!(post(&checks, "/", ""), NONE, "none is required");
    assert_eq!((checks.checked_bytes(), checks.max_bytes()), (1 << 20, None));
    assert_eq!(checks.status(), Status::BadRequest);
    let unknown = checks.body(&Method::POST, "/", &media("text/plain"), true).unwrap_err();
    assert_eq!(told(unknown), ["content"]);
}

#[test]
fn every_setting_has_its_effect() {
    let mut settings = json_bodies(&json!({}));
    settings.status = Some(InvalidStatus::UnprocessableContent);
    settings.unknown_media_types = Some(Otherwise::Pass);
    settings.max_depth = Some(2);
    settings.numbers = Some(Numbers::Nearest);
    settings.body.required = Some(true);
    settings.body.max_bytes = NonZeroU32::new(50);
    let checks = compile(&settings);
    assert_eq!(checks.status(), Status::UnprocessableContent);
    assert!(!checks.body(&Method::POST, "/", &media("text/plain"), true).unwrap().needs_bytes());
    assert_eq!(post(&checks, "/", "[[0.1234567890123456789]]"), NONE);
    assert_eq!(post(&checks, "/", "[[[]]]"), ["json"]);
    assert_eq!(post(&checks, "/", ""), ["required"]);
    assert_eq!((checks.checked_bytes(), checks.max_bytes()), (50, Some(50)));
}

#[test]
fn settings_that_say_nothing_check_nothing() {
    assert!(compile(&ValidationSettings::default()).is_empty());
    let limit = BodySettings { max_bytes: NonZeroU32::new(5), ..BodySettings::default() };
    let limited = compile(&ValidationSettings { body: limit, ..ValidationSettings::default() });
    assert!(!limited.is_empty());
    assert!(!limited.body(&Method::POST, "/", &media("text/plain"), true).unwrap().needs_bytes());
}

fn document() -> Value {
    json!({
        "openapi": "3.1.0",
        "paths": {
            "/": {"get": {}},
            "/orders/{id}": {
                "parameters": [{"in": "path", "name": "id", "required": true, "schema": {"type": "integer"}}],
                "get": {}, "delete": {},
                "post": {"requestBody": {"content": {"application/json": {"schema": {"required": ["sku"]}}}}},
            },
        },
    })
}

fn with_document(base_path: &str, unmatched: Otherwise) -> ValidationSettings {
    let openapi = OpenApi { document: document().to_string().into(), base_path: base_path.into(), unmatched };
    ValidationSettings { openapi: Some(Arc::new(openapi)), ..ValidationSettings::default() }
}

#[test]
fn operations_are_found_below_the_base_path() {
    let checks = compile(&with_document("/api/v1", Otherwise::Reject));
    assert_eq!(post(&checks, "/api/v1/orders/7", r#"{"sku": 1}"#), NONE);
    assert_eq!(post(&checks, "/api/v1/orders/7", "{}"), ["required"]);
    assert_eq!(post(&checks, "/api/v1/orders/x", "{}"), ["type"]);
    assert_eq!(post(&checks, "/api/v1", ""), ["GET"]);
    for path in ["/orders/7", "/api/v1x/orders/7", "/api/v1/orders", "/api/v1/orders/7/"] {
        assert_eq!(post(&checks, path, ""), ["path"], "{path}");
    }
    let put = checks.head(&Method::PUT, "/api/v1/orders/7", None, &HeaderMap::new()).unwrap_err();
    assert_eq!(told(put), ["DELETE", "GET", "POST"]);
}

#[test]
fn what_is_no_operation_passes_where_the_settings_say_so_and_is_still_checked_otherwise() {
    let mut settings = with_document("", Otherwise::Pass);
    assert_eq!(post(&compile(&settings), "/other", "no json"), NONE);
    assert_eq!(post(&compile(&settings), "/orders/7", "{}"), ["required"]);
    settings.body = json_bodies(&json!({"type": "object"})).body;
    assert_eq!(post(&compile(&settings), "/other", "no json"), ["json"]);
    assert_eq!(post(&compile(&settings), "/orders/7", r#"{"sku": 1}"#), NONE);
}

#[test]
fn what_cannot_be_honoured_is_told_by_its_field() {
    let told = |settings: &ValidationSettings| Checks::compile(settings, &Cache::default()).unwrap_err().to_string();
    assert_eq!(
        told(&json_bodies(&json!({"properties": {"a/b": {"minimum": "x"}}}))),
        "body.content.application/json.schema: invalid schema at #/properties/a~1b/minimum: type: must be of type number"
    );
    let remote = told(&json_bodies(&json!({"$ref": "https://other.example/a.json"})));
    assert!(remote.contains("https://other.example/a.json"), "{remote}");
    let text = SchemaSource { schema: "{".into(), ..Arc::unwrap_or_clone(source(&json!({}), &[])) };
    let text = told(&bodies(&[("application/json", Content::Checked(Some(Arc::new(text))))]));
    assert_eq!(text, "body.content.application/json.schema: ends too early at byte 1 (in \"\")");
    let media = told(&bodies(&[("text/plain", Content::Checked(None))]));
    assert!(media.starts_with("body.content.text/plain: is neither JSON nor a form"), "{media}");
    let mut settings = with_document("", Otherwise::Reject);
    settings.openapi = Some(Arc::new(OpenApi {
        document: json!({"openapi": "2.0"}).to_string().into(),
        base_path: "".into(),
        unmatched: Otherwise::Reject,
    }));
    assert_eq!(told(&settings), "openapi: 2.0 is not OpenAPI 3.0 or 3.1");
    let parameter = Parameter {
        place: ParameterPlace::Query,
        name: "page".into(),
        required: false,
        style: None,
        explode: None,
        schema: Some(source(&json!({"type": "page"}), &[])),
    };
    let parameters = [(Arc::from("page"), Arc::new(parameter))].into();
    let parameters = told(&ValidationSettings { parameters, ..ValidationSettings::default() });
    assert!(parameters.starts_with("parameters.page.schema: invalid schema at #/type"), "{parameters}");
}

#[test]
fn a_schema_refers_to_the_documents_that_it_brings() {
    let resources = [("json-schema:///money", json!({"$defs": {"amount": {"type": "integer"}}}))];
    let schema = source(&json!({"properties": {"price": {"$ref": "money#/$defs/amount"}}}), &resources);
    let checks = compile(&bodies(&[("application/json", Content::Checked(Some(schema)))]));
    assert_eq!(post(&checks, "/", r#"{"price": 3}"#), NONE);
    assert_eq!(post(&checks, "/", r#"{"price": "3"}"#), ["type"]);
}

/// Compiling takes milliseconds, so what is equal is compiled once; what nobody uses any more is forgotten.
#[test]
fn equal_documents_are_compiled_once_while_they_are_in_use() {
    let cache = Cache::default();
    let settings = with_document("/a", Otherwise::Reject);
    let first = Checks::compile(&settings, &cache).unwrap();
    let second = Checks::compile(&with_document("/b", Otherwise::Pass), &cache).unwrap();
    assert!(first.shares_document_with(&second));
    let other = ValidationSettings { unknown_query: Some(Otherwise::Pass), ..settings.clone() };
    assert!(!first.shares_document_with(&Checks::compile(&other, &cache).unwrap()));
    assert_eq!(cache.in_use(), 1);
    drop((first, second));
    assert_eq!(cache.in_use(), 0);
}
