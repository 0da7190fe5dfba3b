//! `nebulactl validate`.

use serde_json::json;

use crate::harness::{Folder, GATEWAY, ROUTE, SERVICE, repository};

#[test]
fn files_that_are_in_order_are_fine() {
    let folder = Folder::with([("gateway.yaml", GATEWAY), ("shop/route.yaml", ROUTE), ("shop/cart.yaml", SERVICE)]);
    for arguments in [&["validate", "-f", "."][..], &["validate", "-f", ".", "--complete"]] {
        let ran = folder.run(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{ran:?}");
        assert_eq!(ran.stderr, "3 objects in 3 files: 0 errors, 0 warnings\n");
    }
}

#[test]
fn a_route_by_itself_is_fine_and_what_it_hangs_on_is_a_warning() {
    let folder = Folder::with([("route.yaml", ROUTE)]);
    let ran = folder.run(&["validate", "-f", "route.yaml"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(
        ran.lines(),
        [
            "route.yaml:6:3: warning: HTTPRoute default/cart: spec.parentRefs: no parentRef names a Gateway or ListenerSet \
          that is here (not in these files: assumed to be right)"
        ]
    );
}

#[test]
fn a_service_that_is_not_in_the_files_is_a_warning_and_an_error_once_they_are_complete() {
    let folder = Folder::with([("gateway.yaml", GATEWAY), ("route.yaml", ROUTE)]);
    let told = "HTTPRoute default/cart: spec.rules[0].backendRefs[0]: ResolvedRefs (BackendNotFound): Service \
                default/cart does not exist";
    let ran = folder.run(&["validate", "-f", "."]);
    assert_eq!(ran.code, 0);
    let warning = format!("./route.yaml:15:11: warning: {told} (not in these files: assumed to be right)");
    assert_eq!(ran.lines(), [warning]);
    let ran = folder.run(&["validate", "-f", ".", "--complete"]);
    assert_eq!(ran.code, 1);
    assert_eq!(ran.lines(), [format!("./route.yaml:15:11: {told}")]);
}

#[test]
fn what_is_in_the_files_and_does_not_fit_is_an_error_whatever_else_there_may_be() {
    let wrong_port = ROUTE.replace("port: 80", "port: 81");
    let folder = Folder::with([("route.yaml", &wrong_port), ("service.yaml", SERVICE)]);
    let ran = folder.run(&["validate", "-f", "."]);
    assert_eq!(ran.code, 1);
    let errors: Vec<_> = ran.lines().into_iter().filter(|line| !line.contains("warning: ")).collect();
    assert_eq!(
        errors,
        ["./route.yaml:15:11: HTTPRoute default/cart: spec.rules[0].backendRefs[0]: ResolvedRefs (BackendNotFound): \
          Service default/cart has no TCP port 81"]
    );
}

#[test]
fn rules_are_checked_although_the_gateway_is_elsewhere() {
    let bad = ROUTE.replace("type: PathPrefix", "type: RegularExpression").replace("value: /cart", "value: '/(cart'");
    let ran = Folder::with([("route.yaml", &bad)]).run(&["validate", "-f", "route.yaml"]);
    assert_eq!(ran.code, 1);
    let told = "HTTPRoute default/cart: spec.rules[0].matches[0]";
    assert!(ran.lines().iter().any(|line| line.starts_with("route.yaml:11:11: ") && line.contains(told)), "{ran:?}");
}

#[test]
fn an_unknown_field_is_told_with_its_place_and_the_rest_of_the_file_is_looked_at() {
    let text = format!("{}---\n{}", ROUTE.replace("hostnames:", "hostname:"), SERVICE.replace("port: 80", "port: x"));
    let ran = Folder::with([("all.yaml", &text)]).run(&["validate", "-f", "all.yaml", "--complete"]);
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.lines(),
        [
            "all.yaml:8:3: HTTPRoute default/cart: spec.hostname: unknown field",
            "all.yaml:24:13: Service default/cart: spec.ports[0].port: want a whole number, found text",
        ]
    );
}

#[test]
fn standard_input_and_lists_as_kubectl_prints_them_are_read() {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart"}, "spec": {"ports": [{"prot": 80}]}},
    ]});
    let ran = Folder::with([]).run_with(&["validate", "-f", "-"], &list.to_string());
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("<stdin>:1:"), "{ran:?}");
    assert!(ran.stdout.contains("Service default/cart: items[1].spec.ports[0].prot: unknown field"), "{ran:?}");
    assert!(ran.stderr.ends_with("; 1 of other kinds passed over\n"), "{ran:?}");
}

#[test]
fn a_gateway_of_another_controller_is_no_error() {
    let class = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: nebula}\n\
                 spec: {controllerName: example.com/other}\n";
    let ran = Folder::with([("a.yaml", GATEWAY), ("b.yaml", class)]).run(&["validate", "-f", "."]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("warning: Gateway default/edge: spec.gatewayClassName: "), "{ran:?}");
}

#[test]
fn a_tls_secret_that_is_elsewhere_is_a_warning_and_a_bad_one_that_is_here_is_an_error() {
    let https = GATEWAY.replace("HTTP\n", "HTTPS\n      tls: {certificateRefs: [{name: edge-tls}]}\n");
    let folder = Folder::with([("gateway.yaml", &https)]);
    let ran = folder.run(&["validate", "-f", "."]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("warning: ") && ran.stdout.contains("InvalidCertificateRef"), "{ran:?}");
    folder.write(
        "secret.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: edge-tls}\nstringData: {tls.crt: hunter2, tls.key: hunter2}\n",
    );
    let ran = folder.run(&["validate", "-f", "."]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(!ran.stdout.contains("hunter2"), "{ran:?}");
}

#[test]
fn what_an_object_says_does_not_reach_the_terminal_as_it_is() {
    let odd = ROUTE.replace("- name: cart", "- name: \"x\\e[2J\"");
    let ran =
        Folder::with([("gateway.yaml", GATEWAY), ("route.yaml", &odd)]).run(&["validate", "-f", ".", "--complete"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("x\\u{1b}[2J") && !ran.stdout.contains('\u{1b}'), "{ran:?}");
}

#[test]
fn as_json_each_finding_has_its_parts() {
    let folder = Folder::with([("route.yaml", &ROUTE.replace("hostnames:", "hostname:"))]);
    let ran = folder.run(&["validate", "-f", "route.yaml", "-o", "json"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (1, ""));
    let finding = json!({"severity": "error", "file": "route.yaml", "line": 8, "column": 3,
        "object": "HTTPRoute default/cart", "field": "spec.hostname", "message": "unknown field"});
    assert_eq!(ran.json()["findings"], json!([finding]));
    let summary = json!({"files": 1, "objects": 0, "passedOver": 0, "errors": 1, "warnings": 0});
    assert_eq!(ran.json()["summary"], summary);
}

#[test]
fn what_cannot_be_read_is_told_apart() {
    let folder = Folder::with([("a.yaml", GATEWAY)]);
    let ran = folder.run(&["validate", "-f", "nothing.yaml"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    assert!(ran.stderr.starts_with("nebulactl: nothing.yaml: No such file"), "{ran:?}");
    std::fs::write(folder.path().join("latin.yaml"), [0xe9]).unwrap();
    let ran = folder.run(&["validate", "-f", "."]);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, "./latin.yaml: not UTF-8 text\n"));
}

#[test]
fn the_examples_of_the_gateway_are_complete_and_right() {
    for example in ["quickstart", "bring-your-own"] {
        let path = repository("gateway/examples").join(example);
        let ran = Folder::with([]).run(&["validate", "--complete", "-f", path.to_str().unwrap()]);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{example}: {ran:?}");
    }
}

const POLICY: &str = "apiVersion: nebula.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: cart}
spec:
  targetRefs:
    - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: cart, sectionName: api}
    - {group: gateway.networking.k8s.io, kind: Gateway, name: edge, sectionName: https}
  limits:
    client: {rate: 10, per: 1s}
";

#[test]
fn a_policy_by_itself_is_fine_and_a_value_that_is_wrong_in_it_is_told_at_its_place() {
    let folder = Folder::with([("policy.yaml", POLICY)]);
    let ran = folder.run(&["validate", "-f", "policy.yaml"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.lines().iter().all(|line| line.contains("warning: ") && line.contains("TargetNotFound")), "{ran:?}");
    assert_eq!(folder.run(&["validate", "-f", "policy.yaml", "--complete"]).code, 1);
    folder.write("policy.yaml", &POLICY.replace("rate: 10", "rate: 0"));
    let ran = folder.run(&["validate", "-f", "policy.yaml"]);
    assert_eq!(ran.code, 1);
    let errors: Vec<_> = ran.lines().into_iter().filter(|line| !line.contains("warning: ")).collect();
    let told = "policy.yaml:9:20: RateLimitPolicy default/cart: spec.limits.client.rate: Accepted (Invalid): \
                spec.limits.client.rate is 0, want 1 or more: its targets get 500 until it is corrected";
    assert_eq!(errors, [told]);
}

#[test]
fn a_policy_of_a_service_is_checked_although_the_service_is_elsewhere() {
    let policy = "apiVersion: nebula.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {name: cart}\nspec:\n  targetRefs:\n  - \
                  {kind: Service, name: cart, sectionName: web}\n  - {kind: Service, name: cart, sectionName: '8080'}\n  limits: \
                  {maxRequests: 100}\n";
    let folder = Folder::with([("policy.yaml", policy)]);
    let ran = folder.run(&["validate", "-f", "."]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("warning: ") && ran.stdout.contains("TargetNotFound"), "{ran:?}");
    folder.write("policy.yaml", &policy.replace("100", "0"));
    let ran = folder.run(&["validate", "-f", "."]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains("./policy.yaml:8:"), "{ran:?}");
}

#[test]
fn a_rule_that_a_route_in_the_files_does_not_have_is_an_error() {
    let folder = Folder::with([("policy.yaml", POLICY), ("route.yaml", ROUTE)]);
    let ran = folder.run(&["validate", "-f", "."]);
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("there is no rule api of HTTPRoute default/cart"), "{ran:?}");
}
