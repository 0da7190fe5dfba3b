//! The product in a cluster: installed by its charts with the real helm, as a user would.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::clock::{Stopwatch, wait_for};
use crate::images::{self, Product, Profile};
use crate::settings::Settings;
use crate::shell;
use crate::target::Kubernetes;

/// Where the control plane lives.
pub const NAMESPACE: &str = "nebula-system";
/// The GatewayClass that the chart makes.
pub const GATEWAY_CLASS: &str = "nebula";

/// Compiles the product, loads its images (into a cluster of this machine), installs or upgrades both charts and waits
/// until the GatewayClass is accepted.
pub fn install(settings: &Settings, kubernetes: &Kubernetes, profile: Profile) -> Result<()> {
    if let Some(cluster) = kubernetes.local() {
        let tags = images::cluster_tags(settings)?;
        let archives = images::build_products(settings, &Product::ALL, profile, &tags)?;
        cluster.import(&archives)?;
    }
    let watch = Stopwatch::start();
    charts(settings, kubernetes)?;
    restart(settings, kubernetes)?;
    accepted(settings, kubernetes)?;
    println!("installed with helm in {watch}");
    Ok(())
}

fn charts(settings: &Settings, kubernetes: &Kubernetes) -> Result<()> {
    let upgrade = |release: &str, chart: &str, values: &[&str]| -> Result<()> {
        let mut helm: Command = kubernetes.helm(settings)?;
        helm.args(["upgrade", "--install", release]).arg(settings.file(chart));
        helm.args(["--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout", "180s"]);
        for value in values {
            helm.args(["--set", value]);
        }
        shell::run(&mut helm).with_context(|| format!("install {chart}"))
    };
    upgrade("nebula-crds", "helm/nebula-crds", &[])?;
    upgrade("nebula", "helm/nebula", &["image.tag=dev"])
}

/// Replaces all pods of the product. Their images' tags are the same as before, so they keep the old content until then.
pub fn restart(settings: &Settings, kubernetes: &Kubernetes) -> Result<()> {
    for selector in ["app.kubernetes.io/part-of=nebula", "app.kubernetes.io/managed-by=nebula"] {
        let list = "jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name}{\"\\n\"}{end}";
        let mut kubectl = kubernetes.kubectl(settings)?;
        kubectl.args(["get", "deployments", "--all-namespaces", "--selector", selector, "-o", list]);
        for line in shell::output(&mut kubectl)?.lines() {
            let Some((namespace, name)) = line.split_once(' ') else { continue };
            let name = format!("deployment/{name}");
            for verb in [["rollout", "restart"].as_slice(), &["rollout", "status", "--timeout=180s"]] {
                let mut kubectl = kubernetes.kubectl(settings)?;
                shell::run(kubectl.args(verb).args([&name, "--namespace", namespace]))?;
            }
        }
    }
    Ok(())
}

fn accepted(settings: &Settings, kubernetes: &Kubernetes) -> Result<()> {
    let path = "jsonpath={.status.conditions[?(@.type==\"Accepted\")].status}";
    wait_for("GatewayClass nebula to be accepted", Duration::from_mins(1), || {
        let mut kubectl = kubernetes.kubectl(settings)?;
        Ok(shell::output(kubectl.args(["get", "gatewayclass", GATEWAY_CLASS, "-o", path]))? == "True")
    })
}
