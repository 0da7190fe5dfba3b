use crds::gateway_api::{
    BackendTLSPolicy, GRPCRoute, Gateway, GatewayClass, HTTPRoute, HTTPRouteFilterType, ListenerSet, ReferenceGrant,
    TCPRoute, TLSRoute, UDPRoute,
};
use kube_core::Resource;

/// (plural, version) of every kind we have a type for.
pub const KINDS: &[(&str, &str)] = &[
    ("gatewayclasses", "v1"),
    ("gateways", "v1"),
    ("listenersets", "v1"),
    ("httproutes", "v1"),
    ("grpcroutes", "v1"),
    ("tlsroutes", "v1"),
    ("tcproutes", "v1"),
    ("udproutes", "v1"),
    ("backendtlspolicies", "v1"),
    ("referencegrants", "v1beta1"),
];

#[test]
fn types_name_the_group_version_and_plural_that_the_api_server_serves() {
    fn identity<K: Resource<DynamicType = ()>>() -> (String, String, String) {
        (K::plural(&()).into_owned(), K::version(&()).into_owned(), K::group(&()).into_owned())
    }
    let found = [
        identity::<GatewayClass>(),
        identity::<Gateway>(),
        identity::<ListenerSet>(),
        identity::<HTTPRoute>(),
        identity::<GRPCRoute>(),
        identity::<TLSRoute>(),
        identity::<TCPRoute>(),
        identity::<UDPRoute>(),
        identity::<BackendTLSPolicy>(),
        identity::<ReferenceGrant>(),
    ];
    let expected: Vec<_> = KINDS
        .iter()
        .map(|(plural, version)| ((*plural).to_owned(), (*version).to_owned(), "gateway.networking.k8s.io".to_owned()))
        .collect();
    assert_eq!(found.as_slice(), expected);
}

/// kopium makes an enum of strings from `enum: [301, 302, ...]`, which reads no number; crdgen makes it a number again.
#[test]
fn a_redirect_reads_and_writes_its_status_code_as_a_number() {
    let text = r"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: old, namespace: shop}
spec:
  parentRefs: [{name: edge, sectionName: http, port: 80}]
  rules:
  - name: moved
    matches:
    - path: {type: PathPrefix, value: /old}
      headers: [{name: x-tenant, value: a}]
      queryParams: [{type: RegularExpression, name: q, value: '.*'}]
      method: GET
    filters:
    - type: RequestRedirect
      requestRedirect: {scheme: https, statusCode: 301, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}
    - type: URLRewrite
      urlRewrite: {hostname: new.example}
    backendRefs:
    - name: web
      port: 80
      weight: 3
      filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}], remove: [c]}}]
";
    let route: HTTPRoute = serde_saphyr::from_str(text).unwrap();
    let rule = &route.spec.rules.as_ref().unwrap()[0];
    let redirect = &rule.filters.as_ref().unwrap()[0];
    assert_eq!(redirect.r#type, HTTPRouteFilterType::RequestRedirect);
    assert_eq!(redirect.request_redirect.as_ref().unwrap().status_code, Some(301));
    assert_eq!(rule.backend_refs.as_ref().unwrap()[0].filters.as_ref().unwrap().len(), 1);
    let written: serde_json::Value = serde_json::to_value(&route).unwrap();
    let read: serde_json::Value = serde_saphyr::from_str(text).unwrap();
    assert_eq!(written, read, "every field goes there and back");
}

#[test]
fn a_gateway_and_a_listener_set_share_their_listener_type() {
    let gateway: Gateway = serde_saphyr::from_str(
        r"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: infra}
spec:
  gatewayClassName: nebula
  infrastructure: {labels: {a: b}, parametersRef: {group: nebula.dev, kind: GatewayConfig, name: small}}
  listeners:
  - {name: https, port: 443, protocol: HTTPS, hostname: '*.example', tls: {certificateRefs: [{name: cert}]},
     allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {edge: 'yes'}}}, kinds: [{kind: HTTPRoute}]}}
",
    )
    .unwrap();
    let set: ListenerSet = serde_saphyr::from_str(
        r"
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more, namespace: shop}
spec: {parentRef: {name: edge}, listeners: [{name: http, port: 8080, protocol: HTTP}]}
",
    )
    .unwrap();
    let all: Vec<_> = gateway.spec.listeners.iter().chain(&set.spec.listeners).map(|listener| listener.port).collect();
    assert_eq!(all, [443, 8080]);
}
