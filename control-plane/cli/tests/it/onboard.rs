//! `nebulactl onboard`.

use crate::harness::{Folder, GATEWAY};

const CART: &str = "openapi: 3.1.0
info: {title: 'Cart # API', version: '1'}
servers:
  - url: https://api.example.com/cart/v1
paths:
  /carts:
    get: {responses: {'200': {description: ok}}}
  /carts/{id}:
    parameters: [{name: id, in: path, required: true, schema: {type: string}}]
    get: {responses: {'200': {description: ok}}}
";

const FULL: &[&str] = &[
    "onboard",
    "--openapi",
    "cart.yaml",
    "--service",
    "cart",
    "--namespace",
    "shop",
    "--gateway",
    "infra/edge",
    "--hostname",
    "shop.example.com",
    "--port",
    "8080",
];

#[test]
fn what_is_written_is_ready_to_review_and_passes_validation() {
    let folder = Folder::with([("cart.yaml", CART)]);
    let ran = folder.run(FULL);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    insta::assert_snapshot!(ran.stdout);
    let ran = folder.run_with(&["validate", "-f", "-"], &ran.stdout);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.lines().iter().all(|line| line.contains("warning: ") && line.contains("assumed")), "{ran:?}");
}

#[test]
fn what_is_left_open_is_marked() {
    let ran = Folder::with([]).run_with(
        &["onboard", "--openapi", "-", "--service", "cart"],
        &CART.replace("servers:\n  - url: https://api.example.com/cart/v1\n", ""),
    );
    assert_eq!(ran.code, 0, "{ran:?}");
    insta::assert_snapshot!(ran.stdout);
}

#[test]
fn a_route_that_is_written_is_served_as_the_document_says() {
    let folder = Folder::with([("cart.yaml", CART)]);
    let written = folder.run(&["onboard", "--openapi", "cart.yaml", "--service", "cart", "--gateway", "edge"]);
    let served = Folder::with([("gateway.yaml", GATEWAY), ("route.yaml", &written.stdout)]);
    let ran = served.run(&["explain", "cart", "-f", "."]);
    assert!(ran.stdout.contains("Rule 0 \"api\"") && ran.stdout.contains("path is /cart/v1 or below it"), "{ran:?}");
    assert!(ran.stdout.contains("RateLimitPolicy: default/cart on the route"), "{ran:?}");
    assert!(ran.stdout.contains("mode = Report"), "{ran:?}");
}

#[test]
fn a_document_that_is_none_is_told_with_its_place() {
    let folder = Folder::with([("cart.yaml", "swagger: '2.0'\npaths: {}\n")]);
    let ran = folder.run(FULL);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    assert_eq!(ran.stderr, "nebulactl: cart.yaml:1:1: is a Swagger document: want OpenAPI 3.0 or 3.1\n");
    let ran = folder.run(&["onboard", "--openapi", "nothing.yaml", "--service", "cart"]);
    assert_eq!(ran.code, 2);
    let ran = folder.run(&["onboard", "--openapi", ".", "--service", "cart"]);
    assert_eq!(ran.code, 2, "a folder is read as the one file in it: {ran:?}");
    folder.write("other.yaml", CART);
    let ran = folder.run(&["onboard", "--openapi", ".", "--service", "cart"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (2, "nebulactl: --openapi .: want one file\n"));
    let ran = folder.run(&["onboard", "--openapi", "cart.yaml", "--service", "Cart"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("--service"), "{ran:?}");
}
