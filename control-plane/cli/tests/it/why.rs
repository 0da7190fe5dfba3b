//! `nebulactl why`.

use crate::harness::Folder;

/// As the gateway writes it: `docs/telemetry.md`.
const LOG: &str = concat!(
    r#"{"time":"2026-11-23T09:30:05.042Z","request_id":"r-1","method":"GET","host":"shop.example.com","path":"/cart","protocol":"1.1","status":200,"flag":null,"listener":"infra/edge/http","route":"http/shop/cart","rule":"0","backend":"shop/cart/80","endpoint":"10.0.0.7:8080","attempts":2,"request_bytes":0,"response_bytes":1024,"duration_us":1234,"upstream_duration_us":1000,"client":"192.0.2.1:40000","user_agent":"curl/8","trace_id":null}"#,
    "\n2026-11-23 INFO configuration changed\n",
    r#"{"time":"2026-11-23T09:30:06.000Z","request_id":"r-2","method":"GET","host":"shop.example.com","path":"/cart","protocol":"2","status":503,"flag":"no_endpoints","listener":"infra/edge/http","route":"http/shop/cart","rule":"checkout","backend":"shop/cart/80","endpoint":null,"attempts":0,"request_bytes":0,"response_bytes":180,"duration_us":210,"upstream_duration_us":null,"client":"192.0.2.1:40000","user_agent":null,"trace_id":"0af7651916cd43dd8448eb211c80319c"}"#,
    "\n",
    r#"[pod/edge] {"time":"2026-11-23T09:30:07.000Z","request_id":"r-3","method":"GET","host":"","path":"","protocol":"1.1","status":400,"flag":"ambiguous_path","listener":null,"route":null,"rule":null,"backend":null,"endpoint":null,"attempts":0,"request_bytes":0,"response_bytes":300,"duration_us":90,"upstream_duration_us":null,"client":"192.0.2.1:40000","user_agent":"a\u001b[2J","trace_id":null}"#,
    "\n",
    r#"{"time":"2026-11-23T09:30:08.000Z","request_id":"r-4","method":"GET","host":"shop.example.com","path":"/old","protocol":"1.1","status":302,"flag":null,"listener":"infra/edge/http","route":"http/shop/old","rule":"0","backend":null,"endpoint":null,"attempts":0,"request_bytes":0,"response_bytes":0,"duration_us":90,"upstream_duration_us":null,"client":"192.0.2.1:40000","user_agent":null,"trace_id":null}"#,
    "\n",
    r#"{"time":"2026-11-23T09:30:09.000Z","request_id":"r-5","method":"POST","host":"shop.example.com","path":"/cart","protocol":"1.1","status":500,"flag":null,"listener":"infra/edge/http","route":"grpc/shop/cart","rule":"0","backend":"shop/cart/80","endpoint":"10.0.0.7:8080","attempts":1,"request_bytes":7,"response_bytes":10,"duration_us":2000000,"upstream_duration_us":1900000,"client":"192.0.2.1:40000","user_agent":null,"trace_id":null}"#,
    "\n",
    r#"{"time":"2026-11-23T09:30:10.000Z","request_id":"r-6","method":"GET","host":"shop.example.com","path":"/cart","protocol":"1.1","status":200,"flag":"client_closed","listener":"infra/edge/http","route":"http/shop/cart","rule":"0","backend":"shop/cart/80","endpoint":"10.0.0.7:8080","attempts":1,"request_bytes":0,"response_bytes":10,"duration_us":2000,"upstream_duration_us":1900,"client":"192.0.2.1:40000","user_agent":null,"trace_id":null}"#,
    "\n",
    r#"{"time":"2026-11-23T09:30:11.000Z","request_id":"r-7","method":"GET","host":"shop.example.com","path":"/cart","protocol":"1.1","status":429,"flag":"rate_limited","policy":"rate-limit/shop/cart","reported":"rate-limit/infra/edge rate_limited, rate-limit/shop/cart concurrency_limited","listener":"infra/edge/http","route":"http/shop/cart","rule":"0","backend":null,"endpoint":null,"attempts":0,"request_bytes":0,"response_bytes":10,"duration_us":200,"upstream_duration_us":null,"client":"192.0.2.1:40000","user_agent":null,"trace_id":null}"#,
    "\n",
);

#[test]
fn each_decision_is_told_in_order() {
    let ran = Folder::with([]).run_with(&["why"], LOG);
    assert_eq!(ran.code, 0);
    insta::assert_snapshot!(ran.stdout);
}

#[test]
fn one_request_is_found_by_its_id() {
    let folder = Folder::with([("access.log", LOG)]);
    let ran = folder.run(&["why", "--request-id", "r-2", "access.log"]);
    assert_eq!(ran.code, 0);
    assert!(ran.stdout.contains("request r-2 ") && !ran.stdout.contains("request r-1 "), "{ran:?}");
    let ran = folder.run(&["why", "--request-id", "r-9", "access.log"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert_eq!(ran.stderr, "nebulactl: no line of access.log is of request r-9\n");
    assert_eq!(folder.run(&["why", "nothing.log"]).code, 2);
}

#[test]
fn only_what_failed_is_told_where_that_is_asked_for() {
    let ran = Folder::with([]).run_with(&["why", "--failed", "-o", "json"], LOG);
    let stories = ran.lines().into_iter().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let ids: Vec<_> = stories.map(|story| story["request_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, ["r-2", "r-3", "r-5", "r-6", "r-7"]);
}

#[test]
fn as_json_each_step_has_its_parts() {
    let ran = Folder::with([]).run_with(&["why", "--request-id", "r-2", "-o", "json"], LOG);
    let refused = &ran.json()["steps"][6];
    assert_eq!((&refused["step"], &refused["outcome"]), (&"endpoint".into(), &"refused".into()), "{ran:?}");
    assert!(ran.json()["next"].as_str().unwrap().contains("endpointslices"), "{ran:?}");
}
