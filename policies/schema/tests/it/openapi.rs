//! Requests against documents of both versions.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use policy_schema::TextLimits;
use policy_schema::openapi::{Body, Document, DocumentError, DocumentOptions, Lookup, Matched, Otherwise, Unknown};
use policy_schema::problem::{Problem, Status};
use policy_schema::{Place, SchemaError, Violations};
use proptest::prelude::*;
use serde_json::{Value, json};

fn shop(version: &str) -> Value {
    let nullable = if version.starts_with("3.0") {
        json!({"type": "string", "nullable": true})
    } else {
        json!({"type": ["string", "null"]})
    };
    let positive = if version.starts_with("3.0") {
        json!({"type": "number", "minimum": 0, "exclusiveMinimum": true})
    } else {
        json!({"type": "number", "exclusiveMinimum": 0})
    };
    json!({
        "openapi": version,
        "info": {"title": "shop", "version": "1"},
        "paths": {
            "/pets": {
                "parameters": [{"$ref": "#/components/parameters/limit"}],
                "get": {
                    "parameters": [
                        {"name": "tag", "in": "query", "schema": {"type": "array", "items": {"type": "string", "maxLength": 3}}},
                        {"name": "filter", "in": "query", "style": "deepObject", "explode": true,
                         "schema": {"type": "object", "properties": {"age": {"type": "integer"}}}},
                        {"name": "X-Trace", "in": "header", "required": true, "schema": {"type": "integer"}},
                        {"name": "Authorization", "in": "header", "required": true, "schema": {"type": "integer"}},
                        {"name": "session", "in": "cookie", "schema": {"type": "string", "minLength": 4}},
                        {"name": "where", "in": "query", "content": {"application/json": {"schema": {"type": "object"}}}},
                    ],
                },
                "post": {"requestBody": {"$ref": "#/components/requestBodies/pet"}},
            },
            "/pets/{id}": {
                "get": {"parameters": [{"name": "id", "in": "path", "required": true, "schema": {"type": "integer"}}]},
            },
            "/pets/mine": {"get": {}},
            "/login": {"post": {"requestBody": {"content": {
                "application/x-www-form-urlencoded": {"schema": {
                    "type": "object",
                    "required": ["user", "roles"],
                    "properties": {
                        "user": {"type": "string"},
                        "age": {"type": "integer", "minimum": 0},
                        "roles": {"type": "array", "items": {"type": "string"}},
                        "ids": {"type": "array", "items": {"type": "integer"}},
                    },
                    "additionalProperties": false,
                }, "encoding": {"ids": {"style": "pipeDelimited", "explode": false}}},
                "text/plain": {"schema": {"type": "string"}},
            }}}},
        },
        "components": {
            "parameters": {"limit": {"name": "limit", "in": "query", "schema": {"type": "integer", "maximum": 100}}},
            "requestBodies": {"pet": {"required": true, "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/Pet"}},
                "application/vnd.pet+json": {"schema": {"$ref": "#/components/schemas/Pet"}},
            }}},
            "schemas": {
                "Pet": {
                    "type": "object",
                    "required": ["id", "name"],
                    "properties": {
                        "id": {"type": "integer", "readOnly": true},
                        "created": {"$ref": "#/components/schemas/Created"},
                        "name": {"type": "string"},
                        "nick": nullable,
                        "price": positive,
                        "parent": {"$ref": "#/components/schemas/Pet"},
                    },
                },
                "Created": {"type": "string", "readOnly": true},
            },
            "securitySchemes": {"key": {"type": "apiKey", "in": "query", "name": "api_key"}},
        },
    })
}

const VERSIONS: [&str; 2] = ["3.0.3", "3.1.0"];

fn compile(document: &Value) -> Document {
    Document::compile(document, &DocumentOptions::default()).unwrap()
}

fn find<'d, 'p>(document: &'d Document, method: &Method, path: &'p str) -> Matched<'d, 'p> {
    match document.operation(method, path) {
        Lookup::Found(matched) => matched,
        other => panic!("{method} {path}: {other:?}"),
    }
}

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    fields.iter().map(field).collect()
}

/// Place, pointer and keyword of each.
fn found(result: Result<(), Violations>) -> Vec<(Place, String, String)> {
    let Err(violations) = result else { return Vec::new() };
    let row = |violation: &policy_schema::Violation| {
        (violation.place.clone(), violation.instance.clone(), violation.keyword.clone())
    };
    violations.entries().iter().map(row).collect()
}

fn one(place: Place, pointer: &str, keyword: &str) -> Vec<(Place, String, String)> {
    vec![(place, pointer.to_owned(), keyword.to_owned())]
}

#[test]
fn an_operation_is_found_by_method_and_the_most_concrete_path() {
    for version in VERSIONS {
        let document = compile(&shop(version));
        let get = |path| document.operation(&Method::GET, path);
        assert!(matches!(get("/pets/7"), Lookup::Found(_)));
        assert!(matches!(get("/login"), Lookup::NoMethod(methods) if methods == [Method::POST]));
        assert!(matches!(get("/pets/"), Lookup::NoPath));
        assert!(matches!(get("/cats"), Lookup::NoPath));
        // The concrete one declares no parameter that could refuse.
        assert_eq!(found(find(&document, &Method::GET, "/pets/mine").check(None, &HeaderMap::new())), []);
        let seven = find(&document, &Method::GET, "/pets/x").check(None, &HeaderMap::new());
        assert_eq!(found(seven), one(Place::Path("id".to_owned()), "", "type"));
    }
}

#[test]
fn parameters_are_read_by_style_and_checked_by_schema() {
    let document = compile(&shop("3.1.0"));
    let pets = find(&document, &Method::GET, "/pets");
    let trace = headers(&[("x-trace", "7"), ("cookie", "a=b; session=abcd")]);
    let query = |name: &str| Place::Query(name.to_owned());
    for (text, expected) in [
        ("", vec![]),
        ("limit=100&tag=a&tag=b&filter[age]=3&api_key=k&where=%7B%7D", vec![]),
        ("limit=101", one(query("limit"), "", "maximum")),
        ("limit=ten", one(query("limit"), "", "type")),
        ("limit=1&limit=2", one(query("limit"), "", "style")),
        ("tag=a&tag=long", one(query("tag"), "/1", "maxLength")),
        ("filter[age]=old", one(query("filter"), "/age", "type")),
        ("where=%5B%5D", one(query("where"), "", "type")),
        ("where=%7B%22a%22:1,%22a%22:2%7D", one(query("where"), "", "style")),
        ("Limit=1", one(query("Limit"), "", "unknown")),
        ("a%zz=1", one(query(""), "", "style")),
    ] {
        assert_eq!(found(pets.check(Some(text), &trace)), expected, "{text}");
    }
    let header = Place::Header("X-Trace".to_owned());
    assert_eq!(found(pets.check(None, &headers(&[]))), one(header.clone(), "", "required"));
    assert_eq!(found(pets.check(None, &headers(&[("x-trace", "x")]))), one(header.clone(), "", "type"));
    assert_eq!(found(pets.check(None, &headers(&[("x-trace", "1"), ("x-trace", "2")]))), one(header, "", "style"));
    let short = headers(&[("x-trace", "1"), ("cookie", "session=abc")]);
    assert_eq!(found(pets.check(None, &short)), one(Place::Cookie("session".to_owned()), "", "minLength"));
    let twice = headers(&[("x-trace", "1"), ("cookie", "session=abcd"), ("cookie", "session=efgh")]);
    assert_eq!(found(pets.check(None, &twice)), one(Place::Cookie("session".to_owned()), "", "style"));
}

#[test]
fn unknown_query_parameters_pass_by_choice() {
    let options = DocumentOptions { unknown_query: Unknown::Allow, ..DocumentOptions::default() };
    let document = Document::compile(&shop("3.1.0"), &options).unwrap();
    assert_eq!(found(find(&document, &Method::GET, "/pets/7").check(Some("x=1"), &HeaderMap::new())), []);
}

fn send(document: &Document, path: &str, media: &str, body: &str) -> Vec<(Place, String, String)> {
    let matched = find(document, &Method::POST, path);
    let checked = matched.operation().body(&headers(&[("content-type", media)]), true);
    found(checked.and_then(|checked| checked.check(body.as_bytes(), &TextLimits::default())))
}

#[test]
fn a_json_body_is_checked_by_its_schema_in_both_versions() {
    for version in VERSIONS {
        let document = compile(&shop(version));
        for (body, pointer, keyword) in [
            (r#"{"name": 1}"#, "/name", "type"),
            (r"{}", "", "required"),
            (r#"{"name": "a", "nick": 1}"#, "/nick", "type"),
            (r#"{"name": "a", "price": 0}"#, "/price", "exclusiveMinimum"),
            (r#"{"name": "a", "id": 1}"#, "", "readOnly"),
            (r#"{"name": "a", "created": "now"}"#, "", "readOnly"),
            (r#"{"name": "a", "parent": {"name": "b", "id": 1}}"#, "/parent", "readOnly"),
            (r#"{"name": "a", "name": "b"}"#, "/name", "json"),
            ("", "", "json"),
        ] {
            let expected = match (version, keyword) {
                // Draft 4 has it beside `minimum`, which is what is broken.
                ("3.0.3", "exclusiveMinimum") => "minimum",
                _ => keyword,
            };
            let actual = send(&document, "/pets", "application/json", body);
            assert!(
                actual == one(Place::Body, pointer, keyword) || actual == one(Place::Body, pointer, expected),
                "{version} {body} {actual:?}"
            );
        }
        for body in [r#"{"name": "a", "nick": null, "price": 0.5}"#, r#"{"name": "a", "nick": "b", "extra": 1}"#] {
            assert_eq!(
                send(&document, "/pets", "application/vnd.pet+json; charset=UTF-8", body),
                [],
                "{version} {body}"
            );
        }
    }
}

#[test]
fn locations_are_those_of_the_document() {
    for version in VERSIONS {
        let document = compile(&shop(version));
        let matched = find(&document, &Method::POST, "/pets");
        let body = matched.operation().body(&headers(&[("content-type", "application/json")]), true).unwrap();
        let error = body.check(br#"{"name": 1}"#, &TextLimits::default()).unwrap_err();
        assert_eq!(error.entries()[0].schema, "#/components/schemas/Pet/properties/name/type", "{version}");
    }
}

#[test]
fn read_only_properties_pass_by_choice() {
    let options = DocumentOptions { read_only: Unknown::Allow, ..DocumentOptions::default() };
    for version in VERSIONS {
        let document = Document::compile(&shop(version), &options).unwrap();
        assert_eq!(send(&document, "/pets", "application/json", r#"{"name": "a", "id": 1}"#), []);
    }
}

#[test]
fn a_form_is_read_by_its_encoding() {
    let document = compile(&shop("3.1.0"));
    let form = "application/x-www-form-urlencoded";
    for (body, expected) in [
        ("user=a+b&roles=x&roles=y&age=3&ids=1|2", vec![]),
        ("user=a&roles=x&ids=1%7C2", vec![]),
        ("user=a&roles=x&ids=1|b", one(Place::Body, "/ids/1", "type")),
        ("user=a&roles=x&age=-1", one(Place::Body, "/age", "minimum")),
        ("user=a", one(Place::Body, "", "required")),
        ("user=a&roles=x&admin=1", one(Place::Body, "/admin", "additionalProperties")),
        ("user=a&user=b&roles=x", one(Place::Body, "", "form")),
        ("user=%ff&roles=x", one(Place::Body, "", "form")),
    ] {
        assert_eq!(send(&document, "/login", form, body), expected, "{body}");
    }
}

#[test]
fn a_body_that_cannot_be_checked_is_refused_or_skipped() {
    let options = DocumentOptions { unchecked_bodies: Otherwise::Skip, ..DocumentOptions::default() };
    let strict = compile(&shop("3.1.0"));
    let lenient = Document::compile(&shop("3.1.0"), &options).unwrap();
    for (method, path, fields) in [
        (Method::POST, "/pets", &[("content-type", "text/xml")][..]),
        (Method::POST, "/pets", &[("content-type", "multipart/form-data; boundary=x")]),
        (Method::POST, "/pets", &[]),
        (Method::POST, "/login", &[("content-type", "text/plain")]),
        (Method::GET, "/pets", &[("content-type", "application/json")]),
    ] {
        let violations = find(&strict, &method, path).operation().body(&headers(fields), true).unwrap_err();
        assert_eq!(Problem::new(&violations, Status::UnprocessableContent, 5).status, 415, "{fields:?}");
        let matched = find(&lenient, &method, path);
        assert!(matches!(matched.operation().body(&headers(fields), true), Ok(Body::Unchecked)), "{fields:?}");
    }
    // These two have no reading that is safe.
    for fields in [
        &[("content-type", "application/json"), ("content-type", "text/plain")][..],
        &[("content-type", "application/json; charset=utf-16")],
    ] {
        let matched = find(&lenient, &Method::POST, "/pets");
        assert!(matched.operation().body(&headers(fields), true).is_err(), "{fields:?}");
    }
}

#[test]
fn a_body_is_required_where_the_document_says_so() {
    let document = compile(&shop("3.0.0"));
    let body = |path| find(&document, &Method::POST, path).operation().body(&HeaderMap::new(), false).map(|_| ());
    assert_eq!(found(body("/pets")), one(Place::Body, "", "required"));
    assert_eq!(found(body("/login")), []);
}

fn with_schema(version: &str, schema: Value) -> Value {
    let content = json!({"application/json": {"schema": schema}});
    json!({"openapi": version, "paths": {"/a": {"post": {"requestBody": {"content": content}}}}})
}

#[test]
fn a_document_that_cannot_be_honoured_is_refused_with_its_place() {
    let at = "#/paths/~1a/post/requestBody/content/application~1json/schema";
    let path = |path: &str, item: Value| json!({"openapi": "3.1.0", "paths": {path: item}});
    let parameter = |parameter: Value| path("/a/{b}", json!({"get": {"parameters": [parameter]}}));
    for (document, expected) in [
        (json!({"swagger": "2.0"}), "is not OpenAPI 3.0 or 3.1".to_owned()),
        (json!({"openapi": "3.2.0"}), "3.2.0 is not OpenAPI 3.0 or 3.1".to_owned()),
        (with_schema("3.1.0", json!({"$ref": "https://example.com/pet"})), "https://example.com/pet at".to_owned()),
        (with_schema("3.0.0", json!({"$ref": "./pet.yaml#/Pet"})), "./pet.yaml#/Pet at".to_owned()),
        (with_schema("3.1.0", json!({"$ref": "#/components/schemas/None"})), "#/components/schemas/None at".to_owned()),
        (with_schema("3.1.0", json!({"type": "strin"})), format!("invalid schema at {at}/type")),
        (with_schema("3.0.0", json!({"properties": {"a": {"minimum": "1"}}})), format!("at {at}/properties/a/minimum")),
        (with_schema("3.0.0", json!({"type": ["string", "null"]})), format!("{at}/type: must be one type")),
        (with_schema("3.0.0", json!(true)), format!("{at}: is not a schema")),
        (with_schema("3.1.0", json!({"$id": "https://example.com"})), format!("{at}/$id: is not supported")),
        (with_schema("3.1.0", json!({"allOf": [{"$ref": at}]})), "leads back to itself".to_owned()),
        (path("a", json!({})), "#/paths/a: does not begin with a slash".to_owned()),
        (path("/a/{b}", json!({"get": {}})), "#/paths/~1a~1%7Bb%7D: does not declare the parameter b".to_owned()),
        (
            json!({"openapi": "3.1.0", "paths": {"/a/{b}": {}, "/a/{c}": {}}}),
            "/a/{b} and /a/{c} match the same paths".to_owned(),
        ),
        (parameter(json!({"name": "b", "in": "path"})), "is in the path and not required".to_owned()),
        (parameter(json!({"name": "c", "in": "path", "required": true})), "is not in the path".to_owned()),
        (parameter(json!({"name": "b", "in": "body"})), "is no place of a parameter".to_owned()),
        (parameter(json!({"name": "b", "in": "query", "style": "matrix"})), "matrix is no style".to_owned()),
        (parameter(json!({"name": "b", "in": "query", "style": "deepObject"})), "is no object".to_owned()),
        (
            json!({"openapi": "3.1.0", "jsonSchemaDialect": "https://example.com/own"}),
            "unknown dialect https://example.com/own".to_owned(),
        ),
    ] {
        let error = Document::compile(&document, &DocumentOptions::default()).unwrap_err().to_string();
        assert!(error.contains(&expected), "{error} / {expected}");
    }
}

#[test]
fn the_dialect_of_a_document_is_honoured() {
    let mut document = with_schema("3.1.0", json!({"type": "array", "items": [{"type": "integer"}]}));
    let error = Document::compile(&document, &DocumentOptions::default()).unwrap_err();
    assert!(matches!(error, DocumentError::Schema(SchemaError::Invalid { .. })), "{error}");
    document["jsonSchemaDialect"] = json!("http://json-schema.org/draft-07/schema#");
    let document = compile(&document);
    assert_eq!(send(&document, "/a", "application/json", "[\"x\"]"), one(Place::Body, "/0", "type"));
}

proptest! {
    #[test]
    fn no_request_panics(
        path in "/?(pets|login|[a-z%{}]{0,4})(/[a-z0-9%]{0,5})?",
        query in prop::option::of("(limit|tag|filter\\[age\\]|where|[a-z%\\[\\]]{0,3}|=|&|%[0-9a-f]{0,2}|\\PC){0,12}"),
        cookie in "[ -~]{0,20}",
        media in "(application/(json|x-www-form-urlencoded)|[a-z/*+;= ]{0,12})",
        body in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        use std::sync::LazyLock;
        static DOCUMENT: LazyLock<Document> = LazyLock::new(|| compile(&shop("3.1.0")));
        let headers = headers(&[("cookie", &cookie), ("content-type", &media), ("x-trace", "1")]);
        for method in [Method::GET, Method::POST] {
            if let Lookup::Found(matched) = DOCUMENT.operation(&method, &path) {
                let _ = matched.check(query.as_deref(), &headers);
                if let Ok(checked) = matched.operation().body(&headers, true) {
                    let _ = checked.check(&body, &TextLimits::default());
                }
            }
        }
    }
}
