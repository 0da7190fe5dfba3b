//! The chart, with the real helm: installed, upgraded under load, removed and installed again.

use anyhow::{Result, ensure};
use e2e_tests::gateway::{CLASS, CONTROL_PLANE, SYSTEM, serving};
use e2e_tests::kubernetes::{Kubernetes, has_condition};
use e2e_tests::load::Load;

use crate::availability::enough;

const RELEASE: &str = "nebula";

pub fn installs(kubernetes: &Kubernetes) -> Result<()> {
    kubernetes.rolled_out(SYSTEM, CONTROL_PLANE)?;
    kubernetes.wait("", "gatewayclass", CLASS, |class| {
        has_condition(class, "/status/conditions", "Accepted", "True", "Accepted")
    })?;
    // Least rights: it reads what it translates and writes no one's workloads outside of Gateways.
    let account = format!("--as=system:serviceaccount:{SYSTEM}:{CONTROL_PLANE}");
    let may = |verb: &str, kind: &str| {
        // `auth can-i` ends with 1 for a no.
        let answer = kubernetes.kubectl(&["auth", "can-i", verb, kind, "--all-namespaces", &account]);
        answer.is_ok_and(|answer| answer.trim() == "yes")
    };
    ensure!(may("list", "httproutes.gateway.networking.k8s.io"), "it cannot read routes");
    for (verb, kind) in
        [("delete", "namespaces"), ("create", "clusterrolebindings"), ("delete", "secrets"), ("create", "pods")]
    {
        ensure!(!may(verb, kind), "it may {verb} {kind} in all namespaces");
    }
    Ok(())
}

pub fn upgrade(kubernetes: &Kubernetes) -> Result<()> {
    let namespace = kubernetes.namespace("e2e-upgrade")?;
    let address = serving(kubernetes, &namespace)?;
    let load = Load::start(address, "example.test", "/");
    for value in ["podAnnotations.example=1", "podAnnotations.example=2"] {
        helm_install(kubernetes, &["--reuse-values", "--set-string", value])?;
        enough(&load)?;
    }
    load.stop(500)
}

pub fn uninstall(kubernetes: &Kubernetes) -> Result<()> {
    kubernetes.helm(&["uninstall", RELEASE, "--namespace", SYSTEM, "--wait", "--timeout", "120s"])?;
    let left = kubernetes.kubectl(&[
        "get",
        "deployments,services,serviceaccounts,poddisruptionbudgets,roles,rolebindings,clusterroles,clusterrolebindings",
        "--all-namespaces",
        "--selector",
        &format!("app.kubernetes.io/instance={RELEASE}"),
        "-o",
        "name",
    ])?;
    ensure!(left.trim().is_empty(), "left behind: {left}");
    ensure!(kubernetes.get("", "gatewayclass", CLASS)?.is_none(), "the GatewayClass is left behind");
    // The definitions have a chart of their own, so that removing the product does not remove its users' routes.
    kubernetes.kubectl(&["get", "customresourcedefinition", "httproutes.gateway.networking.k8s.io"])?;
    helm_install(kubernetes, &["--set", "image.tag=dev"])?;
    installs(kubernetes)
}

fn helm_install(kubernetes: &Kubernetes, values: &[&str]) -> Result<()> {
    let chart = kubernetes.repository.join("helm/nebula");
    let chart = chart.to_string_lossy();
    let fixed = ["upgrade", "--install", RELEASE, &chart, "--namespace", SYSTEM, "--wait", "--timeout", "180s"];
    kubernetes.helm(&[fixed.as_slice(), values].concat()).map(drop)
}
