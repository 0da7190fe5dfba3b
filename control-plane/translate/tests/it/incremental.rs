//! That changes one by one say what the last state says at once, and what each of them costs.

use std::{collections::BTreeMap, sync::LazyLock};

use control_plane_model::{ObjectName, Snapshot};
use control_plane_translate::{Change, Kind, Mode, Object, Output, StatusUpdate, Translator};
use proptest::prelude::*;
use serde_json::json;

use super::support::{CONTROLLER, change, document, object, translator};

/// The world of the property test: for each object the forms that it may take. Small enough that things meet.
fn universe() -> Vec<Vec<String>> {
    let route = |kind: &str, name: &str, namespace: &str, spec: &str| {
        format!("kind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}, generation: 1}}\nspec: {spec}")
    };
    let gateway = |name: &str, spec: &str| {
        format!("kind: Gateway\nmetadata: {{name: {name}, namespace: a}}\nspec: {{gatewayClassName: nebula, {spec}}}")
    };
    let set = |name: &str, created: u32, listener: &str| {
        format!(
            "kind: ListenerSet\nmetadata: {{name: {name}, namespace: b, creationTimestamp: '202{created}-01-01T00:00:00Z'}}\n\
             spec: {{parentRef: {{name: one, namespace: a}}, listeners: [{listener}]}}"
        )
    };
    let service = |namespace: &str, port: &str| {
        format!("kind: Service\nmetadata: {{name: s, namespace: {namespace}}}\nspec: {{ports: [{port}]}}")
    };
    let slice = |name: &str, service: &str, address: &str, port: u16| {
        format!(
            "kind: EndpointSlice\nmetadata: {{name: {name}, namespace: a, labels: {{kubernetes.io/service-name: {service}}}}}\n\
             addressType: IPv4\nports: [{{port: {port}}}]\nendpoints: [{{addresses: [{address}]}}]"
        )
    };
    let grant = |kind: &str, to: &str| {
        format!(
            "kind: ReferenceGrant\nmetadata: {{name: g, namespace: b}}\nspec: {{from: [{{group: gateway.networking.k8s.io, \
             kind: {kind}, namespace: a}}], to: [{{group: '', kind: {to}}}]}}"
        )
    };
    let http = "{name: http, port: 80, protocol: HTTP";
    let cross = "{backendRefs: [{name: s, namespace: b, port: 80}]}";
    let policy = |name: &str, created: u32, spec: &str| {
        format!(
            "kind: RateLimitPolicy\nmetadata: {{name: {name}, namespace: a, generation: 1, creationTimestamp: \
             '202{created}-01-01T00:00:00Z'}}\nspec: {spec}"
        )
    };
    let client = |name: &str, spec: &str| {
        format!("kind: ClientPolicy\nmetadata: {{name: {name}, namespace: a, generation: 1}}\nspec: {spec}")
    };
    let backend_policy = |name: &str, created: u32, spec: &str| {
        format!(
            "kind: BackendPolicy\nmetadata: {{name: {name}, namespace: a, generation: 1, creationTimestamp: \
             '202{created}-01-01T00:00:00Z'}}\nspec: {spec}"
        )
    };
    let target = |kind: &str, name: &str, section: &str| {
        let section = if section.is_empty() { String::new() } else { format!(", sectionName: {section}") };
        format!("{{group: gateway.networking.k8s.io, kind: {kind}, name: {name}{section}}}")
    };
    let limits = "limits: {a: {rate: 1, per: 1s}}";
    let validation = |target: &str, fields: &str| {
        format!(
            "kind: RequestValidationPolicy\nmetadata: {{name: v, namespace: a, generation: 1}}\nspec: {{targetRefs: [{target}], {fields}}}"
        )
    };
    let own = "{name: own, matches: [{path: {value: /x}}], backendRefs: [{name: s, port: 80}]}";
    let authentication = |spec: &str| {
        format!("kind: AuthenticationPolicy\nmetadata: {{name: auth, namespace: a, generation: 1}}\nspec: {spec}")
    };
    let provider = |jwt: &str| {
        format!("kind: IdentityProvider\nmetadata: {{name: i, namespace: a}}\nspec: {{issuer: x, jwt: {{{jwt}}}}}")
    };
    let on_route = target("HTTPRoute", "r", "");
    vec![
        vec![
            authentication(&format!("{{targetRefs: [{on_route}], providers: {{p: {{providerRef: {{name: i}}}}}}}}")),
            authentication(&format!("{{targetRefs: [{on_route}], apiKeys: {{k: {{secretRefs: [{{name: w}}]}}}}}}")),
            authentication(&format!("{{targetRefs: [{on_route}], disabled: true}}")),
        ],
        vec![
            provider("anyAudience: true, keys: {url: 'https://id.example/keys'}"),
            provider("anyAudience: true, keys: {configMapRef: {name: m, key: k}}"),
            provider("keys: {url: 'https://id.example/keys'}"),
        ],
        vec![
            "kind: ConfigMap\nmetadata: {name: m, namespace: a}\ndata: {k: '{}'}".into(),
            "kind: ConfigMap\nmetadata: {name: m, namespace: a}\ndata: {k: '{\"keys\": [{\"kty\": \"OKP\", \"crv\": \
             \"Ed25519\", \"x\": \"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}'}"
                .into(),
        ],
        vec![
            "kind: Secret\nmetadata: {name: w, namespace: a}\ntype: nebula.dev/credentials\nstringData: {c: short}".into(),
            "kind: Secret\nmetadata: {name: w, namespace: a}\ntype: nebula.dev/credentials\nstringData: {c: \
             abcdefghijklmnopqrstuvwxyz}"
                .into(),
            "kind: Secret\nmetadata: {name: w, namespace: a}\ntype: Opaque\nstringData: {c: abcdefghijklmnopqrstuvwxyz}".into(),
        ],
        vec![
            "kind: GatewayClass\nmetadata: {name: nebula}\nspec: {controllerName: nebula.dev/gateway-controller}".into(),
            "kind: GatewayClass\nmetadata: {name: nebula}\nspec: {controllerName: example.com/other}".into(),
            "kind: GatewayClass\nmetadata: {name: nebula}\nspec: {controllerName: nebula.dev/gateway-controller, \
             parametersRef: {group: nebula.dev, kind: GatewayConfig, name: c, namespace: a}}"
                .into(),
        ],
        vec![
            "kind: GatewayConfig\nmetadata: {name: c, namespace: a}\nspec: {}".into(),
            "kind: GatewayConfig\nmetadata: {name: c, namespace: a}\nspec: {replicas: -1}".into(),
            "kind: GatewayConfig\nmetadata: {name: c, namespace: a}\nspec: {log: {accessLog: Disabled}}".into(),
        ],
        vec![
            gateway("one", &format!("listeners: [{http}, allowedRoutes: {{namespaces: {{from: All}}}}}}]")),
            gateway("one", &format!("allowedListeners: {{namespaces: {{from: All}}}}, listeners: [{http}}}]")),
            gateway(
                "one",
                &format!(
                    "allowedListeners: {{namespaces: {{from: Selector, selector: {{matchLabels: {{tier: web}}}}}}}}, \
                     listeners: [{http}, hostname: '*.x.com', allowedRoutes: {{namespaces: {{from: Selector, selector: \
                     {{matchLabels: {{tier: web}}}}}}}}}}]"
                ),
            ),
            gateway("one", "listeners: [{name: s, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: t, namespace: b}]}}]"),
        ],
        vec![gateway("two", &format!("listeners: [{http}}}, {{name: tcp, port: 81, protocol: TCP}}]"))],
        vec![
            set("old", 0, "{name: l, port: 80, protocol: HTTP, hostname: l.x.com}"),
            set("old", 0, "{name: l, port: 80, protocol: HTTP}"),
        ],
        vec![
            set("young", 1, "{name: l, port: 80, protocol: HTTP, hostname: l.x.com, allowedRoutes: {namespaces: {from: All}}}"),
            set("young", 1, "{name: l, port: 8080, protocol: HTTP}"),
        ],
        vec![
            route("HTTPRoute", "r", "a", &format!("{{parentRefs: [{{name: one}}], rules: [{own}]}}")),
            route("HTTPRoute", "r", "a", &format!("{{parentRefs: [{{name: one}}, {{name: two}}], hostnames: [l.x.com], rules: [{own}, {cross}]}}")),
            route("HTTPRoute", "r", "a", &format!("{{parentRefs: [{{kind: ListenerSet, name: young, namespace: b}}], rules: [{cross}]}}")),
        ],
        vec![
            route("HTTPRoute", "q", "a", &format!("{{parentRefs: [{{name: one}}], rules: [{own}]}}")),
            route("HTTPRoute", "q", "a", "{parentRefs: [{name: two, sectionName: tcp}], rules: [{matches: [{path: {type: RegularExpression, value: '('}}]}]}"),
        ],
        vec![route("HTTPRoute", "r", "b", &format!("{{parentRefs: [{{name: one, namespace: a}}, {{kind: ListenerSet, name: old}}], rules: [{own}]}}"))],
        vec![route("GRPCRoute", "r", "a", &format!("{{parentRefs: [{{name: one}}], rules: [{cross}]}}"))],
        vec![
            service("a", "{port: 80}"),
            service("a", "{port: 80, appProtocol: kubernetes.io/h2c}"),
            service("a", "{port: 81}"),
        ],
        vec![service("b", "{port: 80}")],
        vec![slice("e", "s", "10.0.0.1", 3000), slice("e", "s", "10.0.0.2", 3001), slice("e", "other", "10.0.0.1", 3000)],
        vec![slice("f", "s", "10.0.0.1", 3000)],
        vec![grant("HTTPRoute", "Service"), grant("GRPCRoute", "Service"), grant("Gateway", "Secret")],
        vec!["kind: BackendTLSPolicy\nmetadata: {name: p, namespace: a}\nspec: {targetRefs: [{group: '', kind: Service, name: s}], \
              validation: {hostname: a.b}}".into()],
        vec!["kind: Secret\nmetadata: {name: t, namespace: b}\nstringData: {tls.crt: x}".into()],
        vec![
            policy("p", 0, &format!("{{targetRefs: [{}], {limits}}}", target("HTTPRoute", "r", ""))),
            policy("p", 0, &format!("{{targetRefs: [{}, {}], {limits}}}", target("HTTPRoute", "q", "own"), target("HTTPRoute", "r", "x"))),
            policy("p", 0, &format!("{{targetRefs: [{}], limits: {{a: {{rate: 0, per: 1s}}}}}}", target("HTTPRoute", "r", ""))),
        ],
        vec![
            policy("g", 1, &format!("{{targetRefs: [{}], {limits}}}", target("Gateway", "one", ""))),
            policy("g", 1, &format!("{{targetRefs: [{}], overrides: {{{limits}}}}}", target("Gateway", "one", "http"))),
            policy("g", 2, &format!("{{targetRefs: [{}, {}], disabled: true}}", target("Gateway", "one", ""), target("Service", "s", ""))),
            policy("g", 2, &format!("{{targetRefs: [{}], {limits}}}", target("HTTPRoute", "r", ""))),
        ],
        vec![
            validation(&target("HTTPRoute", "r", "own"), "openapi: {configMapRef: {name: docs, key: d}}"),
            validation(&target("Gateway", "one", ""), "schemas: {s: {configMapRef: {name: docs, key: d}}}, body: {content: {application/json: {schema: {$ref: s}}}}"),
            validation(&target("HTTPRoute", "r", ""), "body: {content: {application/json: {schema: {type: wrong}}}}"),
        ],
        vec![
            "kind: ConfigMap\nmetadata: {name: docs, namespace: a}\ndata: {d: '{\"openapi\": \"3.1.0\"}'}".into(),
            "kind: ConfigMap\nmetadata: {name: docs, namespace: a}\ndata: {d: 'openapi: 2.0'}".into(),
            "kind: ConfigMap\nmetadata: {name: docs, namespace: a}\ndata: {other: '{}'}".into(),
        ],
        vec![
            policy("h", 0, &format!("{{targetRefs: [{}, {}], {limits}}}", target("Gateway", "one", ""), target("HTTPRoute", "r", ""))),
            policy("h", 0, &format!("{{targetRefs: [{}], mode: Report}}", target("GRPCRoute", "r", ""))),
        ],
        vec![
            client("c", &format!("{{targetRefs: [{}], tls: {{minVersion: TLSv1.2}}}}", target("Gateway", "one", ""))),
            client("c", &format!("{{targetRefs: [{}], timeouts: {{requestHead: 2s}}}}", target("Gateway", "one", "http"))),
            client("c", &format!("{{targetRefs: [{}], limits: {{headers: 1}}}}", target("Gateway", "one", ""))),
        ],
        vec![
            client("d", &format!("{{targetRefs: [{}], tls: {{maxVersion: TLSv1.2}}}}", target("Gateway", "one", "http"))),
            client("d", &format!("{{targetRefs: [{}, {}]}}", target("Gateway", "one", ""), target("HTTPRoute", "r", ""))),
        ],
        vec![
            backend_policy("b", 0, "{targetRefs: [{kind: Service, name: s}], limits: {maxRequests: 5}}"),
            backend_policy("b", 0, "{targetRefs: [{kind: Service, name: s, sectionName: '80'}], limits: {maxRequests: 5}}"),
            backend_policy("b", 2, "{targetRefs: [{kind: Service, name: s}, {kind: Service, name: s, sectionName: x}], retries: {when: {}}}"),
        ],
        vec![
            backend_policy("c", 1, "{targetRefs: [{kind: Service, name: s}], circuitBreaker: {}}"),
            backend_policy("c", 1, "{targetRefs: [{kind: Service, name: other}, {kind: Gateway, name: one}], circuitBreaker: {}}"),
        ],
        vec!["kind: Namespace\nmetadata: {name: a, labels: {tier: web}}".into(), "kind: Namespace\nmetadata: {name: a}".into()],
        vec!["kind: Namespace\nmetadata: {name: b, labels: {tier: web}}".into()],
    ]
}

static UNIVERSE: LazyLock<Vec<Vec<Object>>> = LazyLock::new(|| {
    universe().iter().map(|forms| forms.iter().map(|text| object(document(text))).collect()).collect()
});

/// Changes that no object says, and that the last state cannot be read from: the later one counts.
const FACTS: &[&str] = &[
    "kind: Provisioned\nnamespace: a\nname: one\naddresses: [192.0.2.1]\nready: true",
    "kind: Provisioned\nnamespace: a\nname: one\naddresses: []\nready: false",
    "kind: Report\nnamespace: a\nname: one\nrefused: {route/http/a/r: broken, listener/a/one/http: port}",
    "kind: Report\nnamespace: a\nname: one\nrefused: {backend/a/s/80: broken, policy/rate-limit/a/p: broken, policy/backend/a/b: broken}",
    "kind: Report\nnamespace: a\nname: one\nrefused: {}",
];

#[derive(Clone, Debug)]
enum Step {
    Upsert(usize, usize),
    Remove(usize),
    Fact(usize),
}

fn steps() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let objects = UNIVERSE.len();
    let step = prop_oneof![
        6 => (0..objects, 0..4_usize).prop_map(|(object, form)| Step::Upsert(object, form)),
        2 => (0..objects).prop_map(Step::Remove),
        1 => (0..FACTS.len()).prop_map(Step::Fact),
    ];
    prop::collection::vec(prop::collection::vec(step, 1..6), 1..20)
}

/// What others have made of a translator's outputs.
#[derive(Default)]
struct Followers {
    snapshot: Snapshot,
    statuses: BTreeMap<(Kind, ObjectName), StatusUpdate>,
}

impl Followers {
    fn take(&mut self, output: Output) {
        self.snapshot.apply(&output.delta);
        for update in output.statuses {
            self.statuses.insert((update.kind, update.name.clone()), update);
        }
    }

    /// A status goes with its object, and is no matter of ours once another controller has the object.
    fn forget(&mut self, state: &BTreeMap<usize, Object>) {
        let is_foreign = state
            .values()
            .any(|object| matches!(object, Object::GatewayClass(class) if class.spec.controller_name != CONTROLLER));
        self.statuses.retain(|(kind, name), _| {
            let is_there = state.values().any(|object| object.kind() == *kind && object.name() == *name);
            let by_class = matches!(kind, Kind::GatewayClass | Kind::Gateway | Kind::ListenerSet);
            is_there && !(is_foreign && by_class)
        });
    }
}

fn everything(translator: &Translator) -> Vec<StatusUpdate> {
    translator.statuses().cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_by_one_is_as_good_as_at_once(batches in steps()) {
        let mut incremental = translator(Mode::Cluster);
        let mut followers = Followers::default();
        let mut facts = BTreeMap::new();
        // From a world in which everything is there: in an empty one most changes meet nothing.
        let mut state: BTreeMap<usize, Object> = UNIVERSE.iter().map(|forms| forms[0].clone()).enumerate().collect();
        let output = incremental.apply(state.values().cloned().map(Change::Upsert).collect());
        followers.take(output);
        for batch in batches {
            let mut changes = Vec::new();
            for step in batch {
                match step {
                    Step::Upsert(index, form) => {
                        let forms = &UNIVERSE[index];
                        let object = forms[form % forms.len()].clone();
                        state.insert(index, object.clone());
                        changes.push(Change::Upsert(object));
                    }
                    Step::Remove(index) => {
                        state.remove(&index);
                        let object = &UNIVERSE[index][0];
                        if object.kind() == Kind::Gateway && &*object.name().name == "one" {
                            facts.clear();
                        }
                        changes.push(Change::Remove(object.kind(), object.name()));
                    }
                    Step::Fact(index) => {
                        let fact = change(&document(FACTS[index]));
                        facts.insert(matches!(fact, Change::Report { .. }), fact.clone());
                        changes.push(fact);
                    }
                }
            }
            let output = incremental.apply(changes);
            for key in &output.delta.removed {
                prop_assert!(!output.delta.upserted.iter().any(|resource| resource.key() == *key), "{key} on both sides");
            }
            followers.take(output);
            followers.forget(&state);
            prop_assert_eq!(&followers.snapshot, incremental.snapshot());
        }
        for ((kind, name), said) in &followers.statuses {
            if incremental.status(*kind, name).is_none() {
                prop_assert!(said.status.is_null(), "{kind} {name} is not ours and still says {}", said.status);
            }
        }
        let mut fresh = translator(Mode::Cluster);
        let changes = facts.into_values().chain(state.into_values().map(Change::Upsert)).collect();
        let _ = fresh.apply(changes);
        prop_assert_eq!(incremental.snapshot(), fresh.snapshot());
        prop_assert_eq!(everything(&incremental), everything(&fresh));
        prop_assert_eq!(incremental.deployments(), fresh.deployments());
        for status in incremental.statuses() {
            prop_assert_eq!(followers.statuses.get(&(status.kind, status.name.clone())), Some(status));
        }
    }
}

const ROUTES: usize = 5_000;

fn route(index: usize, path: &str) -> Change {
    // Not from YAML: parsing would take most of the test.
    Change::Upsert(object(json!({
        "kind": "HTTPRoute",
        "metadata": {"name": format!("r{index}"), "namespace": "shop"},
        "spec": {
            "parentRefs": [{"name": "edge"}],
            "hostnames": [format!("h{index}.example.com")],
            "rules": [{
                "matches": [{"path": {"value": path}}],
                "backendRefs": [{"name": format!("s{}", index % 100), "port": 80}],
            }],
        },
    })))
}

/// One Gateway with 5,000 routes to 100 Services.
fn large() -> Translator {
    let mut translator = translator(Mode::Cluster);
    let mut changes = vec![
        change(&document(
            "kind: GatewayClass\nmetadata: {name: nebula}\nspec: {controllerName: nebula.dev/gateway-controller}",
        )),
        change(&document(
            "kind: Gateway\nmetadata: {name: edge, namespace: shop}\nspec: {gatewayClassName: nebula, listeners: [{name: http, \
             port: 80, protocol: HTTP}]}",
        )),
    ];
    changes.extend((0..100).map(|index| {
        let text =
            format!("kind: Service\nmetadata: {{name: s{index}, namespace: shop}}\nspec: {{ports: [{{port: 80}}]}}");
        change(&document(&text))
    }));
    changes.extend((0..ROUTES).map(|index| route(index, "/")));
    let output = translator.apply(changes);
    assert_eq!((output.work.routes, output.work.backends), (ROUTES, 100));
    translator
}

#[test]
fn a_route_costs_one_route_whatever_their_number() {
    let mut translator = large();
    let output = translator.apply(vec![route(17, "/new")]);
    assert_eq!((output.delta.upserted.len(), output.delta.removed.len()), (1, 0));
    assert_eq!((output.work.topologies, output.work.routes, output.work.backends), (0, 1, 1));
    // The route's own, and the Gateway's for attachedRoutes.
    assert_eq!(output.work.statuses, 2);

    let output = translator.apply(vec![route(ROUTES, "/")]);
    assert_eq!((output.work.routes, output.work.backends, output.statuses.len()), (1, 1, 2));
    let gateway = translator.status(Kind::Gateway, &ObjectName::new("shop", "edge")).unwrap();
    assert_eq!(gateway.status["listeners"][0]["attachedRoutes"], ROUTES + 1);
}

#[test]
fn a_pod_costs_its_backend_and_no_route() {
    let mut translator = large();
    let slice = "kind: EndpointSlice\nmetadata: {name: e, namespace: shop, labels: {kubernetes.io/service-name: s1}}\n\
                 addressType: IPv4\nports: [{port: 3000}]\nendpoints: [{addresses: [10.0.0.1]}]";
    let output = translator.apply(vec![change(&document(slice))]);
    assert_eq!((output.delta.upserted.len(), output.statuses.len()), (1, 0));
    assert_eq!((output.work.topologies, output.work.routes, output.work.backends), (0, 0, 1));
}

#[test]
fn a_gateway_that_changes_in_nothing_that_routes_see_translates_none_again() {
    let mut translator = large();
    let gateway = "kind: Gateway\nmetadata: {name: edge, namespace: shop, generation: 2}\nspec: {gatewayClassName: nebula, \
                   infrastructure: {labels: {a: b}}, listeners: [{name: http, port: 80, protocol: HTTP}]}";
    let output = translator.apply(vec![change(&document(gateway))]);
    assert_eq!((output.work.topologies, output.work.routes), (1, 0));
    assert!(output.deployments_changed && output.delta.is_empty());
}

#[test]
fn an_object_that_differs_in_its_status_alone_is_no_change() {
    let mut translator = large();
    let mut same = document(
        "kind: Gateway\nmetadata: {name: edge, namespace: shop}\nspec: {gatewayClassName: nebula, listeners: [{name: http, \
         port: 80, protocol: HTTP}]}",
    );
    same["metadata"]["resourceVersion"] = "7".into();
    same["status"] = serde_json::json!({"addresses": [{"value": "192.0.2.1"}]});
    let output = translator.apply(vec![Change::Upsert(object(same))]);
    assert_eq!(output.work, control_plane_translate::Work::default());
}
