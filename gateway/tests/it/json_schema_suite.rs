//! The required cases of JSON-Schema-Test-Suite, each as the body of a request: the gateway forwards the valid ones, byte for
//! byte, and no other. The suite's remote documents are documents of the policies.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::harness::{Answer, Client, Folder, Gateway, backend, gateway, service};

const REMOTES: &str = include_str!("../../../policies/schema/tests/suite/remotes.jsonl");
/// Name in the suite, name in a policy, cases, and how many there are at the least.
const DRAFTS: [(&str, &str, &str, usize); 5] = [
    ("draft4", "4", include_str!("../../../policies/schema/tests/suite/draft4.jsonl"), 610),
    ("draft6", "6", include_str!("../../../policies/schema/tests/suite/draft6.jsonl"), 829),
    ("draft7", "7", include_str!("../../../policies/schema/tests/suite/draft7.jsonl"), 913),
    ("draft2019-09", "2019-09", include_str!("../../../policies/schema/tests/suite/draft2019-09.jsonl"), 1227),
    ("draft2020-12", "2020-12", include_str!("../../../policies/schema/tests/suite/draft2020-12.jsonl"), 1257),
];
/// Media types of one policy.
const BATCH: usize = 64;
/// Groups of cases that one gateway has at once.
const AT_ONCE: usize = 3 * BATCH;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What lies in no draft's folder is of any draft, and need not be valid in this one unless its cases name it.
fn remotes(draft: &str, cases: &str) -> Value {
    let is_named = |path: &str| cases.contains(path.rsplit('/').next().unwrap_or(path));
    let is_meant =
        |path: &str| if path.starts_with("draft") { path.starts_with(&format!("{draft}/")) } else { is_named(path) };
    let documents = lines(REMOTES).into_iter().filter(|remote| is_meant(remote["path"].as_str().unwrap()));
    let entry = |(index, remote): (usize, Value)| {
        let uri = format!("http://localhost:1234/{}", remote["path"].as_str().unwrap());
        (format!("remote-{index}"), json!({"uri": uri, "inline": remote["document"]}))
    };
    Value::Object(documents.enumerate().map(entry).collect())
}

/// A route with a rule for each batch of schemas, and a policy for each rule.
fn objects(draft: &str, version: &str, groups: &[Value], cases: &str) -> Vec<Value> {
    let remotes = remotes(draft, cases);
    let batches: Vec<&[Value]> = groups.chunks(BATCH).collect();
    let rule = |index: usize| {
        json!({
            "name": format!("batch-{index}"),
            "matches": [{"path": {"type": "PathPrefix", "value": format!("/{draft}/{index}")}}],
            "backendRefs": [{"name": "echo", "port": 80}],
        })
    };
    let mut objects = vec![json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": draft},
        "spec": {"parentRefs": [{"name": "edge"}], "rules": (0..batches.len()).map(rule).collect::<Vec<_>>()},
    })];
    for (index, batch) in batches.iter().enumerate() {
        let content = batch.iter().enumerate();
        let content = content.map(|(case, group)| (media_type(case), json!({"schema": group["schema"]})));
        let target = json!({
            "group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": draft, "sectionName": format!("batch-{index}"),
        });
        objects.push(json!({
            "apiVersion": "nebula.dev/v1alpha1", "kind": "RequestValidationPolicy",
            "metadata": {"name": format!("{draft}-{index}")},
            "spec": {
                "targetRefs": [target],
                "draft": version,
                "schemas": remotes,
                "body": {"required": true, "content": content.collect::<serde_json::Map<_, _>>()},
            },
        }));
    }
    objects
}

fn media_type(case: usize) -> String {
    format!("application/vnd.case-{case}+json")
}

#[tokio::test]
async fn the_suite_passes_through_the_gateway_for_every_draft() {
    let arrived = Arc::new(AtomicUsize::new(0));
    let count = arrived.clone();
    let echo = backend(move |request: Request<Incoming>| {
        count.fetch_add(1, Ordering::Relaxed);
        async move { Response::new(Full::new(request.into_body().collect().await.unwrap().to_bytes())) }
    })
    .await;
    for (draft, version, cases, least) in DRAFTS {
        let (mut passed, mut failed) = (0, BTreeSet::new());
        for groups in lines(cases).chunks(AT_ONCE) {
            let objects = objects(draft, version, groups, cases);
            let documents: Vec<String> = objects.iter().map(Value::to_string).collect();
            let folder = Folder::with([
                ("gateway.yaml", gateway()),
                ("service.yaml", service("echo", echo)),
                ("policies.yaml", documents.join("\n---\n")),
            ]);
            let gateway = Gateway::ready(&folder).await;
            let mut client = Client::connect(gateway.http).await.unwrap();
            for (index, group) in groups.iter().enumerate() {
                for case in group["tests"].as_array().unwrap() {
                    let before = arrived.load(Ordering::Relaxed);
                    let answer = send(&mut client, draft, index, &case["data"]).await;
                    let has_arrived = arrived.load(Ordering::Relaxed) > before;
                    if is_wrong(&answer, case, has_arrived) {
                        failed.insert(format!("{group} {case}: {answer:?}"));
                    } else {
                        passed += 1;
                    }
                }
            }
        }
        println!("{draft}: {passed} passed, {} failed", failed.len());
        assert!(failed.is_empty(), "{draft}: {failed:#?}");
        // A suite that lost its cases would pass too.
        assert!(passed >= least, "{draft}: {passed} of {least}");
    }
}

async fn send(client: &mut Client, draft: &str, index: usize, data: &Value) -> Answer {
    let request = Request::post(format!("/{draft}/{}", index / BATCH))
        .header("host", "localhost")
        .header("content-type", media_type(index % BATCH))
        .body(Full::new(Bytes::from(data.to_string())))
        .unwrap();
    client.send(request).await.unwrap()
}

/// Whether the gateway judges a case otherwise than the suite, or forwards something else than it was sent.
fn is_wrong(answer: &Answer, case: &Value, has_arrived: bool) -> bool {
    if case["valid"] == true {
        !has_arrived || answer.status != 200 || serde_json::to_string(&case["data"]).unwrap() != answer.body
    } else {
        has_arrived || answer.status != 400 || answer.header("x-nebula-reason") != "request_invalid"
    }
}
