//! What one Gateway's proxies may get, and what standalone mode says about what is refused.

use control_plane_model::{GatewayKey, ObjectName};
use control_plane_translate::{Mode, scope};

use super::{
    certificates::with_certificates,
    support::{changes, translator},
};

const TWO_GATEWAYS: &str = r"
kind: GatewayClass
metadata: {name: nebula}
spec: {controllerName: nebula.dev/gateway-controller}
---
kind: Gateway
metadata: {name: one, namespace: a}
spec:
  gatewayClassName: nebula
  listeners: [{name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: one}]}}]
---
kind: Gateway
metadata: {name: two, namespace: a}
spec:
  gatewayClassName: nebula
  listeners: [{name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: two}]}}]
---
kind: Secret
metadata: {name: one, namespace: a}
stringData:
  tls.crt: {CERTIFICATE}
  tls.key: {KEY}
---
kind: Secret
metadata: {name: two, namespace: a}
stringData:
  tls.crt: {CERTIFICATE}
  tls.key: {KEY}
---
kind: Secret
metadata: {name: unused, namespace: a}
stringData:
  tls.crt: {CERTIFICATE}
  tls.key: {KEY}
---
kind: Service
metadata: {name: mine, namespace: a}
spec: {ports: [{port: 80}]}
---
kind: Service
metadata: {name: other, namespace: a}
spec: {ports: [{port: 80}]}
---
kind: Service
metadata: {name: unused, namespace: a}
spec: {ports: [{port: 80}]}
---
kind: HTTPRoute
metadata: {name: mine, namespace: a}
spec: {parentRefs: [{name: one}], rules: [{backendRefs: [{name: mine, port: 80}]}]}
---
kind: GRPCRoute
metadata: {name: other, namespace: a}
spec: {parentRefs: [{name: two}], rules: [{backendRefs: [{name: other, port: 80}]}]}
---
kind: HTTPRoute
metadata: {name: both, namespace: a}
spec: {parentRefs: [{name: one}, {name: two}]}
";

#[test]
fn a_gateway_gets_its_own_and_nothing_else() {
    let mut translator = translator(Mode::Cluster);
    let _ = translator.apply(changes(&with_certificates(TWO_GATEWAYS)));
    let names = |gateway: &str| -> Vec<String> {
        let gateway = GatewayKey(ObjectName::new("a", gateway));
        scope(translator.snapshot(), &gateway).iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        names("one"),
        [
            "gateway/a/one",
            "certificate/a/one",
            "listener/a/one/https",
            "backend/a/mine/80",
            "endpoints/a/mine/80",
            "route/http/a/both",
            "route/http/a/mine",
        ]
    );
    assert_eq!(
        names("two"),
        [
            "gateway/a/two",
            "certificate/a/two",
            "listener/a/two/https",
            "backend/a/other/80",
            "endpoints/a/other/80",
            "route/http/a/both",
            "route/grpc/a/other",
        ]
    );
    assert!(names("three").is_empty());
    // What no Gateway uses is not even in the snapshot.
    assert!(translator.snapshot().resources().all(|resource| !resource.key().to_string().contains("unused")));
}

#[test]
fn everything_that_is_refused_is_listed_with_its_place() {
    let mut translator = translator(Mode::Standalone);
    let yaml = "kind: Gateway\nmetadata: {name: g}\nspec: {gatewayClassName: x, listeners: [{name: tcp, port: 1, protocol: TCP}, \
                {name: http, port: 2, protocol: HTTP}]}\n---\nkind: HTTPRoute\nmetadata: {name: r}\nspec: {parentRefs: [{name: g}], \
                rules: [{backendRefs: [{name: gone, port: 80}]}]}\n---\nkind: GRPCRoute\nmetadata: {name: lost}\nspec: {parentRefs: \
                [{name: nowhere}]}";
    let _ = translator.apply(changes(yaml));
    let problems: Vec<String> = translator
        .problems()
        .into_iter()
        .map(|problem| {
            let (kind, name, section) = (problem.kind, problem.name, problem.section);
            format!("{kind} {name} [{section}] {}: {}", problem.condition, problem.reason)
        })
        .collect();
    assert_eq!(
        problems,
        [
            "Gateway default/g [tcp] Accepted: UnsupportedProtocol",
            "Gateway default/g [tcp] Programmed: Invalid",
            "HTTPRoute default/r [Gateway g] ResolvedRefs: BackendNotFound",
            "GRPCRoute default/lost [] Accepted: NoMatchingParent",
        ]
    );
}

#[test]
fn a_gateway_of_an_unknown_class_is_a_problem_in_standalone_mode_alone() {
    let yaml = "kind: GatewayClass\nmetadata: {name: nebula}\nspec: {controllerName: nebula.dev/gateway-controller}\n---\n\
                kind: Gateway\nmetadata: {name: g}\nspec: {gatewayClassName: nebulo, listeners: []}";
    for (mode, count) in [(Mode::Standalone, 1), (Mode::Cluster, 0)] {
        let mut translator = translator(mode);
        let _ = translator.apply(changes(yaml));
        assert_eq!(translator.problems().len(), count, "{mode:?}: {:?}", translator.problems());
    }
}
