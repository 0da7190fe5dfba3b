//! From a manifest to traffic, and what is made on the way.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e_tests::clock::eventually;
use e2e_tests::gateway::{answers, answers_status, echo, gateway, route, serving};
use e2e_tests::kubernetes::{Kubernetes, LIMIT, Namespace};
use e2e_tests::load::Load;
use serde_json::Value;

pub fn route_and_edit(kubernetes: &Kubernetes) -> Result<()> {
    let namespace = kubernetes.namespace("e2e-route")?;
    let address = serving(kubernetes, &namespace)?;
    namespace.route_condition("all", "Accepted", "True", "Accepted")?;
    namespace.route_condition("all", "ResolvedRefs", "True", "ResolvedRefs")?;
    kubernetes.apply(&echo("e2e-route", "other"))?;
    kubernetes.rolled_out("e2e-route", "other")?;

    let load = Load::start(address, "example.test", "/");
    for backend in ["other", "echo", "other"] {
        kubernetes.apply(&route("e2e-route", "all", "edge", "/", backend))?;
        let served = |body: &str| body.contains(&format!("\"pod\": \"{backend}-"));
        answers(address, "/", |answer| answer.status == 200 && served(&answer.body), Duration::from_secs(5))?;
    }
    load.stop(100)?;

    kubernetes.kubectl(&["delete", "httproute", "all", "--namespace", "e2e-route"])?;
    answers_status(address, "/", 404).map(drop)
}

pub fn longest_name(kubernetes: &Kubernetes) -> Result<()> {
    // A DNS subdomain (RFC 1123): 253 characters in labels of at most 63.
    let name = [63, 63, 63, 61].map(|length| "g".repeat(length)).join(".");
    ensure!(name.len() == 253, "the longest name has {} characters", name.len());
    let namespace = kubernetes.namespace("e2e-longest")?;
    let yaml = gateway("e2e-longest", &name, "")
        + &echo("e2e-longest", "echo")
        + &route("e2e-longest", "all", &name, "/", "echo");
    let address = namespace.serve(&name, &yaml)?;
    answers_status(address, "/", 200).map(drop)
}

pub fn infrastructure(kubernetes: &Kubernetes) -> Result<()> {
    let namespace = kubernetes.namespace("e2e-infrastructure")?;
    let extra = "  infrastructure: {labels: {team: edge}, annotations: {example.test/cost: \"42\"}}";
    namespace.serve("edge", &gateway("e2e-infrastructure", "edge", extra))?;
    for kind in ["deployment", "service", "serviceaccount", "pod"] {
        let made = made_for(&namespace, kind, "edge")?;
        ensure!(!made.is_empty(), "no {kind} for the Gateway");
        for object in made {
            let label = object.pointer("/metadata/labels/team").and_then(Value::as_str);
            let annotation = object.pointer("/metadata/annotations/example.test~1cost").and_then(Value::as_str);
            ensure!(label == Some("edge"), "{kind} has no label of the infrastructure: {object}");
            ensure!(annotation == Some("42"), "{kind} has no annotation of the infrastructure: {object}");
        }
    }
    Ok(())
}

pub fn own_addresses(kubernetes: &Kubernetes) -> Result<()> {
    let namespace = kubernetes.namespace("e2e-two")?;
    let yaml = ["one", "two"].map(|name| {
        let gateway = gateway("e2e-two", name, "");
        gateway + &echo("e2e-two", name) + &route("e2e-two", name, name, "/", name)
    });
    kubernetes.apply(&yaml.concat())?;
    let (one, two) = (namespace.address("one")?, namespace.address("two")?);
    ensure!(one != two, "both Gateways have {one}");
    for (address, backend) in [(one, "one"), (two, "two")] {
        let served = |body: &str| body.contains(&format!("\"pod\": \"{backend}-"));
        answers(address, "/", |answer| answer.status == 200 && served(&answer.body), LIMIT)?;
    }
    Ok(())
}

pub fn goes_with_its_gateway(kubernetes: &Kubernetes) -> Result<()> {
    let namespace = kubernetes.namespace("e2e-gone")?;
    namespace.serve("edge", &gateway("e2e-gone", "edge", ""))?;
    kubernetes.kubectl(&["delete", "gateway", "edge", "--namespace", "e2e-gone"])?;
    eventually("everything of the Gateway to go", LIMIT, || {
        for kind in ["deployment", "service", "serviceaccount", "pod"] {
            let left = made_for(&namespace, kind, "edge").map_err(|error| format!("{error:#}"))?;
            if !left.is_empty() {
                return Err(format!("{} of kind {kind} left", left.len()));
            }
        }
        Ok(())
    })
}

fn made_for(namespace: &Namespace<'_>, kind: &str, gateway: &str) -> Result<Vec<Value>> {
    let selector = format!("gateway.networking.k8s.io/gateway-name={gateway}");
    namespace.kubernetes.list(&namespace.name, kind, &selector)
}
