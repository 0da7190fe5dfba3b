//! How new what comes out is said to be.

use control_plane_model::{ResourceKey, Revision};
use control_plane_translate::{Mode, Output, Translator};

use super::support::{change, changes, document, translator};

const WORLD: &str = r"
kind: GatewayClass
metadata: {name: nebula}
spec: {controllerName: nebula.dev/gateway-controller}
---
kind: Gateway
metadata: {name: edge, namespace: shop}
spec: {gatewayClassName: nebula, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
kind: Service
metadata: {name: cart, namespace: shop, resourceVersion: '70'}
spec: {ports: [{port: 80}]}
";

fn route(created: u32, generation: u32, path: &str) -> String {
    format!(
        "kind: HTTPRoute\nmetadata: {{name: cart, namespace: shop, generation: {generation}, creationTimestamp: \
         '2026-01-01T00:00:0{created}Z'}}\nspec: {{parentRefs: [{{name: edge}}], rules: [{{matches: [{{path: {{value: \
         {path}}}}}], backendRefs: [{{name: cart, port: 80}}]}}]}}"
    )
}

fn slice(name: &str, version: u32, address: &str) -> String {
    format!(
        "kind: EndpointSlice\nmetadata: {{name: {name}, namespace: shop, resourceVersion: '{version}', labels: \
         {{kubernetes.io/service-name: cart}}}}\naddressType: IPv4\nports: [{{port: 3000}}]\nendpoints: [{{addresses: \
         [{address}]}}]"
    )
}

fn world() -> Translator {
    let mut translator = translator(Mode::Cluster);
    let _ = translator.apply(changes(WORLD));
    translator
}

fn take(translator: &mut Translator, text: &str) -> Output {
    translator.apply(vec![change(&document(text))])
}

fn revision(output: &Output, key: &str) -> Revision {
    output.revisions.get(&key.parse::<ResourceKey>().unwrap()).copied().unwrap_or_default()
}

#[test]
fn a_route_counts_by_its_creation_and_generation() {
    let mut translator = world();
    let key = "route/http/shop/cart";
    let first = revision(&take(&mut translator, &route(0, 7, "/")), key);
    let edited = revision(&take(&mut translator, &route(0, 8, "/new")), key);
    let made_anew = revision(&take(&mut translator, &route(5, 1, "/")), key);
    assert!(Revision::UNKNOWN < first && first < edited && edited < made_anew, "{first:?} {edited:?} {made_anew:?}");
}

#[test]
fn an_edit_that_changes_nothing_makes_the_route_newer_all_the_same() {
    let mut translator = world();
    let key = "route/http/shop/cart";
    let first = revision(&take(&mut translator, &route(0, 1, "/")), key);
    let output = take(&mut translator, &route(0, 2, "/"));
    assert!(output.delta.is_empty() && revision(&output, key) > first);
}

#[test]
fn a_backend_is_as_new_as_its_service() {
    let mut translator = world();
    assert_eq!(revision(&take(&mut translator, &route(0, 1, "/")), "backend/shop/cart/80"), Revision(70));
}

#[test]
fn endpoints_are_as_new_as_their_only_slice_and_of_several_nothing_is_known() {
    let mut translator = world();
    let _ = take(&mut translator, &route(0, 1, "/"));
    let key = "endpoints/shop/cart/80";
    assert_eq!(revision(&take(&mut translator, &slice("a", 80, "10.0.0.1")), key), Revision(80));
    let output = take(&mut translator, &slice("b", 90, "10.0.0.2"));
    assert_eq!((output.delta.upserted.len(), revision(&output, key)), (1, Revision::UNKNOWN));
}
