//! RequestValidationPolicy through the real binary: what is refused and how, what arrives, and what an edit changes.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::harness::{Answer, Client, Folder, Gateway, backend, eventually, gateway, route, service};

/// What a backend was given.
#[derive(Clone, Default)]
struct Arrived(Arc<Mutex<Vec<(String, Bytes)>>>);

impl Arrived {
    fn take(&self) -> Vec<(String, Bytes)> {
        std::mem::take(&mut *self.0.lock())
    }
}

async fn recording() -> (std::net::SocketAddr, Arrived) {
    let arrived = Arrived::default();
    let recorded = arrived.clone();
    let address = backend(move |request: Request<Incoming>| {
        let recorded = recorded.clone();
        async move {
            let target = format!("{} {}", request.method(), request.uri());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            recorded.0.lock().push((target, body));
            Response::new(Full::new(Bytes::from("arrived")))
        }
    })
    .await;
    (address, arrived)
}

/// A folder with a route `r` for every path, and a policy on it.
async fn folder(policy: &str) -> (Folder, Arrived) {
    let (address, arrived) = recording().await;
    let folder = Folder::with([
        ("gateway.yaml", gateway()),
        ("route.yaml", route("r", "/", "one")),
        ("service.yaml", service("one", address)),
        ("policy.yaml", policy_on("HTTPRoute", "r", policy)),
    ]);
    (folder, arrived)
}

/// A policy with the name of its target; `fields` are indented by two.
fn policy_on(kind: &str, name: &str, fields: &str) -> String {
    format!(
        "apiVersion: nebula.dev/v1alpha1\nkind: RequestValidationPolicy\nmetadata: {{name: on-{name}}}\nspec:\n  \
         targetRefs: [{{group: gateway.networking.k8s.io, kind: {kind}, name: {name}}}]\n{fields}"
    )
}

async fn send(port: u16, request: http::request::Builder, body: impl Into<Bytes>) -> Answer {
    let request = request.header("host", "a.example").body(Full::new(body.into())).unwrap();
    Client::connect(port).await.unwrap().send(request).await.unwrap()
}

async fn post(gateway: &Gateway, media: &str, body: impl Into<Bytes>) -> Answer {
    send(gateway.http, Request::post("/orders").header("content-type", media), body).await
}

fn refused(answer: &Answer, status: u16, reason: &str) -> Value {
    assert_eq!((answer.status.as_u16(), answer.header("x-nebula-reason")), (status, reason), "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

const ORDER: &str = "  body:
    required: true
    maxBytes: 100000
    content:
      application/json:
        schema:
          type: object
          required: [sku, quantity]
          additionalProperties: false
          properties:
            sku: {type: string, pattern: '^sku-[0-9]+$'}
            quantity: {$ref: 'common#/$defs/quantity'}
  schemas:
    common:
      inline: {$defs: {quantity: {type: integer, minimum: 1}}}
";

#[tokio::test]
async fn a_body_that_satisfies_its_schema_arrives_as_it_was_sent_and_no_other_does() {
    let (folder, arrived) = folder(ORDER).await;
    let gateway = Gateway::ready(&folder).await;
    let good = "{ \"quantity\":1.0e0,\t\"sku\":\"sku-\\u0037\" }";
    assert_eq!(post(&gateway, "application/json; charset=UTF-8", good).await.body, "arrived");
    assert_eq!(arrived.take(), [("POST /orders".to_owned(), Bytes::from(good))]);

    let secret = "hunter2";
    let answer =
        post(&gateway, "application/json", json!({"sku": secret, "quantity": 0, "x/y": secret}).to_string()).await;
    let problem = refused(&answer, 400, "request_invalid");
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert!(!answer.body.contains(secret), "{}", answer.body);
    let mut errors: Vec<(&str, &str)> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (error["pointer"].as_str().unwrap(), error["keyword"].as_str().unwrap()))
        .collect();
    errors.sort_unstable();
    assert_eq!(errors, [("#/quantity", "minimum"), ("#/sku", "pattern"), ("#/x~1y", "additionalProperties")]);

    for (body, pointer) in [
        (&b"{\"sku\":\"sku-1\",\"quantity\":1,\"quantity\":2}"[..], "#/quantity"),
        (b"{\"sku\":\"sku-1\",\"quantity\":NaN}", "#/quantity"),
        (b"{\"sku\":\"\xff\"}", "#"),
        (b"{\"sku\":\"sku-1\",\"quantity\":1} ", ""),
    ] {
        let answer = post(&gateway, "application/json", body).await;
        if pointer.is_empty() {
            assert_eq!(answer.body, "arrived");
            assert_eq!(arrived.take().len(), 1);
            continue;
        }
        let problem = refused(&answer, 400, "request_invalid");
        assert_eq!(
            (&problem["errors"][0]["keyword"], &problem["errors"][0]["pointer"]),
            (&json!("json"), &json!(pointer))
        );
    }
    refused(&post(&gateway, "application/json", "").await, 400, "request_invalid");
    refused(&post(&gateway, "text/plain", "x").await, 415, "unsupported_media_type");
    refused(&post(&gateway, "application/json", vec![b' '; 100_001]).await, 413, "request_body_too_large");
    let coded = Request::post("/orders").header("content-type", "application/json").header("content-encoding", "gzip");
    let answer = send(gateway.http, coded, "x").await;
    refused(&answer, 415, "unsupported_media_type");
    assert_eq!(answer.header("accept-encoding"), "identity");
    let two = Request::post("/orders").header("content-type", "application/json").header("content-type", "text/plain");
    refused(&send(gateway.http, two, "{}").await, 415, "unsupported_media_type");
    assert_eq!(arrived.take(), []);
}

#[tokio::test]
async fn a_large_body_is_checked_as_a_small_one() {
    let (folder, arrived) = folder(ORDER).await;
    let gateway = Gateway::ready(&folder).await;
    let good = format!("{{\"sku\": \"sku-{}\", \"quantity\": 7}}", "7".repeat(90_000));
    assert_eq!(post(&gateway, "application/json", good.clone()).await.body, "arrived");
    assert_eq!(arrived.take(), [("POST /orders".to_owned(), Bytes::from(good.clone()))]);
    let wrong = good.replace("sku-", "suk-");
    let problem = refused(&post(&gateway, "application/json", wrong).await, 400, "request_invalid");
    assert_eq!(problem["errors"][0]["pointer"], "#/sku");
    assert_eq!(arrived.take(), []);
}

#[tokio::test]
async fn parameters_are_checked_before_the_body_is_asked_for() {
    let fields = "  statusCode: 422\n  parameters:\n    page: {in: Query, schema: {type: integer, minimum: 1}}\n    \
                  tags: {in: Query, style: pipeDelimited, explode: false, schema: {type: array, maxItems: 2}}\n    \
                  tenant: {in: Header, name: X-Tenant, required: true, schema: {enum: [red, blue]}}\n    \
                  theme: {in: Cookie, schema: {type: string, maxLength: 5}}\n";
    let (folder, arrived) = folder(fields).await;
    let gateway = Gateway::ready(&folder).await;
    let get = |target: &str, tenant: &str| {
        let request = Request::get(target).header("x-tenant", tenant).header("cookie", "theme=dark");
        send(gateway.http, request, "")
    };
    assert_eq!(get("/?page=2&tags=a%7Cb", "red").await.body, "arrived");
    assert_eq!(arrived.take()[0].0, "GET /?page=2&tags=a%7Cb");
    for (target, tenant, place, name, keyword) in [
        ("/?page=0", "red", "query", "page", "minimum"),
        ("/?page=1&page=2", "red", "query", "page", "style"),
        ("/?tags=a%7Cb%7Cc", "red", "query", "tags", "maxItems"),
        ("/?other=1", "red", "query", "other", "unknown"),
        ("/", "green", "header", "x-tenant", "enum"),
    ] {
        let problem = refused(&get(target, tenant).await, 422, "request_unprocessable");
        let error = &problem["errors"][0];
        assert_eq!((&error["in"], &error["name"], &error["keyword"]), (&place.into(), &name.into(), &keyword.into()));
    }
    assert_eq!(arrived.take(), []);
}

const PETS: &str = "openapi: 3.0.3
info: {title: pets, version: '1'}
paths:
  /pets/{id}:
    parameters: [{in: path, name: id, required: true, schema: {type: integer}}]
    get: {responses: {200: {description: ok}}}
    put:
      requestBody:
        required: true
        content: {application/json: {schema: {$ref: '#/components/schemas/Pet'}}}
      responses: {200: {description: ok}}
components:
  schemas:
    Pet: {type: object, required: [name], properties: {name: {type: string, nullable: true}}}
";

fn config_map(document: &str) -> String {
    let lines: String = document.lines().flat_map(|line| ["    ", line, "\n"]).collect();
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: pets}}\ndata:\n  openapi.yaml: |\n{lines}")
}

#[tokio::test]
async fn an_openapi_document_of_a_config_map_counts_and_so_does_its_next_version() {
    let fields = "  openapi: {configMapRef: {name: pets, key: openapi.yaml}, basePath: /api}\n";
    let (folder, arrived) = folder(fields).await;
    folder.write("pets.yaml", &config_map(PETS));
    let gateway = Gateway::ready(&folder).await;
    let put = |target: &'static str, body: &'static str| {
        send(gateway.http, Request::put(target).header("content-type", "application/json"), body)
    };
    assert_eq!(put("/api/pets/7", "{\"name\": null}").await.body, "arrived");
    assert_eq!(arrived.take().len(), 1);
    let problem = refused(&put("/api/pets/7", "{\"name\": 5}").await, 400, "request_invalid");
    assert_eq!(problem["errors"][0]["schema"], "#/components/schemas/Pet/properties/name/type");
    refused(&put("/api/pets/x", "{}").await, 400, "request_invalid");
    refused(&put("/pets/7", "{}").await, 404, "operation_not_found");
    let deleted = send(gateway.http, Request::delete("/api/pets/7"), "").await;
    refused(&deleted, 405, "method_not_allowed");
    assert_eq!(deleted.header("allow"), "GET, PUT");

    folder.replace("pets.yaml", &config_map(&PETS.replace("nullable: true", "maxLength: 3")));
    eventually("the new document counts", || async {
        (put("/api/pets/7", "{\"name\": null}").await.status == 400).then_some(())
    })
    .await;
    assert_eq!(put("/api/pets/7", "{\"name\": \"Rex\"}").await.body, "arrived");

    folder.replace("pets.yaml", &config_map(&PETS.replace("type: integer", "type: whole")));
    eventually("the broken document closes the route", || async {
        (put("/api/pets/7", "{\"name\": \"Rex\"}").await.header("x-nebula-reason") == "policy_invalid").then_some(())
    })
    .await;
    let line = gateway.logged("#/paths/~1pets~1%7Bid%7D/parameters/0/schema/type").await;
    assert!(line.contains("spec.openapi") && line.contains("on-r"), "{line}");

    folder.replace("pets.yaml", &config_map(PETS));
    eventually("the route is open again", || async {
        (put("/api/pets/7", "{\"name\": null}").await.body == "arrived").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_route_adds_to_what_its_gateway_asks_and_cannot_undo_an_override() {
    let (folder, arrived) = folder("  body: {content: {application/json: {schema: {maxProperties: 1}}}}\n").await;
    let defaults =
        "  statusCode: 422\n  body: {content: {text/plain: {unchecked: true}}}\n  overrides: {maxDepth: 2}\n";
    folder.write("gateway-policy.yaml", &policy_on("Gateway", "edge", defaults));
    let gateway = Gateway::ready(&folder).await;
    assert_eq!(post(&gateway, "text/plain", "anything").await.body, "arrived");
    assert_eq!(post(&gateway, "application/json", "{\"a\": [1]}").await.body, "arrived");
    refused(&post(&gateway, "application/json", "{\"a\": 1, \"b\": 2}").await, 422, "request_unprocessable");
    refused(&post(&gateway, "application/json", "{\"a\": [[1]]}").await, 400, "request_invalid");
    refused(&post(&gateway, "image/png", "x").await, 415, "unsupported_media_type");
    assert_eq!(arrived.take().len(), 2);
}

#[tokio::test]
async fn a_policy_that_reports_lets_pass_what_it_would_refuse() {
    let (folder, arrived) = folder(&format!("  mode: Report\n{ORDER}")).await;
    let gateway = Gateway::ready(&folder).await;
    let large = vec![b'x'; 200_000];
    for (media, body) in [
        ("application/json", Bytes::from_static(b"{}")),
        ("application/json", Bytes::from_static(b"no json")),
        ("text/plain", Bytes::from_static(b"x")),
        ("application/json", Bytes::from(large)),
    ] {
        assert_eq!(post(&gateway, media, body.clone()).await.body, "arrived");
        assert_eq!(arrived.take()[0].1, body);
    }
}
