//! The chart, with the real helm: installed, upgraded under load, removed and installed again.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use e2e_tests::clock::eventually;
use e2e_tests::gateway::{CLASS, CONTROL_PLANE, SYSTEM, TRUST_BUNDLE, serving};
use e2e_tests::kubernetes::{Kubernetes, LIMIT, has_condition};
use e2e_tests::load::Load;
use e2e_tests::readme;
use serde_json::Value;

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
    // Whose Lease, Secret and reports would be one with the first one's.
    let second = ["install", "second", "helm/nebula", "--namespace", SYSTEM, "--dry-run=server"];
    let refused = kubernetes.helm(&second).err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(
        refused.contains("install this one into another namespace"),
        "a second release in one namespace: {refused:?}"
    );
    Ok(())
}

pub fn upgrade(kubernetes: &Kubernetes) -> Result<()> {
    let namespace = kubernetes.namespace("e2e-upgrade")?;
    let address = serving(kubernetes, &namespace)?;
    let proxy = namespace.proxy("edge")?;
    let version = app_version(kubernetes)?;
    let load = Load::start(address, "example.test", "/");
    // Another tag is what an upgrade to the next release comes down to: both Deployments are rolled.
    for tag in ["dev", &version] {
        helm_install(kubernetes, &["--reset-values", "--set", &format!("image.tag={tag}")])?;
        runs_image(kubernetes, SYSTEM, CONTROL_PLANE, &format!("nebula/control-plane:{tag}"))?;
        runs_image(kubernetes, &namespace.name, &proxy, &format!("nebula/gateway:{tag}"))?;
        enough(&load)?;
    }
    load.stop(500)
}

/// What `helm/README.md` says stays and goes.
pub fn uninstall(kubernetes: &Kubernetes) -> Result<()> {
    let namespace = kubernetes.namespace("e2e-uninstall")?;
    let address = serving(kubernetes, &namespace)?;
    let proxy = namespace.proxy("edge")?;
    let load = Load::start(address, "example.test", "/");
    kubernetes.helm(&["uninstall", RELEASE, "--namespace", SYSTEM, "--wait", "--timeout", "120s"])?;
    let instance = format!("--selector=app.kubernetes.io/instance={RELEASE}");
    left_behind(kubernetes, &["--all-namespaces", &instance], &[])?;
    let left = kubernetes.kubectl(&["get", CLUSTER_WIDE, &instance, "-o", "name"])?;
    ensure!(left.trim().is_empty(), "left behind: {left}");
    // Every namespace has these two, and the definitions have a release of their own.
    let not_ours = ["configmap/kube-root-ca.crt", "serviceaccount/default", "secret/sh.helm.release.v1.nebula-crds."];
    let kept = ["lease.coordination.k8s.io/nebula-control-plane", "secret/nebula-ca"];
    left_behind_but(kubernetes, &["--namespace", SYSTEM], &not_ours, &kept)?;
    kubernetes.kubectl(&["get", "customresourcedefinition", "httproutes.gateway.networking.k8s.io"])?;
    enough(&load)?;
    load.stop(100)?;
    let ours = ["--namespace", &namespace.name, "--selector", "app.kubernetes.io/managed-by=nebula"];
    let made = ["deployment.apps", "service", "serviceaccount"].map(|kind| format!("{kind}/{proxy}"));
    let bundle = format!("configmap/{TRUST_BUNDLE}");
    let made: Vec<&str> = made.iter().map(String::as_str).chain([bundle.as_str()]).collect();
    left_behind(kubernetes, &ours, &made)?;
    // It is owned by its Gateway, so it goes without a control plane.
    kubernetes.kubectl(&["delete", "gateway", "edge", "--namespace", &namespace.name])?;
    left_behind(kubernetes, &ours, &[])
}

/// Every kind with a namespace that the chart or the control plane makes.
const NAMESPACED: &str =
    "deployments,services,serviceaccounts,configmaps,secrets,leases,poddisruptionbudgets,roles,rolebindings";
/// Their kinds without one.
const CLUSTER_WIDE: &str = "clusterroles,clusterrolebindings,gatewayclasses";

/// As [`left_behind_but`], where every name counts.
fn left_behind(kubernetes: &Kubernetes, chosen: &[&str], expected: &[&str]) -> Result<()> {
    left_behind_but(kubernetes, chosen, &[], expected)
}

/// Waits until the `chosen` objects of [`NAMESPACED`] kinds are exactly those, as `kind/name`; names that begin as one of `not_ours`
/// do not count. The garbage collector takes its time.
fn left_behind_but(kubernetes: &Kubernetes, chosen: &[&str], not_ours: &[&str], expected: &[&str]) -> Result<()> {
    let expected: BTreeSet<&str> = expected.iter().copied().collect();
    eventually("exactly what is documented to be left", LIMIT, || {
        let names = kubernetes.kubectl(&[&["get", NAMESPACED, "-o", "name"], chosen].concat());
        let names = names.map_err(|error| format!("{error:#}"))?;
        let ours = |name: &&str| !not_ours.iter().any(|start| name.starts_with(start));
        let left: BTreeSet<&str> = names.lines().filter(ours).collect();
        if left == expected { Ok(()) } else { Err(format!("left: {left:?}, documented: {expected:?}")) }
    })
}

/// With the images that `cargo xtask cluster load` brings, under the tag that the chart asks for by itself.
pub fn installs_as_the_readme_says(kubernetes: &Kubernetes) -> Result<()> {
    for command in readme::commands(&kubernetes.repository, "helm")? {
        let arguments: Vec<&str> = command.split_whitespace().skip(1).collect();
        kubernetes.helm(&arguments)?;
    }
    let version = app_version(kubernetes)?;
    runs_image(kubernetes, SYSTEM, CONTROL_PLANE, &format!("nebula/control-plane:{version}"))?;
    let namespace = kubernetes.namespace("e2e-readme")?;
    serving(kubernetes, &namespace)?;
    runs_image(kubernetes, &namespace.name, &namespace.proxy("edge")?, &format!("nebula/gateway:{version}"))?;
    installs(kubernetes)
}

/// The version that the chart installs unless told otherwise.
fn app_version(kubernetes: &Kubernetes) -> Result<String> {
    let chart = std::fs::read_to_string(kubernetes.repository.join("helm/nebula/Chart.yaml"))?;
    let version = chart.lines().find_map(|line| line.strip_prefix("appVersion: "));
    Ok(version.context("the chart has an appVersion")?.trim_matches('"').to_owned())
}

/// Waits until every pod of a Deployment runs that image.
fn runs_image(kubernetes: &Kubernetes, namespace: &str, deployment: &str, image: &str) -> Result<()> {
    kubernetes.wait(namespace, "deployment", deployment, |object| {
        let now = object.pointer("/spec/template/spec/containers/0/image").and_then(Value::as_str);
        if now == Some(image) { Ok(()) } else { Err(format!("its image is {now:?}, not {image}")) }
    })?;
    kubernetes.rolled_out(namespace, deployment)
}

fn helm_install(kubernetes: &Kubernetes, values: &[&str]) -> Result<()> {
    let chart = kubernetes.repository.join("helm/nebula");
    let chart = chart.to_string_lossy();
    let fixed = ["upgrade", "--install", RELEASE, &chart, "--namespace", SYSTEM, "--wait", "--timeout", "180s"];
    kubernetes.helm(&[fixed.as_slice(), values].concat()).map(drop)
}
